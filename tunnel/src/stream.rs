//! Handles: what the edge's relays hold of a stream, and how they reach the tunnel's driver.
//!
//! A handle and the driver share one small locked record a stream. Whoever changes it for the other side queues first
//! and pokes after: the relay queues bytes in the record and pokes the driver's mailbox (once, until the driver has
//! looked); the driver queues bytes in the record and wakes the relay.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use codec::frame::{Open, Reason, StreamId};

use crate::driver::{Command, Mail};
use crate::pieces;
use crate::state::StreamSummary;
use crate::wake::Sender;

/// Why a stream can no longer be used in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The other edge ended it: its LAN read failed (receiving) or it cannot deliver any more (sending).
    #[error("the other edge ended the stream: {0:?}")]
    Ended(Reason),
}

/// What both sides know of one stream.
#[derive(Default)]
pub(crate) struct Record {
    /// Known once the driver has opened it.
    pub(crate) id: Option<StreamId>,
    /// It waits in the driver until the peer allows another Open.
    is_waiting: bool,
    /// A command for this stream is in the driver's mailbox and not yet looked at.
    poked: bool,
    /// Answer to Open: the target edge's local address, or why not.
    opened: Option<Result<Option<SocketAddr>, Reason>>,
    opened_waker: Option<Waker>,

    /// Bytes that the relay may still queue.
    capacity: usize,
    outbox: VecDeque<Bytes>,
    finish: bool,
    abort: Option<Reason>,
    /// The peer said StopSending, or the stream is gone.
    stopped: Option<Reason>,
    send_waker: Option<Waker>,

    inbox: VecDeque<Bytes>,
    consumed: u64,
    finished: bool,
    failed: Option<Reason>,
    stop: Option<Reason>,
    /// The relay takes nothing more: what was under way to it is dropped.
    is_deaf: bool,
    recv_waker: Option<Waker>,

    /// Some once the stream is over; the inner one says what became of it unless the tunnel went first.
    closed: Option<Option<StreamSummary>>,
    closed_waker: Option<Waker>,
}

/// What the driver takes out of a record when poked.
#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) data: VecDeque<Bytes>,
    pub(crate) finish: bool,
    pub(crate) abort: Option<Reason>,
    pub(crate) stop: Option<Reason>,
    pub(crate) consumed: u64,
}

/// One stream, shared by its handle and the driver.
pub(crate) struct Shared {
    record: Mutex<Record>,
    mail: Sender<Mail>,
}

impl Shared {
    pub(crate) fn new(mail: Sender<Mail>) -> Arc<Self> {
        Arc::new(Self {
            record: Mutex::new(Record::default()),
            mail,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queue first, then poke; pokes coalesce until the driver has looked.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Record)) {
        let mut record = self.lock();
        change(&mut record);
        let poke = !record.poked;
        record.poked = true;
        drop(record);
        if poke && self.mail.send(Mail::Stream(self.clone())).is_err() {
            self.fail(Reason::TunnelLost);
        }
    }

    /// The driver's side: clear the poke, then take what is queued. `None` while the stream waits to be opened; nothing is
    /// taken then.
    pub(crate) fn take(&self) -> Option<(StreamId, Outgoing)> {
        let mut record = self.lock();
        record.poked = false;
        let id = record.id?;
        let outgoing = Outgoing {
            data: std::mem::take(&mut record.outbox),
            finish: std::mem::take(&mut record.finish),
            abort: record.abort.take(),
            stop: record.stop.take(),
            consumed: std::mem::take(&mut record.consumed),
        };
        Some((id, outgoing))
    }

    /// Both directions were given up by the relay.
    pub(crate) fn is_abandoned(&self) -> bool {
        let record = self.lock();
        record.abort.is_some() && record.stop.is_some()
    }

    pub(crate) fn has_id(&self) -> bool {
        self.lock().id.is_some()
    }

    pub(crate) fn set_id(&self, id: StreamId) {
        let mut record = self.lock();
        record.id = Some(id);
        wake(record.opened_waker.take());
    }

    /// The peer allows no Open just now; it will be this tunnel's all the same.
    pub(crate) fn set_waiting(&self) {
        let mut record = self.lock();
        record.is_waiting = true;
        wake(record.opened_waker.take());
    }

    /// Sets how many more bytes the relay may queue. `total` counts what is still in the outbox.
    pub(crate) fn set_capacity(&self, total: usize) {
        let mut record = self.lock();
        let queued: usize = record.outbox.iter().map(Bytes::len).sum();
        record.capacity = total.saturating_sub(queued);
        if record.capacity > 0 {
            wake(record.send_waker.take());
        }
    }

    pub(crate) fn opened(&self, answer: Result<Option<SocketAddr>, Reason>) {
        let mut record = self.lock();
        record.opened.get_or_insert(answer);
        wake(record.opened_waker.take());
    }

    pub(crate) fn deliver(&self, data: Bytes) {
        let mut record = self.lock();
        if record.is_deaf {
            return;
        }
        pieces::push(&mut record.inbox, data);
        wake(record.recv_waker.take());
    }

    pub(crate) fn finished(&self) {
        let mut record = self.lock();
        record.finished = true;
        wake(record.recv_waker.take());
    }

    /// The peer's Reset: what was delivered before stays readable only if the relay has already taken it.
    pub(crate) fn reset(&self, reason: Reason) {
        let mut record = self.lock();
        if !record.finished {
            record.failed.get_or_insert(reason);
        }
        record.opened.get_or_insert(Err(reason));
        wake(record.recv_waker.take());
        wake(record.opened_waker.take());
    }

    pub(crate) fn stop_sending(&self, reason: Reason) {
        let mut record = self.lock();
        record.stopped.get_or_insert(reason);
        record.outbox.clear();
        wake(record.send_waker.take());
    }

    /// The tunnel is gone or gave the stream up: both directions end.
    pub(crate) fn fail(&self, reason: Reason) {
        self.reset(reason);
        self.stop_sending(reason);
        self.close(None);
    }

    /// Nothing more will come of this stream.
    pub(crate) fn close(&self, summary: Option<StreamSummary>) {
        let mut record = self.lock();
        record.closed.get_or_insert(summary);
        record.opened.get_or_insert(Err(Reason::Cancelled));
        wake(record.closed_waker.take());
        wake(record.opened_waker.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn park(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

/// A stream of this edge's tunnel. Dropping a half without ending it resets that direction.
pub struct StreamHandle {
    send: SendHalf,
    recv: RecvHalf,
}

impl StreamHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            send: SendHalf {
                shared: shared.clone(),
                ended: false,
            },
            recv: RecvHalf {
                shared,
                ended: false,
            },
        }
    }

    /// Waits until the tunnel has taken the stream. After an error nothing of it has left this edge.
    pub(crate) async fn taken(&mut self) -> Result<(), Reason> {
        self.answer(|record| match record.opened {
            _ if record.id.is_some() || record.is_waiting => Some(Ok(())),
            Some(Err(reason)) => Some(Err(reason)),
            _ => None,
        })
        .await
    }

    /// Waits for the answer to Open: the local address of the other edge's connection to the target, where it said one.
    pub async fn opened(&mut self) -> Result<Option<SocketAddr>, Reason> {
        self.answer(|record| record.opened).await
    }

    /// Waits until the record says something of the Open.
    async fn answer<T>(&mut self, said: impl Fn(&Record) -> Option<T>) -> T {
        std::future::poll_fn(|cx| {
            let mut record = self.send.shared.lock();
            match said(&record) {
                Some(answer) => Poll::Ready(answer),
                None => {
                    park(&mut record.opened_waker, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Learns what became of the stream.
    pub fn end(&self) -> StreamEnd {
        StreamEnd {
            shared: self.send.shared.clone(),
        }
    }

    /// The two directions, to be used by different tasks or in turn by one.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

/// Tells when a stream is over. See [`StreamHandle::end`].
pub struct StreamEnd {
    shared: Arc<Shared>,
}

impl StreamEnd {
    /// Waits until both directions have ended and everything was acknowledged; `None` when the tunnel ended before.
    pub async fn summary(self) -> Option<StreamSummary> {
        std::future::poll_fn(|cx| {
            let mut record = self.shared.lock();
            if record.closed.is_some() {
                return Poll::Ready(record.closed.take().flatten());
            }
            park(&mut record.closed_waker, cx);
            Poll::Pending
        })
        .await
    }
}

/// LAN to WAN.
pub struct SendHalf {
    shared: Arc<Shared>,
    ended: bool,
}

impl SendHalf {
    /// Ready with the number of bytes (at least 1) that [`send`](Self::send) takes now: credit and budget are at hand.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let mut record = self.shared.lock();
        if let Some(reason) = record.stopped {
            return Poll::Ready(Err(StreamError::Ended(reason)));
        }
        if record.capacity > 0 {
            return Poll::Ready(Ok(record.capacity));
        }
        park(&mut record.send_waker, cx);
        Poll::Pending
    }

    /// See [`poll_ready`](Self::poll_ready).
    pub async fn ready(&mut self) -> Result<usize, StreamError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Queues `data`, which must not be longer than the last `ready` said; one lock, no wait.
    pub fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        if data.is_empty() {
            return Ok(());
        }
        if let Some(reason) = self.shared.lock().stopped {
            return Err(StreamError::Ended(reason));
        }
        self.shared.change(|record| {
            record.capacity = record.capacity.saturating_sub(data.len());
            record.outbox.push_back(data);
        });
        Ok(())
    }

    /// The LAN side has said EOF: what is queued goes out, then Finish.
    pub fn finish(mut self) {
        self.ended = true;
        self.shared.change(|record| record.finish = true);
    }

    /// The LAN side's reading failed.
    pub fn reset(mut self, reason: Reason) {
        self.abort(reason);
    }

    fn abort(&mut self, reason: Reason) {
        self.ended = true;
        self.shared.change(|record| {
            record.outbox.clear();
            record.abort.get_or_insert(reason);
        });
    }

    /// Ready when the other edge cannot deliver any more, or the tunnel is gone.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let mut record = self.shared.lock();
        match record.stopped {
            Some(reason) => Poll::Ready(reason),
            None => {
                park(&mut record.send_waker, cx);
                Poll::Pending
            }
        }
    }

    /// See [`poll_stopped`](Self::poll_stopped).
    pub async fn stopped(&mut self) -> Reason {
        std::future::poll_fn(|cx| self.poll_stopped(cx)).await
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.ended {
            self.abort(Reason::Cancelled);
        }
    }
}

/// WAN to LAN.
pub struct RecvHalf {
    shared: Arc<Shared>,
    ended: bool,
}

impl RecvHalf {
    /// The next bytes in order; `None` after the sender's Finish, once everything before it was taken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut record = self.shared.lock();
        if let Some(data) = record.inbox.pop_front() {
            return Poll::Ready(Ok(Some(data)));
        }
        if record.finished {
            self.ended = true;
            return Poll::Ready(Ok(None));
        }
        if let Some(reason) = record.failed {
            self.ended = true;
            return Poll::Ready(Err(StreamError::Ended(reason)));
        }
        park(&mut record.recv_waker, cx);
        Poll::Pending
    }

    /// See [`poll_recv`](Self::poll_recv).
    pub async fn recv(&mut self) -> Result<Option<Bytes>, StreamError> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// More bytes if they are there already, for a vectored write; never waits.
    pub fn try_recv(&mut self) -> Option<Bytes> {
        self.shared.lock().inbox.pop_front()
    }

    /// Tells that `bytes` were written to the LAN side; this is what gives the sender new credit.
    pub fn consumed(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.shared
            .change(|record| record.consumed = record.consumed.saturating_add(bytes));
    }

    /// The LAN side takes no more.
    pub fn stop(mut self, reason: Reason) {
        self.end(reason);
    }

    fn end(&mut self, reason: Reason) {
        self.ended = true;
        self.shared.change(|record| {
            record.inbox.clear();
            record.is_deaf = true;
            record.stop.get_or_insert(reason);
        });
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Reason::Cancelled);
        }
    }
}

/// A stream that the other edge wants to open. Dropping it refuses with [`Reason::Internal`].
pub struct IncomingStream {
    shared: Option<Arc<Shared>>,
    /// What the other edge asked for.
    pub open: Open,
    /// The other edge's name, from its certificate.
    pub peer: Arc<str>,
}

impl IncomingStream {
    pub(crate) fn new(shared: Arc<Shared>, open: Open, peer: Arc<str>) -> Self {
        Self {
            shared: Some(shared),
            open,
            peer,
        }
    }

    /// The target is connected; `bound` is this edge's local address towards it.
    pub fn accept(mut self, bound: Option<SocketAddr>) -> Option<StreamHandle> {
        let shared = self.shared.take()?;
        shared.opened(Ok(bound));
        let _ = shared
            .mail
            .send(Mail::Command(Command::Accept(shared.clone(), bound)));
        Some(StreamHandle::new(shared))
    }

    /// The target cannot be reached, or must not be.
    pub fn refuse(mut self, reason: Reason) {
        self.give_up(reason);
    }

    /// Resolves when the other edge has given the stream up before it was accepted.
    pub async fn cancelled(&self) -> Reason {
        std::future::poll_fn(|cx| {
            let Some(shared) = &self.shared else {
                return Poll::Ready(Reason::Cancelled);
            };
            let mut record = shared.lock();
            match record.failed {
                Some(reason) => Poll::Ready(reason),
                None => {
                    park(&mut record.recv_waker, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn give_up(&mut self, reason: Reason) {
        if let Some(shared) = self.shared.take() {
            let _ = shared
                .mail
                .send(Mail::Command(Command::Refuse(shared.clone(), reason)));
        }
    }
}

impl Drop for IncomingStream {
    fn drop(&mut self) {
        self.give_up(Reason::Internal);
    }
}
