//! A payload that is sent to an echo and comes back.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Checker, Payload};

/// Bytes of one write: more than a block, and not a multiple of one.
const WRITE_BYTES: usize = 100_000;

/// Bytes asked for by one read.
const READ_BYTES: usize = 64 * 1024;

/// Sends `length` bytes of `payload` through `connection`, whose other end sends them back and then ends, and checks every byte of it.
///
/// # Errors
/// A byte is wrong, one is missing or too many, the connection fails, or nothing comes for `limit`; the message names the offset.
pub async fn there_and_back(
    connection: TcpStream,
    payload: Payload,
    length: u64,
    limit: Duration,
) -> Result<()> {
    let (mut reader, mut writer) = connection.into_split();
    let sending = tokio::spawn(async move {
        for offset in (0..length).step_by(WRITE_BYTES) {
            let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let bytes = payload.bytes(offset, left.min(WRITE_BYTES));
            writer
                .write_all(&bytes)
                .await
                .with_context(|| format!("cannot send at offset {offset}"))?;
        }
        writer.shutdown().await.context("cannot end sending")
    });
    let mut checker = Checker::new(payload, length);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let offset = checker.offset();
        let read = timeout(limit, reader.read(&mut buffer)).await;
        let count = read
            .with_context(|| format!("stalled at offset {offset}"))?
            .with_context(|| format!("cannot receive at offset {offset}"))?;
        match buffer.get(..count) {
            Some(bytes) if !bytes.is_empty() => checker.feed(bytes)?,
            _ => break,
        }
    }
    checker.finish()?;
    sending.await?
}
