//! An IPv4 address together with its network, as `ip addr` writes it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An address and how many of its first bits name its network, like 10.207.1.2/24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inet {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
}

impl Inet {
    /// Whether that address is in the same network.
    pub(super) fn is_beside(self, other: Ipv4Addr) -> bool {
        let host_bits = 32 - u32::from(self.prefix);
        let network = |address: Ipv4Addr| u64::from(address.to_bits()) >> host_bits;
        network(self.address) == network(other)
    }
}

impl FromStr for Inet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(address, prefix)| {
                let address = address.parse().ok()?;
                let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
                Some(Self { address, prefix })
            })
            .ok_or_else(|| {
                format!("\"{text}\" is not an address with its network; write 192.0.2.1/24")
            })
    }
}

impl fmt::Display for Inet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["10.207.1.2/24", "0.0.0.0/0", "192.0.2.1/32"] {
            assert_eq!(text.parse::<Inet>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "10.207.1.2",
            "10.207.1.2/33",
            "10.207.1/24",
            "::1/64",
            "1.2.3.4/-1",
        ] {
            assert!(wrong.parse::<Inet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_ends_where_its_prefix_says() {
        let inet: Inet = "10.207.1.2/24".parse().unwrap();
        assert!(inet.is_beside(Ipv4Addr::new(10, 207, 1, 255)));
        assert!(!inet.is_beside(Ipv4Addr::new(10, 207, 2, 2)));
        let all: Inet = "10.207.1.2/0".parse().unwrap();
        assert!(all.is_beside(Ipv4Addr::new(203, 0, 113, 1)));
        let one: Inet = "10.207.1.2/32".parse().unwrap();
        assert!(!one.is_beside(Ipv4Addr::new(10, 207, 1, 3)));
    }
}
