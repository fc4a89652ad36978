//! Addresses as people write them: a host and a port to connect to, and an address to listen on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::error::ValueError;

/// A host and a port, written `host:443`, `192.0.2.1:443` or `[2001:db8::1]:443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: Host,
    port: u16,
}

/// What stands before the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name in lower case, without a final dot.
    Name(String),
}

impl Target {
    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// As it travels: names stay names, the other edge resolves them.
    pub fn to_wire(&self) -> codec::frame::Target {
        match &self.host {
            Host::Ip(ip) => codec::frame::Target::Address(SocketAddr::new(*ip, self.port)),
            Host::Name(host) => codec::frame::Target::Name {
                host: host.clone(),
                port: self.port,
            },
        }
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Target {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::wrong(format!(
                "\"{text}\" is not HOST:PORT; write it like \"hq.example.com:7443\" or \"[2001:db8::1]:7443\""
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port.parse::<u16>() {
            Ok(number) if number != 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err(wrong()),
        };
        let host = match host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inner) => Host::Ip(IpAddr::V6(inner.parse().map_err(|_| wrong())?)),
            None if host.contains(':') => return Err(wrong()),
            None => match host.parse::<Ipv4Addr>() {
                Ok(address) => Host::Ip(IpAddr::V4(address)),
                Err(_) => Host::Name(parse_host_name(host)?),
            },
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => write!(formatter, "[{address}]:{}", self.port),
            Host::Ip(IpAddr::V4(address)) => write!(formatter, "{address}:{}", self.port),
            Host::Name(name) => write!(formatter, "{name}:{}", self.port),
        }
    }
}

/// Reads an address to listen on: `127.0.0.1:8445`, `[::]:7443`, or a bare port, which means loopback.
///
/// # Errors
/// Not an address and port.
pub fn parse_bind(text: &str) -> Result<SocketAddr, ValueError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let digits = text.strip_prefix(':').unwrap_or(text);
    if !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && let Ok(port) = digits.parse::<u16>()
    {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    Err(ValueError::wrong(format!(
        "\"{text}\" is not ADDRESS:PORT to listen on; write it like \"127.0.0.1:8445\" or \"[::]:7443\""
    )))
}

/// Brings a host name to lower case without a final dot.
///
/// # Errors
/// A label is empty, too long, or holds what no name holds; or all of it could only be a mistyped IPv4 address.
pub fn parse_host_name(text: &str) -> Result<String, ValueError> {
    // RFC 1035, section 2.3.4.
    const MAX_NAME_BYTES: usize = 253;
    const MAX_LABEL_BYTES: usize = 63;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label_is_good = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL_BYTES
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits is an address with a slip in it; resolvers disagree on what it means (RFC 3696).
    let ends_in_digits = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > MAX_NAME_BYTES || ends_in_digits || !name.split('.').all(label_is_good) {
        return Err(ValueError::wrong(format!(
            "\"{text}\" is not a host name or address"
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn targets_print_as_they_are_written() {
        for text in [
            "hq.example.com:7443",
            "10.0.0.5:445",
            "[2001:db8::1]:443",
            "localhost:1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!(
            "HQ.Example.com.:1".parse::<Target>().unwrap().to_string(),
            "hq.example.com:1"
        );
    }

    #[test]
    fn names_stay_names_on_the_wire() {
        let wire = |text: &str| text.parse::<Target>().unwrap().to_wire();
        let name = codec::frame::Target::Name {
            host: "git.example.com".to_owned(),
            port: 22,
        };
        assert_eq!(wire("git.example.com:22"), name);
        let address = "[::1]:22".parse().unwrap();
        assert_eq!(wire("[::1]:22"), codec::frame::Target::Address(address));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            "host",
            ":80",
            "host:0",
            "host:+80",
            "host:65536",
            "::1:80",
            "[::1]80",
            "[10.0.0.1]:80",
            "10.0.0:80",
            "-a:80",
            "a..b:80",
            "a b:1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!(format!("{}:1", "a".repeat(64)).parse::<Target>().is_err());
    }

    #[test]
    fn a_bare_port_listens_on_loopback() {
        assert_eq!(
            parse_bind("8445").unwrap(),
            "127.0.0.1:8445".parse().unwrap()
        );
        assert_eq!(parse_bind(":0").unwrap(), "127.0.0.1:0".parse().unwrap());
        assert_eq!(
            parse_bind("[::]:7443").unwrap(),
            "[::]:7443".parse().unwrap()
        );
        for text in [
            "",
            "unix:/run/x",
            ":",
            "eth0:80",
            "65536",
            "+1",
            "localhost:80",
        ] {
            assert!(
                matches!(parse_bind(text), Err(ValueError::Wrong(_))),
                "{text}"
            );
        }
    }
}
