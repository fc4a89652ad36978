//! An HTTP/1.1 file origin: GET and HEAD with ranges, PUT and POST that answer with the body's length and hash.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xxhash_rust::xxh3::Xxh3;

use super::{Head, Server, read_head};
use crate::packets::Place;
use crate::payload::Payload;

/// Bytes made or read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a path holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// These very bytes.
    Bytes(Bytes),
    /// The first `length` bytes of a payload.
    Generated {
        /// Where the bytes come from.
        payload: Payload,
        /// How many bytes there are.
        length: u64,
    },
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Generated { length, .. } => *length,
        }
    }
}

type Contents = Arc<RwLock<HashMap<String, Content>>>;

/// A running origin. Paths are added at any time; uploads are hashed and not kept.
#[derive(Debug)]
pub struct HttpOrigin {
    server: Server,
    contents: Contents,
}

impl HttpOrigin {
    /// Starts an origin without any content.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start() -> io::Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts an origin without any content on this very address.
    ///
    /// # Errors
    /// When no socket can be had there.
    pub fn start_on(address: SocketAddr) -> io::Result<Self> {
        let contents = Contents::default();
        let served = Arc::clone(&contents);
        let server = Server::start_on(address, move |connection| {
            serve(connection, Arc::clone(&served))
        })?;
        Ok(Self { server, contents })
    }

    /// Starts an origin without any content on this address in `place`.
    ///
    /// # Errors
    /// When no socket can be had there.
    pub fn start_in(place: &Place, address: SocketAddr) -> anyhow::Result<Self> {
        let contents = Contents::default();
        let served = Arc::clone(&contents);
        let server = Server::start_in_at(place, address, move |connection| {
            serve(connection, Arc::clone(&served))
        })?;
        Ok(Self { server, contents })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Serves `content` at `path`, which starts with a slash.
    pub fn put(&self, path: &str, content: Content) {
        self.contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.to_owned(), content);
    }
}

async fn serve(mut connection: TcpStream, contents: Contents) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(&mut connection, &mut buffer).await? {
        let mut words = head.words();
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        match method {
            "GET" | "HEAD" => {
                let content = contents
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(path)
                    .cloned();
                answer(&mut connection, &head, content, method == "GET").await?;
            }
            "PUT" | "POST" => {
                let Some(length) = head.content_length()? else {
                    return say(
                        &mut connection,
                        "411 Length Required",
                        "an upload needs a Content-Length\n",
                    )
                    .await;
                };
                if head
                    .field("expect")
                    .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
                {
                    connection
                        .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                        .await?;
                }
                let hash = take_body(&mut connection, &mut buffer, length).await?;
                let body = format!("{{\"length\":{length},\"xxh3\":\"{hash:016x}\"}}\n");
                say(&mut connection, "200 OK", &body).await?;
            }
            _ => {
                return say(
                    &mut connection,
                    "405 Method Not Allowed",
                    "GET, HEAD, PUT or POST\n",
                )
                .await;
            }
        }
        if head
            .field("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            break;
        }
    }
    connection.shutdown().await
}

async fn answer(
    connection: &mut TcpStream,
    head: &Head,
    content: Option<Content>,
    body: bool,
) -> io::Result<()> {
    let Some(content) = content else {
        return say(connection, "404 Not Found", "no such path\n").await;
    };
    let length = content.length();
    let (status, range) = match head.field("range").map(|value| parse_range(value, length)) {
        None => ("200 OK", 0..length),
        Some(Some(range)) => ("206 Partial Content", range),
        Some(None) => return say(connection, "416 Range Not Satisfiable", "no such range\n").await,
    };
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n",
        range.end - range.start
    );
    if status.starts_with("206") {
        text += &format!(
            "Content-Range: bytes {}-{}/{length}\r\n",
            range.start,
            range.end.saturating_sub(1)
        );
    }
    text += "\r\n";
    connection.write_all(text.as_bytes()).await?;
    if body {
        send_range(connection, &content, range).await
    } else {
        Ok(())
    }
}

async fn send_range(
    connection: &mut TcpStream,
    content: &Content,
    range: Range<u64>,
) -> io::Result<()> {
    match content {
        Content::Bytes(bytes) => {
            let bounds = usize::try_from(range.start)
                .ok()
                .zip(usize::try_from(range.end).ok());
            let part = bounds
                .and_then(|(start, end)| bytes.get(start..end))
                .unwrap_or_default();
            connection.write_all(part).await
        }
        Content::Generated { payload, .. } => {
            let mut buffer = vec![0; CHUNK_BYTES];
            let mut offset = range.start;
            while offset < range.end {
                let count = usize::try_from(range.end - offset)
                    .unwrap_or(CHUNK_BYTES)
                    .min(CHUNK_BYTES);
                payload.fill(offset, &mut buffer[..count]);
                connection.write_all(&buffer[..count]).await?;
                offset += count as u64;
            }
            Ok(())
        }
    }
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n` as a range within `length`; `None` if it names nothing of it.
fn parse_range(value: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        length.saturating_sub(last.parse().ok()?)..length
    } else {
        let last = if last.is_empty() {
            length
        } else {
            last.parse::<u64>().ok()?.saturating_add(1)
        };
        first.parse().ok()?..last.min(length)
    };
    (range.start < range.end).then_some(range)
}

/// Reads a body of `length` bytes and returns its xxh3-64.
async fn take_body(
    connection: &mut TcpStream,
    buffer: &mut BytesMut,
    length: u64,
) -> io::Result<u64> {
    let mut hash = Xxh3::new();
    let mut left = length;
    while left > 0 {
        if buffer.is_empty() {
            buffer.reserve(CHUNK_BYTES);
            if connection.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let count = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.split_to(count);
        hash.update(&part);
        left -= count as u64;
    }
    Ok(hash.digest())
}

async fn say(connection: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(text.as_bytes()).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fetch;
    use crate::payload::Checker;

    #[tokio::test]
    async fn serves_bytes_and_payloads_whole_and_in_ranges() {
        let origin = HttpOrigin::start().unwrap();
        let payload = Payload::text(6);
        origin.put(
            "/made",
            Content::Generated {
                payload,
                length: 300_000,
            },
        );
        origin.put("/given", Content::Bytes(payload.bytes(0, 300_000).into()));
        for path in ["/made", "/given"] {
            for range in [0..300_000_u64, 0..1, 299_999..300_000, 1000..200_000] {
                let mut checker = Checker::new(payload, range.end).starting_at(range.start);
                let request = fetch::Request::get(path).range(range);
                fetch::fetch(origin.address(), &request, |chunk| {
                    checker.feed(chunk).unwrap()
                })
                .await
                .unwrap();
                checker.finish().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_path_is_a_404() {
        let origin = HttpOrigin::start().unwrap();
        let error = fetch::fetch(origin.address(), &fetch::Request::get("/none"), |_| {})
            .await
            .unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }

    #[tokio::test]
    async fn an_upload_is_answered_with_its_length_and_hash() {
        let origin = HttpOrigin::start().unwrap();
        let body = Bytes::from(Payload::random(3).bytes(0, 1 << 20));
        let uploaded = fetch::upload(origin.address(), "/up", &body).await.unwrap();
        assert_eq!(uploaded, fetch::Uploaded::of(&body));
    }

    #[test]
    fn ranges_are_cut_to_the_length_and_empty_ones_refused() {
        assert_eq!(parse_range("bytes=0-0", 10), Some(0..1));
        assert_eq!(parse_range("bytes=3-", 10), Some(3..10));
        assert_eq!(parse_range("bytes=3-99", 10), Some(3..10));
        assert_eq!(parse_range("bytes=-4", 10), Some(6..10));
        for none in [
            "bytes=10-",
            "bytes=5-4",
            "bytes=",
            "bytes=x-",
            "lines=1-2",
            "bytes=-0",
        ] {
            assert_eq!(parse_range(none, 10), None, "{none}");
        }
    }
}
