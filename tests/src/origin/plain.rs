//! Servers without a protocol: echo, sink, source, discard.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xxhash_rust::xxh3::Xxh3;

use super::Server;
use crate::payload::Payload;

/// Bytes read or made at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Sends everything back, and ends its side when the client has ended its own.
///
/// # Errors
/// When no socket can be had; the same for the others below.
pub fn echo() -> io::Result<Server> {
    Server::start(|mut connection: TcpStream| async move {
        let (mut reader, mut writer) = connection.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        writer.shutdown().await
    })
}

/// Reads to the end, and only then answers with the length and the xxh3-64 of what came: `"1234 0123456789abcdef\n"`.
/// So an answer proves that the client's half-close arrived, after all its bytes, while the way back stayed open.
///
/// # Errors
/// When no socket can be had.
pub fn sink() -> io::Result<Server> {
    Server::start(|mut connection: TcpStream| async move {
        let mut hash = Xxh3::new();
        let mut length = 0_u64;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = connection.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            length += count as u64;
        }
        connection
            .write_all(format!("{length} {:016x}\n", hash.digest()).as_bytes())
            .await?;
        connection.shutdown().await
    })
}

/// Sends the first `length` bytes of `payload`, ends its side, and then reads to the client's end.
///
/// # Errors
/// When no socket can be had.
pub fn source(payload: Payload, length: u64) -> io::Result<Server> {
    Server::start(move |mut connection: TcpStream| async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        while offset < length {
            let count = usize::try_from(length - offset)
                .unwrap_or(CHUNK_BYTES)
                .min(CHUNK_BYTES);
            payload.fill(offset, &mut buffer[..count]);
            connection.write_all(&buffer[..count]).await?;
            offset += count as u64;
        }
        connection.shutdown().await?;
        drain(&mut connection, &mut buffer).await
    })
}

/// Reads to the client's end and says nothing.
///
/// # Errors
/// When no socket can be had.
pub fn discard() -> io::Result<Server> {
    Server::start(|mut connection: TcpStream| async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        drain(&mut connection, &mut buffer).await
    })
}

async fn drain(connection: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    while connection.read(buffer).await? != 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::payload::Checker;

    #[tokio::test]
    async fn echo_returns_what_came_and_the_end() {
        let server = echo().unwrap();
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        connection.write_all(b"there and back").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut back = Vec::new();
        connection.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"there and back");
    }

    #[tokio::test]
    async fn sink_answers_after_the_end_with_length_and_hash() {
        let server = sink().unwrap();
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let bytes = Payload::random(1).bytes(0, 100_000);
        connection.write_all(&bytes).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert_eq!(
            answer,
            format!("100000 {:016x}\n", xxhash_rust::xxh3::xxh3_64(&bytes))
        );
    }

    #[tokio::test]
    async fn source_sends_its_payload_and_then_the_end() {
        let payload = Payload::text(4);
        let server = source(payload, 200_000).unwrap();
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let mut all = Vec::new();
        connection.read_to_end(&mut all).await.unwrap();
        let mut checker = Checker::new(payload, 200_000);
        checker.feed(&all).unwrap();
        checker.finish().unwrap();
    }

    #[tokio::test]
    async fn dropping_a_server_ends_its_connections() {
        let server = discard().unwrap();
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        connection.write_all(b"x").await.unwrap();
        drop(server);
        let ended = connection.read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}
