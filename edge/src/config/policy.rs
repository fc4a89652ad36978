//! What the rules of a `[[client]]` are made of: destinations and ports.
//!
//! A rule is written `DESTINATION:PORTS`: `10.0.0.0/8:*`, `[2001:db8::/32]:443`, `git.example.com:22,443`, `*.example.com:8000-8100`; or `unix:/run/app.sock`,
//! which has no ports.
//! These types only say what a rule means; who applies them, in what order, is the server's policy engine.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::error::ValueError;
use super::network::Network;
use super::target::parse_host_name;
use super::unix::unix_path;

/// One entry of `allow` or `deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which addresses or names it speaks of.
    pub destination: Destination,
    /// Which ports of them.
    pub ports: Ports,
}

/// The part of a rule before its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A network, or a single address as a network of full length.
    Network(Network),
    /// A host name, or all names below one.
    Host(HostPattern),
    /// A Unix socket, by exactly this path.
    Unix(String),
}

/// A host name in lower case without its final dot, or a wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// Every name below this one, at any depth, and not this one itself: `*.example.com` holds `example.com` here.
    Below(String),
}

/// A set of TCP ports; empty only for a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    // Sorted as they were written; a rule has few of them, so a search is a walk.
    ranges: Vec<RangeInclusive<u16>>,
}

/// More ranges than anybody writes by hand; bounds the work of matching one connection.
const MAX_PORT_RANGES: usize = 64;

impl Rule {
    /// Does this rule name that address and port? The address is compared as it is given: bring mapped forms to IPv4 before.
    pub fn matches_address(&self, address: IpAddr, port: u16) -> bool {
        match &self.destination {
            Destination::Network(network) => network.contains(address) && self.ports.contains(port),
            Destination::Host(_) | Destination::Unix(_) => false,
        }
    }

    /// Does this rule name that host and port? Case and a final dot do not matter.
    pub fn matches_name(&self, name: &str, port: u16) -> bool {
        match &self.destination {
            Destination::Network(_) | Destination::Unix(_) => false,
            Destination::Host(pattern) => pattern.matches(name) && self.ports.contains(port),
        }
    }

    /// Does this rule name the Unix socket of that path?
    pub fn matches_unix(&self, path: &str) -> bool {
        matches!(&self.destination, Destination::Unix(named) if named == path)
    }
}

impl FromStr for Rule {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(path) = unix_path(text) {
            let ports = Ports { ranges: Vec::new() };
            return Ok(Self {
                destination: Destination::Unix(path?),
                ports,
            });
        }
        let (destination, ports) = if let Some(rest) = text.strip_prefix('[') {
            let (network, ports) = rest.split_once(']').ok_or_else(|| {
                ValueError::wrong(format!(
                    "\"{text}\" has no closing bracket; write it like \"[2001:db8::/32]:443\""
                ))
            })?;
            let ports = ports.strip_prefix(':').ok_or_else(|| no_ports(text))?;
            let network: Network = network.parse()?;
            if network.address().is_ipv4() {
                return Err(ValueError::wrong(format!(
                    "\"{text}\": brackets are for IPv6 only; write {network}:{ports}"
                )));
            }
            (Destination::Network(network), ports)
        } else {
            let (destination, ports) = text.rsplit_once(':').ok_or_else(|| no_ports(text))?;
            if destination.contains(':') {
                return Err(ValueError::wrong(format!(
                    "\"{text}\": write an IPv6 network in brackets, like \"[2001:db8::/32]:443\""
                )));
            }
            if destination == "*" {
                // It would read as "everything", and never be that: special addresses need rules of their own.
                return Err(ValueError::wrong(format!(
                    "\"{text}\" names no destination; for every ordinary address write \"0.0.0.0/0:{ports}\" and \"[::/0]:{ports}\""
                )));
            }
            (destination.parse()?, ports)
        };
        Ok(Self {
            destination,
            ports: ports.parse()?,
        })
    }
}

fn no_ports(text: &str) -> ValueError {
    ValueError::wrong(format!(
        "\"{text}\" names no ports; add them, like \"{text}:443\", or \"{text}:*\" for all"
    ))
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::Network(network) if network.address().is_ipv6() => {
                write!(formatter, "[{network}]:{}", self.ports)
            }
            Destination::Network(network) => write!(formatter, "{network}:{}", self.ports),
            Destination::Host(pattern) => write!(formatter, "{pattern}:{}", self.ports),
            Destination::Unix(path) => write!(formatter, "unix:{path}"),
        }
    }
}

impl FromStr for Destination {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return text.parse().map(Self::Network);
        }
        text.parse().map(Self::Host)
    }
}

impl HostPattern {
    /// Does the name fit? Case and one final dot do not matter.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match self {
            Self::Exact(exact) => name == *exact,
            Self::Below(parent) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|head| head.len() > 1 && head.ends_with('.')),
        }
    }
}

impl FromStr for HostPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.strip_prefix("*.") {
            Some(parent) => parse_host_name(parent).map(Self::Below),
            None if text.contains('*') => Err(ValueError::wrong(format!(
                "\"{text}\": a wildcard stands alone in front, like \"*.example.com\""
            ))),
            None => parse_host_name(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => formatter.write_str(name),
            Self::Below(parent) => write!(formatter, "*.{parent}"),
        }
    }
}

impl Ports {
    /// Is the port one of these?
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&port))
    }

    /// The ranges as they were written; `*` is 1 to 65535.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.ranges
    }
}

impl FromStr for Ports {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "*" {
            return Ok(Self {
                ranges: vec![1..=u16::MAX],
            });
        }
        let wrong = || {
            ValueError::wrong(format!(
                "\"{text}\" are not ports; write \"22\", \"22,443\", \"8000-8100\" or \"*\""
            ))
        };
        let port = |digits: &str| match digits.parse::<u16>() {
            Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(wrong()),
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (port(first)?, port(last)?);
            if first > last || ranges.len() == MAX_PORT_RANGES {
                return Err(wrong());
            }
            ranges.push(first..=last);
        }
        Ok(Self { ranges })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges == [1..=u16::MAX] {
            return formatter.write_str("*");
        }
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(formatter, "{comma}{}", range.start())?;
            } else {
                write!(formatter, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_print_as_they_are_written() {
        for text in [
            "10.0.0.0/8:*",
            "192.0.2.7:22",
            "0.0.0.0/0:1-1024",
            "[2001:db8::/32]:443",
            "[::1]:22",
            "[::/0]:*",
            "git.example.com:22,443",
            "*.example.com:8000-8100,9000",
            "localhost:80",
            "unix:/run/app.sock",
            "unix:/a:80",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
    }

    #[test]
    fn each_wrong_rule_says_what_to_write() {
        for (text, part) in [
            ("10.0.0.0/8", "names no ports"),
            ("10.0.0.5/8:22", "did you mean \"10.0.0.0/8\"?"),
            ("10.0.0.0/33:22", "not a network"),
            ("10.0.0.0/+8:22", "not a network"),
            ("2001:db8::/32:443", "in brackets"),
            ("[2001:db8::/32:443", "closing bracket"),
            ("[10.0.0.0/8]:443", "brackets are for IPv6"),
            ("[::1]", "names no ports"),
            ("*:443", "\"0.0.0.0/0:443\" and \"[::/0]:443\""),
            ("*:*", "[::/0]:*"),
            ("a*.example.com:443", "wildcard stands alone"),
            ("999.1.1.1:22", "not a host name"),
            ("exa mple:22", "not a host name"),
            ("host:0", "not ports"),
            ("host:", "not ports"),
            ("host:70000", "not ports"),
            ("host:9-8", "not ports"),
            ("host:1,,2", "not ports"),
            ("", "names no ports"),
            ("unix:*", "is not unix:/PATH"),
            ("unix:/run/../app", "without . or .."),
        ] {
            let message = text.parse::<Rule>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn networks_hold_what_lies_in_them() {
        assert!(rule("10.0.0.0/8:*").matches_address("10.255.0.1".parse().unwrap(), 1));
        assert!(!rule("10.0.0.0/8:*").matches_address("11.0.0.0".parse().unwrap(), 1));
        assert!(rule("0.0.0.0/0:80").matches_address("203.0.113.9".parse().unwrap(), 80));
        assert!(!rule("0.0.0.0/0:80").matches_address("203.0.113.9".parse().unwrap(), 81));
        assert!(!rule("0.0.0.0/0:*").matches_address("::ffff:10.0.0.1".parse().unwrap(), 80));
        assert!(rule("[::/0]:*").matches_address("2001:db8::1".parse().unwrap(), 65_535));
        assert!(!rule("git.example.com:*").matches_address("10.0.0.1".parse().unwrap(), 22));
    }

    #[test]
    fn names_match_without_case_and_wildcards_only_below() {
        assert!(rule("Git.Example.com:22").matches_name("git.example.COM.", 22));
        let below = rule("*.example.com:22");
        assert!(below.matches_name("a.example.com", 22));
        assert!(below.matches_name("a.b.example.com", 22));
        for name in [
            "example.com",
            ".example.com",
            "badexample.com",
            "example.com.evil.org",
        ] {
            assert!(!below.matches_name(name, 22), "{name}");
        }
    }

    #[test]
    fn a_unix_socket_is_named_by_exactly_its_path() {
        let socket = rule("unix:/run/app.sock");
        assert!(socket.matches_unix("/run/app.sock"));
        for path in ["/run/app.soc", "/run/app.sock2", "/run", "/RUN/app.sock"] {
            assert!(!socket.matches_unix(path), "{path}");
        }
        assert!(!socket.matches_name("unix", 1) && !rule("unix:/*").matches_unix("/a"));
        assert!(!rule("0.0.0.0/0:*").matches_unix("/run/app.sock"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _parsed_or_refused = text.parse::<Rule>();
        }
    }
}
