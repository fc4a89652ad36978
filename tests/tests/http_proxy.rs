//! The HTTP listener: what it carries, and what it says when it cannot.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::timeout;
use wanproxy_tests::origin::{self, Content, HttpOrigin, Server};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::payload::Payload;
use wanproxy_tests::preload::Preload;
use wanproxy_tests::skip;

/// An answer that has not come by then never will; a dial may take ten seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

async fn connect(pair: &Pair) -> TcpStream {
    TcpStream::connect(pair.client().address("proxy").unwrap())
        .await
        .unwrap()
}

/// Sends `request`, ends the sending direction, and returns all that is answered.
async fn ask(pair: &Pair, request: &str) -> String {
    let mut connection = connect(pair).await;
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(ANSWER_LIMIT, connection.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The first lines of a message, to the empty one.
async fn read_head(connection: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    Ok(head)
}

async fn head(connection: &mut TcpStream) -> String {
    let head = timeout(ANSWER_LIMIT, read_head(connection)).await;
    String::from_utf8(head.unwrap().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_carries_bytes_both_ways_from_the_first_on() {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder().http().start().await.unwrap();
    let mut connection = connect(&pair).await;
    let request = format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\nearly ",
        echo.address()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&head(&mut connection).await), 200);
    connection.write_all(b"and late").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut back = String::new();
    connection.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "early and late");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_asks_several_targets_for_their_files() {
    let origins = [HttpOrigin::start().unwrap(), HttpOrigin::start().unwrap()];
    let bodies: Vec<Bytes> = [1, 2]
        .map(|seed| Bytes::from(Payload::text(seed).bytes(0, 300_000)))
        .into();
    for (origin, body) in origins.iter().zip(&bodies) {
        origin.put("/file", Content::Bytes(body.clone()));
    }
    let pair = Pair::builder().http().start().await.unwrap();
    let mut connection = connect(&pair).await;
    for (origin, body) in origins
        .iter()
        .zip(&bodies)
        .chain(origins.iter().zip(&bodies))
    {
        let request = format!(
            "GET http://{0}/file HTTP/1.1\r\nHost: {0}\r\nProxy-Connection: keep-alive\r\n\r\n",
            origin.address()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut connection).await;
        assert_eq!(status(&head), 200, "{head}");
        assert!(head.contains("via: 1.1 wanproxy"), "{head}");
        let mut answered = vec![0; body.len()];
        connection.read_exact(&mut answered).await.unwrap();
        assert!(answered == *body, "the file differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn says_why_a_target_cannot_be_had() {
    // The machine's own resolver may take longer than a dial to say that there is no such name.
    let names = Preload::build().and_then(|preload| {
        preload.set_names(&[("nobody.invalid", &[])])?;
        Ok(preload)
    });
    let mut builder = Pair::builder()
        .http()
        .allow("127.0.0.1:*")
        .allow("*.invalid:*");
    if let Ok(names) = &names {
        builder = builder.server_environment(names.environment());
    }
    let pair = builder.start().await.unwrap();
    // It does not listen, and as long as it is there nobody else does.
    let unheard = TcpSocket::new_v4().unwrap();
    unheard.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = unheard.local_addr().unwrap();
    let hang_up = Server::start(|_connection| async { Ok(()) }).unwrap();
    let connect_to = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let get = |url: &str| format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n");
    let long = "x".repeat(9000);
    for (request, expected) in [
        (connect_to(&nobody.to_string()), 502),
        (get(&format!("http://{nobody}/")), 502),
        (connect_to("10.1.2.3:80"), 403),
        (get("http://10.1.2.3/"), 403),
        (connect_to("nobody.invalid:80"), 502),
        (connect_to("nobody.invalid"), 400),
        (get("/file"), 400),
        (get("https://127.0.0.1/"), 501),
        (get(&format!("http://{}/", hang_up.address())), 502),
        (get(&format!("http://127.0.0.1/{long}")), 414),
        (
            format!("GET http://127.0.0.1/ HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            431,
        ),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let answer = ask(&pair, &request).await;
        let shown: String = request.chars().take(60).collect();
        let is_expected = status(&answer) == expected || expected == 414 && status(&answer) == 431;
        assert!(is_expected, "{shown:?} is answered {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    // It promises more than it sends, by length, and by the end of a connection that is reset.
    let short = Server::start(|mut connection: TcpStream| async move {
        // All of the request: closing with bytes unread would destroy the answer.
        read_head(&mut connection).await?;
        connection
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nnot so much")
            .await
    })
    .unwrap();
    // A reset may overtake what was sent before it, and then there would be no answer to break off: it waits until that was received.
    let received = Arc::new(Notify::new());
    let is_received = received.clone();
    let reset = Server::start(move |mut connection: TcpStream| {
        let is_received = is_received.clone();
        async move {
            // All of the request: closing with bytes unread would destroy the answer.
            read_head(&mut connection).await?;
            connection
                .write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end")
                .await?;
            is_received.notified().await;
            edge::os::arm_reset(&connection)
        }
    })
    .unwrap();
    let pair = Pair::builder().http().start().await.unwrap();
    for (server, version, beginning) in [
        (&short, "1.1", ""),
        (&reset, "1.1", "to the end"),
        (&reset, "1.0", "to the end"),
    ] {
        let mut connection = connect(&pair).await;
        let request = format!(
            "GET http://{0}/ HTTP/{version}\r\nHost: {0}\r\n\r\n",
            server.address()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains(beginning) {
            let read = timeout(ANSWER_LIMIT, connection.read_buf(&mut answer)).await;
            let count = read.expect("the answer stalled").unwrap();
            assert!(count > 0, "HTTP/{version}: no beginning: {answer:?}");
        }
        if !beginning.is_empty() {
            received.notify_one();
        }
        let end = timeout(ANSWER_LIMIT, connection.read_to_end(&mut answer))
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&answer);
        let looks_whole = end.is_ok()
            && !text.contains("100000")
            && (!text.contains("chunked") || text.ends_with("0\r\n\r\n"));
        assert!(!looks_whole, "HTTP/{version}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_asked_for_a_password_by_http_and_socks() {
    let echo = origin::echo().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("alice");
    std::fs::write(&secret, "wonderland\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let service = |name: &str, kind: &str| {
        format!(
            "[[listen]]\nname = \"{name}\"\nkind = \"{kind}\"\nbind = \"127.0.0.1:0\"\nusers = {{ alice = \"{}\" }}\n",
            secret.display()
        )
    };
    let pair = Pair::builder()
        .client_toml(&[service("proxy", "http"), service("socks", "socks5")].concat())
        .start()
        .await
        .unwrap();
    let ask_with = |header: &str| {
        format!(
            "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n{header}\r\nhello",
            echo.address()
        )
    };
    let without = ask(&pair, &ask_with("")).await;
    assert_eq!(status(&without), 407);
    assert!(
        without.contains("proxy-authenticate: Basic realm=\"wanproxy\""),
        "{without}"
    );
    // alice:wonder, and then alice:wonderland
    let wrong = ask(
        &pair,
        &ask_with("Proxy-Authorization: Basic YWxpY2U6d29uZGVy\r\n"),
    )
    .await;
    assert_eq!(status(&wrong), 407);
    let right = ask(
        &pair,
        &ask_with("Proxy-Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n"),
    )
    .await;
    assert_eq!(status(&right), 200);
    assert!(right.ends_with("hello"), "{right}");

    for (user, works) in [("alice:wonderland", true), ("alice:wonder", false)] {
        let proxy = pair.client().address("socks").unwrap();
        let answered = socks5_with(proxy, user, echo.address()).await;
        assert_eq!(answered, works, "{user}");
    }
}

/// Whether a SOCKS5 application with this name and password gets its connection.
async fn socks5_with(proxy: SocketAddr, user: &str, target: SocketAddr) -> bool {
    let (name, password) = user.split_once(':').unwrap();
    let mut connection = TcpStream::connect(proxy).await.unwrap();
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut bytes = vec![5, 1, 2, 1, length(name)];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(length(password));
    bytes.extend_from_slice(password.as_bytes());
    connection.write_all(&bytes).await.unwrap();
    let mut answer = [0; 4];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..3], [5, 2, 1]);
    if answer[3] != 0 {
        assert_eq!(
            connection.read(&mut answer).await.unwrap(),
            0,
            "it is closed"
        );
        return false;
    }
    let SocketAddr::V4(target) = target else {
        unreachable!("tests listen on IPv4")
    };
    let mut request = vec![5, 1, 0, 1];
    request.extend_from_slice(&target.ip().octets());
    request.extend_from_slice(&target.port().to_be_bytes());
    connection.write_all(&request).await.unwrap();
    let mut reply = [0; 10];
    connection.read_exact(&mut reply).await.unwrap();
    reply[1] == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_downloads_and_uploads_through_the_proxy() {
    if Command::new("curl")
        .arg("--version")
        .output()
        .await
        .is_err()
    {
        skip("curl through the HTTP proxy", "there is no curl");
        return;
    }
    let origin = HttpOrigin::start().unwrap();
    let body = Bytes::from(Payload::text(5).bytes(0, 2_000_000));
    origin.put("/file", Content::Bytes(body.clone()));
    let pair = Pair::builder().http().start().await.unwrap();
    let proxy = format!("http://{}", pair.client().address("proxy").unwrap());
    let url = format!("http://{}/file", origin.address());
    for option in ["--no-progress-meter", "--proxytunnel"] {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                option,
                "--noproxy",
                "",
                "--proxy",
                &proxy,
                &url,
            ])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{option}: {output:?}");
        assert!(output.stdout == body, "{option}: the download differs");
        let file = pair.scratch().join("upload");
        std::fs::write(&file, &body).unwrap();
        let output = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                option,
                "--noproxy",
                "",
                "--proxy",
                &proxy,
            ])
            .args(["--upload-file", file.to_str().unwrap(), &url])
            .output()
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.contains("2000000"), "{option}: {output:?}");
    }
}

/// An address of loopback whose connections are never completed: its queue is full. What is returned with it keeps it so.
async fn silent() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    /// More than the kernel takes into a queue for one.
    const MOST: usize = 16;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while queued.len() < MOST {
        // Loopback answers in microseconds, or never; on a busy machine perhaps when it is asked again, after a second.
        match timeout(Duration::from_secs(3), TcpStream::connect(address)).await {
            Ok(connected) => queued.push(connected.unwrap()),
            Err(_) => return (address, listener, queued),
        }
    }
    panic!("the queue takes {MOST} connections although it is for one")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_answer_is_a_504() {
    let pair = Pair::builder().http().start().await.unwrap();
    let (address, _listener, _queued) = silent().await;
    let (connect, get) = (
        format!("CONNECT {address} HTTP/1.1\r\n\r\n"),
        format!("GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    );
    let (connected, got) = tokio::join!(ask(&pair, &connect), ask(&pair, &get));
    assert_eq!((status(&connected), status(&got)), (504, 504));
}
