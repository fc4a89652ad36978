//! The relay: carries one LAN connection over one stream, byte-exact, with half-close and resets kept.
//!
//! Both directions run in one task. An end of data becomes Finish and the other way round; a LAN side that fails becomes Reset (its
//! reading) and StopSending (its writing); a Reset from the other edge breaks the LAN connection. The LAN socket is armed to break
//! when it is closed, until both directions have ended cleanly: whatever happens to this program, an application never mistakes a
//! truncated transfer for a whole one.

mod lan;
mod stream;
mod stream_io;
mod tunnel;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use codec::frame::Reason;

pub use lan::LanSocket;
pub use stream::{StreamReceive, StreamSend};
pub use stream_io::{Carried, StreamIo, StreamReset};

/// The most that one read takes: half a block, so that a stream in bulk makes blocks of one or two reads.
const READ_MAX_BYTES: usize = 128 * 1024;

/// A read of at least so much keeps the buffer it was read into; a smaller one is copied out of it, so that a keystroke does not
/// hold [`READ_MAX_BYTES`]. At half, no piece holds more than twice its length.
const KEEP_BUFFER_FROM_BYTES: usize = READ_MAX_BYTES / 2;

/// Pieces given to one vectored write. Beyond it a call gains nothing, and they live on the stack.
const MAX_SLICES: usize = 16;

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended cleanly and all bytes were delivered.
    Finished,
    /// This edge's LAN connection failed.
    LanFailed,
    /// The other edge ended the stream, or the tunnel is gone.
    PeerReset(Reason),
}

/// What a relay has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes read from the LAN connection and given to the stream.
    pub to_wan_bytes: u64,
    /// Bytes of the stream written to the LAN connection.
    pub from_wan_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What both directions know of each other.
#[derive(Default)]
struct Progress {
    to_wan_bytes: AtomicU64,
    from_wan_bytes: AtomicU64,
    /// A write to the LAN socket failed. The kernel reports an error once, to whoever comes first; after that, what the reading
    /// direction sees as an end may be a broken connection.
    lan_broken: AtomicBool,
}

/// Why a direction is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Lan(Reason),
    Peer(Reason),
}

/// Carries `lan` over the stream until both directions are over, and closes `lan`.
pub async fn relay<L, S, R>(lan: L, send: S, receive: R) -> Report
where
    L: LanSocket,
    S: StreamSend,
    R: StreamReceive,
{
    lan.set_reset_on_close(true);
    let progress = Progress::default();
    let (mut send, mut receive) = (Some(send), Some(receive));
    let (up, down) = {
        let mut uploading = pin!(upload(&lan, &mut send, &progress));
        let mut downloading = pin!(download(&lan, &mut receive, &progress));
        let (mut up, mut down) = (None, None);
        poll_fn(|cx| {
            if up.is_none()
                && let Poll::Ready(end) = uploading.as_mut().poll(cx)
            {
                up = Some(end);
            }
            // A connection that cannot be read is broken both ways; so is a stream that the other edge has reset.
            if down.is_none()
                && !matches!(up, Some(End::Lan(_)))
                && let Poll::Ready(end) = downloading.as_mut().poll(cx)
            {
                down = Some(end);
            }
            match (up, down) {
                (Some(_), Some(_)) | (Some(End::Lan(_)), None) | (None, Some(End::Peer(_))) => {
                    Poll::Ready((up, down))
                }
                _ => Poll::Pending,
            }
        })
        .await
    };
    let cause = |end: Option<End>| match end {
        Some(End::Lan(reason) | End::Peer(reason)) => reason,
        Some(End::Clean) | None => Reason::Cancelled,
    };
    if let Some(send) = send {
        send.reset(cause(down));
    }
    if let Some(receive) = receive {
        receive.stop(cause(up));
    }
    let outcome = match (up, down) {
        (Some(End::Clean), Some(End::Clean)) => Outcome::Finished,
        (_, Some(End::Peer(reason))) | (Some(End::Peer(reason)), _) => Outcome::PeerReset(reason),
        _ => Outcome::LanFailed,
    };
    if outcome == Outcome::Finished {
        lan.set_reset_on_close(false);
    }
    Report {
        to_wan_bytes: progress.to_wan_bytes.load(Ordering::Relaxed),
        from_wan_bytes: progress.from_wan_bytes.load(Ordering::Relaxed),
        outcome,
    }
}

/// Sends `preface` before everything else. If the stream takes no more, the relay or whoever comes next finds out why.
pub async fn send_preface<S: StreamSend>(send: &mut S, mut preface: Bytes) {
    while !preface.is_empty() {
        let Ok(room) = poll_fn(|cx| send.poll_ready(cx)).await else {
            return;
        };
        if send
            .send(preface.split_to(room.min(preface.len())))
            .is_err()
        {
            return;
        }
    }
}

/// LAN to tunnel. Takes the half out of its slot when it has told the tunnel how this direction ended.
async fn upload<L: LanSocket, S: StreamSend>(
    lan: &L,
    slot: &mut Option<S>,
    progress: &Progress,
) -> End {
    let end = read_all(lan, slot, progress).await;
    if let Some(send) = slot.take() {
        match end {
            End::Clean => send.finish(),
            End::Lan(reason) | End::Peer(reason) => send.reset(reason),
        }
    }
    end
}

async fn read_all<L: LanSocket, S: StreamSend>(
    lan: &L,
    slot: &mut Option<S>,
    progress: &Progress,
) -> End {
    let Some(send) = slot.as_mut() else {
        return End::Clean;
    };
    loop {
        // First wait for bytes: an idle stream holds no buffer. A stream that can go nowhere need not be read.
        let readable = poll_fn(|cx| match send.poll_stopped(cx) {
            Poll::Ready(reason) => Poll::Ready(Err(End::Peer(reason))),
            Poll::Pending => lan
                .poll_read_ready(cx)
                .map_err(|error| End::Lan(lan_reason(&error))),
        });
        if let Err(end) = readable.await {
            return end;
        }
        let room = match poll_fn(|cx| send.poll_ready(cx)).await {
            Ok(room) => room.min(READ_MAX_BYTES),
            Err(reason) => return End::Peer(reason),
        };
        match read_piece(lan, room) {
            Ok(piece) if piece.is_empty() => {
                let broken = progress.lan_broken.load(Ordering::Relaxed);
                return if broken {
                    End::Lan(Reason::ConnectionReset)
                } else {
                    End::Clean
                };
            }
            Ok(piece) => {
                progress
                    .to_wan_bytes
                    .fetch_add(length(piece.len()), Ordering::Relaxed);
                if let Err(reason) = send.send(piece) {
                    return End::Peer(reason);
                }
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => return End::Lan(lan_reason(&error)),
        }
    }
}

thread_local! {
    /// Where reads go first. One per thread of the runtime, since a read never waits.
    static READ_BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads up to `room` bytes that are there now; empty at the end.
fn read_piece<L: LanSocket>(lan: &L, room: usize) -> io::Result<Bytes> {
    READ_BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        if buffer.capacity() < READ_MAX_BYTES {
            *buffer = BytesMut::with_capacity(READ_MAX_BYTES);
        }
        let count = lan.try_read(&mut (&mut *buffer).limit(room))?;
        if count < KEEP_BUFFER_FROM_BYTES {
            Ok(Bytes::copy_from_slice(buffer))
        } else {
            Ok(std::mem::take(buffer).freeze())
        }
    })
}

/// Tunnel to LAN. Takes the half out of its slot when it has told the tunnel how this direction ended.
async fn download<L: LanSocket, R: StreamReceive>(
    lan: &L,
    slot: &mut Option<R>,
    progress: &Progress,
) -> End {
    let end = write_all(lan, slot, progress).await;
    if let End::Lan(reason) = end {
        progress.lan_broken.store(true, Ordering::Relaxed);
        if let Some(receive) = slot.take() {
            receive.stop(reason);
        }
    }
    // After the end or a Reset from the other edge there is nothing to tell.
    slot.take();
    end
}

async fn write_all<L: LanSocket, R: StreamReceive>(
    lan: &L,
    slot: &mut Option<R>,
    progress: &Progress,
) -> End {
    let Some(receive) = slot.as_mut() else {
        return End::Clean;
    };
    let mut queue: VecDeque<Bytes> = VecDeque::new();
    let mut writable = true;
    let mut finished = false;
    loop {
        // Gather what has arrived. This goes on while the LAN side takes nothing, so that a Reset is noticed; credit bounds it.
        let gathered = poll_fn(|cx| {
            while !finished && queue.len() < MAX_SLICES {
                match receive.poll_receive(cx) {
                    Poll::Ready(Ok(Some(piece))) => queue.push_back(piece),
                    Poll::Ready(Ok(None)) => finished = true,
                    Poll::Ready(Err(reason)) => return Poll::Ready(Err(End::Peer(reason))),
                    Poll::Pending => break,
                }
            }
            if queue.is_empty() {
                return if finished {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            if writable {
                return Poll::Ready(Ok(()));
            }
            lan.poll_write_ready(cx)
                .map_err(|error| End::Lan(lan_reason(&error)))
        });
        if let Err(end) = gathered.await {
            return end;
        }
        if queue.is_empty() {
            return match lan.shutdown_write() {
                Ok(()) => End::Clean,
                Err(error) => End::Lan(lan_reason(&error)),
            };
        }
        match write_some(lan, &queue) {
            Ok(count) => {
                writable = true;
                advance(&mut queue, count);
                progress
                    .from_wan_bytes
                    .fetch_add(length(count), Ordering::Relaxed);
                receive.consumed(count);
            }
            Err(error) if is_transient(&error) => writable = false,
            Err(error) => return End::Lan(lan_reason(&error)),
        }
    }
}

fn write_some<L: LanSocket>(lan: &L, queue: &VecDeque<Bytes>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let mut used = 0;
    for (slice, piece) in slices.iter_mut().zip(queue) {
        *slice = IoSlice::new(piece);
        used += 1;
    }
    match lan.try_write(slices.get(..used).unwrap_or_default()) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}

/// Drops the first `count` bytes of the queue.
fn advance(queue: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(piece) = queue.front_mut() {
        if piece.len() > count {
            piece.advance(count);
            return;
        }
        count -= piece.len();
        queue.pop_front();
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// What the other edge is told of an error of the LAN connection.
fn lan_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::TimedOut => Reason::TimedOut,
        io::ErrorKind::HostUnreachable => Reason::HostUnreachable,
        io::ErrorKind::NetworkUnreachable => Reason::NetworkUnreachable,
        _ => Reason::ConnectionReset,
    }
}

#[cfg(test)]
mod tests;
