//! Requests that a proxy and its target could read in two ways: each is refused, or reaches the target as one request that can be read in one way only.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::origin::Server;
use wanproxy_tests::pair::Pair;

/// An answer that has not come by then never will.
const LIMIT: Duration = Duration::from_secs(60);

/// All bytes of each connection to the target, which answers after the first head.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

fn listening_target() -> (Server, Heard) {
    let heard = Heard::default();
    let hears = heard.clone();
    let server = Server::start(move |mut connection: TcpStream| {
        let hears = hears.clone();
        async move {
            let mut bytes = Vec::new();
            while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
                if connection.read_buf(&mut bytes).await? == 0 {
                    break;
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            connection.write_all(answer).await?;
            // Its own end comes last: it would break off a request whose body is still on its way.
            connection.read_to_end(&mut bytes).await?;
            hears.lock().unwrap().push(bytes);
            Ok(())
        }
    });
    (server.unwrap(), heard)
}

async fn ask(pair: &Pair, request: &str) -> String {
    let address = pair.client().address("proxy").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(LIMIT, connection.read_to_end(&mut answer)).await;
    read.expect("no answer").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_two_readings_are_refused() {
    let (target, heard) = listening_target();
    let at = target.address();
    let pair = Pair::builder().http().start().await.unwrap();
    let post = |headers: &str, body: &str| {
        format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\n{headers}\r\n{body}")
    };
    for request in [
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "12345"),
        post("Content-Length: 5, 6\r\n", "12345"),
        post("Content-Length: +5\r\n", "12345"),
        post("Content-Length: -5\r\n", "12345"),
        post(
            "Transfer-Encoding: chunked, identity\r\n",
            "5\r\n12345\r\n0\r\n\r\n",
        ),
        post("Transfer-Encoding: gzip\r\n", "12345"),
        post("X: a\r\n folded\r\nContent-Length: 0\r\n", ""),
        post("X : a\r\nContent-Length: 0\r\n", ""),
        post("X\0: a\r\nContent-Length: 0\r\n", ""),
        format!("GET http://user:secret@{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("CONNECT user@{at} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("GET http:///{at} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("POST http://{at}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        let answer = ask(&pair, &request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{request:?} is answered {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.").count(),
            1,
            "{request:?} is answered {answer:?}"
        );
    }
    let heard = heard.lock().unwrap();
    assert!(
        heard.is_empty(),
        "{:?}",
        String::from_utf8_lossy(heard.first().unwrap())
    );
}

/// A body's length in two ways: the chunks count, the target hears of nothing else, and the connection ends behind them (RFC 9112, section 6.3).
#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_can_be_read_in_one_way_only() {
    let pair = Pair::builder().http().start().await.unwrap();
    for lengths in [
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let (target, heard) = listening_target();
        let at = target.address();
        let request = format!(
            "POST http://{at}/a HTTP/1.1\r\nHost: elsewhere\r\n{lengths}Connection: X-Private\r\nX-Private: 1\r\n\
             Proxy-Authorization: Basic c2VjcmV0\r\nTE: trailers\r\n\r\n5\r\n12345\r\n0\r\n\r\n\
             GET http://{at}/smuggled HTTP/1.1\r\nHost: {at}\r\n\r\n"
        );
        let answer = ask(&pair, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
        wanproxy_tests::eventually("the target has heard all", async || {
            let heard = heard.lock().unwrap();
            if heard.is_empty() {
                Err("nothing")
            } else {
                Ok(())
            }
        })
        .await;
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 1);
        let text = String::from_utf8_lossy(heard.first().unwrap()).to_ascii_lowercase();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("post /a http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {at}")), "{head}");
        for gone in [
            "content-length",
            "x-private",
            "proxy-authorization",
            "\r\nte:",
            "elsewhere",
        ] {
            assert!(!head.contains(gone), "{gone} is still there: {head}");
        }
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert_eq!(body, "5\r\n12345\r\n0\r\n\r\n");
    }
}
