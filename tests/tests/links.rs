//! A tunnel over two lines, and a client with two servers: both lines are used, one that is lost costs its share, one that returns is used again,
//! and new streams go where they are wanted.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::line::{Line, LineConfig};
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::payload::{Payload, there_and_back};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

const MEBIBYTE: u64 = 1 << 20;

/// A dead line is noticed within six seconds, one beside another within three.
const QUICK: &str = "[tunnel]\nheartbeat = \"2s\"\n";

/// For lines that are cut, which both ends hear of at once: a pause of this program, which is the lines, does not look like the end of one.
const CALM: &str = "[tunnel]\nheartbeat = \"10s\"\n";

/// An address at which nobody listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// A pair whose tunnel has two paths: over the pair's line and over the one that is returned. `tunnel` goes into both configurations.
async fn start(config: LineConfig, tunnel: &str) -> (Pair, Line, Server) {
    let echo = origin::echo().unwrap();
    let second = Line::start(nowhere().await, config).unwrap();
    let paths = format!(
        "{tunnel}connect_wait = \"1s\"\n[[tunnel.path]]\nbind = \"127.0.0.1\"\n[[tunnel.path]]\nserver = \"{}\"\n",
        second.address()
    );
    let builder = Pair::builder().forward("echo", echo.address()).line(config);
    let pair = builder
        .server_toml(tunnel)
        .client_toml(&paths)
        .start()
        .await
        .unwrap();
    second.retarget(pair.server().tunnel_address().unwrap());
    has_links(&pair, 2).await;
    (pair, second, echo)
}

async fn links(edge: &EdgeProcess) -> usize {
    let status = edge.status_json().await.unwrap();
    let links = status["tunnels"][0]["links"].as_array();
    links.map_or(0, Vec::len)
}

async fn has_links(pair: &Pair, wanted: usize) {
    for edge in [pair.client(), pair.server()] {
        eventually("so many links", async || match links(edge).await {
            found if found == wanted => Ok(()),
            found => Err(found),
        })
        .await;
    }
}

async fn connected(client: &EdgeProcess) -> TcpStream {
    connected_to(client.address("echo").unwrap()).await
}

async fn connected_to(entrance: SocketAddr) -> TcpStream {
    let mut connection = TcpStream::connect(entrance).await.unwrap();
    connection.write_all(b"?").await.unwrap();
    let answer = timeout(LIMIT, connection.read_u8()).await.unwrap();
    assert_eq!(answer.unwrap(), b'?');
    connection
}

/// Takes a line away, for connections that are there and for new ones.
async fn take_away(line: &Line) {
    line.retarget(nowhere().await);
    line.cut();
}

/// How much faster that is, is for packets to say: `packet_links`.
#[tokio::test(flavor = "multi_thread")]
async fn both_lines_are_used() {
    // Slow lines, so that a busy machine has more to send than one of them takes.
    let line = LineConfig::shaped(12_000_000, Duration::from_millis(10));
    let (pair, second, _echo) = start(line, CALM).await;
    let first = pair.line().unwrap();
    let length = 10 * MEBIBYTE;
    let before = [first.bytes(), second.bytes()];
    there_and_back(
        connected(pair.client()).await,
        Payload::random(1),
        length,
        LIMIT,
    )
    .await
    .unwrap();
    let carried = [
        first.bytes().since(&before[0]),
        second.bytes().since(&before[1]),
    ];
    for line in carried {
        // What comes back was sent a moment before, and costs next to nothing.
        assert!(line.to_target > length / 5, "{carried:?}");
    }
    let all: u64 = carried.iter().map(|line| line.to_target).sum();
    assert!(all < length * 11 / 10, "{carried:?}");
    let metrics = pair.client().metrics().await.unwrap();
    for link in ["0", "1"] {
        assert!(
            metrics
                .sum("wanproxy_link_rtt_seconds", &[("link", link)])
                .is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_lost_costs_its_share_and_is_used_again_when_it_returns() {
    let line = LineConfig::shaped(60_000_000, Duration::from_millis(5));
    let (pair, second, _echo) = start(line, CALM).await;
    let server = pair.server().tunnel_address().unwrap();
    let idle = connected(pair.client()).await;
    let entrance = pair.client().address("echo").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut transfers = Vec::new();
    for first_seed in 0..3 {
        let is_over = is_over.clone();
        // One transfer behind the other, or all could be through before the last line was taken away. Other bytes each time: those
        // that are known take no line.
        transfers.push(tokio::spawn(async move {
            let mut seed = first_seed;
            loop {
                let connection = connected_to(entrance).await;
                there_and_back(connection, Payload::random(seed), 12 * MEBIBYTE, LIMIT).await?;
                if is_over.load(Ordering::Relaxed) {
                    return anyhow::Ok(());
                }
                seed += 3;
            }
        }));
    }
    let first = pair.line().unwrap();
    for line in [&second, first, &second] {
        let before = line.bytes();
        eventually("bytes on the line", async || {
            let carried = line.bytes().since(&before).total();
            (carried > MEBIBYTE).then_some(()).ok_or(carried)
        })
        .await;
        take_away(line).await;
        has_links(&pair, 1).await;
        line.retarget(server);
        has_links(&pair, 2).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for transfer in transfers {
        transfer.await.unwrap().unwrap();
    }
    drop(idle);
    for edge in [pair.client(), pair.server()] {
        let metrics = edge.metrics().await.unwrap();
        let lost = metrics.sum("wanproxy_streams_total", &[("result", "tunnel_lost")]);
        assert_eq!(lost, Some(0.0));
        assert_eq!(
            metrics.sum("wanproxy_integrity_failures_total", &[]),
            Some(0.0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_on_one_path_and_then_on_both_is_survived() {
    let (pair, second, _echo) = start(LineConfig::unshaped(), QUICK).await;
    let first = pair.line().unwrap();
    let connection = connected(pair.client()).await;
    let transfer = tokio::spawn(there_and_back(
        connection,
        Payload::random(7),
        40 * MEBIBYTE,
        LIMIT,
    ));
    first.block();
    has_links(&pair, 1).await;
    let still = connected(pair.client()).await;
    second.block();
    eventually("no link at all", async || {
        match links(pair.client()).await {
            0 => Ok(()),
            found => Err(found),
        }
    })
    .await;
    // What was held back comes late, and from connections that nobody believes in any more.
    first.restore();
    second.restore();
    has_links(&pair, 2).await;
    transfer.await.unwrap().unwrap();
    there_and_back(still, Payload::random(8), MEBIBYTE, LIMIT)
        .await
        .unwrap();
    let metrics = pair.client().metrics().await.unwrap();
    let resumes = metrics.sum("wanproxy_tunnel_resumes_total", &[]);
    assert!(resumes >= Some(1.0), "{resumes:?}");
}

/// Starts another server with the identities of the pair's own.
async fn second_server(pair: &Pair) -> EdgeProcess {
    let (from, to) = (pair.server_directory(), pair.scratch().join("backup"));
    copy_files(&from, &to);
    let own = pair.server().tunnel_address().unwrap().to_string();
    let config = to.join("server.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(&own), "{text}");
    std::fs::write(&config, text.replace(&own, "127.0.0.1:0")).unwrap();
    EdgeProcess::start(pair.programs().server(), &config)
        .await
        .unwrap()
}

/// Copies what is not a history.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            std::fs::copy(entry.path(), target).unwrap();
        } else if entry.file_name() != "history" {
            copy_files(&entry.path(), &target);
        }
    }
}

/// Waits until new streams go over a link to `address`.
async fn leads_to(client: &EdgeProcess, address: SocketAddr) {
    eventually("the tunnel that is wanted", async || {
        let status = client.status_json().await.unwrap();
        let found = status["tunnels"][0]["links"][0]["address"].clone();
        let wanted = address.to_string();
        (found.as_str() == Some(&*wanted))
            .then_some(())
            .ok_or(status)
    })
    .await;
}

async fn echoes(connection: &mut TcpStream) {
    connection.write_all(b"still there?").await.unwrap();
    let mut answer = [0; 12];
    let read = timeout(LIMIT, connection.read_exact(&mut answer)).await;
    read.unwrap().unwrap();
    assert_eq!(&answer, b"still there?");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_stands_in_and_the_first_is_returned_to() {
    let echo = origin::echo().unwrap();
    let toml = format!("{CALM}connect_wait = \"60s\"\n");
    let builder = Pair::builder().forward("echo", echo.address());
    let builder = builder.line(LineConfig::unshaped());
    let mut pair = builder
        .server_toml(CALM)
        .client_toml(&toml)
        .start()
        .await
        .unwrap();
    let backup = second_server(&pair).await;
    let second = Line::start(backup.tunnel_address().unwrap(), LineConfig::unshaped()).unwrap();
    let (one, two) = (pair.line().unwrap().address(), second.address());
    let config = pair.client().config().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    let known = format!("[\"{one}\"]");
    assert!(text.contains(&known), "{text}");
    let both = format!("[\"{one}\", \"{two}\"]");
    std::fs::write(&config, text.replace(&known, &both)).unwrap();
    pair.restart_client().await.unwrap();

    let mut first_stream = connected(pair.client()).await;
    leads_to(pair.client(), one).await;
    take_away(pair.line().unwrap()).await;
    leads_to(pair.client(), two).await;
    let mut second_stream = connected(pair.client()).await;
    echoes(&mut second_stream).await;

    pair.line()
        .unwrap()
        .retarget(pair.server().tunnel_address().unwrap());
    echoes(&mut first_stream).await;
    leads_to(pair.client(), one).await;
    let mut third_stream = connected(pair.client()).await;
    for stream in [&mut first_stream, &mut second_stream, &mut third_stream] {
        echoes(stream).await;
    }
    drop(second_stream);
    eventually("one tunnel", async || {
        let status = pair.client().status_json().await.unwrap();
        let tunnels = status["tunnels"].as_array().map_or(0, Vec::len);
        (tunnels == 1).then_some(()).ok_or(status)
    })
    .await;
    echoes(&mut first_stream).await;
    echoes(&mut third_stream).await;
}
