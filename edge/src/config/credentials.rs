//! `[identity]`: where an edge finds its credentials.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::document::{Keys, Section};
use super::error::{ConfigError, ValueError};
use super::sections::{Side, file_path, parent};

/// `[identity]`: where this edge's credentials are. Paths are absolute or relative to the working directory, resolved already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityConfig {
    /// The authority's certificate (PEM; several are accepted).
    pub ca: PathBuf,
    /// This edge's certificate chain (PEM).
    pub certificate: PathBuf,
    /// This edge's private key (PEM, PKCS #8, readable by its owner only).
    pub key: PathBuf,
    /// The authority's private key; on a server that issues certificates. Invites and revocations are kept beside it.
    pub ca_key: Option<PathBuf>,
    /// When not empty, a peer's key must be one of these.
    pub pins: Vec<Pin>,
}

impl IdentityConfig {
    /// The directory of the authority: that of `ca_key`, or of `ca` where there is no such key.
    pub fn authority_directory(&self) -> PathBuf {
        parent(self.ca_key.as_deref().unwrap_or(&self.ca))
    }
}

/// The SHA-256 of a peer's SubjectPublicKeyInfo, written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a hash.
    pub const fn from_bytes(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }
}

impl FromStr for Pin {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::wrong(format!(
                "\"{text}\" is not a pin; write the 64 hex digits that the peer's `check` prints"
            ))
        };
        let digits: Vec<u8> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            if let [high, low] = pair {
                *byte = high << 4 | low;
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pin({self})")
    }
}

const IDENTITY_ON_CLIENT: Keys = Keys {
    offered: &["ca", "certificate", "key", "pins"],
    later: &[],
};
const IDENTITY_ON_SERVER: Keys = Keys {
    offered: &["ca", "certificate", "key", "ca_key", "pins"],
    later: &[],
};

/// More pins than keys in any rotation; bounds the work of one handshake.
const MAX_PINS: usize = 256;

pub(crate) fn read(
    top: &Section<'_>,
    side: Side,
    directory: &Path,
) -> Result<IdentityConfig, ConfigError> {
    let keys = if side == Side::Server {
        &IDENTITY_ON_SERVER
    } else {
        &IDENTITY_ON_CLIENT
    };
    let section = top.section("identity", keys)?;
    let path = |key: &str| {
        section.as_ref().map_or(Ok(None), |s| {
            s.parse(key, |text| file_path(directory, text))
        })
    };
    Ok(IdentityConfig {
        ca: path("ca")?.unwrap_or_else(|| directory.join("ca.pem")),
        certificate: path("certificate")?.unwrap_or_else(|| directory.join("edge.pem")),
        key: path("key")?.unwrap_or_else(|| directory.join("edge.key")),
        ca_key: path("ca_key")?,
        pins: section
            .as_ref()
            .map_or(Ok(Vec::new()), |s| s.list("pins", MAX_PINS, str::parse))?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn pins_are_64_hex_digits() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<Pin>().unwrap().to_string(), text);
        for text in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
    }
}
