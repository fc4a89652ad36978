//! One connection over the line: two pumps, each a reader and a writer with a timed queue between them.

use std::io;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::gate::GateWatch;
use super::shaper::Shaper;

/// One direction of the line: its bottleneck, which all connections share, and what went over it.
#[derive(Debug)]
pub(super) struct Direction {
    shaper: Mutex<Shaper>,
    chunk_bytes: usize,
    sent_bytes: AtomicU64,
}

impl Direction {
    pub(super) fn new(shaper: Shaper) -> Self {
        let chunk_bytes = shaper.chunk_bytes();
        Self {
            shaper: Mutex::new(shaper),
            chunk_bytes,
            sent_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Waits for room in the queue, in the order of the calls, and returns when the bytes arrive.
    async fn send(&self, bytes: usize) -> Instant {
        let mut shaper = self.shaper.lock().await;
        while let Some(room) = shaper.room_at(Instant::now()) {
            sleep_until(room).await;
        }
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        shaper.send(Instant::now(), bytes)
    }
}

/// The connection was reset by one of its ends, or an end is gone.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// What travels, with the time of its arrival.
enum Travelling {
    Bytes(Instant, Bytes),
    End(Instant),
    Reset(Instant),
}

/// Carries `near` until both directions have ended, one end resets it, or the line is cut.
pub(super) async fn carry(mut near: TcpStream, shared: &Shared, gate: GateWatch) {
    let mut cut = gate.clone();
    let mut far = None;
    let ended = tokio::select! {
        biased;
        () = cut.cut() => Err(Broken),
        ended = both_ways(&mut near, &mut far, shared, gate) => ended,
    };
    if ended.is_err() {
        // Closing with a linger of zero sends a reset. It can only fail where the connection is gone already.
        for connection in std::iter::once(&near).chain(far.as_ref()) {
            let _gone = connection.set_zero_linger();
        }
    }
}

async fn both_ways(
    near: &mut TcpStream,
    far: &mut Option<TcpStream>,
    shared: &Shared,
    mut gate: GateWatch,
) -> Result<(), Broken> {
    let delay = shared.config.delay;
    let window_bytes = shared.config.window_bytes();
    let target = *shared.target.read().unwrap_or_else(PoisonError::into_inner);
    // The kernel has answered the caller already; here the handshake takes its round trip.
    gate.open().await;
    sleep(delay).await;
    let Ok(connection) = connect(target, super::kernel_buffer_bytes(&shared.config)).await else {
        sleep(delay).await;
        return Err(Broken);
    };
    let far = far.insert(connection);
    let _gone = near.set_nodelay(true);
    let _gone = far.set_nodelay(true);
    let (near_reader, near_writer) = near.split();
    let (far_reader, far_writer) = far.split();
    let (near_broken, far_broken) = (AtomicBool::new(false), AtomicBool::new(false));
    let to_target = async {
        sleep(delay).await;
        pump(
            (near_reader, &near_broken),
            (far_writer, &far_broken),
            &shared.to_target,
            gate.clone(),
            delay,
            window_bytes,
        )
        .await
    };
    let from_target = pump(
        (far_reader, &far_broken),
        (near_writer, &near_broken),
        &shared.from_target,
        gate.clone(),
        delay,
        window_bytes,
    );
    tokio::try_join!(to_target, from_target).map(|_| ())
}

async fn connect(target: SocketAddr, receive_buffer_bytes: u32) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_recv_buffer_size(receive_buffer_bytes)?;
    socket.connect(target).await
}

/// Moves the bytes of one direction, then its end. At most `window_bytes` are under way.
///
/// Beside each socket stands whether writing to it has failed. The kernel reports an error once, to whoever comes first; what the other sees
/// as an end after that is none.
async fn pump(
    (reader, reader_broken): (impl AsyncRead + Unpin, &AtomicBool),
    (writer, writer_broken): (impl AsyncWrite + Unpin, &AtomicBool),
    direction: &Direction,
    gate: GateWatch,
    delay: Duration,
    window_bytes: usize,
) -> Result<(), Broken> {
    let window = Semaphore::new(window_bytes.min(Semaphore::MAX_PERMITS));
    let (sender, receiver) = mpsc::unbounded_channel();
    let reading = read_side(
        reader,
        sender,
        direction,
        gate.clone(),
        &window,
        reader_broken,
    );
    let writing = write_side(writer, receiver, gate, &window, delay, writer_broken);
    // A broken destination ends the reading too: nobody will take what is read.
    tokio::try_join!(
        async {
            reading.await;
            Ok(())
        },
        writing
    )
    .map(|_| ())
}

async fn read_side(
    mut reader: impl AsyncRead + Unpin,
    sender: mpsc::UnboundedSender<Travelling>,
    direction: &Direction,
    mut gate: GateWatch,
    window: &Semaphore,
    broken: &AtomicBool,
) {
    let chunk_bytes = direction.chunk_bytes;
    let permits = u32::try_from(chunk_bytes).unwrap_or(u32::MAX);
    let mut buffer = BytesMut::new();
    loop {
        let Ok(permit) = window.acquire_many(permits).await else {
            return;
        };
        buffer.reserve(chunk_bytes);
        let read = (&mut reader)
            .take(chunk_bytes as u64)
            .read_buf(&mut buffer)
            .await;
        gate.open().await;
        let travelling = match read {
            Ok(0) if broken.load(Ordering::Relaxed) => Travelling::Reset(direction.send(0).await),
            Ok(0) => Travelling::End(direction.send(0).await),
            Ok(count) => {
                permit.forget();
                window.add_permits(chunk_bytes - count);
                Travelling::Bytes(direction.send(count).await, buffer.split().freeze())
            }
            Err(_) => Travelling::Reset(direction.send(0).await),
        };
        let last = !matches!(travelling, Travelling::Bytes(..));
        if sender.send(travelling).is_err() || last {
            return;
        }
    }
}

async fn write_side(
    mut writer: impl AsyncWrite + Unpin,
    mut receiver: mpsc::UnboundedReceiver<Travelling>,
    mut gate: GateWatch,
    window: &Semaphore,
    delay: Duration,
    broken: &AtomicBool,
) -> Result<(), Broken> {
    while let Some(travelling) = receiver.recv().await {
        let (Travelling::Bytes(at, _) | Travelling::End(at) | Travelling::Reset(at)) = &travelling;
        if *at > Instant::now() {
            sleep_until(*at).await;
        }
        gate.open().await;
        let written = match travelling {
            Travelling::Bytes(_, bytes) => {
                let written = writer.write_all(&bytes).await;
                window.add_permits(bytes.len());
                written
            }
            Travelling::End(_) => return writer.shutdown().await.map_err(|_| Broken),
            Travelling::Reset(_) => return Err(Broken),
        };
        if written.is_err() {
            broken.store(true, Ordering::Relaxed);
            // The news that this end is gone travels back to the other.
            sleep(delay).await;
            return Err(Broken);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::LineConfig;
    use super::super::gate::Gate;
    use super::*;
    use crate::payload::{Checker, Payload};

    fn slow() -> LineConfig {
        LineConfig {
            rate_bits_per_s: Some(8_000_000),
            delay: Duration::from_millis(40),
            queue_bytes: 100_000,
        }
    }

    /// Two duplex pipes with a pump between them, on virtual time: bytes written to the first come out of the second.
    fn pumped(
        config: LineConfig,
        gate: &Gate,
    ) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (near, inner_near) = tokio::io::duplex(4096);
        let (inner_far, far) = tokio::io::duplex(4096);
        let gate = gate.watch();
        tokio::spawn(async move {
            let direction = Direction::new(Shaper::new(&config));
            pump(
                (inner_near, &AtomicBool::new(false)),
                (inner_far, &AtomicBool::new(false)),
                &direction,
                gate,
                config.delay,
                config.window_bytes(),
            )
            .await
        });
        (near, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_arrives_after_its_send_time_and_the_delay() {
        let gate = Gate::new();
        let (mut near, mut far) = pumped(slow(), &gate);
        let began = Instant::now();
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        // One byte at 1 MB/s is a microsecond; the timer rounds up to whole milliseconds.
        assert_eq!(began.elapsed().as_millis(), 41);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_takes_its_bytes_over_the_rate_plus_the_delay() {
        let gate = Gate::new();
        let (mut near, mut far) = pumped(slow(), &gate);
        let payload = Payload::random(1);
        let began = Instant::now();
        tokio::spawn(async move { near.write_all(&payload.bytes(0, 3_000_000)).await });
        let mut checker = Checker::new(payload, 3_000_000);
        let mut buffer = vec![0; 10_000];
        loop {
            let count = far.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            checker.feed(&buffer[..count]).unwrap();
        }
        checker.finish().unwrap();
        let elapsed_ms = began.elapsed().as_millis();
        assert!(
            (3040..=3045).contains(&elapsed_ms),
            "{elapsed_ms} ms of virtual time"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_arrives_after_the_bytes_before_it() {
        let gate = Gate::new();
        let (mut near, mut far) = pumped(slow(), &gate);
        near.write_all(&[7; 3000]).await.unwrap();
        near.shutdown().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [7; 3000]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_while_blocked_and_all_of_it_afterwards() {
        let gate = Gate::new();
        let (mut near, mut far) = pumped(slow(), &gate);
        gate.set_blocked(true);
        near.write_all(b"held").await.unwrap();
        let mut buffer = [0; 4];
        let early =
            tokio::time::timeout(Duration::from_secs(3600), far.read_exact(&mut buffer)).await;
        assert!(early.is_err(), "passed a blocked line");
        gate.set_blocked(false);
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"held");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_holds_the_sender_back() {
        let gate = Gate::new();
        let config = slow();
        let (mut near, far) = pumped(config, &gate);
        let mut accepted = 0;
        while let Ok(written) =
            tokio::time::timeout(Duration::from_secs(60), near.write(&[0; 4096])).await
        {
            accepted += written.unwrap();
            assert!(
                accepted < 10 * config.window_bytes(),
                "memory is not bounded"
            );
        }
        // The window, and what the two pipes of 4 KiB hold themselves.
        assert!(accepted <= config.window_bytes() + 3 * 4096, "{accepted}");
        drop(far);
    }
}
