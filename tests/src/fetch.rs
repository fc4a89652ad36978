//! A small HTTP/1.1 client: one request a connection, the body handed over as it comes.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::origin::read_head;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Longest answer kept as text, in bytes; a status or metrics page is far smaller.
const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Request {
    path: String,
    range: Option<Range<u64>>,
}

impl Request {
    /// The whole of `path`.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            range: None,
        }
    }

    /// Only these bytes of it.
    #[must_use]
    pub fn range(mut self, range: Range<u64>) -> Self {
        self.range = Some(range);
        self
    }
}

/// What an origin says about an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// Length of the body in bytes.
    pub length: u64,
    /// xxh3-64 of the body in hex.
    pub xxh3: String,
}

impl Uploaded {
    /// What an origin must say about `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self {
            length: body.len() as u64,
            xxh3: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(body)),
        }
    }
}

/// Connects to `address`, asks, and hands the body's chunks to `on_chunk`. Returns the body's length in bytes.
///
/// # Errors
/// Whatever the connection gives, an answer that is not 200 or 206 (its status is in the message), a body that ends
/// early.
pub async fn fetch(
    address: SocketAddr,
    request: &Request,
    on_chunk: impl FnMut(&[u8]),
) -> io::Result<u64> {
    fetch_over(&mut connect(address).await?, request, on_chunk).await
}

/// Like [`fetch`], over a connection that is there already.
///
/// # Errors
/// As [`fetch`].
pub async fn fetch_over(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &Request,
    on_chunk: impl FnMut(&[u8]),
) -> io::Result<u64> {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n",
        request.path
    );
    if let Some(range) = &request.range {
        text += &format!(
            "Range: bytes={}-{}\r\n",
            range.start,
            range.end.saturating_sub(1)
        );
    }
    text += "\r\n";
    connection.write_all(text.as_bytes()).await?;
    let (status, length) = read_answer(connection, on_chunk).await?;
    if status == 200 || status == 206 {
        Ok(length)
    } else {
        Err(refused(status))
    }
}

/// The status and the text of `path`, whatever the status.
///
/// # Errors
/// Whatever the connection gives, or an answer that is no text.
pub async fn text(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    text_over(&mut connect(address).await?, &address.to_string(), path).await
}

/// Like [`text`], over a connection that is there already; `host` is what it calls the server.
///
/// # Errors
/// As [`text`].
pub async fn text_over(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    path: &str,
) -> io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut body = Vec::new();
    let (status, _) = read_answer(connection, |chunk| {
        let room = MAX_TEXT_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    })
    .await?;
    let body = String::from_utf8(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((status, body))
}

/// Uploads `body` with PUT and returns what the origin says about it.
///
/// # Errors
/// Whatever the connection gives, or an answer that is not the expected one.
pub async fn upload(address: SocketAddr, path: &str, body: &Bytes) -> io::Result<Uploaded> {
    let mut connection = connect(address).await?;
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: origin\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(request.as_bytes()).await?;
    connection.write_all(body).await?;
    let mut answer = Vec::new();
    let (status, _) = read_answer(&mut connection, |chunk| answer.extend_from_slice(chunk)).await?;
    if status != 200 {
        return Err(refused(status));
    }
    serde_json::from_slice(&answer).map_err(io::Error::from)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

fn refused(status: u16) -> io::Error {
    io::Error::other(format!("the server answered with status {status}"))
}

/// Reads one answer: its status, and its body up to Content-Length or, without one, to the end.
async fn read_answer(
    connection: &mut (impl AsyncRead + Unpin),
    mut on_chunk: impl FnMut(&[u8]),
) -> io::Result<(u16, u64)> {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    let head = read_head(connection, &mut buffer)
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.words().nth(1).and_then(|word| word.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))?;
    let length = head.content_length()?;
    let mut received = 0;
    loop {
        let wanted = length.map_or(usize::MAX, |length| {
            usize::try_from(length - received).unwrap_or(usize::MAX)
        });
        let count = buffer.len().min(wanted);
        if count > 0 {
            on_chunk(&buffer[..count]);
            received += count as u64;
            buffer.clear();
        }
        if length == Some(received) {
            return Ok((status, received));
        }
        buffer.reserve(CHUNK_BYTES);
        if connection.read_buf(&mut buffer).await? == 0 {
            return if length.is_none() {
                Ok((status, received))
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
    }
}
