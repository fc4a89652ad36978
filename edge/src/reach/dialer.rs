//! Connects to targets: resolves names, checks every address, and dials the very addresses that were checked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::parse_host_name;
use crate::lan::LanStream;
use crate::os;
use crate::policy::{Denial, RuleSet};
use codec::frame::{Reason, Target};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tunnel::pool::Pools;
use tunnel::resolve::{ResolveError, resolve};

use super::policy::{Approval, TcpApproval};

/// Resolving and connecting together take no longer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The next address is tried beside the one before after this time (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A Unix socket whose queue is full is asked again after this time, as no event says when it has room.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// A connected target.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub socket: LanStream,
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
    /// It cannot be reached from the application's address.
    #[error(
        "it has no address of the family of the application's own, which the connection shall come from"
    )]
    OtherFamily,
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
            Self::BadTarget | Self::OtherFamily => Reason::BadTarget,
            Self::Resolve(ResolveError::PoolStopped) => Reason::GoingAway,
            Self::Resolve(_) => Reason::NameNotResolved,
            Self::Connect(error) => match error.kind() {
                // The file of a Unix socket that is not there is like a port at which nobody listens.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Reason::Refused,
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

/// Addresses that are on their way.
type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, ResolveError>> + Send + 'a>>;

/// Who knows the addresses of names.
trait Resolver: Send + Sync {
    /// The addresses of `name`, with this port. What it says now need not be what it says next.
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a>;
}

/// The system's resolver, in pool `resolve`.
impl Resolver for Pools {
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { resolve(&self.resolve, &format!("{name}:{port}")).await })
    }
}

/// Dials targets for clients.
#[derive(Clone)]
pub struct Dialer {
    resolver: Arc<dyn Resolver>,
}

impl Dialer {
    /// Names are resolved in pool `resolve`.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { resolver: pools }
    }

    /// Connects to `target` as `rules` allow, within ten seconds.
    ///
    /// # Errors
    /// Refused by the policy, or not reached.
    pub async fn dial(&self, target: &Target, rules: &RuleSet) -> Result<Dialed, DialError> {
        self.dial_from(target, rules, None).await
    }

    /// The same from `source`, which may be another machine's address; the port is this machine's choice.
    ///
    /// # Errors
    /// As [`dial`](Self::dial), and without `CAP_NET_ADMIN`.
    pub async fn dial_from(
        &self,
        target: &Target,
        rules: &RuleSet,
        source: Option<IpAddr>,
    ) -> Result<Dialed, DialError> {
        let timed_out = || DialError::Connect(io::ErrorKind::TimedOut.into());
        tokio::time::timeout(DIAL_TIMEOUT, self.dial_untimed(target, rules, source))
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn dial_untimed(
        &self,
        target: &Target,
        rules: &RuleSet,
        source: Option<IpAddr>,
    ) -> Result<Dialed, DialError> {
        let (name, addresses) = match destination(target)? {
            Destination::Address(address) => {
                rules
                    .check_address(address.ip(), address.port())
                    .map_err(DialError::Policy)?;
                (None, vec![address])
            }
            Destination::Unix(path) => {
                rules.check_unix(&path).map_err(DialError::Policy)?;
                if source.is_some() {
                    return Err(DialError::OtherFamily);
                }
                let socket = connect_unix(&path).await.map_err(DialError::Connect)?;
                return Ok(Dialed {
                    socket: socket.into(),
                    approval: Approval::Unix(path),
                });
            }
            Destination::Name(name, port) => {
                let grant = rules.check_name(&name, port).map_err(DialError::Policy)?;
                // Asked once: what is dialed are addresses that were checked, whatever the name means by then.
                let resolved = self.resolver.addresses(&name, port).await?;
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
        let addresses = of_family(addresses, source);
        if addresses.is_empty() {
            return Err(DialError::OtherFamily);
        }
        let connected = connect_any(addresses, source).await;
        let (socket, address) = connected.map_err(DialError::Connect)?;
        let socket = LanStream::from(socket);
        socket.tune();
        Ok(Dialed {
            socket,
            approval: Approval::Tcp(TcpApproval {
                name,
                address,
                source,
            }),
        })
    }
}

enum Destination {
    Address(SocketAddr),
    Name(String, u16),
    Unix(String),
}

/// What the target means. An address written as a name is an address, so that no rule about names can be met by it.
fn destination(target: &Target) -> Result<Destination, DialError> {
    let destination = match target {
        Target::Address(address) => Destination::Address(*address),
        Target::Unix(path) => Destination::Unix(path.clone()),
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

/// Those that can be reached from `source`.
fn of_family(addresses: Vec<SocketAddr>, source: Option<IpAddr>) -> Vec<SocketAddr> {
    let Some(source) = source else {
        return addresses;
    };
    let canonical = addresses.into_iter().map(os::canonical);
    canonical
        .filter(|address| address.is_ipv4() == source.is_ipv4())
        .collect()
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    match source {
        None => TcpStream::connect(address).await,
        Some(source) => os::connect_from(source, address).await,
    }
}

async fn connect_unix(path: &str) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(FULL_QUEUE_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Connects to whichever address answers first, starting with the first ones.
async fn connect_any(
    addresses: Vec<SocketAddr>,
    source: Option<IpAddr>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let &[address] = addresses.as_slice() {
        // Nothing to race: no task, and no hop to its thread and back.
        return Ok((connect(address, source).await?, address));
    }
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut worst: Option<io::Error> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move {
                let connected = connect(address, source).await;
                connected.map(|socket| (socket, address))
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
    use std::collections::VecDeque;
    use std::num::NonZeroUsize;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;
    use tokio::runtime::Handle;
    use tunnel::pool::PoolsConfig;

    use crate::policy::SpecialKind;

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
            Approval::Tcp(TcpApproval {
                name: None,
                address,
                source: None
            })
        );
        let LanStream::Tcp(socket) = &dialed.socket else {
            panic!("a connection over TCP")
        };
        assert!(socket.nodelay().unwrap());
        let dialed = dialer
            .dial(&name("127.0.0.1", address.port()), &rules)
            .await
            .unwrap();
        assert_eq!(
            dialed.approval,
            Approval::Tcp(TcpApproval {
                name: None,
                address,
                source: None
            })
        );
        let dialed = dialer
            .dial(&name("LocalHost.", address.port()), &rules)
            .await
            .unwrap();
        assert_eq!(
            dialed.approval,
            Approval::Tcp(TcpApproval {
                name: Some("localhost".to_owned()),
                address,
                source: None
            })
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_unix_socket_is_connected_to_by_a_rule_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let path = path.to_str().unwrap().to_owned();
        let target = Target::Unix(path.clone());
        let dialer = dialer();
        let own = rules(&[&format!("unix:{path}")]);
        let reason =
            async |rules: &RuleSet| dialer.dial(&target, rules).await.unwrap_err().reason();
        assert_eq!(reason(&own).await, Reason::Refused);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let others = rules(&["0.0.0.0/0:*", "unix:/run/other"]);
        assert_eq!(reason(&others).await, Reason::Policy);
        let dialed = dialer.dial(&target, &own).await.unwrap();
        assert_eq!(dialed.approval, Approval::Unix(path));
        listener.accept().await.unwrap();
        let source = Some("10.0.0.1".parse().unwrap());
        let error = dialer.dial_from(&target, &own, source).await.unwrap_err();
        assert_eq!(error.reason(), Reason::BadTarget);
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

    /// A name server whose answers change from question to question.
    #[derive(Default)]
    struct Changing {
        answers: Mutex<VecDeque<Vec<IpAddr>>>,
        asked: AtomicUsize,
    }

    impl Changing {
        fn says(answers: &[&[&str]]) -> Arc<Self> {
            let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
            Arc::new(Self {
                answers: Mutex::new(answers.iter().map(parse).collect()),
                asked: AtomicUsize::new(0),
            })
        }
    }

    impl Resolver for Changing {
        fn addresses<'a>(&'a self, _name: &'a str, port: u16) -> Resolving<'a> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answers.lock().unwrap().pop_front();
            Box::pin(async move {
                let ips = answer.ok_or(ResolveError::NoAddress)?;
                Ok(ips
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, port))
                    .collect())
            })
        }
    }

    #[tokio::test]
    async fn a_name_that_changes_between_the_check_and_the_dial_reaches_what_was_checked() {
        let allowed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = allowed.local_addr().unwrap().port();
        let forbidden = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let by_network = rules(&["127.0.0.1:*"]);
        let by_name = RuleSet::new(
            &["a.example:*", "127.0.0.0/8:*"].map(|rule| rule.parse().unwrap()),
            &["127.0.0.2:*"].map(|rule| rule.parse().unwrap()),
        );
        for (rules, why) in [
            (by_network, Denial::Special(SpecialKind::Loopback)),
            (by_name, Denial::Denied),
        ] {
            // The first address is the forbidden one, so that an order without a check would dial it.
            let resolver = Changing::says(&[
                &["127.0.0.2", "::ffff:127.0.0.2", "127.0.0.1"],
                &["127.0.0.2"],
                &["::ffff:127.0.0.2", "64:ff9b::127.0.0.2"],
            ]);
            let dialer = Dialer {
                resolver: resolver.clone(),
            };
            let target = name("a.example", port);
            let dialed = dialer.dial(&target, &rules).await.unwrap();
            let address = allowed.local_addr().unwrap();
            assert!(matches!(dialed.approval, Approval::Tcp(ref tcp) if tcp.address == address));
            let LanStream::Tcp(socket) = dialed.socket else {
                panic!("no TCP");
            };
            assert_eq!(socket.peer_addr().unwrap(), address);
            assert_eq!(resolver.asked.load(Ordering::Relaxed), 1, "asked again");
            allowed.accept().await.unwrap();
            for asked in [2, 3] {
                let error = dialer.dial(&target, &rules).await.unwrap_err();
                assert!(
                    matches!(error, DialError::Policy(denial) if denial == why),
                    "{error}"
                );
                assert_eq!(resolver.asked.load(Ordering::Relaxed), asked);
            }
        }
        let reached = tokio::time::timeout(Duration::ZERO, forbidden.accept()).await;
        assert!(reached.is_err(), "the forbidden address was dialed");
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
        assert_eq!(
            connect_any(vec![bad, bad, good], None).await.unwrap().1,
            good
        );
        assert_eq!(
            connect_any(vec![bad, bad], None).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(
            connect_any(Vec::new(), None).await.unwrap_err().kind(),
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
