//! What may be a Unix socket instead of an address: written `unix:/run/app.sock`, with an absolute path.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use codec::frame::{UNIX_PATH_MAX_BYTES, is_unix_path};

use super::error::ValueError;
use super::target::{Target, parse_bind};

const PREFIX: &str = "unix:";

/// Where a stream goes, as the other edge sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardTarget {
    /// To a host and a port.
    Tcp(Target),
    /// To the Unix socket of this path.
    Unix(String),
}

impl ForwardTarget {
    /// As it travels.
    pub fn to_wire(&self) -> codec::frame::Target {
        match self {
            Self::Tcp(target) => target.to_wire(),
            Self::Unix(path) => codec::frame::Target::Unix(path.clone()),
        }
    }
}

impl FromStr for ForwardTarget {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match unix_path(text) {
            Some(path) => path.map(Self::Unix),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => target.fmt(formatter),
            Self::Unix(path) => write!(formatter, "{PREFIX}{path}"),
        }
    }
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// At an address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// At the Unix socket of this path.
    Unix(String),
}

impl Bind {
    /// The address, if it is one.
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Is it out of other machines' reach?
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Can it be told before somebody listens where that is going to be?
    pub const fn is_fixed(&self) -> bool {
        match self {
            Self::Tcp(address) => address.port() != 0,
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Bind {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match unix_path(text) {
            Some(path) => path.map(Self::Unix),
            None => parse_bind(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "{PREFIX}{path}"),
        }
    }
}

/// The path of `unix:PATH`; nothing when the text does not begin so.
pub(super) fn unix_path(text: &str) -> Option<Result<String, ValueError>> {
    let path = text.strip_prefix(PREFIX)?;
    if is_unix_path(path) {
        return Some(Ok(path.to_owned()));
    }
    let problem = if path.len() > UNIX_PATH_MAX_BYTES {
        format!(
            "\"{text}\" has a path of {} bytes, and the system takes {UNIX_PATH_MAX_BYTES}; use a shorter one",
            path.len()
        )
    } else {
        format!(
            "\"{text}\" is not unix:/PATH; write it like \"unix:/run/app.sock\", absolute and without . or .. in it"
        )
    };
    Some(Err(ValueError::wrong(problem)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn targets_print_as_they_are_written() {
        for text in ["unix:/run/app.sock", "unix:/a", "10.0.0.5:445", "unix:80"] {
            let target = text.parse::<ForwardTarget>();
            // "unix" is no host here, whatever follows.
            assert_eq!(target.is_ok(), text != "unix:80", "{text}");
            if let Ok(target) = target {
                assert_eq!(target.to_string(), text);
            }
        }
        let target: ForwardTarget = "unix:/run/app".parse().unwrap();
        let wire = codec::frame::Target::Unix("/run/app".to_owned());
        assert_eq!(target.to_wire(), wire);
    }

    #[test]
    fn a_listener_is_at_an_address_or_at_a_path() {
        for (text, is_local, is_fixed) in [
            ("127.0.0.1:80", true, true),
            ("[::ffff:127.0.0.1]:0", true, false),
            ("0.0.0.0:80", false, true),
            ("unix:/run/app.sock", true, true),
        ] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!(bind.to_string(), text);
            assert_eq!((bind.is_local(), bind.is_fixed()), (is_local, is_fixed));
        }
        assert_eq!("80".parse::<Bind>().unwrap().to_string(), "127.0.0.1:80");
    }

    #[test]
    fn each_wrong_path_says_what_to_write() {
        let long = format!("unix:/{}", "a".repeat(UNIX_PATH_MAX_BYTES));
        for (text, part) in [
            ("unix:", "like \"unix:/run/app.sock\""),
            ("unix:run/app", "absolute"),
            ("unix:@abstract", "absolute"),
            ("unix:/run/../app", "without . or .."),
            ("unix:/run/a\0b", "is not unix:/PATH"),
            (&long, "108 bytes, and the system takes 107"),
        ] {
            let message = text.parse::<ForwardTarget>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
        let longest = &long[..long.len() - 1];
        assert!(longest.parse::<ForwardTarget>().is_ok());
    }
}
