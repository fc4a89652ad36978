//! Bulk and interactive connections side by side: who gets how much of a line, and how long a byte takes there and back meanwhile.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::origin::Server;
use crate::packets::Place;
use crate::pair::EdgeProcess;
use crate::payload::Payload;

/// Bytes read or written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Most connections of one origin whose bytes are counted apart.
const CONNECTIONS_MAX: usize = 1024;

/// A ping that was not answered for so long never will be.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that arrived, for each connection in the order of its number.
#[derive(Debug, Clone)]
pub struct Arrived(Arc<Vec<AtomicU64>>);

impl Default for Arrived {
    fn default() -> Self {
        Self(Arc::new(
            (0..CONNECTIONS_MAX).map(|_| AtomicU64::new(0)).collect(),
        ))
    }
}

impl Arrived {
    fn add(&self, connection: usize, bytes: usize) {
        if let Some(counter) = self.0.get(connection) {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// What the first `count` connections have got so far.
    #[must_use]
    pub fn snapshot(&self, count: usize) -> Vec<u64> {
        let counters = self.0.iter().take(count);
        counters
            .map(|bytes| bytes.load(Ordering::Relaxed))
            .collect()
    }
}

/// The way that the bytes of a bulk connection go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client edge to the server edge.
    Up,
    /// From the server edge to the client edge.
    Down,
}

/// An origin for [`Bulk`]: it counts what comes, or sends random bytes for ever, as each connection's first byte says.
///
/// # Errors
/// When no socket can be had.
pub fn bulk_origin(place: &Place, arrived: Arrived) -> Result<Server> {
    Server::start_in(place, move |mut connection: TcpStream| {
        let arrived = arrived.clone();
        async move {
            let way = connection.read_u8().await?;
            let number = usize::from(connection.read_u16().await?);
            if way == 0 {
                receive(&mut connection, &arrived, number).await
            } else {
                send(&mut connection, 1_000_000 + number as u64).await
            }
        }
    })
}

/// Sends every byte back, at once.
///
/// # Errors
/// When no socket can be had.
pub fn echo_origin(place: &Place) -> Result<Server> {
    Server::start_in(place, |mut connection: TcpStream| async move {
        let (mut reader, mut writer) = connection.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        Ok(())
    })
}

/// Connections that send or receive as fast as they may, until dropped.
#[derive(Debug)]
pub struct Bulk {
    _tasks: JoinSet<io::Result<()>>,
    arrived: Arrived,
}

impl Bulk {
    /// Opens `count` connections to the listener `service` of `client`, which leads to a [`bulk_origin`] with `arrived` counted at it.
    ///
    /// # Errors
    /// When a connection is refused.
    pub async fn start(
        client: &EdgeProcess,
        service: &str,
        way: Way,
        numbers: std::ops::Range<u16>,
        at_origin: &Arrived,
    ) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let arrived = match way {
            Way::Up => at_origin.clone(),
            Way::Down => Arrived::default(),
        };
        for number in numbers {
            let mut connection = client.connect(service)?;
            connection.write_u8(u8::from(way == Way::Down)).await?;
            connection.write_u16(number).await?;
            let arrived = arrived.clone();
            tasks.spawn(async move {
                match way {
                    Way::Up => send(&mut connection, u64::from(number)).await,
                    Way::Down => receive(&mut connection, &arrived, usize::from(number)).await,
                }
            });
        }
        Ok(Self {
            _tasks: tasks,
            arrived,
        })
    }

    /// What has arrived at the far end of each way.
    #[must_use]
    pub fn arrived(&self) -> &Arrived {
        &self.arrived
    }
}

async fn send(connection: &mut TcpStream, seed: u64) -> io::Result<()> {
    let payload = Payload::random(seed);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        payload.fill(offset, &mut buffer);
        connection.write_all(&buffer).await?;
        offset += buffer.len() as u64;
    }
}

async fn receive(connection: &mut TcpStream, arrived: &Arrived, number: usize) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = connection.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        arrived.add(number, count);
    }
}

/// One byte there and back, again and again, on a thread of its own.
#[derive(Debug)]
pub struct PingPong {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Vec<Duration>>>>,
}

impl PingPong {
    /// Pings over a connection to the listener `service` of `client`, with `pause` between an answer and the next ping.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn start(client: &EdgeProcess, service: &str, pause: Duration) -> Result<Self> {
        let connection = client.connect(service)?.into_std()?;
        connection.set_nonblocking(false)?;
        connection.set_read_timeout(Some(PING_TIMEOUT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || ping(connection, pause, &stopped));
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it. The round trips, sorted.
    ///
    /// # Errors
    /// When the connection broke or a ping was not answered.
    pub fn finish(mut self) -> Result<RoundTrips> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        let mut sorted = thread
            .join()
            .map_err(|_panic| anyhow!("the pinging thread panicked"))??;
        sorted.sort_unstable();
        Ok(RoundTrips { sorted })
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ping(
    mut connection: std::net::TcpStream,
    pause: Duration,
    stop: &AtomicBool,
) -> io::Result<Vec<Duration>> {
    let mut round_trips = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        connection.write_all(b"!")?;
        connection.read_exact(&mut [0])?;
        round_trips.push(start.elapsed());
        thread::sleep(pause);
    }
    Ok(round_trips)
}

/// Measured round trips.
#[derive(Debug, Clone)]
pub struct RoundTrips {
    sorted: Vec<Duration>,
}

impl RoundTrips {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// So many of a thousand are not longer; zero when there are none.
    #[must_use]
    pub fn permille(&self, permille: usize) -> Duration {
        let index = (self.sorted.len() * permille / 1000).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(index).copied().unwrap_or_default()
    }
}

/// Accepts and reads nothing.
///
/// # Errors
/// When no socket can be had.
pub fn stalled_origin(place: &Place) -> Result<Server> {
    Server::start_in(place, |connection: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(connection);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permille_is_the_value_at_its_place() {
        let trips = RoundTrips {
            sorted: (0..1000).map(Duration::from_millis).collect(),
        };
        assert_eq!(trips.permille(500), Duration::from_millis(500));
        assert_eq!(trips.permille(990), Duration::from_millis(990));
        assert_eq!(trips.permille(1000), Duration::from_millis(999));
        let none = RoundTrips { sorted: Vec::new() };
        assert_eq!(none.permille(500), Duration::ZERO);
    }
}
