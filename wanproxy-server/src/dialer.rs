//! Connects to targets: resolves names, checks every address, and dials the very addresses that were checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use codec::frame::{Reason, Target};
use edge::config::parse_host_name;
use edge::os;
use edge::policy::{Denial, RuleSet};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tunnel::pool::Pools;
use tunnel::resolve::{ResolveError, resolve};

use crate::policy::Approval;

/// Resolving and connecting together take no longer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The next address is tried beside the one before after this time (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A connected target.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub socket: TcpStream,
    /// What was checked.
    pub approval: Approval,
}

/// Why a target was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The policy does not let the client.
    #[error("the policy refuses it: {0}")]
    Policy(Denial),
    /// It is no target.
    #[error("it is no host name or has port 0")]
    BadTarget,
    /// Its name has no address.
    #[error("its name was not resolved: {0}")]
    Resolve(#[from] ResolveError),
    /// It could not be connected to.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
}

impl DialError {
    /// What the client is told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Policy(_) => Reason::Policy,
            Self::BadTarget => Reason::BadTarget,
            Self::Resolve(ResolveError::PoolStopped) => Reason::GoingAway,
            Self::Resolve(_) => Reason::NameNotResolved,
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Reason::Refused,
                io::ErrorKind::TimedOut => Reason::TimedOut,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                    Reason::NetworkUnreachable
                }
                // A packet filter that rejects shows as "permission denied".
                io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied => {
                    Reason::HostUnreachable
                }
                io::ErrorKind::ConnectionReset => Reason::ConnectionReset,
                _ if is_out_of_resources(error) => Reason::Limit,
                _ => Reason::Internal,
            },
        }
    }
}

/// No descriptor or no port is left.
fn is_out_of_resources(error: &io::Error) -> bool {
    /// `EMFILE` and `ENFILE`, which have no kind of their own; the same numbers on every Unix.
    const NO_DESCRIPTORS: [i32; 2] = [24, 23];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error
            .raw_os_error()
            .is_some_and(|code| NO_DESCRIPTORS.contains(&code))
}

/// Dials targets for clients.
#[derive(Clone)]
pub struct Dialer {
    pools: Arc<Pools>,
}

impl Dialer {
    /// Names are resolved in pool `resolve`.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools }
    }

    /// Connects to `target` as `rules` allow, within ten seconds.
    ///
    /// # Errors
    /// Refused by the policy, or not reached.
    pub async fn dial(&self, target: &Target, rules: &RuleSet) -> Result<Dialed, DialError> {
        let timed_out = || DialError::Connect(io::ErrorKind::TimedOut.into());
        tokio::time::timeout(DIAL_TIMEOUT, self.dial_untimed(target, rules))
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn dial_untimed(&self, target: &Target, rules: &RuleSet) -> Result<Dialed, DialError> {
        let (name, addresses) = match destination(target)? {
            Destination::Address(address) => {
                rules
                    .check_address(address.ip(), address.port())
                    .map_err(DialError::Policy)?;
                (None, vec![address])
            }
            Destination::Name(name, port) => {
                let grant = rules.check_name(&name, port).map_err(DialError::Policy)?;
                let resolved = resolve(&self.pools.resolve, &format!("{name}:{port}")).await?;
                let mut denial = Denial::NotAllowed;
                let mut allowed = Vec::with_capacity(resolved.len());
                for address in resolved {
                    match rules.check_resolved(grant, address.ip(), port) {
                        Ok(()) => allowed.push(address),
                        Err(why) => denial = why,
                    }
                }
                if allowed.is_empty() {
                    return Err(DialError::Policy(denial));
                }
                (Some(name), alternating(allowed))
            }
        };
        let (socket, address) = connect_any(addresses).await.map_err(DialError::Connect)?;
        if let Err(error) = os::tune_lan(&socket) {
            tracing::debug!(%error, %address, "socket options were not taken");
        }
        Ok(Dialed {
            socket,
            approval: Approval { name, address },
        })
    }
}

enum Destination {
    Address(SocketAddr),
    Name(String, u16),
}

/// What the target means. An address written as a name is an address, so that no rule about names can be met by it.
fn destination(target: &Target) -> Result<Destination, DialError> {
    let destination = match target {
        Target::Address(address) => Destination::Address(*address),
        Target::Name { host, port } => match host.parse::<IpAddr>() {
            Ok(ip) => Destination::Address(SocketAddr::new(ip, *port)),
            Err(_) => Destination::Name(
                parse_host_name(host).map_err(|_| DialError::BadTarget)?,
                *port,
            ),
        },
    };
    match &destination {
        Destination::Address(address) if address.port() == 0 => Err(DialError::BadTarget),
        Destination::Name(_, 0) => Err(DialError::BadTarget),
        _ => Ok(destination),
    }
}

/// The resolver's order, with the families taking turns, so that one that does not work costs one attempt (RFC 8305, section 4).
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut result = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return result,
            (one, other) => result.extend(one.into_iter().chain(other)),
        }
    }
}

/// Connects to whichever address answers first, starting with the first ones.
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut worst: Option<io::Error> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move {
                TcpStream::connect(address)
                    .await
                    .map(|socket| (socket, address))
            });
        }
        let more = waiting.len() > 0;
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if more => continue,
        };
        match ended {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(error))) => {
                if worst
                    .as_ref()
                    .is_none_or(|before| weight(&error) > weight(before))
                {
                    worst = Some(error);
                }
            }
            Some(Err(error)) => worst = Some(io::Error::other(error)),
            None if more => {}
            None => return Err(worst.unwrap_or_else(|| io::ErrorKind::HostUnreachable.into())),
        }
    }
}

/// Of several addresses' errors, the one that came from nearest to the target tells most.
fn weight(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => 4,
        io::ErrorKind::TimedOut => 3,
        io::ErrorKind::HostUnreachable => 2,
        io::ErrorKind::NetworkUnreachable => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::num::NonZeroUsize;

    use tokio::net::TcpListener;
    use tokio::runtime::Handle;
    use tunnel::pool::PoolsConfig;

    use super::*;

    fn dialer() -> Dialer {
        let one = NonZeroUsize::MIN;
        let config = PoolsConfig {
            codec_threads: one,
            crypto_threads: one,
            storage_threads: one,
            resolve_threads: one,
            queue: one,
        };
        Dialer::new(Arc::new(Pools::start(&Handle::current(), config)))
    }

    fn rules(allow: &[&str]) -> RuleSet {
        let allow: Vec<_> = allow.iter().map(|rule| rule.parse().unwrap()).collect();
        RuleSet::new(&allow, &[])
    }

    fn name(host: &str, port: u16) -> Target {
        Target::Name {
            host: host.to_owned(),
            port,
        }
    }

    /// A port of loopback on which nobody listens, as long as the socket is held.
    fn refusing() -> (tokio::net::TcpSocket, SocketAddr) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_allowed_target_is_connected_by_address_and_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialer = dialer();
        let rules = rules(&["127.0.0.0/8:*", "localhost:*"]);
        let dialed = dialer
            .dial(&Target::Address(address), &rules)
            .await
            .unwrap();
        assert_eq!(
            dialed.approval,
            Approval {
                name: None,
                address
            }
        );
        assert!(dialed.socket.nodelay().unwrap());
        let dialed = dialer
            .dial(&name("127.0.0.1", address.port()), &rules)
            .await
            .unwrap();
        assert_eq!(
            dialed.approval,
            Approval {
                name: None,
                address
            }
        );
        let dialed = dialer
            .dial(&name("LocalHost.", address.port()), &rules)
            .await
            .unwrap();
        assert_eq!(
            dialed.approval,
            Approval {
                name: Some("localhost".to_owned()),
                address
            }
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_resolved_address_is_checked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = dialer();
        let error = dialer
            .dial(&name("localhost", port), &rules(&["localhost:*"]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::Policy(Denial::Special(_))),
            "{error}"
        );
        assert_eq!(error.reason(), Reason::Policy);
        let error = dialer
            .dial(&name("localhost", port), &rules(&["10.0.0.0/8:*"]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::Policy(Denial::Special(_))),
            "{error}"
        );
        let error = dialer
            .dial(&name("localhost", port), &rules(&["10.0.0.0/8:1"]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::Policy(Denial::NotAllowed)),
            "{error}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_failure_has_its_reason() {
        let dialer = dialer();
        let rules = rules(&["127.0.0.0/8:*", "name.invalid:80"]);
        let (_held, address) = refusing();
        assert_eq!(
            dialer
                .dial(&Target::Address(address), &rules)
                .await
                .unwrap_err()
                .reason(),
            Reason::Refused
        );
        assert_eq!(
            dialer
                .dial(&name("name.invalid", 80), &rules)
                .await
                .unwrap_err()
                .reason(),
            Reason::NameNotResolved
        );
        for target in [
            name("127.0.0.1", 0),
            name("a b", 80),
            name("127.1", 80),
            name("", 80),
            Target::Address("127.0.0.1:0".parse().unwrap()),
        ] {
            assert_eq!(
                dialer.dial(&target, &rules).await.unwrap_err().reason(),
                Reason::BadTarget,
                "{target}"
            );
        }
        assert_eq!(
            dialer
                .dial(&Target::Address("10.0.0.1:1".parse().unwrap()), &rules)
                .await
                .unwrap_err()
                .reason(),
            Reason::Policy
        );
        for (kind, reason) in [
            (io::ErrorKind::TimedOut, Reason::TimedOut),
            (io::ErrorKind::HostUnreachable, Reason::HostUnreachable),
            (
                io::ErrorKind::NetworkUnreachable,
                Reason::NetworkUnreachable,
            ),
            (io::ErrorKind::PermissionDenied, Reason::HostUnreachable),
            (io::ErrorKind::AddrNotAvailable, Reason::Limit),
            (io::ErrorKind::Other, Reason::Internal),
        ] {
            assert_eq!(DialError::Connect(kind.into()).reason(), reason, "{kind:?}");
        }
        assert_eq!(
            DialError::Connect(io::Error::from_raw_os_error(24)).reason(),
            Reason::Limit
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_from_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (_held, bad) = refusing();
        assert_eq!(connect_any(vec![bad, bad, good]).await.unwrap().1, good);
        assert_eq!(
            connect_any(vec![bad, bad]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(
            connect_any(Vec::new()).await.unwrap_err().kind(),
            io::ErrorKind::HostUnreachable
        );
    }

    #[test]
    fn families_take_turns() {
        let parse = |all: &[&str]| {
            all.iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<SocketAddr>>()
        };
        let mixed = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(
            alternating(mixed),
            parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"])
        );
        assert!(alternating(Vec::new()).is_empty());
    }
}
