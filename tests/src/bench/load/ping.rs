//! Small messages to and fro, one at a time.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::open;
use crate::bench::exchange::{CHUNK_BYTES, Purpose};

/// Bytes of a message and of its answer.
const MESSAGE_BYTES: usize = 64;

/// Not measured: the first answers pay for what others do not.
const WARM_UP: usize = 8;

/// The first part of a transfer beside which messages are measured is its start.
const FLOOD_START: Duration = Duration::from_millis(1500);

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Pings {
    /// Connections that exchange messages at the same time.
    pub(in crate::bench) connections: usize,
    /// Ends each of them.
    pub(in crate::bench) time: Duration,
    /// Whether something is downloaded beside them.
    pub(in crate::bench) beside_flood: bool,
}

/// Round trips in milliseconds: the middle one, and the one that 99 of 100 do not exceed.
pub(in crate::bench) async fn ping(
    entrance: SocketAddr,
    pings: Pings,
    flood: u64,
) -> io::Result<(f64, f64)> {
    let mut background = JoinSet::new();
    if pings.beside_flood {
        let connection = open(entrance, Purpose::Flood, flood).await?;
        background.spawn(swallow(connection));
        tokio::time::sleep(FLOOD_START).await;
    }
    let mut playing = JoinSet::new();
    for _ in 0..pings.connections {
        playing.spawn(one(entrance, pings.time));
    }
    let mut times = Vec::new();
    while let Some(played) = playing.join_next().await {
        times.extend(played.map_err(io::Error::other)??);
    }
    if let Some(ended) = background.try_join_next() {
        let reason = ended.map_err(io::Error::other)?;
        return Err(io::Error::other(format!(
            "the transfer beside it ended: {reason:?}"
        )));
    }
    times.sort_unstable();
    Ok((part(&times, 0.5), part(&times, 0.99)))
}

async fn one(entrance: SocketAddr, time: Duration) -> io::Result<Vec<Duration>> {
    let mut connection = open(entrance, Purpose::Echo, 0).await?;
    let mut message = [0; MESSAGE_BYTES];
    for _ in 0..WARM_UP {
        exchange(&mut connection, &mut message).await?;
    }
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || begin.elapsed() < time {
        let sent = Instant::now();
        exchange(&mut connection, &mut message).await?;
        times.push(sent.elapsed());
    }
    Ok(times)
}

async fn exchange(connection: &mut TcpStream, message: &mut [u8]) -> io::Result<()> {
    connection.write_all(message).await?;
    connection.read_exact(message).await.map(drop)
}

async fn swallow(mut connection: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while connection.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// That part of the sorted times, in milliseconds.
fn part(times: &[Duration], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    let place = (times.len() as f64 * part) as usize;
    let time = times.get(place.min(times.len().saturating_sub(1)));
    time.copied().unwrap_or_default().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_times() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert!((part(&times, 0.5) - 51.0).abs() < 1e-9);
        assert!((part(&times, 0.99) - 100.0).abs() < 1e-9);
        assert!((part(&times[..1], 0.99) - 1.0).abs() < 1e-9);
    }
}
