//! What each peer may do: its rules, and its limits on streams.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::{
    AcceptConfig, ClientPolicyConfig, DEFAULT_MAX_STREAMS, DEFAULT_NEW_STREAMS_PER_SECOND, Network,
    Rate, Size,
};
use crate::identity::NamePattern;
use crate::policy::{Denial, NameGrant, RuleSet, is_ordinary};
use tunnel::histories::QuotaOf;

/// The `[[client]]` sections of one configuration. Replaced as a whole on a reload.
#[derive(Debug, Default)]
pub struct Policy {
    clients: Vec<(NamePattern, Arc<ClientPolicy>)>,
}

/// What one client may do.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// Which targets it may reach.
    pub rules: RuleSet,
    /// Networks whose addresses its connections may come from.
    pub source: Vec<Network>,
    /// Streams open at a time.
    pub max_streams: NonZeroU32,
    /// Streams opened in a second.
    pub new_streams_per_second: NonZeroU32,
    /// What its streams may carry together, each direction on its own.
    pub rate: Option<Rate>,
}

impl Policy {
    /// From the sections, in their order.
    pub fn new(sections: &[ClientPolicyConfig]) -> Self {
        let client = |section: &ClientPolicyConfig| {
            let policy = ClientPolicy {
                rules: RuleSet::new(&section.allow, &section.deny),
                source: section.source.clone(),
                max_streams: section.max_streams,
                new_streams_per_second: section.new_streams_per_second,
                rate: section.rate,
            };
            (section.name.clone(), Arc::new(policy))
        };
        Self {
            clients: sections.iter().map(client).collect(),
        }
    }

    /// What a client edge lets its server reach, within the limits that a server gives a client by default.
    pub fn of_accept(accept: &AcceptConfig) -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let policy = ClientPolicy {
            rules: RuleSet::new(&accept.allow, &accept.deny),
            // Reverse listeners do not say whose connections they carry.
            source: Vec::new(),
            max_streams: number(DEFAULT_MAX_STREAMS),
            new_streams_per_second: number(DEFAULT_NEW_STREAMS_PER_SECOND),
            rate: None,
        };
        Self {
            clients: vec![(NamePattern::every(), Arc::new(policy))],
        }
    }

    /// The first section that matches the client's name. A client without one may do nothing.
    pub fn of(&self, client: &str) -> Option<&Arc<ClientPolicy>> {
        self.clients
            .iter()
            .find(|(pattern, _)| pattern.matches(client))
            .map(|(_, policy)| policy)
    }

    /// The rate of a client, if it has one.
    pub fn rate_of(&self, client: &str) -> Option<Rate> {
        self.of(client)?.rate
    }

    /// Would a stream that was approved before be approved now?
    ///
    /// # Errors
    /// Why not.
    pub fn recheck(&self, client: &str, approval: &Approval) -> Result<(), Denial> {
        let policy = self.of(client).ok_or(Denial::NotAllowed)?;
        match approval {
            Approval::Unix(path) => policy.rules.check_unix(path),
            Approval::Tcp(approval) => {
                approval
                    .source
                    .map_or(Ok(()), |source| policy.check_source(source))?;
                approval.check(&policy.rules)
            }
        }
    }
}

impl ClientPolicy {
    /// May a connection come from this address?
    ///
    /// # Errors
    /// It is not the client's to use. No `source` makes loopback and its like anybody's.
    pub fn check_source(&self, source: IpAddr) -> Result<(), Denial> {
        let source = source.to_canonical();
        let named = self.source.iter().any(|network| network.contains(source));
        if named && is_ordinary(source) {
            Ok(())
        } else {
            Err(Denial::Source)
        }
    }
}

/// The room for history that the sections give: the first that matches a client's name counts, here too.
pub fn history_quotas(sections: &[ClientPolicyConfig]) -> QuotaOf {
    let quotas: Vec<(NamePattern, Option<u64>)> = sections
        .iter()
        .map(|section| (section.name.clone(), section.history.map(Size::bytes)))
        .collect();
    Arc::new(move |client| {
        let section = quotas.iter().find(|(pattern, _)| pattern.matches(client))?;
        section.1
    })
}

/// What was approved for a running stream, so that a new policy can be asked about it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// A connection over TCP.
    Tcp(TcpApproval),
    /// One to the Unix socket of this path.
    Unix(String),
}

/// What was approved for a connection over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpApproval {
    /// The name that the client asked for, if it asked by name.
    pub name: Option<String>,
    /// The address that was checked and dialed.
    pub address: SocketAddr,
    /// The address that it was dialed from, where the client has said it.
    pub source: Option<IpAddr>,
}

impl TcpApproval {
    fn check(&self, rules: &RuleSet) -> Result<(), Denial> {
        let (ip, port): (IpAddr, u16) = (self.address.ip(), self.address.port());
        match &self.name {
            None => rules.check_address(ip, port),
            Some(name) => {
                let grant: NameGrant = rules.check_name(name, port)?;
                rules.check_resolved(grant, ip, port)
            }
        }
    }
}

/// Counts clients' streams against their limits. Outlives reloads.
#[derive(Debug, Default)]
pub struct Admission {
    clients: Mutex<HashMap<Arc<str>, Usage>>,
}

#[derive(Debug)]
struct Usage {
    open: u32,
    /// Streams that may be opened at once; grows with time up to one second's worth.
    allowance: f64,
    filled: Instant,
}

/// Why a client gets no stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// It has as many open as it may.
    MaxStreams,
    /// It opens them faster than it may.
    NewStreamsPerSecond,
}

impl Limit {
    /// One word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MaxStreams => "max_streams",
            Self::NewStreamsPerSecond => "new_streams_per_second",
        }
    }
}

/// One stream's place; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    client: Arc<str>,
}

impl Admission {
    /// Takes a place for one more stream.
    ///
    /// # Errors
    /// The limit that was met.
    pub fn admit(
        self: &Arc<Self>,
        client: &Arc<str>,
        policy: &ClientPolicy,
        now: Instant,
    ) -> Result<Place, Limit> {
        let rate = f64::from(policy.new_streams_per_second.get());
        let mut clients = self.lock();
        let usage = clients.entry(client.clone()).or_insert(Usage {
            open: 0,
            allowance: rate,
            filled: now,
        });
        let passed = now.saturating_duration_since(usage.filled).as_secs_f64();
        usage.allowance = (usage.allowance + passed * rate).min(rate);
        usage.filled = now;
        if usage.open >= policy.max_streams.get() {
            return Err(Limit::MaxStreams);
        }
        if usage.allowance < 1.0 {
            return Err(Limit::NewStreamsPerSecond);
        }
        usage.allowance -= 1.0;
        usage.open += 1;
        Ok(Place {
            admission: self.clone(),
            client: client.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Usage>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Clients are named by certificates of our own authority, so what is remembered of them is bounded by it.
        if let Some(usage) = self.admission.lock().get_mut(&self.client) {
            usage.open = usage.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;
    use std::time::Duration;

    use crate::config::ServerConfig;

    use super::*;

    fn policy(clients: &str) -> Policy {
        let text = format!("[tunnel]\nlisten = \"[::]:7443\"\n{clients}");
        Policy::new(
            &ServerConfig::parse(&text, Path::new("server.toml"))
                .unwrap()
                .client,
        )
    }

    fn approval(name: Option<&str>, address: &str) -> Approval {
        Approval::Tcp(TcpApproval {
            name: name.map(str::to_owned),
            address: address.parse().unwrap(),
            source: None,
        })
    }

    #[test]
    fn a_client_speaks_for_its_own_addresses_only() {
        let policy = policy(
            "[[client]]\nname = \"*\"\nallow = [\"10.0.0.0/8:*\"]\nsource = [\"192.168.1.0/24\", \"127.0.0.0/8\", \"2001:db8:1::/48\"]\n",
        );
        let client = policy.of("branch-1").unwrap();
        for own in ["192.168.1.9", "::ffff:192.168.1.9", "2001:db8:1::9"] {
            assert_eq!(client.check_source(own.parse().unwrap()), Ok(()), "{own}");
        }
        for other in [
            "192.168.2.9",
            "127.0.0.1",
            "2001:db8:2::9",
            "::ffff:10.0.0.1",
        ] {
            let checked = client.check_source(other.parse().unwrap());
            assert_eq!(checked, Err(Denial::Source), "{other}");
        }
        let from = |source: &str| {
            Approval::Tcp(TcpApproval {
                name: None,
                address: "10.0.0.1:80".parse().unwrap(),
                source: Some(source.parse().unwrap()),
            })
        };
        let checked = policy.recheck("branch-1", &from("192.168.2.9"));
        assert_eq!(checked, Err(Denial::Source));
        assert_eq!(policy.recheck("branch-1", &from("192.168.1.9")), Ok(()));
    }

    #[test]
    fn the_first_section_that_matches_counts_alone() {
        let policy = policy(
            "[[client]]\nname = \"branch-1\"\nallow = [\"10.0.0.0/8:22\"]\n[[client]]\nname = \"branch-*\"\nallow = [\"10.0.0.0/8:*\"]\n",
        );
        let target = approval(None, "10.0.0.1:80");
        assert_eq!(policy.recheck("branch-1", &target), Err(Denial::NotAllowed));
        assert_eq!(policy.recheck("branch-2", &target), Ok(()));
        assert_eq!(policy.recheck("other", &target), Err(Denial::NotAllowed));
    }

    #[test]
    fn a_running_stream_is_asked_about_by_name_and_by_address() {
        let before = policy("[[client]]\nname = \"*\"\nallow = [\"git.example.com:22\"]\n");
        let stream = approval(Some("git.example.com"), "203.0.113.1:22");
        assert_eq!(before.recheck("a", &stream), Ok(()));
        assert_eq!(
            before.recheck("a", &approval(None, "203.0.113.1:22")),
            Err(Denial::NotAllowed)
        );
        let after = policy(
            "[[client]]\nname = \"*\"\nallow = [\"git.example.com:22\"]\ndeny = [\"203.0.113.0/24:*\"]\n",
        );
        assert_eq!(after.recheck("a", &stream), Err(Denial::Denied));
    }

    #[test]
    fn places_come_back_and_are_counted_by_client() {
        let policy = policy("[[client]]\nname = \"*\"\nmax_streams = 2\n");
        let (admission, now) = (Arc::new(Admission::default()), Instant::now());
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let client = policy.of("one").unwrap();
        let first = admission.admit(&one, client, now).unwrap();
        let _second = admission.admit(&one, client, now).unwrap();
        assert_eq!(
            admission.admit(&one, client, now).unwrap_err(),
            Limit::MaxStreams
        );
        assert!(admission.admit(&two, client, now).is_ok());
        drop(first);
        assert!(admission.admit(&one, client, now).is_ok());
    }

    #[test]
    fn new_streams_are_bounded_by_second() {
        let policy = policy("[[client]]\nname = \"*\"\nnew_streams_per_second = 3\n");
        let (admission, start) = (Arc::new(Admission::default()), Instant::now());
        let name: Arc<str> = "one".into();
        let client = policy.of("one").unwrap();
        let open = |now| admission.admit(&name, client, now).map(drop);
        assert_eq!([open(start), open(start), open(start)], [Ok(()); 3]);
        assert_eq!(open(start), Err(Limit::NewStreamsPerSecond));
        let later = start + Duration::from_millis(334);
        assert_eq!(open(later), Ok(()));
        assert_eq!(open(later), Err(Limit::NewStreamsPerSecond));
        let much_later = start + Duration::from_secs(60);
        assert_eq!(
            [open(much_later), open(much_later), open(much_later)],
            [Ok(()); 3]
        );
        assert_eq!(open(much_later), Err(Limit::NewStreamsPerSecond));
    }
}
