//! Addresses that need a rule of their own, in every form.

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
