//! What a client may reach, and how much of it, as its server enforces it: rules by network, name, wildcard and port, and limits; and a name
//! server that says one thing to whoever checks and another to whoever dials.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wanproxy_tests::origin;
use wanproxy_tests::pair::Pair;
use wanproxy_tests::preload::Preload;
use wanproxy_tests::{eventually, skip};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(60);

/// Replies of SOCKS5 (RFC 1928, section 6).
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;

/// Asks the SOCKS5 listener for `host`, by name or by address as it is written.
async fn ask(pair: &Pair, host: &str, port: u16) -> (u8, TcpStream) {
    let address = pair.client().address("socks5").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let mut request = vec![5, 1, 0, 5, 1, 0];
    match host.parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.extend([3, u8::try_from(host.len()).unwrap()]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    connection.write_all(&request).await.unwrap();
    let mut reply = [0; 2 + 4];
    let read = timeout(LIMIT, connection.read_exact(&mut reply)).await;
    read.expect("no reply").unwrap();
    let rest = if reply[5] == 4 { 16 + 2 } else { 4 + 2 };
    connection.read_exact(&mut vec![0; rest]).await.unwrap();
    (reply[3], connection)
}

async fn echoes(connection: &mut TcpStream) {
    connection.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    let read = timeout(LIMIT, connection.read_exact(&mut back)).await;
    read.expect("no echo").unwrap();
    assert_eq!(&back, b"hello");
}

async fn refusals(pair: &Pair, reason: &str) -> f64 {
    let metrics = pair.server().metrics().await.unwrap();
    metrics
        .sum("wanproxy_policy_refusals_total", &[("reason", reason)])
        .unwrap_or_default()
}

fn preload(what: &str) -> Option<Preload> {
    Preload::build()
        .map_err(|error| {
            skip(
                what,
                &format!("no library to load before the programs: {error}"),
            )
        })
        .ok()
}

fn client(rules: &str) -> String {
    format!("[[client]]\nname = \"branch-*\"\n{rules}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_speak_of_networks_names_wildcards_and_ports_and_deny_beats_allow() {
    let Some(preload) = preload("rules by name") else {
        return;
    };
    preload
        .set_names(&[
            ("files.corp.example", &["127.0.0.1"]),
            ("deep.in.corp.example", &["127.0.0.1"]),
            ("secret.corp.example", &["127.0.0.1"]),
            ("corp.example", &["127.0.0.1"]),
            ("other.example", &["127.0.0.1"]),
            ("elsewhere.corp.example", &["127.0.0.9"]),
            ("denied.corp.example", &["127.0.0.8"]),
            ("unknown.corp.example", &[]),
        ])
        .unwrap();
    let echo = origin::echo().unwrap();
    let port = echo.address().port();
    // The machine itself needs a rule that speaks of nothing else, so the names' rules have one beside them for their port.
    let rules = format!(
        "allow = [\"*.corp.example:{port}\", \"127.0.0.1:{port}\", \"127.0.0.8:{port}\", \"127.0.0.1:1-9\"]\ndeny = [\"secret.corp.example:*\", \"127.0.0.8/31:*\", \"127.0.0.1:5-6\"]"
    );
    let pair = Pair::builder()
        .socks5()
        .server_toml(&client(&rules))
        .server_environment(preload.environment())
        .start()
        .await
        .unwrap();
    for name in ["files.corp.example", "Deep.IN.corp.example.", "127.0.0.1"] {
        let (reply, mut connection) = ask(&pair, name, port).await;
        assert_eq!(reply, SUCCEEDED, "{name}");
        echoes(&mut connection).await;
    }
    let began = Instant::now();
    let mut reasons = BTreeSet::new();
    for (host, port, reason) in [
        ("secret.corp.example", port, "denied"),
        ("127.0.0.8", port, "denied"),
        ("denied.corp.example", port, "denied"),
        ("elsewhere.corp.example", port, "denied"),
        ("::ffff:127.0.0.8", port, "denied"),
        ("64:ff9b::7f00:8", port, "denied"),
        ("64:ff9b:1:7f00:0:800::", port, "denied"),
        ("127.0.0.1", 5, "denied"),
        ("127.0.0.1", 6, "denied"),
        ("127.0.0.2", port, "loopback"),
        ("64:ff9b::7f00:1", port, "loopback"),
        ("64:ff9b:1:7f00:0:100::", port, "loopback"),
        ("2002:7f00:1::", port, "loopback"),
        ("::127.0.0.1", port, "loopback"),
        ("127.0.0.1", 10, "loopback"),
        ("169.254.169.254", port, "metadata"),
        ("10.0.0.1", port, "not_allowed"),
        ("files.corp.example", 10, "not_allowed"),
    ] {
        let before = refusals(&pair, reason).await;
        let (reply, _) = ask(&pair, host, port).await;
        assert_eq!(reply, NOT_ALLOWED, "{host}:{port}");
        let after = refusals(&pair, reason).await;
        assert_eq!(after, before + 1.0, "{host}:{port}: {reason}");
        reasons.insert(reason);
    }
    // Names that no rule names may lead into an allowed network, and nowhere else.
    let (reply, _) = ask(&pair, "other.example", port).await;
    assert_eq!(reply, SUCCEEDED);
    let (reply, _) = ask(&pair, "unknown.corp.example", port).await;
    assert_ne!(reply, SUCCEEDED);
    // Nobody is asked about a name that no rule could let through.
    assert_eq!(preload.asked("secret.corp.example"), 0);
    // Each reason is a line, with the others counted until the minute is over.
    let log = pair.server().log();
    let minutes = 1 + usize::try_from(began.elapsed().as_secs() / 60).unwrap();
    for reason in reasons {
        let lines = log
            .lines()
            .filter(|line| line.contains("stream refused by policy"))
            .filter(|line| line.contains(&format!("reason=\"{reason}\"")))
            .count();
        assert!(
            (1..=minutes).contains(&lines),
            "{lines} lines for {reason}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_between_check_and_dial_leads_to_what_was_checked() {
    let Some(preload) = preload("a name that changes") else {
        return;
    };
    let allowed = origin::echo().unwrap();
    let port = allowed.address().port();
    let forbidden = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let rules = format!("allow = [\"127.0.0.1:{port}\", \"*.example:{port}\"]");
    let pair = Pair::builder()
        .socks5()
        .server_toml(&client(&rules))
        .server_environment(preload.environment())
        .start()
        .await
        .unwrap();
    let name = "rebinding.example";
    // One forbidden and one allowed address: the forbidden one is never dialed, wherever it stands.
    for addresses in [
        ["127.0.0.2", "127.0.0.1"],
        ["127.0.0.1", "127.0.0.2"],
        ["::ffff:127.0.0.2", "127.0.0.1"],
    ] {
        preload.set_names(&[(name, &addresses)]).unwrap();
        let asked = preload.asked(name);
        let (reply, mut connection) = ask(&pair, name, port).await;
        assert_eq!(reply, SUCCEEDED, "{addresses:?}");
        // It means something else by now; what is open stays where it is.
        preload.set_names(&[(name, &["127.0.0.2"])]).unwrap();
        echoes(&mut connection).await;
        assert_eq!(preload.asked(name), asked + 1, "asked once a connection");
    }
    let (reply, _) = ask(&pair, name, port).await;
    assert_eq!(reply, NOT_ALLOWED);
    // Answers that change all the time: whatever they say, only the allowed address is connected to.
    let turning = async {
        for turn in 0.. {
            let address = if turn % 2 == 0 {
                "127.0.0.1"
            } else {
                "127.0.0.2"
            };
            preload.set_names(&[(name, &[address])]).unwrap();
            tokio::task::yield_now().await;
        }
    };
    let asking = async {
        for _ in 0..200 {
            let (reply, mut connection) = ask(&pair, name, port).await;
            match reply {
                SUCCEEDED => echoes(&mut connection).await,
                reply => assert_eq!(reply, NOT_ALLOWED),
            }
        }
    };
    tokio::select! {
        () = turning => {}
        () = asking => {}
    }
    let reached = timeout(Duration::ZERO, forbidden.accept()).await;
    assert!(reached.is_err(), "the forbidden address was dialed");
}

/// A pair whose client may reach all of this machine, within a limit.
async fn limited(limit: &str) -> Pair {
    let rules = format!("allow = [\"127.0.0.1:*\"]\n{limit}");
    let builder = Pair::builder().socks5().server_toml(&client(&rules));
    builder.start().await.unwrap()
}

/// Waits until a connection to the echo at `port` is served.
async fn is_served(pair: &Pair, port: u16, what: &str) {
    eventually(what, async || match ask(pair, "127.0.0.1", port).await {
        (SUCCEEDED, _) => Ok(()),
        (reply, _) => Err(reply),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_streams_are_kept_counted_and_said_once() {
    const MOST: usize = 4;
    const REFUSED: usize = 12;
    let echo = origin::echo().unwrap();
    let pair = limited(&format!("max_streams = {MOST}")).await;
    let SocketAddr::V4(target) = echo.address() else {
        unreachable!("an echo of IPv4")
    };
    let began = Instant::now();
    let mut held = Vec::new();
    for _ in 0..MOST {
        let (reply, mut connection) = ask(&pair, "127.0.0.1", target.port()).await;
        assert_eq!(reply, SUCCEEDED);
        echoes(&mut connection).await;
        held.push(connection);
    }
    for _ in 0..REFUSED {
        assert_eq!(
            ask(&pair, "127.0.0.1", target.port()).await.0,
            GENERAL_FAILURE
        );
    }
    assert_eq!(refusals(&pair, "max_streams").await, REFUSED as f64);
    let lines = pair
        .server()
        .log()
        .lines()
        .filter(|line| line.contains("reason=\"max_streams\""))
        .count() as u64;
    let minutes = 1 + began.elapsed().as_secs() / 60;
    assert!((1..=minutes).contains(&lines), "{lines} lines");
    for connection in &mut held {
        echoes(connection).await;
    }
    drop(held);
    is_served(&pair, target.port(), "places are free again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_streams_are_held_to_their_number_a_second() {
    const A_SECOND: usize = 5;
    const ASKED: usize = 60;
    let echo = origin::echo().unwrap();
    let pair = limited(&format!("new_streams_per_second = {A_SECOND}")).await;
    let port = echo.address().port();
    let began = Instant::now();
    let asked = (0..ASKED).map(|_| ask(&pair, "127.0.0.1", port));
    let mut served = 0;
    for asked in asked {
        served += usize::from(asked.await.0 == SUCCEEDED);
    }
    // A second's worth at once, and then as many as time has passed, however slow this machine is.
    let most = A_SECOND as f64 * (1.0 + began.elapsed().as_secs_f64()) + 1.0;
    assert!(
        served >= A_SECOND && served as f64 <= most,
        "{served} of {most}"
    );
    let refused = refusals(&pair, "new_streams_per_second").await;
    assert_eq!(refused, (ASKED - served) as f64);
    is_served(&pair, port, "a second later there are more").await;
}
