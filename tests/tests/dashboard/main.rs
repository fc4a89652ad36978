//! The dashboard in a real browser: its figures while traffic flows, what it shows when something is away, how it looks, and who it is usable for.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod figures;
mod looks;
mod many;
mod trouble;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use wanproxy_tests::browser::Browser;
use wanproxy_tests::fetch::{Request, fetch};
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{Content, HttpOrigin};
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::payload::Payload;
use wanproxy_tests::{eventually, skip};

/// One browser at a time: several of them on two cores only wait for each other.
static ONE: Mutex<()> = Mutex::const_new(());

/// A browser, or nothing where there is none; then it was said.
async fn browser(what: &str) -> Option<(Browser, MutexGuard<'static, ()>)> {
    if let Some(missing) = Browser::missing() {
        skip(what, &missing);
        return None;
    }
    let one = ONE.lock().await;
    Some((Browser::start().await.unwrap(), one))
}

/// A pair with a line that can be cut, and files behind the listener `files`: text that comes again and again, and random bytes.
async fn start(client_toml: &str) -> (Pair, HttpOrigin) {
    let origin = HttpOrigin::start().unwrap();
    origin.put(
        "/text",
        Content::Bytes(Payload::text(1).bytes(0, 300_000).into()),
    );
    origin.put(
        "/random",
        Content::Bytes(Payload::random(2).bytes(0, 60_000).into()),
    );
    let pair = Pair::builder()
        .forward("files", origin.address())
        .line(LineConfig::unshaped())
        .client_toml(client_toml)
        .start()
        .await
        .unwrap();
    (pair, origin)
}

/// Fetches through the tunnel until it is told to stop; failures are expected where the line is cut.
struct Traffic {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Traffic {
    fn start(files: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                for path in ["/text", "/random"] {
                    let _ = fetch(files, &Request::get(path), |_| {}).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

fn address_of(edge: &EdgeProcess) -> String {
    format!("http://{}/", edge.admin_address().unwrap())
}

/// Opens the dashboard of `edge` and waits until it is live.
async fn open(browser: &Browser, edge: &EdgeProcess) {
    browser.open(&address_of(edge)).await.unwrap();
    is_live(browser).await;
}

async fn is_live(browser: &Browser) {
    eventually("the page is live", async || {
        // One that is being loaded has no such element yet, or nothing that a script could run in.
        let script = "return document.getElementById('connection')?.dataset.state ?? ''";
        match browser.text(script).await {
            Ok(state) if state == "live" => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// No failed request, no error of a script, no violation of the page's policy.
async fn console_is_clean(browser: &Browser) {
    let lines = browser.console().await.unwrap();
    assert!(lines.is_empty(), "{lines:?}");
}

/// The figures that a page shows, as it has them in its attributes: the same keys as [`figures_of`].
const FIGURES: &str = r"
const value = (selector, root = document) => {
  const text = root.querySelector(selector)?.getAttribute('value');
  return text === '' || text === undefined || text === null ? null : Number(text);
};
const kinds = (root) => Object.fromEntries([...root.querySelectorAll('[data-kind]')].map((kind) => [kind.dataset.kind, Number(kind.getAttribute('value'))]));
return {
  uptime: Number(document.getElementById('main').dataset.uptime),
  ratio: value('#ratio'), lan: value('#lan-bytes'), wan: value('#wan-bytes'),
  kinds: kinds(document.getElementById('why')),
  services: Object.fromEntries([...document.querySelectorAll('#services tbody tr')].map((row) =>
    [row.dataset.service, { figures: [...row.querySelectorAll('td:not(.why) data')].slice(0, 4).map((data) => Number(data.getAttribute('value'))), kinds: kinds(row) }])),
  tunnels: [...document.querySelectorAll('.tunnel')].map((tunnel) => ({
    peer: tunnel.dataset.peer, state: tunnel.dataset.state, kinds: kinds(tunnel),
    lan: value('.facts data', tunnel),
    links: [...tunnel.querySelectorAll('.links tbody tr')].map((row) => [row.querySelector('th').textContent, ...[...row.querySelectorAll('data')].map((data) => Number(data.getAttribute('value')))]),
  })),
};";

/// What a page must show of `status`.
fn figures_of(status: &Value) -> Value {
    let sum = |one: &Value, key: &str| {
        one["codec"][key].as_u64().unwrap() + one["codec_received"][key].as_u64().unwrap()
    };
    let kinds = |one: &Value| {
        serde_json::json!({
            "copied": sum(one, "copied"), "compressed": sum(one, "compressed"), "raw": sum(one, "raw"),
        })
    };
    let services: serde_json::Map<String, Value> = status["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| {
            let both = |side: &str| {
                let way = |way: &str| service[format!("{side}_bytes_{way}")].as_u64().unwrap();
                way("to_wan") + way("from_wan")
            };
            let figures = [
                service["open"].as_u64().unwrap(),
                service["total"].as_u64().unwrap(),
                both("lan"),
                both("wan"),
            ];
            let shown = serde_json::json!({"figures": figures, "kinds": kinds(service)});
            (service["name"].as_str().unwrap().to_owned(), shown)
        })
        .collect();
    let tunnels: Vec<Value> = status["tunnels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tunnel| {
            let links = tunnel["links"].as_array().unwrap().iter().map(|link| {
                let rtt = link["rtt_ms"].as_f64().unwrap_or_default();
                serde_json::json!([link["address"], rtt, link["sent_bytes"], link["received_bytes"]])
            });
            serde_json::json!({
                "peer": tunnel["peer"], "state": tunnel["state"], "kinds": kinds(tunnel), "lan": tunnel["lan_bytes"],
                "links": links.collect::<Vec<_>>(),
            })
        })
        .collect();
    let savings = &status["savings"];
    serde_json::json!({
        "uptime": status["uptime_seconds"], "ratio": savings["ratio"], "lan": savings["lan_bytes"], "wan": savings["wan_bytes"],
        "kinds": kinds(status), "services": services, "tunnels": tunnels,
    })
}

/// Numbers of JSON are equal whether they are written as whole ones or not.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

/// One message of `/api/events`.
struct Message {
    name: String,
    data: Value,
}

/// Reads `/api/events` as a program would.
struct Feed(BufReader<TcpStream>);

impl Feed {
    async fn open(edge: &EdgeProcess) -> Self {
        let address = edge.admin_address().unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        // HTTP/1.0: the body is not chunked.
        let request = format!("GET /api/events HTTP/1.0\r\nHost: {address}\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(connection))
    }

    async fn next(&mut self) -> Message {
        let (mut name, mut data) = (String::new(), None);
        loop {
            let mut line = String::new();
            let count = self.0.read_line(&mut line).await.unwrap();
            assert!(count > 0, "the events have ended");
            if let Some(event) = line.strip_prefix("event: ") {
                event.trim_end().clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text).unwrap());
            } else if line == "\n"
                && let Some(data) = data.take()
            {
                return Message { name, data };
            }
        }
    }
}
