//! Connections that are opened, used for one byte each way and closed, by many at a time.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::open;
use crate::bench::exchange::Purpose;

/// Connections at a time.
const AT_ONCE: usize = 64;

/// One that is not done by then never will be.
const STALL: Duration = Duration::from_secs(30);

/// Connections a second over `time`.
pub(in crate::bench) async fn short_connections(
    entrance: SocketAddr,
    time: Duration,
) -> io::Result<f64> {
    let begin = Instant::now();
    let mut playing = JoinSet::new();
    for _ in 0..AT_ONCE {
        playing.spawn(async move {
            let mut count = 0_u32;
            // One at least, whatever kept this from its beginning.
            while count == 0 || begin.elapsed() < time {
                timeout(STALL, one(entrance)).await??;
                count += 1;
            }
            Ok::<_, io::Error>(count)
        });
    }
    let mut count = 0;
    while let Some(played) = playing.join_next().await {
        count += played.map_err(io::Error::other)??;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

async fn one(entrance: SocketAddr) -> io::Result<()> {
    let mut connection = open(entrance, Purpose::Short, 0).await?;
    let mut answer = [0; 2];
    let mut length = 0;
    // The origin closes first, as a server that answers one request does.
    loop {
        match connection.read(&mut answer).await? {
            0 if length == 1 => return Ok(()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
}
