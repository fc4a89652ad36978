//! An emulated line between two programs, at the level of TCP connections, without root.
//!
//! A [`Line`] listens on a loopback port and carries every connection to one target, with a rate shared by all
//! connections of a direction, a delay, a bounded queue, half-close and resets; it can be cut, blocked and restored.
//!
//! What it is not: it relays bytes between two TCP connections on the loopback interface, so it shows no packet loss,
//! no reordering and no congestion control, and slow start does not exist on it. It is enough to see what delay, rate
//! and outages do to a program and how many bytes a transfer costs. It is never quoted as the performance of a real
//! line.

mod carry;
mod gate;
mod shaper;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use carry::Direction;
use gate::Gate;
use shaper::Shaper;

/// Connections carried at once; more wait in the kernel's accept queue. Bounds the memory together with the window of
/// a connection.
const MAX_CONNECTIONS: usize = 4096;

/// Length of the kernel's accept queue: a storm of a thousand connections must not be refused.
const ACCEPT_QUEUE: u32 = 4096;

/// Pause after an accept that failed, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Smallest receive buffer asked of the kernel, in bytes; below, loopback's 64 KiB segments do not fit.
const MIN_KERNEL_BUFFER_BYTES: usize = 128 * 1024;

/// What the line is like; the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineConfig {
    /// Bits per second of each direction; `None` means as fast as the machine.
    pub rate_bits_per_s: Option<u64>,
    /// Time from one end to the other.
    pub delay: Duration,
    /// Bytes of each direction that may wait in front of the bottleneck; then the senders are held back. No effect
    /// without a rate.
    pub queue_bytes: usize,
}

impl LineConfig {
    /// A line that only counts, and can be cut.
    #[must_use]
    pub const fn unshaped() -> Self {
        Self {
            rate_bits_per_s: None,
            delay: Duration::ZERO,
            queue_bytes: 0,
        }
    }

    /// A line with a queue of one bandwidth-delay product (rate times both delays), at least 64 KiB.
    #[must_use]
    pub fn shaped(rate_bits_per_s: u64, delay: Duration) -> Self {
        let product = u128::from(rate_bits_per_s) / 8 * delay.as_nanos() * 2 / 1_000_000_000;
        let queue_bytes = usize::try_from(product)
            .unwrap_or(usize::MAX)
            .clamp(64 * 1024, 64 * 1024 * 1024);
        Self {
            rate_bits_per_s: Some(rate_bits_per_s),
            delay,
            queue_bytes,
        }
    }

    /// Bytes of one connection and direction that may be under way: the queue and what the delay holds.
    fn window_bytes(&self) -> usize {
        let rate_bytes = self.rate_bits_per_s.unwrap_or(8_000_000_000) / 8;
        let held = u128::from(rate_bytes) * self.delay.as_nanos() / 1_000_000_000;
        let held = usize::try_from(held)
            .unwrap_or(usize::MAX)
            .min(256 * 1024 * 1024);
        (self.queue_bytes.saturating_add(held)).max(256 * 1024)
    }
}

/// Bytes that were put on the line (payload of the TCP connections, without headers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineBytes {
    /// From the connecting side to the target.
    pub to_target: u64,
    /// From the target to the connecting side.
    pub from_target: u64,
}

impl LineBytes {
    /// Both directions together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.to_target + self.from_target
    }

    /// What was sent since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            to_target: self.to_target.saturating_sub(earlier.to_target),
            from_target: self.from_target.saturating_sub(earlier.from_target),
        }
    }
}

/// A running line; ends with its connections when dropped.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: RwLock<SocketAddr>,
    config: LineConfig,
    to_target: Direction,
    from_target: Direction,
    gate: Gate,
    accepted: AtomicU64,
    open: AtomicU64,
}

impl Line {
    /// Listens on a free loopback port and carries each connection to `target`.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(target: SocketAddr, config: LineConfig) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(kernel_buffer_bytes(&config))?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(ACCEPT_QUEUE)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: RwLock::new(target),
            config,
            to_target: Direction::new(Shaper::new(&config)),
            from_target: Direction::new(Shaper::new(&config)),
            gate: Gate::new(),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let accept = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accept,
        })
    }

    /// Where to connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes put on the line since it started.
    #[must_use]
    pub fn bytes(&self) -> LineBytes {
        LineBytes {
            to_target: self.shared.to_target.sent_bytes(),
            from_target: self.shared.from_target.sent_bytes(),
        }
    }

    /// Connections accepted since it started, and those open now.
    #[must_use]
    pub fn connections(&self) -> (u64, u64) {
        (
            self.shared.accepted.load(Ordering::Relaxed),
            self.shared.open.load(Ordering::Relaxed),
        )
    }

    /// Carries new connections to another target.
    pub fn retarget(&self, target: SocketAddr) {
        *self
            .shared
            .target
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = target;
    }

    /// Kills all connections: both ends get a reset. New ones are carried.
    pub fn cut(&self) {
        self.shared.gate.cut();
    }

    /// A black hole: nothing is delivered and nobody is told, until [`restore`](Self::restore). New connections seem
    /// to work, and stay silent.
    pub fn block(&self) {
        self.shared.gate.set_blocked(true);
    }

    /// Ends [`block`](Self::block): what was held back is delivered.
    pub fn restore(&self) {
        self.shared.gate.set_blocked(false);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

/// Small kernel buffers, so that bytes wait in the line's own queue and not in a second one before it.
fn kernel_buffer_bytes(config: &LineConfig) -> u32 {
    let bytes = match config.rate_bits_per_s {
        Some(_) => config
            .queue_bytes
            .clamp(MIN_KERNEL_BUFFER_BYTES, 1024 * 1024),
        None => 1024 * 1024,
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((connection, _)) = listener.accept().await else {
            // A connection that was gone before it was taken, or no descriptor is left: the next one may do.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        // Taken here, so that a cut just after the accept kills this connection too.
        let cut = shared.gate.watch();
        tokio::spawn(async move {
            shared.open.fetch_add(1, Ordering::Relaxed);
            carry::carry(connection, &shared, cut).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::origin;

    #[tokio::test]
    async fn carries_both_ways_half_closes_and_counts() {
        let sink = origin::sink().unwrap();
        let line = Line::start(sink.address(), LineConfig::unshaped()).unwrap();
        let mut connection = TcpStream::connect(line.address()).await.unwrap();
        connection.write_all(&[1; 100_000]).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("100000 "), "{answer}");
        assert_eq!(
            line.bytes(),
            LineBytes {
                to_target: 100_000,
                from_target: answer.len() as u64
            }
        );
        assert_eq!(line.connections().0, 1);
    }

    #[tokio::test]
    async fn a_reset_travels_in_both_directions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Line::start(listener.local_addr().unwrap(), LineConfig::unshaped()).unwrap();
        for near_resets in [true, false] {
            let near = TcpStream::connect(line.address()).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            let (resetting, mut other) = if near_resets {
                (near, far)
            } else {
                (far, near)
            };
            resetting.set_zero_linger().unwrap();
            drop(resetting);
            let error = other.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_carries_what_comes_later() {
        let echo = origin::echo().unwrap();
        let line = Line::start(echo.address(), LineConfig::unshaped()).unwrap();
        let mut before = TcpStream::connect(line.address()).await.unwrap();
        before.write_all(b"x").await.unwrap();
        before.read_u8().await.unwrap();
        line.cut();
        assert_eq!(
            before.read(&mut [0; 1]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        let mut after = TcpStream::connect(line.address()).await.unwrap();
        after.write_all(b"y").await.unwrap();
        assert_eq!(after.read_u8().await.unwrap(), b'y');
    }

    #[tokio::test]
    async fn a_target_that_refuses_resets_the_connection() {
        // Bound and not listening: nobody answers there, and nobody else gets the port.
        let nobody = TcpSocket::new_v4().unwrap();
        nobody.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let line = Line::start(nobody.local_addr().unwrap(), LineConfig::unshaped()).unwrap();
        let mut connection = TcpStream::connect(line.address()).await.unwrap();
        assert!(connection.read(&mut [0; 1]).await.is_err());
    }
}
