//! Running the pair: signals, reload, revocation, status, metrics, and what happens when an edge goes away.

#![expect(clippy::unwrap_used, reason = "tests")]

mod changes;
mod ending;
mod reporting;

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{CLIENT_NAME, EdgeProcess, Output, Pair, Signal, run_command};
use wanproxy_tests::storm::allow_descriptors;

/// What has not happened by then never will; nothing here takes more than seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// A pair with an echo behind the listener `echo`, and TOML for both edges.
async fn start(server_toml: &str, client_toml: &str) -> (Pair, Server) {
    let echo = origin::echo().unwrap();
    let builder = Pair::builder()
        .forward("echo", echo.address())
        .allow("127.0.0.1:*");
    let pair = builder
        .server_toml(server_toml)
        .client_toml(client_toml)
        .start()
        .await
        .unwrap();
    (pair, echo)
}

/// A connection that has reached the echo behind the listener `echo`.
async fn opened(pair: &Pair) -> TcpStream {
    connected(pair, "echo").await
}

/// A connection that has reached the echo behind the listener `name`.
async fn connected(pair: &Pair, name: &str) -> TcpStream {
    let mut connection = TcpStream::connect(pair.client().address(name).unwrap())
        .await
        .unwrap();
    assert_eq!(echoed(&mut connection, b"?").await, b"?");
    connection
}

/// Sends `bytes` and returns as many that come back.
async fn echoed(connection: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut back = vec![0; bytes.len()];
    let (mut reader, mut writer) = connection.split();
    let both = async { tokio::try_join!(writer.write_all(bytes), reader.read_exact(&mut back)) };
    timeout(LIMIT, both)
        .await
        .expect("the echo stalled")
        .unwrap();
    back
}

/// What the `status` command says of `edge`. It finds the edge by its configuration, which here names port 0.
async fn status_command(program: &Path, edge: &EdgeProcess, options: &[&str]) -> Output {
    let text = std::fs::read_to_string(edge.config()).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table["admin"]["bind"] = edge.admin_address().unwrap().to_string().into();
    let config = edge.config().with_file_name("status.toml");
    std::fs::write(&config, toml::to_string(&table).unwrap()).unwrap();
    let args = ["status", "--config", config.to_str().unwrap()];
    run_command(program, args.iter().chain(options))
        .await
        .unwrap()
}

async fn ready(edge: &EdgeProcess) {
    eventually("the edge is ready", async || {
        if edge.is_ready().await {
            Ok(())
        } else {
            Err(edge.last_log_lines())
        }
    })
    .await;
}

async fn reload_is(edge: &EdgeProcess, success: f64) {
    eventually("the reload is over", async || {
        match edge
            .metrics()
            .await
            .unwrap()
            .sum("wanproxy_config_reload_success", &[])
        {
            Some(value) if value.total_cmp(&success).is_eq() => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
