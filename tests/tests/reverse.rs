//! Reverse listeners: connections to the server edge that lead to targets behind a client edge.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{CLIENT_NAME, EdgeProcess, Pair, PairBuilder, Signal};
use wanproxy_tests::payload::{Payload, there_and_back};

/// What has not happened by then never will; nothing here takes more than seconds.
const LIMIT: Duration = Duration::from_secs(120);

const MEBIBYTE: u64 = 1 << 20;

/// A `[[listen]]` of the server that leads to `target` behind the pair's client.
fn listener(name: &str, target: SocketAddr, more: &str) -> String {
    format!(
        "[[listen]]\nname = \"{name}\"\nkind = \"forward\"\nclient = \"{CLIENT_NAME}\"\nbind = \"127.0.0.1:0\"\ntarget = \"{target}\"\n{more}\n"
    )
}

fn accept(rules: &str) -> String {
    format!("[[accept]]\n{rules}\n")
}

fn pair_to(target: &Server, more: &str) -> PairBuilder {
    Pair::builder()
        .server_toml(&format!("{}{more}", listener("back", target.address(), "")))
        .client_toml(&accept("allow = [\"127.0.0.1:*\"]"))
}

async fn connect(edge: &EdgeProcess, name: &str) -> TcpStream {
    TcpStream::connect(edge.address(name).unwrap())
        .await
        .unwrap()
}

/// Sends `payload` and checks that an echo sends it back.
async fn echoes(connection: TcpStream, payload: Payload, length: u64) {
    there_and_back(connection, payload, length, LIMIT)
        .await
        .unwrap();
}

/// The connection is closed or reset before it carries a byte.
async fn is_refused(edge: &EdgeProcess, name: &str) {
    // It may be refused before it knows that it was connected.
    let Ok(mut connection) = TcpStream::connect(edge.address(name).unwrap()).await else {
        return;
    };
    let _reset = connection.write_all(b"?").await;
    let answer = timeout(LIMIT, connection.read(&mut [0; 1])).await;
    let answer = answer.expect("neither refused nor answered");
    assert!(matches!(answer, Err(_) | Ok(0)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn carries_bytes_both_ways_and_both_edges_report_it() {
    let echo = origin::echo().unwrap();
    let pair = pair_to(&echo, "").start().await.unwrap();
    echoes(
        connect(pair.server(), "back").await,
        Payload::random(1),
        8 * MEBIBYTE,
    )
    .await;
    for edge in [pair.server(), pair.client()] {
        eventually("the stream is counted", async || {
            let metrics = edge.metrics().await.unwrap();
            let bytes = |direction| {
                let labels = [("service", "back"), ("direction", direction)];
                metrics.sum("wanproxy_service_lan_bytes_total", &labels)
            };
            let completed = [("service", "back"), ("result", "completed")];
            let seen = (
                bytes("to_wan"),
                bytes("from_wan"),
                metrics.sum("wanproxy_streams_total", &completed),
            );
            let all = Some((8 * MEBIBYTE) as f64);
            if seen == (all, all, Some(1.0)) {
                Ok(())
            } else {
                Err(seen)
            }
        })
        .await;
    }
    let services = async |edge: &EdgeProcess| {
        let status = edge.status_json().await.unwrap();
        let service = &status["services"][0];
        ["name", "kind", "bind"].map(|key| service[key].as_str().unwrap().to_owned())
    };
    let bind = pair.server().address("back").unwrap().to_string();
    assert_eq!(services(pair.server()).await, ["back", "forward", &bind]);
    assert_eq!(services(pair.client()).await, ["back", "remote", ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_lets_nothing_be_reached_that_it_does_not_write() {
    let echo = origin::echo().unwrap();
    let config = format!(
        "{}{}",
        listener("back", echo.address(), ""),
        listener("other", "10.255.255.1:9".parse().unwrap(), "")
    );
    let pair = Pair::builder().server_toml(&config).start().await.unwrap();
    let refusals = async |reason: &str| {
        let metrics = pair.client().metrics().await.unwrap();
        metrics
            .sum("wanproxy_policy_refusals_total", &[("reason", reason)])
            .unwrap_or_default()
    };
    let use_rules = async |rules: &str| {
        let config = pair.client().config();
        let text = std::fs::read_to_string(config).unwrap();
        let mut table: toml::Table = text.parse().unwrap();
        let accept: toml::Table = accept(rules).parse().unwrap();
        table.extend(accept);
        std::fs::write(config, toml::to_string(&table).unwrap()).unwrap();
        pair.client().reload().await.unwrap();
    };
    is_refused(pair.server(), "other").await;
    assert_eq!(refusals("not_allowed").await, 1.0);
    is_refused(pair.server(), "back").await;
    assert_eq!(refusals("loopback").await, 1.0);
    // A wide rule does not open the client's own machine.
    use_rules("allow = [\"0.0.0.0/0:*\"]").await;
    is_refused(pair.server(), "back").await;
    assert_eq!(refusals("loopback").await, 2.0);
    use_rules("allow = [\"127.0.0.1:*\"]").await;
    let mut open = connect(pair.server(), "back").await;
    open.write_all(b"a").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'a');
    // Deny beats allow, for what runs too.
    use_rules("allow = [\"127.0.0.1:*\"]\ndeny = [\"127.0.0.0/8:*\"]").await;
    let ended = timeout(LIMIT, open.read(&mut [0; 1]))
        .await
        .expect("it goes on");
    assert!(ended.is_err(), "{ended:?}");
    is_refused(pair.server(), "back").await;
    assert_eq!(refusals("denied").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_waits_for_a_client_that_is_away_and_is_refused_in_the_end() {
    let echo = origin::echo().unwrap();
    let config = format!(
        "{}[tunnel]\nconnect_wait = \"0s\"\n",
        listener("back", echo.address(), "")
    );
    let mut pair = Pair::builder()
        .server_toml(&config)
        .client_toml(&accept("allow = [\"127.0.0.1:*\"]"))
        .start()
        .await
        .unwrap();
    pair.client().signal(Signal::TERM).unwrap();
    pair.client_mut().exit(LIMIT).await.unwrap();
    is_refused(pair.server(), "back").await;
    let config = pair.server().config();
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace("\"0s\"", "\"2m\"")).unwrap();
    pair.server().reload().await.unwrap();
    let waiting = connect(pair.server(), "back").await;
    let waiting = tokio::spawn(echoes(waiting, Payload::random(2), MEBIBYTE));
    pair.restart_client().await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_one_way_is_a_reference_the_other_way_unless_it_is_isolated() {
    let (sink, echo) = (origin::sink().unwrap(), origin::echo().unwrap());
    let config = format!(
        "{}{}{}",
        listener("back", sink.address(), ""),
        listener("apart", echo.address(), "dedup = \"isolated\""),
        listener("plain", sink.address(), "dedup = \"off\"")
    );
    let pair = Pair::builder()
        .forward("there", sink.address())
        .server_toml(&config)
        .client_toml(&accept("allow = [\"127.0.0.1:*\"]"))
        .start()
        .await
        .unwrap();
    let send = async |edge: &EdgeProcess, name: &str, payload: Payload| {
        let mut connection = connect(edge, name).await;
        let bytes = payload.bytes(0, 4 << 20);
        connection.write_all(&bytes).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        let read = timeout(LIMIT, connection.read_to_string(&mut answer));
        read.await.expect("the answer stalled").unwrap();
        assert!(answer.starts_with(&format!("{} ", 4 << 20)), "{answer}");
    };
    let copied = async |service: &str| {
        let metrics = pair.server().metrics().await.unwrap();
        let labels = [("service", service), ("kind", "copied")];
        metrics
            .sum("wanproxy_codec_bytes_total", &labels)
            .unwrap_or_default()
    };
    // On a busy disk histories are opened later than a tunnel waits for them. Other bytes each time, which have gone the other way only.
    let mut seed = 3;
    eventually("both sides have agreed on the shared domain", async || {
        seed += 1;
        send(pair.client(), "there", Payload::random(seed)).await;
        let before = copied("back").await;
        send(pair.server(), "back", Payload::random(seed)).await;
        let shared = copied("back").await - before;
        if shared > 3.9 * 1048576.0 {
            Ok(())
        } else {
            Err(format!("{shared} bytes copied of 4 MiB"))
        }
    })
    .await;
    let payload = Payload::random(seed);
    send(pair.server(), "plain", payload).await;
    assert_eq!(copied("plain").await, 0.0);
    // Its first time in its own domain; the second time it finds itself.
    let apart = async || {
        echoes(connect(pair.server(), "apart").await, payload, 4 * MEBIBYTE).await;
        copied("apart").await
    };
    eventually(
        "both sides have agreed on the isolated domain",
        async || {
            let before = copied("apart").await;
            let after = apart().await;
            if after - before > 3.9 * 1048576.0 {
                Ok(())
            } else {
                Err((before, after))
            }
        },
    )
    .await;
    let history = pair.server().page("/api/history").await.unwrap().1;
    assert!(history.contains("s:apart"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_and_removes_listeners_and_leaves_connections_alone() {
    let (echo, other) = (origin::echo().unwrap(), origin::echo().unwrap());
    let pair = pair_to(&echo, "").start().await.unwrap();
    let mut open = connect(pair.server(), "back").await;
    open.write_all(b"a").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'a');
    let entrance = pair.server().address("back").unwrap();

    let config = pair.server().config();
    let mut table: toml::Table = std::fs::read_to_string(config).unwrap().parse().unwrap();
    let listen: toml::Table = listener("new", other.address(), "").parse().unwrap();
    table.extend(listen);
    std::fs::write(config, toml::to_string(&table).unwrap()).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    let bind = eventually("the new listener is there", async || {
        let status = pair.server().status_json().await.unwrap();
        let services = status["services"].as_array().unwrap();
        let new = services.iter().find(|service| service["name"] == "new");
        new.and_then(|service| service["bind"].as_str()?.parse::<SocketAddr>().ok())
            .ok_or(status)
    })
    .await;
    echoes(
        TcpStream::connect(bind).await.unwrap(),
        Payload::random(4),
        MEBIBYTE,
    )
    .await;
    eventually(
        "the old listener is closed",
        async || match TcpStream::connect(entrance).await {
            Ok(_) => Err("still accepts"),
            Err(_) => Ok(()),
        },
    )
    .await;
    open.write_all(b"b").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'b');
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_takes_no_new_connections_and_lets_the_old_ones_finish() {
    let echo = origin::echo().unwrap();
    let mut pair = pair_to(&echo, "[tunnel]\ndrain_timeout = \"30m\"\n")
        .start()
        .await
        .unwrap();
    let mut open = connect(pair.server(), "back").await;
    open.write_all(b"a").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'a');
    let entrance = pair.server().address("back").unwrap();
    pair.server().signal(Signal::TERM).unwrap();
    eventually(
        "the listener is closed",
        async || match TcpStream::connect(entrance).await {
            Ok(_) => Err("still accepts"),
            Err(_) => Ok(()),
        },
    )
    .await;
    open.write_all(b"b").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'b');
    open.shutdown().await.unwrap();
    assert_eq!(open.read(&mut [0; 1]).await.unwrap(), 0);
    let status = pair.server_mut().exit(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
