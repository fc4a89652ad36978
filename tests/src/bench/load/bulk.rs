//! One large transfer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::open;
use crate::bench::exchange::{Exchange, Load, Purpose};

/// Seen from the branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Direction {
    Up,
    Down,
}

/// How far a transfer came.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Bulk {
    pub(in crate::bench) bytes: u64,
    pub(in crate::bench) seconds: f64,
    pub(in crate::bench) is_whole: bool,
}

impl Bulk {
    pub(in crate::bench) fn megabytes_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }
}

/// Moves `load` on a connection of its own, from the connect to the moment at which the receiver has the last byte. What is not whole after `limit`
/// counts as far as it came.
pub(in crate::bench) async fn bulk(
    exchange: Arc<Exchange>,
    entrance: SocketAddr,
    direction: Direction,
    load: Load,
    limit: Duration,
) -> io::Result<Bulk> {
    let length = load.length();
    let ticket = exchange.offer(load.clone());
    let count = Arc::clone(&ticket.count);
    let begin = Instant::now();
    let transfer = async {
        match direction {
            Direction::Up => {
                let mut connection = open(entrance, Purpose::Up, ticket.number).await?;
                load.send(&mut connection).await?;
                ticket.done.await.map_err(io::Error::other)?
            }
            Direction::Down => {
                let mut connection = open(entrance, Purpose::Down, ticket.number).await?;
                load.receive(&mut connection, &ticket.count).await?;
                Ok(Instant::now())
            }
        }
    };
    let end = match timeout(limit, transfer).await {
        Ok(end) => Some(end?),
        Err(_) => None,
    };
    Ok(Bulk {
        bytes: end.map_or_else(|| count.load(Ordering::Relaxed), |_| length),
        seconds: end
            .map_or_else(|| begin.elapsed(), |end| end - begin)
            .as_secs_f64(),
        is_whole: end.is_some(),
    })
}
