//! One link: a socket, its TLS session, and what is under way on it.
//!
//! Reading: socket → wire bytes → open (inline, or one job of pool `crypto` at a time) → frames. Writing: slices of
//! frames → seal (inline, or one job at a time) → owned write → socket. The link never blocks and starts nothing by itself;
//! the tunnel's driver polls it.

mod counters;
mod jobs;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use codec::frame::{Frame, FrameCodec, FrameError};
pub use counters::LinkCounters;
pub(crate) use jobs::OpenOutput;
use jobs::{OpenJob, Opener, SealJob};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::codec::Encoder;

use crate::driver::Mail;
use crate::handle::LinkName;
use crate::pool::{Outcome, Pool, Priority, Rejected};
use crate::state::{LineSample, LinkId};
use crate::tls::{BATCH_MAX, Session, TlsError};
use crate::wake::Sender;
use crate::write::{Write, WriteQueue};

/// Sealed batches that may wait for the socket before the link takes more frames: two, so that the next is sealed while one is
/// written, and no more, so that the scheduler's choices stay fresh.
const WRITE_BACKLOG_BATCHES: usize = 2;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer sent bytes that are no frame.
    #[error("bad frame: {0}")]
    Frame(#[from] FrameError),
    /// EOF without `close_notify`.
    #[error("the line was lost")]
    Lost,
    /// No byte came for three heartbeats.
    #[error("the line is dead: nothing was heard for three heartbeats")]
    Silent,
    /// EOF after `close_notify`.
    #[error("the other edge closed the link")]
    Closed,
}

impl LinkError {
    /// Whether the tunnel ends with the link: the other edge has said so, or this program is ending.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Closed | Self::Tls(TlsError::PoolStopped))
    }
}

/// Where a link's jobs run and report.
pub(crate) struct LinkContext<'a> {
    pub(crate) crypto: &'a Pool,
    pub(crate) mail: &'a Sender<Mail>,
    /// Batches of at most this many bytes are sealed and opened on the spot.
    pub(crate) inline_below_bytes: usize,
}

/// See the module.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) name: LinkName,
    pub(crate) peer_address: SocketAddr,
    pub(crate) counters: Arc<LinkCounters>,
    socket: TcpStream,
    session: Arc<Session>,
    /// Away while an open job has it.
    opener: Option<Box<Opener>>,
    incoming: BytesMut,
    eof: bool,
    /// What reading failed with.
    failure: Option<std::io::Error>,
    closed_by_peer: bool,
    /// Frames came right behind Hello and are not yet handed on.
    early: bool,
    sealing: bool,
    writes: WriteQueue<()>,
    /// Writing has failed. What the peer sent before it closed is still read; the end of that ends the link.
    broken: bool,
    closing: bool,
    /// FIN was sent.
    shut: bool,
}

impl Link {
    pub(crate) fn new(
        id: LinkId,
        socket: TcpStream,
        session: Session,
        peer_address: SocketAddr,
    ) -> Self {
        let session = Arc::new(session);
        Self {
            id,
            name: LinkName::default(),
            peer_address,
            counters: Arc::new(LinkCounters::default()),
            socket,
            opener: Some(Box::new(Opener::new(session.clone()))),
            session,
            incoming: BytesMut::new(),
            eof: false,
            failure: None,
            closed_by_peer: false,
            early: true,
            sealing: false,
            writes: WriteQueue::new(),
            broken: false,
            closing: false,
            shut: false,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    // ---- before the driver: Hello, one small frame each way, on the spot ----

    /// Sends one frame; used before the driver has the link.
    pub(crate) async fn send_frame(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let mut plain = BytesMut::new();
        FrameCodec.encode(frame.clone(), &mut plain)?;
        let sealed = self.session.seal(&[plain.freeze()])?;
        self.push(sealed);
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Receives one frame; used before the driver has the link. What came behind it stays buffered.
    pub(crate) async fn recv_frame(&mut self) -> Result<Frame, LinkError> {
        loop {
            // Also at first, with nothing read: the handshake may have taken the first frame's record off the socket.
            let wire = self.incoming.split();
            if let Some(opener) = &mut self.opener {
                let (frame, closed) = opener.open_first(&wire)?;
                self.closed_by_peer |= closed;
                if let Some(frame) = frame {
                    return Ok(frame);
                }
            }
            if self.closed_by_peer {
                return Err(LinkError::Closed);
            }
            if !std::future::poll_fn(|cx| self.poll_fill(cx)).await {
                return Err(self.end());
            }
        }
    }

    /// Says `close_notify`, and waits until all is written and the peer has closed its side.
    pub(crate) async fn close(&mut self) -> Result<(), LinkError> {
        self.start_close()?;
        std::future::poll_fn(|cx| self.poll_finish(cx)).await;
        Ok(())
    }

    // ---- receiving ----

    /// Why nothing more comes, once the socket has ended and what it gave is opened. A peer that has said goodbye drops its socket after a while, and
    /// answers what is still on its way there with a reset: that is no lost line.
    fn end(&mut self) -> LinkError {
        match self.failure.take() {
            _ if self.closed_by_peer => LinkError::Closed,
            Some(error) => error.into(),
            None => LinkError::Lost,
        }
    }

    /// Reads what the socket has, up to one batch, into `incoming`; false when nothing more will come. `Pending` registers the wake-up.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let room = BATCH_MAX - self.incoming.len();
        self.incoming.reserve(room);
        let mut window = bytes::BufMut::limit(&mut self.incoming, room);
        // Polled and not tried: then a read that leaves room is known to have emptied the socket, which is not asked again.
        let reading = pin!(self.socket.read_buf(&mut window));
        let read = ready!(reading.poll(cx));
        match read {
            Ok(bytes) if bytes > 0 => {
                self.counters.received(bytes);
                return Poll::Ready(true);
            }
            Ok(_) => {}
            Err(error) => self.failure = Some(error),
        }
        self.eof = true;
        Poll::Ready(false)
    }

    /// Reads and opens. Frames opened on the spot are returned; a larger batch goes to pool `crypto` and comes back
    /// as [`Mail::Opened`]. `Pending` when there is nothing to do until a wake-up or that mail.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        at: &LinkContext<'_>,
    ) -> Poll<Result<Vec<Frame>, LinkError>> {
        loop {
            if std::mem::take(&mut self.early)
                && let Some(opener) = &mut self.opener
            {
                let batch = opener.open(&[])?;
                if !batch.frames.is_empty() {
                    return Poll::Ready(Ok(batch.frames));
                }
            }
            if self.incoming.len() < BATCH_MAX && !self.eof {
                // With an open job away the next batch is read meanwhile.
                match self.poll_fill(cx) {
                    Poll::Pending if self.incoming.is_empty() => return Poll::Pending,
                    // What came before the end is opened first.
                    Poll::Ready(_) | Poll::Pending => {}
                }
            }
            let Some(mut opener) = self.opener.take() else {
                return Poll::Pending;
            };
            if self.incoming.is_empty() {
                self.opener = Some(opener);
                if self.eof {
                    return Poll::Ready(Err(self.end()));
                }
                continue;
            }
            let wire = self.incoming.split().freeze();
            if wire.len() <= at.inline_below_bytes {
                let result = opener.open(&wire);
                return Poll::Ready(self.opened((opener, result)));
            }
            let (id, mail) = (self.id, at.mail.clone());
            let sink = move |outcome| {
                let _ = mail.send(Mail::Opened(id, outcome));
            };
            if let Err(Rejected::Full((job, _)) | Rejected::Closed((job, _))) =
                at.crypto.try_submit(
                    OpenJob {
                        work: Some((opener, wire)),
                    },
                    Priority::First,
                    sink,
                )
            {
                // The pool's queue is full: being slow here is the backpressure.
                let Some((mut opener, wire)) = job.work else {
                    return Poll::Pending;
                };
                let result = opener.open(&wire);
                return Poll::Ready(self.opened((opener, result)));
            }
        }
    }

    /// Takes an opening's result, from the spot or from a job.
    pub(crate) fn opened(&mut self, (opener, result): OpenOutput) -> Result<Vec<Frame>, LinkError> {
        self.opener = Some(opener);
        let batch = result?;
        self.closed_by_peer |= batch.closed;
        if batch.wants_write && !self.sealing {
            let answer = self.session.pending_output()?;
            if !answer.is_empty() {
                self.push(answer);
            }
        }
        Ok(batch.frames)
    }

    // ---- sending ----

    /// How many bytes of frames the link takes now, in batches of `batch_bytes`; 0 while a seal job is away or the socket is behind.
    pub(crate) fn room_bytes(&self, batch_bytes: usize) -> usize {
        let batch_bytes = batch_bytes.min(BATCH_MAX);
        let behind = self.writes.queued_bytes() >= WRITE_BACKLOG_BATCHES * batch_bytes;
        if self.sealing || self.closing || self.broken || behind {
            0
        } else {
            batch_bytes
        }
    }

    /// What the kernel says of the socket, if the edge can ask it.
    pub(crate) fn sample(&self, ask: fn(&TcpStream) -> Option<LineSample>) -> Option<LineSample> {
        ask(&self.socket)
    }

    /// Sealed bytes not yet taken by the socket.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.writes.queued_bytes()
    }

    /// Seals `plain`, on the spot or in a job that comes back as [`Mail::Sealed`].
    pub(crate) fn send(
        &mut self,
        plain: Vec<Bytes>,
        at: &LinkContext<'_>,
    ) -> Result<(), LinkError> {
        let total: usize = plain.iter().map(Bytes::len).sum();
        if total <= at.inline_below_bytes {
            let sealed = self.session.seal(&plain)?;
            self.push(sealed);
            return Ok(());
        }
        let (id, mail) = (self.id, at.mail.clone());
        let sink = move |outcome: Outcome<Result<Bytes, TlsError>>| {
            let _ = mail.send(Mail::Sealed(id, outcome));
        };
        match at.crypto.try_submit(
            SealJob {
                session: self.session.clone(),
                plain,
            },
            Priority::First,
            sink,
        ) {
            Ok(()) => self.sealing = true,
            Err(Rejected::Full((job, _)) | Rejected::Closed((job, _))) => {
                let sealed = job.session.seal(&job.plain)?;
                self.push(sealed);
            }
        }
        Ok(())
    }

    /// Takes a seal job's result.
    pub(crate) fn sealed(&mut self, result: Result<Bytes, TlsError>) -> Result<(), LinkError> {
        self.sealing = false;
        self.push(result?);
        if self.closing {
            self.push_close_notify()
        } else {
            Ok(())
        }
    }

    fn push(&mut self, sealed: Bytes) {
        self.writes.push(Write::single(sealed, ()));
    }

    /// Writes until the socket takes no more; `Ready(n)` with what was written, `Pending` when nothing could be. A socket that
    /// fails takes nothing more; reading from it tells the end.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut written = 0;
        while !self.writes.is_empty() {
            let ready = match self.socket.poll_write_ready(cx) {
                Poll::Ready(ready) => ready,
                Poll::Pending => break,
            };
            let socket = &self.socket;
            let progress = ready.and_then(|()| {
                self.writes.try_write(|slices| {
                    let taken = socket.try_write_vectored(slices)?;
                    written += taken;
                    Ok(taken)
                })
            });
            if progress.is_err() {
                self.broken = true;
                self.writes.close();
            }
        }
        self.counters.sent(written);
        if written == 0 {
            Poll::Pending
        } else {
            Poll::Ready(written)
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.writes.is_empty() {
            let _ = self.poll_send(cx);
            if !self.writes.is_empty() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes what is sealed, then says FIN, then reads on to the peer's EOF and drops what comes: a socket that is closed with
    /// unread bytes sends RST, which destroys what is still on its way to the peer.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = self.poll_send(cx);
        let flushed = !self.sealing && self.writes.is_empty();
        if flushed && !std::mem::replace(&mut self.shut, true) {
            // Never pending on a TCP socket; where it fails, so does reading.
            let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
        }
        while !self.eof {
            self.incoming.clear();
            let _goes_on = ready!(self.poll_fill(cx));
        }
        if flushed || self.failure.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Queues `close_notify` behind what is sealed already.
    pub(crate) fn start_close(&mut self) -> Result<(), LinkError> {
        if self.closing {
            return Ok(());
        }
        self.closing = true;
        // Behind the records of a seal job that is still away, never before them.
        if self.sealing {
            Ok(())
        } else {
            self.push_close_notify()
        }
    }

    fn push_close_notify(&mut self) -> Result<(), LinkError> {
        let record = self.session.close_notify()?;
        self.push(record);
        Ok(())
    }
}
