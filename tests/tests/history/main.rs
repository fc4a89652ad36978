//! Histories on disk: what survives restarts, kills and damage; who may have how much; the commands.

#![expect(clippy::unwrap_used, reason = "tests")]

mod commands;
mod damage;
mod domains;
mod limits;
mod sizes;
mod strange;
mod survival;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::fetch::{Request, fetch};
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{Content, HttpOrigin};
use wanproxy_tests::pair::{CLIENT_NAME, EdgeProcess, Pair, Signal};
use wanproxy_tests::payload::{Checker, Payload};

/// What has not happened by then never will.
const STALL_LIMIT: Duration = Duration::from_secs(120);

const MEBIBYTE: u64 = 1 << 20;

/// A file on the origin behind the listener `http`.
struct File {
    path: String,
    body: Bytes,
}

impl File {
    /// Random bytes, so that nothing but a history makes them small.
    fn random(origin: &HttpOrigin, seed: u64, mebibytes: usize) -> Self {
        let body = Bytes::from(Payload::random(seed).bytes(0, mebibytes << 20));
        let path = format!("/{seed}");
        origin.put(&path, Content::Bytes(body.clone()));
        Self { path, body }
    }

    fn len(&self) -> u64 {
        self.body.len() as u64
    }

    /// Downloads it through `address` and checks every byte.
    async fn fetch_from(&self, address: SocketAddr) {
        let mut checker = Checker::of_bytes(self.body.clone());
        let request = Request::get(&self.path);
        let fetched = fetch(address, &request, |chunk| checker.feed(chunk).unwrap());
        timeout(STALL_LIMIT, fetched)
            .await
            .expect("the download stalled")
            .unwrap();
        checker.finish().unwrap();
    }

    /// Downloads it, checks every byte, and returns what it cost on the line.
    async fn cost(&self, pair: &Pair) -> u64 {
        let before = pair.wan_bytes().unwrap();
        self.fetch_from(pair.client().address("http").unwrap())
            .await;
        pair.wan_bytes().unwrap().since(&before).total()
    }

    /// Downloads it; it must come from the histories.
    async fn is_warm(&self, pair: &Pair) {
        let cost = self.cost(pair).await;
        assert!(
            cost <= self.len() / 100,
            "{} of {} bytes crossed the line again",
            cost,
            self.len()
        );
    }
}

/// A pair with a counting line, whose listener `http` leads to the origin, and TOML for both edges.
async fn measured(server_toml: &str, client_toml: &str) -> (Pair, HttpOrigin) {
    let origin = HttpOrigin::start().unwrap();
    let pair = Pair::builder()
        .forward("http", origin.address())
        .line(LineConfig::unshaped())
        .server_toml(server_toml)
        .client_toml(client_toml)
        .start()
        .await
        .unwrap();
    settled(&pair).await;
    (pair, origin)
}

/// A listener `http` for another client edge.
fn listener(origin: &HttpOrigin) -> String {
    format!(
        "[[listen]]\nname = \"http\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\n",
        origin.address()
    )
}

/// `/api/history` of an edge.
async fn history(edge: &EdgeProcess) -> Value {
    let (status, text) = edge.page("/api/history").await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// What an edge says of the domain that it shares with `peer`.
async fn shared_with(edge: &EdgeProcess, peer: &str) -> Value {
    let page = history(edge).await;
    let domains = page["domains"].as_array().unwrap();
    let found = domains
        .iter()
        .find(|line| line["peer"] == peer && line["domain"] == "shared");
    found.cloned().unwrap_or(Value::Null)
}

/// Waits until the tunnel holds the histories on both sides. It is the only one then: they may be with an older one that has not ended yet.
async fn settled(pair: &Pair) {
    eventually("the tunnel has its histories", async || {
        if !pair.client().is_ready().await {
            return Err("no tunnel".to_owned());
        }
        for edge in [pair.client(), pair.server()] {
            let status = edge.status_json().await.map_err(|e| e.to_string())?;
            let tunnels = status["tunnels"].as_array().unwrap();
            if tunnels.len() != 1 || tunnels[0]["state"] != "up" {
                return Err(format!("not one tunnel that is up: {tunnels:?}"));
            }
        }
        let client = shared_with(pair.client(), "server").await;
        let server = shared_with(pair.server(), CLIENT_NAME).await;
        let mut loading = false;
        for edge in [pair.client(), pair.server()] {
            let status = edge.status_json().await.map_err(|e| e.to_string())?;
            loading |= status["history"]["loading"] == true;
        }
        if client["in_use"] == true && server["in_use"] == true && !loading {
            Ok(())
        } else {
            Err(format!("client {client}, server {server}"))
        }
    })
    .await;
}

/// Waits until both edges have written what came, in all domains.
async fn written(pair: &Pair) {
    for edge in [pair.client(), pair.server()] {
        eventually("what came is on disk", async || {
            let page = history(edge).await;
            let domains = page["domains"].as_array().unwrap();
            if domains.iter().all(|line| line["unwritten"] == false) {
                Ok(())
            } else {
                Err(page)
            }
        })
        .await;
    }
}

/// Restarts both edges once all is on disk. What came in their last moments a slow disk may not take any more, which they say.
async fn restart_written(pair: &mut Pair) {
    written(pair).await;
    restart_both(pair).await;
}

/// The same without starting them again.
async fn stop_written(pair: &mut Pair) {
    written(pair).await;
    stop_both(pair).await;
}

/// Ends both edges as an operator would, if they still run, and starts them again.
///
/// Each has all the time it takes: one that is restarted in a hurry is killed after two seconds, in which a busy machine may not have
/// written the last bytes. And both have ended before one starts: a tunnel of the old client with the new server may have the histories
/// yet when the new client comes.
async fn restart_both(pair: &mut Pair) {
    if pair.server().id().is_ok() {
        pair.server().signal(Signal::TERM).unwrap();
        pair.server_mut().exit(STALL_LIMIT).await.unwrap();
    }
    if pair.client().id().is_ok() {
        pair.client().signal(Signal::TERM).unwrap();
        pair.client_mut().exit(STALL_LIMIT).await.unwrap();
    }
    pair.restart_server().await.unwrap();
    pair.restart_client().await.unwrap();
    settled(pair).await;
}

/// Ends both edges at once, as a power cut of the programs would.
async fn kill_both(pair: &mut Pair) {
    pair.client().signal(Signal::KILL).unwrap();
    pair.server().signal(Signal::KILL).unwrap();
    pair.client_mut().exit(STALL_LIMIT).await.unwrap();
    pair.server_mut().exit(STALL_LIMIT).await.unwrap();
}

/// Ends both edges as an operator would.
async fn stop_both(pair: &mut Pair) {
    pair.client().signal(Signal::TERM).unwrap();
    pair.client_mut().exit(STALL_LIMIT).await.unwrap();
    pair.server().signal(Signal::TERM).unwrap();
    pair.server_mut().exit(STALL_LIMIT).await.unwrap();
}

/// The history directories of both edges.
fn directories(pair: &Pair) -> [PathBuf; 2] {
    [
        pair.server_directory().join("history"),
        pair.client_directory(CLIENT_NAME).join("history"),
    ]
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let mode = std::fs::metadata(from).unwrap().permissions();
    std::fs::set_permissions(to, mode).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// How often `text` stands in an edge's log.
fn logged(edge: &EdgeProcess, text: &str) -> usize {
    edge.log().matches(text).count()
}
