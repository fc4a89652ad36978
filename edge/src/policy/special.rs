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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn kind(text: &str) -> Option<SpecialKind> {
        special(text.parse().unwrap()).map(|special| special.kind)
    }

    #[test]
    fn special_addresses_are_known_in_every_form() {
        use SpecialKind::{LinkLocal, Loopback, Metadata, Multicast, Unspecified};
        for (text, expected) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("::ffff:0:127.0.0.1", Loopback),
            ("64:ff9b::127.0.0.1", Loopback),
            ("64:ff9b:1::127.0.0.1", Loopback),
            ("2002:7f00:1::", Loopback),
            ("2002:7f00:1:ffff::1", Loopback),
            // The last group pair is the inverse of 127.0.0.1.
            ("2001:0:c000:201:0:0:80ff:fffe", Loopback),
            ("2001:0:7f00:1:0:0:1:1", Loopback),
            ("2001:db8::5efe:127.0.0.1", Loopback),
            ("169.254.0.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("64:ff9b::169.254.1.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("::ffff:169.254.169.254", Metadata),
            ("64:ff9b::a9fe:a9fe", Metadata),
            ("2002:a9fe:a9fe::1", Metadata),
            ("192.0.0.192", Metadata),
            ("::ffff:0:169.254.169.254", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fd00:c1::a9fe:a9fe", Metadata),
            ("fd00:42::42", Metadata),
            ("168.63.129.16", Metadata),
            ("64:ff9b::168.63.129.16", Metadata),
            ("100.100.100.200", Metadata),
            ("::100.100.100.200", Metadata),
            ("64:ff9b:1::169.254.169.254", Metadata),
            ("2001:db8::200:5efe:169.254.169.254", Metadata),
            ("fec0::1", LinkLocal),
            ("feff::1", LinkLocal),
            ("2002:a9fe:101::", LinkLocal),
            ("64:ff9b::224.0.0.1", Multicast),
            ("::ffff:255.255.255.255", Multicast),
            ("64:ff9b::255.255.255.255", Multicast),
            ("64:ff9b::0.1.2.3", Unspecified),
            ("2002::1", Unspecified),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("255.255.255.255", Multicast),
            ("ff02::1", Multicast),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
            ("::ffff:0.0.0.0", Unspecified),
        ] {
            assert_eq!(kind(text), Some(expected), "{text}");
        }
    }

    /// `v4` behind `prefix`, of so many bits, as RFC 6052 (section 2.2) has it.
    fn translated(prefix: &str, bits: u32, v4: Ipv4Addr) -> Ipv6Addr {
        let prefix: Ipv6Addr = prefix.parse().unwrap();
        let v4 = u128::from(v4.to_bits());
        let embedded = match bits {
            96 => v4,
            64 => v4 << 24,
            // The last bits of it stand behind the reserved octet.
            48 => v4 >> 16 << 64 | (v4 & 0xffff) << 40,
            56 => v4 >> 24 << 64 | (v4 & 0xff_ffff) << 32,
            other => unreachable!("{other}"),
        };
        (prefix.to_bits() | embedded).into()
    }

    #[test]
    fn every_form_of_a_translator_of_ones_own_is_looked_at() {
        use SpecialKind::{LinkLocal, Loopback, Metadata, Multicast};
        // RFC 6052, section 2.4, with another prefix.
        let example = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, bits, text) in [
            ("64:ff9b:1::", 48, "64:ff9b:1:c000:2:2100::"),
            ("64:ff9b:1:300::", 56, "64:ff9b:1:3c0:0:221::"),
            ("64:ff9b:1:344::", 64, "64:ff9b:1:344:c0:2:2100:0"),
            ("64:ff9b:1:344::", 96, "64:ff9b:1:344::192.0.2.33"),
        ] {
            assert_eq!(translated(prefix, bits, example).to_string(), {
                let address: Ipv6Addr = text.parse().unwrap();
                address.to_string()
            });
        }
        for prefix in ["64:ff9b:1::", "64:ff9b:1:9900::", "64:ff9b:1:9988::"] {
            let own_bits = match prefix {
                "64:ff9b:1::" => 48,
                "64:ff9b:1:9900::" => 56,
                _ => 64,
            };
            for bits in [48, 56, 64, 96]
                .into_iter()
                .filter(|bits| *bits >= own_bits)
            {
                for (v4, expected) in [
                    ("127.0.0.1", Some(Loopback)),
                    ("127.8.9.10", Some(Loopback)),
                    ("169.254.169.254", Some(Metadata)),
                    ("100.100.100.200", Some(Metadata)),
                    ("169.254.1.2", Some(LinkLocal)),
                    ("239.1.2.3", Some(Multicast)),
                    ("255.255.255.255", Some(Multicast)),
                    ("10.0.0.1", None),
                    ("203.0.113.7", None),
                    ("192.168.1.200", None),
                ] {
                    let v4: Ipv4Addr = v4.parse().unwrap();
                    let address = translated(prefix, bits, v4);
                    let found = special(address.into()).map(|special| special.kind);
                    assert_eq!(
                        found, expected,
                        "{v4} in {bits} bits of {prefix}: {address}"
                    );
                    // Translators ignore what stands behind, so it hides nothing.
                    let suffix = Ipv6Addr::from(address.to_bits() | u128::from(bits < 96));
                    let found = special(suffix.into()).map(|special| special.kind);
                    assert_eq!(found, expected, "{suffix}");
                    let v4 = IpAddr::V4(v4);
                    assert!(translations(address.into()).any(|inner| inner == v4));
                }
            }
        }
        assert_eq!(kind("64:ff9b:1::"), Some(SpecialKind::Unspecified));
    }

    #[test]
    fn ordinary_addresses_are_not_special() {
        for text in [
            "10.0.0.1",
            "192.168.1.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "223.255.255.255",
            "240.0.0.1",
            "1.0.0.0",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "::fffe:0:127.0.0.1",
            "192.0.0.193",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "64:ff9b:1:a00:0:100::",
            "64:ff9b:2:7f00:0:100::",
            "2002:a00:1::",
            "2001:db8::1",
            "2001:0:c000:201:0:0:3fff:fdfe",
            "fd00:ec2::253",
            "fd20:ce::253",
            "fe7f::1",
            "2003:7f00:1::",
        ] {
            assert_eq!(kind(text), None, "{text}");
        }
    }

    #[test]
    fn the_prefix_of_a_range_counts_from_the_front_of_the_form_it_stands_in() {
        for (text, bits) in [
            ("127.0.0.1", 8),
            ("::ffff:127.0.0.1", 8),
            ("64:ff9b::127.0.0.1", 104),
            ("2002:7f00:1::", 24),
            ("64:ff9b:1:7f00:0:100::", 56),
            ("64:ff9b:1:a9fe:a9:fe00::", 88),
            ("64:ff9b:1:17f:0:1::", 64),
            ("64:ff9b:1:123:7f::", 80),
            ("64:ff9b:1::127.0.0.1", 104),
            ("169.254.169.254", 32),
            ("fe80::1", 10),
        ] {
            assert_eq!(
                special(text.parse().unwrap()).unwrap().prefix_bits,
                bits,
                "{text}"
            );
        }
    }

    #[test]
    fn translations_name_what_a_gateway_would_connect_to() {
        let of = |text: &str| {
            translations(text.parse().unwrap())
                .map(|a| a.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("64:ff9b::10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(of("2002:a00:1::5"), ["10.0.0.1"]);
        assert_eq!(
            of("2001:0:c000:201:0:0:f5ff:fffe"),
            ["10.0.0.1", "192.0.2.1"]
        );
        assert!(of("2001:db8::1").is_empty());
        assert!(of("::ffff:10.0.0.1").is_empty(), "mapped is IPv4 already");
        assert!(of("10.0.0.1").is_empty());
    }
}
