//! What a `[[listen]]` of kind `transparent` says beside the rest.

use super::document::Section;
use super::error::{ConfigError, ValueError};

/// A service that a packet filter sends connections to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TransparentConfig {
    /// How they come here.
    pub method: Method,
    /// The server shall connect from the application's own address, if it lets this client. Method `tproxy` only.
    pub preserve_source: bool,
}

/// How a packet filter sends connections here, and so how this edge learns where they were going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// The filter rewrites the destination, and the kernel tells the original one. Needs no privilege.
    #[default]
    Redirect,
    /// The filter delivers them as they are; the accepted socket's own address is the target. Needs `CAP_NET_ADMIN`.
    Tproxy,
}

impl Method {
    /// The method as the config writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Tproxy => "tproxy",
        }
    }
}

/// Keys that other kinds do not have.
const KEYS: [&str; 2] = ["method", "preserve_source"];

/// Reads the keys of a transparent service.
pub(crate) fn read(section: &Section<'_>) -> Result<TransparentConfig, ConfigError> {
    let method = section.parse("method", |text| {
        [Method::Redirect, Method::Tproxy]
            .into_iter()
            .find(|method| method.as_str() == text)
            .ok_or_else(|| {
                ValueError::wrong(format!(
                    "\"{text}\" is not a method; write \"redirect\" or \"tproxy\""
                ))
            })
    })?;
    let method = method.unwrap_or_default();
    let preserve_source = section.boolean("preserve_source")?.unwrap_or(false);
    if preserve_source && method == Method::Redirect {
        return Err(section.conflict(
            "preserve_source",
            "it goes with method = \"tproxy\" only; write that, or remove this line",
        ));
    }
    Ok(TransparentConfig {
        method,
        preserve_source,
    })
}

/// Refuses the keys at a service of another kind.
pub(crate) fn refuse(section: &Section<'_>, kind: &str) -> Result<(), ConfigError> {
    match KEYS.iter().find(|key| section.has(key)) {
        None => Ok(()),
        Some(key) => Err(section.conflict(
            key,
            format!("a service of kind {kind} has none; remove this line, or use kind transparent"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;
    use crate::config::{ClientConfig, ListenKind};

    fn service(kind: &str, rest: &str) -> Result<ListenKind, String> {
        let text = format!(
            "[tunnel]\nserver = [\"hq:7443\"]\n[[listen]]\nname = \"a\"\nkind = \"{kind}\"\nbind = \"[::]:7080\"\n{rest}"
        );
        ClientConfig::parse(&text, Path::new("client.toml"))
            .map(|config| config.listen.first().unwrap().kind.clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn redirect_is_the_method_unless_another_is_named() {
        let method = |rest| match service("transparent", rest).unwrap() {
            ListenKind::Transparent(config) => config.method,
            other => panic!("{other:?}"),
        };
        assert_eq!(method(""), Method::Redirect);
        assert_eq!(method("method = \"redirect\""), Method::Redirect);
        assert_eq!(method("method = \"tproxy\""), Method::Tproxy);
    }

    #[test]
    fn what_does_not_fit_is_said_in_one_line() {
        for (kind, rest, part) in [
            (
                "transparent",
                "method = \"divert\"",
                "write \"redirect\" or \"tproxy\"",
            ),
            (
                "socks5",
                "method = \"tproxy\"",
                ":7: method in [[listen]]: a service of kind socks5 has none",
            ),
            (
                "transparent",
                "preserve_source = true",
                "preserve_source in [[listen]]: it goes with method = \"tproxy\"",
            ),
            ("transparent", "preserve_source = \"yes\"", "true or false"),
            (
                "transparent",
                "target = \"b:1\"",
                "a service of kind transparent has none",
            ),
            (
                "transparent",
                "users = { a = \"b\" }",
                "a transparent service asks nobody for a password",
            ),
        ] {
            let message = service(kind, rest).unwrap_err();
            assert!(
                message.contains(part) && !message.contains('\n'),
                "{message}"
            );
        }
    }
}
