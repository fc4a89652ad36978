//! Resume on a line of packets: black holes that no packet announces, short and long, and a client whose address changes. Needs root.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::sleep;
use wanproxy_tests::eventually;
use wanproxy_tests::load::echo_origin;
use wanproxy_tests::origin::Server;
use wanproxy_tests::packets::{From, PacketLine, Settings};
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::payload::{Payload, there_and_back};
use wanproxy_tests::skip;

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

const MEBIBYTE: u64 = 1 << 20;

/// A dead line is noticed within two seconds.
const HEARTBEAT: Duration = Duration::from_millis(500);

fn line() -> Option<PacketLine> {
    if let Err(reason) = PacketLine::possible() {
        skip("a test of resume on the packet-level line", &reason);
        return None;
    }
    let settings = Settings::line(20_000_000, Duration::from_millis(20));
    Some(PacketLine::start(settings, 7).unwrap())
}

async fn start(line: &PacketLine) -> (Pair, Server) {
    let echo = echo_origin(&line.far().place()).unwrap();
    let toml = format!("[tunnel]\nheartbeat = \"{}ms\"\n", HEARTBEAT.as_millis());
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .across(line)
        .server_toml(&toml)
        .client_toml(&toml)
        .start()
        .await
        .unwrap();
    (pair, echo)
}

async fn resumes(edge: &EdgeProcess) -> f64 {
    let metrics = edge.metrics().await.unwrap();
    metrics
        .sum("wanproxy_tunnel_resumes_total", &[])
        .unwrap_or_default()
}

/// Waits until so many more bytes were carried to the server. What comes back was sent a moment before, and costs next to nothing.
async fn carries(line: &PacketLine, bytes: u64) {
    let before = line.counters(From::Near).delivered_bytes;
    eventually("bytes on the line", async || {
        let carried = line.counters(From::Near).delivered_bytes - before;
        (carried >= bytes).then_some(()).ok_or(carried)
    })
    .await;
}

async fn is_detached(edge: &EdgeProcess) {
    eventually("a detached tunnel", async || {
        let status = edge.status_json().await.unwrap();
        let state = status["tunnels"][0]["state"].as_str().map(str::to_owned);
        (state.as_deref() == Some("detached"))
            .then_some(())
            .ok_or(state)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn black_holes_short_and_long_are_pauses() {
    let Some(line) = line() else { return };
    let (pair, _echo) = start(&line).await;
    let mut transfers = Vec::new();
    for seed in 0..3 {
        let connection = pair.client().connect("echo").unwrap();
        let transfer = there_and_back(connection, Payload::random(seed), 4 * MEBIBYTE, LIMIT);
        transfers.push(tokio::spawn(transfer));
    }
    // TCP itself gets over the first; the others are found by silence.
    for is_long in [false, true, true] {
        carries(&line, MEBIBYTE).await;
        line.cut();
        if is_long {
            is_detached(pair.client()).await;
            is_detached(pair.server()).await;
        } else {
            sleep(HEARTBEAT / 2).await;
        }
        assert!(!transfers.iter().all(tokio::task::JoinHandle::is_finished));
        line.restore();
    }
    for transfer in transfers {
        transfer.await.unwrap().unwrap();
    }
    assert!(resumes(pair.client()).await >= 2.0);
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
async fn a_client_whose_address_changes_goes_on() {
    let Some(line) = line() else { return };
    let (pair, _echo) = start(&line).await;
    let connection = pair.client().connect("echo").unwrap();
    let transfer = tokio::spawn(there_and_back(
        connection,
        Payload::random(1),
        6 * MEBIBYTE,
        LIMIT,
    ));
    carries(&line, MEBIBYTE).await;
    let address = Ipv4Addr::new(10, 77, 0, 3);
    line.move_near_to(address).unwrap();
    eventually("the tunnel from another address", async || {
        let status = pair.server().status_json().await.unwrap();
        let found = status["tunnels"][0]["links"][0]["address"].clone();
        let is_new = found
            .as_str()
            .is_some_and(|text| text.starts_with("10.77.0.3:"));
        is_new.then_some(()).ok_or(status)
    })
    .await;
    transfer.await.unwrap().unwrap();
    let connection = pair.client().connect("echo").unwrap();
    there_and_back(connection, Payload::random(2), MEBIBYTE, LIMIT)
        .await
        .unwrap();
    // Not before: the server may know it first.
    assert!(resumes(pair.client()).await >= 1.0);
}
