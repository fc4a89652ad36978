//! The endpoint over real sockets.

#![expect(clippy::unwrap_used, reason = "tests")]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tunnel::histories::{Histories, HistoriesConfig, Lean};
use tunnel::pool::{Pools, PoolsConfig};

use super::*;
use crate::config::Bind;
use crate::lan::LanListener;

struct Fake(Result<(), String>);

impl Observed for Fake {
    fn status(&self) -> Status {
        Status {
            edge: "client".to_owned(),
            name: "branch-1".to_owned(),
            ..Status::default()
        }
    }

    fn pulse(&self) -> Pulse {
        Pulse::default()
    }

    fn metrics(&self) -> Vec<Family> {
        vec![Family::gauge("wanproxy_test", "A test.").with(&[("peer", "a")], 1u64)]
    }

    fn ready(&self) -> Result<(), String> {
        self.0.clone()
    }

    fn history(&self) -> HistoryAccess {
        let one = std::num::NonZeroUsize::MIN;
        let pools = PoolsConfig {
            codec_threads: one,
            crypto_threads: one,
            storage_threads: one,
            resolve_threads: one,
            queue: one,
        };
        let histories = HistoriesConfig::in_memory(Lean::Receiving, 1 << 20);
        HistoryAccess {
            histories: Arc::new(Histories::new(histories)),
            pools: Arc::new(Pools::start(&tokio::runtime::Handle::current(), pools)),
        }
    }
}

async fn start(
    token: Option<&str>,
    ready: Result<(), String>,
) -> (std::net::SocketAddr, AdminServer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bind = listener.local_addr().unwrap();
    let token = token.map(|secret| Token::new(secret.to_owned()));
    (
        bind,
        AdminServer::start(
            LanListener::Tcp(listener),
            Access {
                bind: Bind::Tcp(bind),
                token,
            },
            Arc::new(Fake(ready)),
            Arc::default(),
        ),
    )
}

async fn raw(address: std::net::SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn page(address: std::net::SocketAddr, path: &str) -> String {
    raw(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn the_pages_answer() {
    let (address, _server) = start(None, Ok(())).await;
    assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = page(address, "/metrics").await;
    assert!(
        metrics.contains("wanproxy_test{peer=\"a\"} 1\n"),
        "{metrics}"
    );
    assert!(
        page(address, "/api/status")
            .await
            .contains("\"name\":\"branch-1\"")
    );
    assert!(page(address, "/nothing").await.starts_with("HTTP/1.1 404"));
    let post = raw(address, "POST /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}

#[tokio::test]
async fn metrics_come_in_the_format_that_was_asked_for() {
    let (address, _server) = start(None, Ok(())).await;
    let ask = async |accept: &str| {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}Connection: close\r\n\r\n"
        );
        raw(address, &request).await.to_ascii_lowercase()
    };
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain\r\n"] {
        let answer = ask(accept).await;
        let kind = "\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n";
        assert!(answer.contains(kind), "{answer}");
        assert!(!answer.contains("# eof"), "{answer}");
    }
    for accept in [
        "Accept: application/openmetrics-text; version=1.0.0, */*;q=0.1\r\n",
        "Accept: text/plain;q=0.1\r\nAccept: application/openmetrics-text\r\n",
    ] {
        let answer = ask(accept).await;
        let kind =
            "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert!(answer.contains(kind), "{answer}");
        assert!(answer.ends_with("# eof\n"), "{answer}");
    }
}

#[tokio::test]
async fn an_edge_that_is_not_ready_says_what_is_missing() {
    let (address, _server) = start(None, Err("no tunnel is up".to_owned())).await;
    let answer = page(address, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("no tunnel is up\n"),
        "{answer}"
    );
    assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn histories_in_memory_are_shown_and_cleared_but_not_verified() {
    let (address, _server) = start(None, Ok(())).await;
    let answer = page(address, "/api/history").await;
    assert!(
        answer.ends_with("{\"directory\":null,\"excuse\":null,\"domains\":[]}"),
        "{answer}"
    );
    let post = async |path: &str, more: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n{more}\r\n"
        );
        raw(address, &request).await
    };
    let answer = post("/api/history/verify", "").await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    let answer = post("/api/history/clear?peer=a", "").await;
    assert!(
        answer.ends_with("{\"cleared\":[],\"under_way\":[],\"failed\":[]}"),
        "{answer}"
    );
    let answer = post("/api/history/clear", "Origin: https://evil.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = page(address, "/api/history/clear").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn a_foreign_host_is_refused_everywhere() {
    let (address, _server) = start(None, Ok(())).await;
    for path in [
        "/metrics",
        "/api/status",
        "/api/history",
        "/healthz",
        "/nothing",
    ] {
        let answer = raw(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
}

#[tokio::test]
async fn a_new_token_counts_at_once() {
    let (address, server) = start(Some("0123456789abcdef"), Ok(())).await;
    let with = |token: &str| {
        format!(
            "GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )
    };
    assert!(
        raw(address, &with("0123456789abcdef"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let refused = raw(address, &with("fedcba9876543210")).await;
    assert!(
        refused.starts_with("HTTP/1.1 401")
            && refused.to_lowercase().contains("www-authenticate: bearer"),
        "{refused}"
    );
    server.set_token(Some(Token::new("fedcba9876543210".to_owned())));
    assert!(
        raw(address, &with("0123456789abcdef"))
            .await
            .starts_with("HTTP/1.1 401")
    );
    assert!(
        raw(address, &with("fedcba9876543210"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_header_without_end_is_cut_off() {
    let (address, _server) = start(None, Ok(())).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let endless = vec![b'a'; 1 << 20];
    let _ = socket
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        .await;
    let _ = socket.write_all(&endless).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn the_dashboard_and_all_it_is_drawn_with_is_served_under_a_strict_policy() {
    let (address, _server) = start(None, Ok(())).await;
    let mut html = page(address, "/").await;
    for (path, kind, content) in page::FILES {
        let answer = page(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(&format!("content-type: {kind}")), "{path}");
        assert!(answer.ends_with(content) && !content.is_empty(), "{path}");
        html += content;
    }
    let head = html.split("\r\n\r\n").next().unwrap();
    for line in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: same-origin",
        "cache-control: no-store",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    // Nothing from elsewhere, nothing inline, and nothing that makes markup from text.
    for word in [
        "http://",
        "https://",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "style=\"",
        "onclick",
        "eval(",
    ] {
        let found = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(word), "{word}");
    }
}

const TOKEN: &str = "0123456789abcdef";

fn log_in_with(token: &str, origin: &str) -> String {
    let body = format!("token={token}");
    format!(
        "POST /login HTTP/1.1\r\nHost: edge:9900\r\nOrigin: {origin}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_browser_logs_in_and_is_known_by_its_cookie() {
    let (address, server) = start(Some(TOKEN), Ok(())).await;
    let get = async |path: &str, more: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: edge:9900\r\nConnection: close\r\n{more}\r\n");
        raw(address, &request).await
    };
    let answer = get("/", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 303") && answer.contains("location: /login"),
        "{answer}"
    );
    for path in ["/api/status", "/api/events", "/app.js", "/metrics"] {
        let answer = get(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }
    let form = get("/login", "").await;
    assert!(
        form.starts_with("HTTP/1.1 200") && form.contains("form-action 'self'"),
        "{form}"
    );
    let answer = raw(
        address,
        &log_in_with("fedcba9876543210", "http://edge:9900"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("not the token"),
        "{answer}"
    );
    let answer = raw(address, &log_in_with(TOKEN, "http://evil.example")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = raw(address, &log_in_with(TOKEN, "http://edge:9900")).await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    let cookie = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    assert!(
        cookie.ends_with("HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert!(get("/", &cookie).await.starts_with("HTTP/1.1 200"));
    assert!(
        get("/api/status", &cookie)
            .await
            .starts_with("HTTP/1.1 200")
    );
    // A page of another program on the same host gets the cookie sent, and is refused.
    let other = format!("{cookie}Origin: http://edge:8080\r\n");
    assert!(get("/api/status", &other).await.starts_with("HTTP/1.1 403"));
    server.set_token(Some(Token::new("another-token-16".to_owned())));
    assert!(
        get("/api/status", &cookie)
            .await
            .starts_with("HTTP/1.1 401")
    );
}

#[tokio::test]
async fn without_a_token_there_is_nothing_to_log_in_to() {
    let (address, _server) = start(None, Ok(())).await;
    let answer = page(address, "/login").await;
    assert!(
        answer.starts_with("HTTP/1.1 303") && answer.contains("location: /\r\n"),
        "{answer}"
    );
}

/// Reads `socket` until `wanted` has come.
async fn read_until(socket: &mut TcpStream, wanted: &str) -> String {
    read_on(socket, String::new(), wanted).await
}

/// Reads `socket` on after `text` until `wanted` has come, part of which may be in `text`.
async fn read_on(socket: &mut TcpStream, mut text: String, wanted: &str) -> String {
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let count = socket.read(&mut buffer).await.unwrap();
        assert!(count > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

#[tokio::test]
async fn the_live_figures_come_as_events_to_a_bounded_number_of_readers() {
    let (address, server) = start(None, Ok(())).await;
    let request = "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut readers = Vec::new();
    // More than ordinary connections leave room for is no problem; the bound of readers is.
    let refused = loop {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut socket, "\r\n\r\n").await;
        if head.starts_with("HTTP/1.1 503") {
            break head;
        }
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        read_on(&mut socket, head, "event: snapshot").await;
        readers.push(socket);
        assert!(readers.len() < 100);
    };
    assert!(refused.contains("retry-after: 10"), "{refused}");
    assert_eq!(readers.len(), 16);
    for reader in &mut readers {
        read_until(reader, "event: tick").await;
    }
    // Others are served all the same.
    assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    // A place is free again when a reader goes.
    readers.pop();
    loop {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        if read_until(&mut socket, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
        {
            break;
        }
    }
    drop(server);
    let mut rest = Vec::new();
    readers[0].read_to_end(&mut rest).await.unwrap();
}
