//! What is dialed, and what is not.

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
    let reason = async |rules: &RuleSet| dialer.dial(&target, rules).await.unwrap_err().reason();
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
    // Not the system's resolver, which may ask a name server, and that one may be slow.
    let nobody_knows = Dialer {
        resolver: Changing::says(&[]),
    };
    let unresolved = nobody_knows
        .dial(&name("name.invalid", 80), &rules)
        .await
        .unwrap_err();
    assert_eq!(unresolved.reason(), Reason::NameNotResolved);
    let failed = DialError::from(ResolveError::Lookup(io::ErrorKind::Other.into()));
    assert_eq!(failed.reason(), Reason::NameNotResolved);
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
