//! The access policy: which targets a peer may reach through this edge.
//!
//! Deny beats allow, and nothing that is not written is allowed. A name may be allowed by its name, or each of its addresses by a
//! network. Either way this edge resolves it and checks every address, and the dialer connects to the very address that was checked.
//! Addresses with a special meaning need a rule that speaks of nothing else.

mod special;

use std::fmt;
use std::net::IpAddr;

pub use special::SpecialKind;
use special::{canonical, special, translations};

use crate::config::{Destination, Network, Rule};

/// The rules for one peer. Cheap to ask: a walk over the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// A name that may be resolved. Its addresses are still to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameGrant {
    /// The name itself is allowed, so its addresses need no rule of their own unless they are special.
    by_name: bool,
}

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Denial {
    /// No rule allows it.
    NotAllowed,
    /// A rule denies it.
    Denied,
    /// It is a special address and no rule speaks of just that.
    Special(SpecialKind),
    /// The connection shall come from an address that is not the peer's to use.
    Source,
}

impl Denial {
    /// One word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Denied => "denied",
            Self::Special(SpecialKind::Loopback) => "loopback",
            Self::Special(SpecialKind::LinkLocal) => "link_local",
            Self::Special(SpecialKind::Metadata) => "metadata",
            Self::Special(SpecialKind::Multicast) => "multicast",
            Self::Special(SpecialKind::Unspecified) => "unspecified",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed => formatter.write_str("no rule allows it"),
            Self::Denied => formatter.write_str("a rule denies it"),
            Self::Source => formatter.write_str(
                "the connection shall come from an address that no `source` of the client names",
            ),
            Self::Special(kind) => write!(
                formatter,
                "it is a {kind} address, which needs a rule of its own"
            ),
        }
    }
}

impl RuleSet {
    /// Takes the rules as they were written.
    pub fn new(allow: &[Rule], deny: &[Rule]) -> Self {
        let prepare = |rules: &[Rule]| rules.iter().cloned().map(unmapped).collect();
        Self {
            allow: prepare(allow),
            deny: prepare(deny),
        }
    }

    /// May this address be dialed?
    ///
    /// # Errors
    /// Why not.
    pub fn check_address(&self, address: IpAddr, port: u16) -> Result<(), Denial> {
        self.check(address, port, false)
    }

    /// May this name be resolved? Refused before anybody is asked about it when no address could be allowed anyway, so that a
    /// peer learns nothing of names that are none of its business.
    ///
    /// # Errors
    /// Why not.
    pub fn check_name(&self, name: &str, port: u16) -> Result<NameGrant, Denial> {
        if self.deny.iter().any(|rule| rule.matches_name(name, port)) {
            return Err(Denial::Denied);
        }
        let by_name = self.allow.iter().any(|rule| rule.matches_name(name, port));
        let by_network = || {
            self.allow.iter().any(|rule| {
                matches!(rule.destination, Destination::Network(_)) && rule.ports.contains(port)
            })
        };
        if by_name || by_network() {
            Ok(NameGrant { by_name })
        } else {
            Err(Denial::NotAllowed)
        }
    }

    /// May this address, to which an allowed name was resolved, be dialed?
    ///
    /// # Errors
    /// Why not.
    pub fn check_resolved(
        &self,
        grant: NameGrant,
        address: IpAddr,
        port: u16,
    ) -> Result<(), Denial> {
        self.check(address, port, grant.by_name)
    }

    /// May the Unix socket of this path be connected to? Only by a rule of its own.
    ///
    /// # Errors
    /// Why not.
    pub fn check_unix(&self, path: &str) -> Result<(), Denial> {
        let names = |rules: &[Rule]| rules.iter().any(|rule| rule.matches_unix(path));
        if names(&self.deny) {
            Err(Denial::Denied)
        } else if names(&self.allow) {
            Ok(())
        } else {
            Err(Denial::NotAllowed)
        }
    }

    fn check(&self, address: IpAddr, port: u16, named: bool) -> Result<(), Denial> {
        let address = canonical(address);
        let denies = |address: IpAddr| {
            self.deny
                .iter()
                .any(|rule| rule.matches_address(address, port))
        };
        if denies(address) || translations(address).any(denies) {
            return Err(Denial::Denied);
        }
        let allowing = || {
            self.allow
                .iter()
                .filter(|rule| rule.matches_address(address, port))
        };
        if let Some(special) = special(address) {
            let explicit = allowing().any(|rule| match rule.destination {
                Destination::Network(network) => network.prefix_bits() >= special.prefix_bits,
                Destination::Host(_) | Destination::Unix(_) => false,
            });
            return if explicit {
                Ok(())
            } else {
                Err(Denial::Special(special.kind))
            };
        }
        if named || allowing().next().is_some() {
            Ok(())
        } else {
            Err(Denial::NotAllowed)
        }
    }
}

/// Is it an address from which a connection may come that is no machine's own concern: neither loopback, nor link-local, nor a group?
pub fn is_ordinary(address: IpAddr) -> bool {
    special(address).is_none()
}

/// A rule about mapped IPv4 (`[::ffff:10.0.0.0/104]`) speaks of IPv4.
fn unmapped(rule: Rule) -> Rule {
    /// Bits before the IPv4 address in the mapped form.
    const MAPPED_BITS: u8 = 96;
    let Destination::Network(network) = rule.destination else {
        return rule;
    };
    let v4 = match (
        canonical(network.address()),
        network.prefix_bits().checked_sub(MAPPED_BITS),
    ) {
        (IpAddr::V4(v4), Some(bits)) if network.address().is_ipv6() => {
            format!("{v4}/{bits}").parse::<Network>().ok()
        }
        _ => None,
    };
    Rule {
        destination: Destination::Network(v4.unwrap_or(network)),
        ports: rule.ports,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> RuleSet {
        let parse = |rules: &[&str]| {
            rules
                .iter()
                .map(|rule| rule.parse().unwrap())
                .collect::<Vec<Rule>>()
        };
        RuleSet::new(&parse(allow), &parse(deny))
    }

    fn address(rules: &RuleSet, text: &str, port: u16) -> Result<(), Denial> {
        rules.check_address(text.parse().unwrap(), port)
    }

    const WIDE_OPEN: &[&str] = &["0.0.0.0/0:*", "[::/0]:*"];

    #[test]
    fn nothing_unwritten_is_allowed() {
        let none = rules(&[], &[]);
        assert_eq!(address(&none, "10.0.0.1", 80), Err(Denial::NotAllowed));
        assert_eq!(
            none.check_name("git.example.com", 22),
            Err(Denial::NotAllowed)
        );
        let some = rules(&["10.0.0.0/8:80"], &[]);
        assert_eq!(address(&some, "10.0.0.1", 80), Ok(()));
        assert_eq!(address(&some, "10.0.0.1", 81), Err(Denial::NotAllowed));
        assert_eq!(address(&some, "11.0.0.1", 80), Err(Denial::NotAllowed));
        assert_eq!(address(&some, "2001:db8::1", 80), Err(Denial::NotAllowed));
    }

    #[test]
    fn a_unix_socket_is_reached_by_its_own_name_alone() {
        let rules = rules(
            &["0.0.0.0/0:*", "[::/0]:*", "unix:/run/a", "unix:/run/b"],
            &["unix:/run/b"],
        );
        assert_eq!(rules.check_unix("/run/a"), Ok(()));
        assert_eq!(rules.check_unix("/run/b"), Err(Denial::Denied));
        for path in ["/run/c", "/run", "/run/a/", "/run/../run/a"] {
            assert_eq!(rules.check_unix(path), Err(Denial::NotAllowed), "{path}");
        }
    }

    #[test]
    fn deny_beats_allow_in_every_form_of_an_address() {
        let rules = rules(
            &["10.0.0.0/8:*", "[::/0]:*", "*.example.com:443"],
            &["10.0.9.0/24:*", "secret.example.com:*"],
        );
        assert_eq!(address(&rules, "10.0.8.1", 80), Ok(()));
        for text in [
            "10.0.9.1",
            "::ffff:10.0.9.1",
            "64:ff9b::10.0.9.1",
            "2002:a00:901::1",
            "::10.0.9.1",
        ] {
            assert_eq!(address(&rules, text, 80), Err(Denial::Denied), "{text}");
        }
        assert_eq!(
            rules.check_name("Secret.Example.COM.", 443),
            Err(Denial::Denied)
        );
        let grant = rules.check_name("www.example.com", 443).unwrap();
        assert_eq!(
            rules.check_resolved(grant, "10.0.9.7".parse().unwrap(), 443),
            Err(Denial::Denied)
        );
        assert_eq!(
            rules.check_resolved(grant, "203.0.113.7".parse().unwrap(), 443),
            Ok(())
        );
    }

    #[test]
    fn special_addresses_need_a_rule_that_speaks_of_nothing_else() {
        let open = rules(WIDE_OPEN, &[]);
        for (text, kind) in [
            ("127.0.0.1", SpecialKind::Loopback),
            ("::1", SpecialKind::Loopback),
            ("::ffff:127.0.0.1", SpecialKind::Loopback),
            ("64:ff9b::127.0.0.1", SpecialKind::Loopback),
            ("2002:7f00:1::1", SpecialKind::Loopback),
            ("2001:0:c000:201:0:0:80ff:fffe", SpecialKind::Loopback),
            ("169.254.169.254", SpecialKind::Metadata),
            ("fd00:ec2::254", SpecialKind::Metadata),
            ("169.254.1.1", SpecialKind::LinkLocal),
            ("fe80::1", SpecialKind::LinkLocal),
            ("224.0.0.1", SpecialKind::Multicast),
            ("0.0.0.0", SpecialKind::Unspecified),
            ("::", SpecialKind::Unspecified),
        ] {
            assert_eq!(
                address(&open, text, 443),
                Err(Denial::Special(kind)),
                "{text}"
            );
        }
        for (rule, text) in [
            ("127.0.0.0/8:443", "127.0.0.1"),
            ("127.0.0.1:443", "127.0.0.1"),
            ("127.0.0.1:443", "::ffff:127.0.0.1"),
            ("[::ffff:127.0.0.1]:443", "127.0.0.1"),
            ("[::ffff:127.0.0.0/104]:443", "127.9.9.9"),
            ("[::1]:443", "::1"),
            ("[64:ff9b::7f00:0/104]:443", "64:ff9b::127.0.0.1"),
            ("169.254.0.0/16:443", "169.254.1.1"),
            ("169.254.169.254:443", "169.254.169.254"),
            ("[fe80::/10]:*", "fe80::1"),
        ] {
            assert_eq!(
                address(&rules(&[rule], &[]), text, 443),
                Ok(()),
                "{rule} {text}"
            );
        }
        for (rule, text) in [
            ("126.0.0.0/7:*", "127.0.0.1"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("169.254.0.0/16:*", "169.254.169.254"),
            ("[fd00::/8]:*", "fd00:ec2::254"),
            ("[64:ff9b::/96]:*", "64:ff9b::127.0.0.1"),
            ("127.0.0.0/8:*", "64:ff9b::127.0.0.1"),
            ("127.0.0.0/8:*", "::1"),
        ] {
            assert!(
                address(&rules(&[rule], &[]), text, 443).is_err(),
                "{rule} {text}"
            );
        }
    }

    #[test]
    fn a_network_does_not_reach_into_the_other_family() {
        let v6 = rules(&["[::/0]:*"], &[]);
        assert_eq!(address(&v6, "10.0.0.1", 80), Err(Denial::NotAllowed));
        assert_eq!(address(&v6, "::ffff:10.0.0.1", 80), Err(Denial::NotAllowed));
        let v4 = rules(&["10.0.0.0/8:*"], &[]);
        assert_eq!(
            address(&v4, "64:ff9b::10.0.0.1", 80),
            Err(Denial::NotAllowed)
        );
    }

    #[test]
    fn an_allowed_name_does_not_open_the_machine_itself() {
        let named = rules(&["git.example.com:22"], &[]);
        let grant = named.check_name("git.example.com", 22).unwrap();
        assert_eq!(
            named.check_resolved(grant, "203.0.113.1".parse().unwrap(), 22),
            Ok(())
        );
        assert_eq!(
            named.check_resolved(grant, "127.0.0.1".parse().unwrap(), 22),
            Err(Denial::Special(SpecialKind::Loopback))
        );
        assert_eq!(
            named.check_name("git.example.com", 23),
            Err(Denial::NotAllowed)
        );
        let both = rules(&["git.example.com:22", "127.0.0.1:22"], &[]);
        let grant = both.check_name("git.example.com", 22).unwrap();
        assert_eq!(
            both.check_resolved(grant, "127.0.0.1".parse().unwrap(), 22),
            Ok(())
        );
    }

    #[test]
    fn a_name_that_no_rule_names_may_resolve_into_an_allowed_network_only() {
        let rules = rules(&["10.0.0.0/8:80"], &[]);
        let grant = rules.check_name("files.corp", 80).unwrap();
        assert_eq!(
            rules.check_resolved(grant, "10.1.2.3".parse().unwrap(), 80),
            Ok(())
        );
        assert_eq!(
            rules.check_resolved(grant, "203.0.113.1".parse().unwrap(), 80),
            Err(Denial::NotAllowed)
        );
        assert_eq!(rules.check_name("files.corp", 443), Err(Denial::NotAllowed));
    }
}
