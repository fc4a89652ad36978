//! IP networks in CIDR form.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::error::ValueError;

/// An IP network in CIDR form; no host bits are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// The network's first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count: 0 to 32, or 0 to 128.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Does the address lie in this network? An IPv4 network never holds an IPv6 address, not even its mapped form.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                masked(u128::from(network.to_bits()), 32, self.prefix_bits)
                    == masked(u128::from(address.to_bits()), 32, self.prefix_bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                masked(network.to_bits(), 128, self.prefix_bits)
                    == masked(address.to_bits(), 128, self.prefix_bits)
            }
            _ => false,
        }
    }
}

/// The leading `prefix_bits` of a number of `width_bits`, the rest zero.
fn masked(bits: u128, width_bits: u8, prefix_bits: u8) -> u128 {
    let host_bits = u32::from(width_bits.saturating_sub(prefix_bits));
    bits.checked_shr(host_bits)
        .and_then(|kept| kept.checked_shl(host_bits))
        .unwrap_or(0)
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::wrong(format!(
                "\"{text}\" is not a network; write it like \"10.0.0.0/8\" or \"2001:db8::/32\""
            ))
        };
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width_bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width_bits,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if prefix_bits > width_bits {
            return Err(wrong());
        }
        let first = match address {
            IpAddr::V4(v4) => {
                let bits = masked(u128::from(v4.to_bits()), 32, prefix_bits);
                IpAddr::V4(u32::try_from(bits).map_err(|_| wrong())?.into())
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(masked(v6.to_bits(), 128, prefix_bits))),
        };
        if first != address {
            return Err(ValueError::wrong(format!(
                "\"{text}\" has bits set beyond its /{prefix_bits}; did you mean \"{first}/{prefix_bits}\"?"
            )));
        }
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole: u8 = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix_bits == whole {
            write!(formatter, "{}", self.address)
        } else {
            write!(formatter, "{}/{}", self.address, self.prefix_bits)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_network_holds_an_address_exactly_when_their_leading_bits_agree(bits: u32, prefix in 0u8..=32, other: u32) {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let network: Network = format!("{}/{prefix}", std::net::Ipv4Addr::from(bits & mask)).parse().unwrap();
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), other & mask == bits & mask);
        }
    }
}
