//! Unix sockets as the way in and the way out, with a real curl and with what is not allowed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::origin;
use wanproxy_tests::pair::{CLIENT_NAME, EdgeProcess, Pair, Signal, run_command};
use wanproxy_tests::payload::Payload;
use wanproxy_tests::skip;

/// What has not happened by then never will; nothing here takes more than seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// What the target gives to whoever asks for it by HTTP.
const CONTENT_BYTES: usize = 3 << 20;

/// A server at a Unix socket. Ends with the test.
struct Target {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve<F>(path: PathBuf, answer: fn(UnixStream) -> F) -> Target
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    Target { path, task }
}

/// Sends back what comes, to its end.
async fn echo(socket: UnixStream) -> std::io::Result<()> {
    let (mut reader, mut writer) = socket.into_split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

/// An HTTP server of one page.
async fn page(mut socket: UnixStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {CONTENT_BYTES}\r\n\r\n");
    socket.write_all(answer.as_bytes()).await?;
    let content = Payload::random(5).bytes(0, CONTENT_BYTES);
    socket.write_all(&content).await
}

fn listen(name: &str, kind: &str, bind: &Path, more: &str) -> String {
    let bind = bind.display();
    format!("[[listen]]\nname = \"{name}\"\nkind = \"{kind}\"\nbind = \"unix:{bind}\"\n{more}\n")
}

fn forward(name: &str, bind: &Path, target: &Path) -> String {
    let target = format!("target = \"unix:{}\"", target.display());
    listen(name, "forward", bind, &target)
}

fn rule(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// A pair whose client has a service `in` at `bind` that leads to the server's `target`, and that waits for its tunnel as long as a busy
/// machine may need when it is started anew.
async fn leading_to(target: &Path, bind: &Path) -> Pair {
    let patient = "[tunnel]\nconnect_wait = \"2m\"\n";
    Pair::builder()
        .client_toml(&(forward("in", bind, target) + patient))
        .allow(&rule(target))
        .start()
        .await
        .unwrap()
}

async fn echoes(path: &Path, bytes: &[u8]) {
    let mut connection = UnixStream::connect(path).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let read = timeout(LIMIT, connection.read_to_end(&mut heard)).await;
    read.expect("no echo").unwrap();
    assert!(heard == bytes, "{} bytes came back", heard.len());
}

/// Nothing comes out of it, and it ends.
async fn is_refused(path: &Path) {
    let answer = answer(path).await;
    assert!(matches!(answer, Err(_) | Ok(0)), "{answer:?}");
}

async fn answer(path: &Path) -> std::io::Result<usize> {
    let mut connection = UnixStream::connect(path).await.unwrap();
    let _ended = connection.write_all(b"?").await;
    let answer = timeout(LIMIT, connection.read(&mut [0; 1])).await;
    answer.expect("neither refused nor answered")
}

async fn refusals(edge: &EdgeProcess, reason: &str) -> Option<f64> {
    let metrics = edge.metrics().await.unwrap();
    metrics.sum("wanproxy_policy_refusals_total", &[("reason", reason)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_curl_goes_in_by_a_unix_socket_and_reaches_one() {
    if Command::new("curl")
        .arg("--version")
        .output()
        .await
        .is_err()
    {
        skip("curl through Unix sockets", "there is no curl");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let target = serve(at("target.sock"), page);
    let http = origin::echo().unwrap();
    let pair = Pair::builder()
        .client_toml(
            &[
                forward("in", &at("in.sock"), &target.path),
                listen("proxy", "http", &at("proxy.sock"), ""),
            ]
            .concat(),
        )
        .allow(&rule(&target.path))
        .start()
        .await
        .unwrap();
    let file = at("fetched");
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "100"])
        .arg("--unix-socket")
        .arg(pair.client().path("in").unwrap())
        .arg("--output")
        .arg(&file)
        .arg("http://localhost/file")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&curl.stderr);
    assert!(curl.status.success(), "{said}");
    let fetched = std::fs::read(&file).unwrap();
    assert!(fetched == Payload::random(5).bytes(0, CONTENT_BYTES));

    // The HTTP proxy listens at a Unix socket, too, and refuses what the policy does not name.
    let mut proxy = UnixStream::connect(pair.client().path("proxy").unwrap())
        .await
        .unwrap();
    let request = format!("CONNECT {} HTTP/1.1\r\n\r\n", http.address());
    proxy.write_all(request.as_bytes()).await.unwrap();
    proxy.shutdown().await.unwrap();
    let mut answer = String::new();
    let read = timeout(LIMIT, proxy.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_client_comes_by_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let bind = directory.path().join("socks.sock");
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .client_toml(&listen("socks", "socks5", &bind, ""))
        .allow("127.0.0.1:*")
        .start()
        .await
        .unwrap();
    let mut connection = UnixStream::connect(pair.client().path("socks").unwrap())
        .await
        .unwrap();
    let port = echo.address().port().to_be_bytes();
    let request = [&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1][..], &port].concat();
    connection.write_all(&request).await.unwrap();
    let mut reply = [0; 12];
    let read = timeout(LIMIT, connection.read_exact(&mut reply)).await;
    read.unwrap().unwrap();
    assert_eq!(reply[..5], [5, 0, 5, 0, 0]);
    connection.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    let read = timeout(LIMIT, connection.read_exact(&mut heard)).await;
    read.unwrap().unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_path_that_the_policy_names_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (allowed, other) = (serve(at("a.sock"), echo), serve(at("b.sock"), echo));
    let denied = serve(at("c.sock"), echo);
    let builder = Pair::builder()
        .client_toml(
            &[
                forward("allowed", &at("1.sock"), &allowed.path),
                forward("other", &at("2.sock"), &other.path),
                forward("denied", &at("3.sock"), &denied.path),
                forward("nobody", &at("4.sock"), &at("nobody.sock")),
            ]
            .concat(),
        )
        .allow(&rule(&allowed.path))
        .allow(&rule(&denied.path))
        .allow(&rule(&at("nobody.sock")))
        .allow("0.0.0.0/0:*");
    let pair = builder.start().await.unwrap();
    let config = pair.server().config().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    let deny = format!("deny = [\"{}\"]", rule(&denied.path));
    assert!(text.contains("deny = []"), "{text}");
    std::fs::write(&config, text.replacen("deny = []", &deny, 1)).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    eventually("the denial is in force", async || {
        match answer(&at("3.sock")).await {
            Ok(1..) => Err("answered"),
            _ => Ok(()),
        }
    })
    .await;
    // One that was open when the denial came may have been counted, too.
    let before = refusals(pair.server(), "denied").await;
    is_refused(&at("3.sock")).await;
    assert!(refusals(pair.server(), "denied").await > before);
    echoes(&at("1.sock"), &Payload::random(1).bytes(0, 1 << 20)).await;
    is_refused(&at("2.sock")).await;
    assert_eq!(refusals(pair.server(), "not_allowed").await, Some(1.0));
    is_refused(&at("4.sock")).await;
    echoes(&at("1.sock"), b"still").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reverse_listener_at_a_unix_socket_leads_to_one_at_the_client() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let target = serve(at("target.sock"), echo);
    let back = |name: &str, bind: &Path, target: &Path| {
        forward(name, bind, target) + &format!("client = \"{CLIENT_NAME}\"\n")
    };
    let pair = Pair::builder()
        .server_toml(
            &[
                back("back", &at("back.sock"), &target.path),
                back("none", &at("none.sock"), &at("unnamed.sock")),
            ]
            .concat(),
        )
        .client_toml(&format!(
            "[[accept]]\nallow = [\"{}\"]\n",
            rule(&target.path)
        ))
        .start()
        .await
        .unwrap();
    echoes(pair.server().path("back").unwrap(), b"there and back").await;
    is_refused(pair.server().path("none").unwrap()).await;
    assert_eq!(refusals(pair.client(), "not_allowed").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_endpoint_is_asked_at_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let bind = directory.path().join("admin.sock");
    let mut pair = Pair::builder().start().await.unwrap();
    let config = pair.client().config().to_str().unwrap().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    assert_eq!(text.matches("127.0.0.1:0").count(), 1);
    std::fs::write(&config, text.replace("127.0.0.1:0", &rule(&bind))).unwrap();
    pair.restart_client().await.unwrap();
    assert_eq!(pair.client().path("admin").unwrap(), bind);
    let mode = std::fs::metadata(&bind).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    eventually("the tunnel is up", async || {
        let arguments = ["status", "--json", "--config", &config];
        let asked = run_command(pair.programs().client(), arguments)
            .await
            .unwrap();
        let status: serde_json::Value = serde_json::from_str(&asked.stdout).unwrap_or_default();
        if asked.code == Some(0) && status["tunnels"][0]["state"] == "up" {
            Ok(())
        } else {
            Err(asked.stderr)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_is_replaced_and_what_is_not_ours_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let target = serve(at("target.sock"), echo);
    let bind = at("in.sock");
    let mut pair = leading_to(&target.path, &bind).await;
    let mode = std::fs::symlink_metadata(&bind)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    echoes(&bind, b"first").await;

    // A second program does not take it away.
    let config = pair.client().config().to_str().unwrap().to_owned();
    let second = run_command(pair.programs().client(), ["run", "--config", &config]);
    let second = second.await.unwrap();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(
        second
            .stderr
            .contains("for \"in\": another program listens there"),
        "{}",
        second.stderr
    );
    echoes(&bind, b"still there").await;

    // One that was killed leaves its file, and the next one replaces it.
    pair.client().signal(Signal::KILL).unwrap();
    eventually("it is gone", async || {
        match UnixStream::connect(&bind).await {
            Ok(_) => Err("somebody listens"),
            Err(_) => Ok(()),
        }
    })
    .await;
    let left = std::fs::symlink_metadata(&bind).unwrap();
    assert!(left.file_type().is_socket());
    pair.restart_client().await.unwrap();
    echoes(&bind, b"second").await;

    // One that ends takes it along; what is no socket stays.
    pair.client().signal(Signal::TERM).unwrap();
    eventually("the file is gone", async || {
        if bind.exists() { Err(()) } else { Ok(()) }
    })
    .await;
    std::fs::write(&bind, "precious").unwrap();
    let refused = run_command(pair.programs().client(), ["run", "--config", &config]);
    let refused = refused.await.unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("there is a file that is no socket; remove it, or use another path"),
        "{}",
        refused.stderr
    );
    assert_eq!(std::fs::read(&bind).unwrap(), b"precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_keeps_the_socket_and_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let target = serve(at("target.sock"), echo);
    let bind = at("in.sock");
    let mut pair = leading_to(&target.path, &bind).await;
    let control = at("control");
    let arguments = ["--handover".as_ref(), control.as_os_str()];
    pair.client_mut().restart_with(&arguments).await.unwrap();
    let mut open = UnixStream::connect(&bind).await.unwrap();
    open.write_all(b"a").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'a');
    let mut old = pair.client_mut().replace().await.unwrap();
    echoes(&bind, b"by the new one").await;
    open.write_all(b"b").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'b');
    drop(open);
    let ended = old.exit(LIMIT).await.unwrap();
    assert!(ended.success());
    echoes(&bind, b"after the old one").await;
}
