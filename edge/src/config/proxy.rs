//! `proxy_accept` and `proxy_send` of a `[[listen]]`.

use super::document::Section;
use super::error::{ConfigError, ValueError};
use crate::proxy_protocol::Version;

/// What a service does with the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyConfig {
    /// Every connection begins with a header, of either version, and its source counts as the application.
    pub accept: bool,
    /// Targets get a header of this version.
    pub send: Option<Version>,
}

impl ProxyConfig {
    /// Reads the keys of a service of `kind`.
    pub(crate) fn read(section: &Section<'_>, kind: &str) -> Result<Self, ConfigError> {
        let accept = section.boolean("proxy_accept")?.unwrap_or(false);
        if accept && kind == "transparent" {
            return Err(section.conflict(
                "proxy_accept",
                "a packet filter sends connections to a transparent service as they are, without a header; remove this line",
            ));
        }
        let send = section.parse("proxy_send", |text| match text {
            "off" => Ok(None),
            "v1" => Ok(Some(Version::V1)),
            "v2" => Ok(Some(Version::V2)),
            _ => Err(ValueError::wrong(format!(
                "\"{text}\" is not known; write \"off\", \"v1\" or \"v2\""
            ))),
        })?;
        Ok(Self {
            accept,
            send: send.flatten(),
        })
    }
}
