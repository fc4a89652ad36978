//! Addresses that nobody means when they allow a whole network: the machine itself, its neighbours, the cloud's metadata.
//!
//! IPv6 has many ways to write an IPv4 address, and a gateway or the kernel may turn each of them back. An address is therefore as
//! special as the IPv4 address inside it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What makes an address special.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpecialKind {
    /// The server edge's own machine.
    Loopback,
    /// The server edge's own wire: never routed.
    LinkLocal,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
    /// A group; TCP cannot reach it, but a translator may do anything.
    Multicast,
    /// No address at all; connecting to it reaches the machine itself.
    Unspecified,
}

impl fmt::Display for SpecialKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
        })
    }
}

/// A special address, and how narrow a rule must be to mean it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Why.
    pub kind: SpecialKind,
    /// A network that holds the address lies wholly inside the special range when its prefix has at least so many bits (of 32 for
    /// an IPv4 address, of 128 for an IPv6 one).
    pub prefix_bits: u8,
}

/// The first 48 bits of 64:ff9b:1::/48.
const LOCAL_USE: u128 = 0x0064_ff9b_0001;

const V4_RANGES: &[(Ipv4Addr, u8, SpecialKind)] = &[
    // AWS, Azure, Google and many others; then Azure's, Oracle's and Alibaba's own.
    (Ipv4Addr::new(169, 254, 169, 254), 32, SpecialKind::Metadata),
    (Ipv4Addr::new(192, 0, 0, 192), 32, SpecialKind::Metadata),
    (Ipv4Addr::new(168, 63, 129, 16), 32, SpecialKind::Metadata),
    (Ipv4Addr::new(100, 100, 100, 200), 32, SpecialKind::Metadata),
    (Ipv4Addr::new(127, 0, 0, 0), 8, SpecialKind::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, SpecialKind::LinkLocal),
    (Ipv4Addr::new(224, 0, 0, 0), 4, SpecialKind::Multicast),
    (Ipv4Addr::BROADCAST, 32, SpecialKind::Multicast),
    (Ipv4Addr::new(0, 0, 0, 0), 8, SpecialKind::Unspecified),
];

const V6_RANGES: &[(Ipv6Addr, u8, SpecialKind)] = &[
    // Google's, Oracle's and Scaleway's; then that of AWS.
    (
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
        128,
        SpecialKind::Metadata,
    ),
    (
        Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
        128,
        SpecialKind::Metadata,
    ),
    (
        Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
        128,
        SpecialKind::Metadata,
    ),
    (
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        128,
        SpecialKind::Metadata,
    ),
    (Ipv6Addr::LOCALHOST, 128, SpecialKind::Loopback),
    (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
        SpecialKind::LinkLocal,
    ),
    // Site-local (RFC 3879, deprecated): ambiguous, and nobody means it by a whole network.
    (
        Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0),
        10,
        SpecialKind::LinkLocal,
    ),
    (
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
        SpecialKind::Multicast,
    ),
    (Ipv6Addr::UNSPECIFIED, 128, SpecialKind::Unspecified),
];

/// The form in which the kernel treats an address: mapped IPv4 (`::ffff:10.0.0.1`) is IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What is special about an address in its canonical form, if anything.
pub fn special(address: IpAddr) -> Option<Special> {
    match canonical(address) {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6).or_else(|| {
            let readings = embedded(v6).filter_map(|embedded| {
                let inner = special_v4(embedded.address)?;
                let is_special = !embedded.is_empty_place(inner.kind, v6);
                is_special.then(|| Special {
                    kind: inner.kind,
                    prefix_bits: embedded.prefix_bits(inner.prefix_bits),
                })
            });
            // A rule must mean all that it may be.
            readings.max_by_key(|special| special.prefix_bits)
        }),
    }
}

/// The IPv4 addresses that a translator may make of an IPv6 address, for rules that deny IPv4 networks.
pub fn translations(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let v6 = match canonical(address) {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6),
    };
    v6.into_iter()
        .flat_map(embedded)
        .map(|embedded| IpAddr::V4(embedded.address))
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    let found = V4_RANGES.iter().find(|(first, bits, _)| {
        (address.to_bits() ^ first.to_bits()) >> (32 - u32::from(*bits)).min(31) == 0
    });
    found.map(|(_, bits, kind)| Special {
        kind: *kind,
        prefix_bits: *bits,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    let found = V6_RANGES.iter().find(|(first, bits, _)| {
        (address.to_bits() ^ first.to_bits()) >> (128 - u32::from(*bits)).min(127) == 0
    });
    found.map(|(_, bits, kind)| Special {
        kind: *kind,
        prefix_bits: *bits,
    })
}

/// Bits 64 to 71 of an address are not the IPv4 address's in the forms of RFC 6052 (section 2.2) that reach over them.
const RESERVED: std::ops::Range<u8> = 64..72;

/// An IPv4 address inside an IPv6 one.
struct Embedded {
    address: Ipv4Addr,
    /// Bits before it.
    before_bits: u8,
    /// It goes round the [`RESERVED`] bits.
    goes_round: bool,
    /// Which form a local translator uses cannot be told from an address, so each is looked at.
    is_one_of_several: bool,
}

impl Embedded {
    /// Bits of the address up to the first `bits` ones of the IPv4 address.
    fn prefix_bits(&self, bits: u8) -> u8 {
        let end = self.before_bits + bits;
        if self.goes_round && end > RESERVED.start {
            end + (RESERVED.end - RESERVED.start)
        } else {
            end
        }
    }

    /// Where several forms are looked at, zeros are what most of them leave empty, and mean something only if there is nothing else.
    fn is_empty_place(&self, kind: SpecialKind, of: Ipv6Addr) -> bool {
        let is_filled = |other: Embedded| {
            let kind = special_v4(other.address).map(|special| special.kind);
            other.is_one_of_several && kind != Some(SpecialKind::Unspecified)
        };
        self.is_one_of_several && kind == SpecialKind::Unspecified && embedded(of).any(is_filled)
    }
}

/// Every IPv4 address that stands in the address by one of the known forms.
fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Embedded> {
    let bits = address.to_bits();
    let at = move |before_bits: u8| {
        let shifted = bits >> (96 - u32::from(before_bits));
        Embedded {
            address: Ipv4Addr::from_bits(low_32(shifted)),
            before_bits,
            goes_round: false,
            is_one_of_several: false,
        }
    };
    // Takes the reserved octet out, and what is before it moves up to what is behind.
    let round = move |before_bits: u8| {
        let closed = bits >> 64 << 64 | bits << 72 >> 64;
        let shifted = closed >> (96 - u32::from(before_bits));
        Embedded {
            address: Ipv4Addr::from_bits(low_32(shifted)),
            before_bits,
            goes_round: true,
            is_one_of_several: true,
        }
    };
    let starts = |prefix: u128, prefix_bits: u32| bits >> (128 - prefix_bits) == prefix;
    let forms = [
        // IPv4-compatible (RFC 4291, 2.5.5.1; deprecated): ::a.b.c.d. The unspecified and loopback addresses are found before.
        starts(0, 96).then(|| at(96)),
        // IPv4-translated (RFC 2765, SIIT): ::ffff:0:a.b.c.d.
        starts(0xffff_0000, 96).then(|| at(96)),
        // 6to4 (RFC 3056): 2002:aabb:ccdd::/48.
        starts(0x2002, 16).then(|| at(16)),
        // NAT64, the well-known prefix (RFC 6052): 64:ff9b::a.b.c.d.
        starts(0x0064_ff9b_0000_0000_0000_0000, 96).then(|| at(96)),
        // NAT64, local use (RFC 8215): 64:ff9b:1::/48, and any prefix of a translator in it (RFC 6052, section 2.2).
        starts(LOCAL_USE, 48).then(|| Embedded {
            is_one_of_several: true,
            ..at(96)
        }),
        starts(LOCAL_USE, 48).then(|| round(64)),
        starts(LOCAL_USE, 48).then(|| round(56)),
        starts(LOCAL_USE, 48).then(|| round(48)),
        // Teredo (RFC 4380): 2001:0:server:flags:port:client, the client's address inverted; and the server's.
        starts(0x2001_0000, 32).then(|| Embedded {
            address: Ipv4Addr::from_bits(!low_32(bits)),
            before_bits: 96,
            goes_round: false,
            is_one_of_several: false,
        }),
        starts(0x2001_0000, 32).then(|| at(32)),
        // ISATAP (RFC 5214): an interface identifier of 0000:5efe or 0200:5efe and the address.
        matches!((bits >> 32) & 0xffff_ffff, 0x0000_5efe | 0x0200_5efe).then(|| at(96)),
    ];
    forms.into_iter().flatten()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low 32 bits are what is wanted"
)]
fn low_32(bits: u128) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests;
