//! The line between the edges is lost and found again, and the applications notice only a pause.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use wanproxy_tests::eventually;
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{EdgeProcess, Pair, Signal};
use wanproxy_tests::payload::{Payload, there_and_back};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

const MEBIBYTE: u64 = 1 << 20;

/// A dead line is noticed within a second.
const QUICK: &str = "heartbeat = \"200ms\"\n";

/// A pair with a line between the edges, an echo behind the listener `echo`, and `tunnel` in both edges' `[tunnel]`.
async fn start(line: LineConfig, tunnel: &str) -> (Pair, Server) {
    let toml = &format!("[tunnel]\n{tunnel}");
    let echo = origin::echo().unwrap();
    let builder = Pair::builder().forward("echo", echo.address()).line(line);
    let pair = builder
        .server_toml(toml)
        .client_toml(&format!("{toml}connect_wait = \"1s\"\n"))
        .start()
        .await
        .unwrap();
    (pair, echo)
}

async fn connected(pair: &Pair) -> TcpStream {
    let mut connection = TcpStream::connect(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    connection.write_all(b"?").await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'?');
    connection
}

/// The same where the line may be away for a moment, or taken for dead by a busy machine: what comes then is refused after a second.
async fn connected_at_last(pair: &Pair) -> TcpStream {
    eventually("a connection to the echo", async || {
        let mut connection = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
        connection.write_all(b"?").await?;
        match connection.read_u8().await? {
            b'?' => Ok(connection),
            other => Err(std::io::Error::other(format!("{other}, not ?"))),
        }
    })
    .await
}

async fn resumes(edge: &EdgeProcess) -> f64 {
    let metrics = edge.metrics().await.unwrap();
    metrics
        .sum("wanproxy_tunnel_resumes_total", &[])
        .unwrap_or_default()
}

async fn state(edge: &EdgeProcess) -> String {
    let status = edge.status_json().await.unwrap();
    let state = status["tunnels"][0]["state"].as_str();
    state.unwrap_or("none").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_both_ways_outlive_a_line_that_is_cut_again_and_again() {
    let line = LineConfig::shaped(60_000_000, Duration::from_millis(10));
    let (pair, _echo) = start(line, "").await;
    let mut transfers = Vec::new();
    let mut cuts = 0;
    // Where this task is held up, transfers may be over after fewer cuts; then there are more of them.
    while cuts < 5 {
        for _ in 0..3 {
            let payload = Payload::random(transfers.len() as u64);
            let connection = connected_at_last(&pair).await;
            let transfer = there_and_back(connection, payload, 6 * MEBIBYTE, LIMIT);
            transfers.push(tokio::spawn(transfer));
        }
        while !transfers.iter().all(tokio::task::JoinHandle::is_finished) {
            pair.line().unwrap().cut();
            cuts += 1;
            // Something must get over, or it would never end. What did before the cut says nothing of a new line.
            let before = pair.wan_bytes().unwrap();
            while pair.wan_bytes().unwrap().since(&before).total() < 2 * MEBIBYTE
                && !transfers.iter().all(tokio::task::JoinHandle::is_finished)
            {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
    for transfer in transfers {
        transfer.await.unwrap().unwrap();
    }
    // The last cut's may come between two looks.
    let resumed = eventually("status and metrics agree", async || {
        let resumed = resumes(pair.client()).await;
        let status = pair.client().status_json().await.unwrap();
        match status["tunnels"][0]["resumes"].as_f64() {
            Some(told) if told.total_cmp(&resumed).is_eq() => Ok(resumed),
            other => Err((resumed, other)),
        }
    })
    .await;
    assert!(
        resumed >= f64::from(cuts - 1),
        "{resumed} resumes after {cuts} cuts"
    );
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
async fn a_connection_outlives_a_black_hole() {
    let (pair, _echo) = start(LineConfig::unshaped(), QUICK).await;
    let mut connection = connected_at_last(&pair).await;
    pair.line().unwrap().block();
    connection.write_all(b"into the dark").await.unwrap();
    eventually("both edges notice", async || {
        let states = (state(pair.client()).await, state(pair.server()).await);
        if states == ("detached".to_owned(), "detached".to_owned()) {
            Ok(())
        } else {
            Err(states)
        }
    })
    .await;
    assert!(
        !pair.client().is_ready().await,
        "without a line it is not ready"
    );
    let up = pair.client().metrics().await.unwrap();
    assert_eq!(up.sum("wanproxy_tunnel_up", &[]), Some(0.0));
    pair.line().unwrap().restore();
    let mut back = [0; 13];
    timeout(LIMIT, connection.read_exact(&mut back))
        .await
        .expect("it stalls")
        .unwrap();
    assert_eq!(&back, b"into the dark");
    eventually("the client is ready again", async || {
        if pair.client().is_ready().await {
            Ok(())
        } else {
            Err(pair.client().last_log_lines())
        }
    })
    .await;
    assert!(resumes(pair.client()).await >= 1.0);
    assert!(resumes(pair.server()).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_both_ends_of_a_connection_are_reset() {
    let short = format!("{QUICK}resume_window = \"1s\"\n");
    let (pair, _echo) = start(LineConfig::unshaped(), &short).await;
    let mut connection = connected_at_last(&pair).await;
    pair.line().unwrap().block();
    let ended = timeout(LIMIT, connection.read_u8()).await;
    let error = ended.expect("it hangs for ever").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    for edge in [pair.client(), pair.server()] {
        eventually("the stream ends at the edge", async || {
            let metrics = edge.metrics().await.unwrap();
            let lost = metrics.sum("wanproxy_streams_total", &[("result", "tunnel_lost")]);
            let open = metrics.sum("wanproxy_streams_open", &[]);
            // One that was lost before it was there is counted, too.
            if lost >= Some(1.0) && open == Some(0.0) {
                Ok(())
            } else {
                Err((lost, open))
            }
        })
        .await;
    }
    // What comes now is not kept waiting.
    let late = TcpStream::connect(pair.client().address("echo").unwrap()).await;
    let refused = async {
        let mut late = late?;
        late.write_all(b"?").await?;
        late.read_u8().await
    };
    assert!(timeout(LIMIT, refused).await.expect("it hangs").is_err());
    pair.line().unwrap().restore();
    eventually("the next connection works", async || {
        let mut next = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
        next.write_all(b"!").await?;
        next.read_u8().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_resets_what_it_does_not_know() {
    let (mut pair, _echo) = start(LineConfig::unshaped(), "").await;
    let mut connection = connected(&pair).await;
    pair.server().signal(Signal::KILL).unwrap();
    pair.server_mut().exit(LIMIT).await.unwrap();
    pair.restart_server().await.unwrap();
    let ended = timeout(LIMIT, connection.read_u8()).await;
    let error = ended
        .expect("nobody says that it was restarted")
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("the client says why", async || {
        if pair.client().log().contains("unknown tunnel") {
            Ok(())
        } else {
            Err(pair.client().last_log_lines())
        }
    })
    .await;
    assert_eq!(resumes(pair.client()).await, 0.0);
    eventually("the next connection works", async || {
        let mut next = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
        next.write_all(b"!").await?;
        next.read_u8().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_restarted_leaves_nothing_behind() {
    let (mut pair, _echo) = start(LineConfig::unshaped(), "").await;
    let _connection = connected(&pair).await;
    pair.client().signal(Signal::KILL).unwrap();
    pair.client_mut().exit(LIMIT).await.unwrap();
    eventually("the server notices", async || {
        match state(pair.server()).await.as_str() {
            "detached" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    pair.restart_client().await.unwrap();
    eventually("what it had is over, and it is back", async || {
        let metrics = pair.server().metrics().await.unwrap();
        let open = metrics.sum("wanproxy_streams_open", &[]);
        let up = metrics.sum("wanproxy_tunnel_up", &[]);
        if (open, up) == (Some(0.0), Some(1.0)) {
            Ok(())
        } else {
            Err((open, up))
        }
    })
    .await;
}
