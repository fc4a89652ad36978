//! One stream: its two directions and its place among the others.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::encoder::{Continuation, Encoded};
use codec::frame::{DomainId, Open, Reason};
use codec::policy::Habit;

use super::LinkId;
use super::credit::{Allowance, Urgency, Window};
use super::cut::BULK_BLOCK_BYTES;
use super::jobs::JobId;
use super::light::Recent;
use super::reassembly::{Reassembly, Scattered};
use super::scheduler::Turn;
use crate::budget::{Charge, StreamShare};
use crate::metrics::{CountedStream, StreamResult};

/// So many bytes without a gap make a stream a bulk one.
const BULK_AFTER_BYTES: u64 = 256 << 10;

/// A wait for LAN bytes that is this long is a gap: the bytes at hand go out.
pub(super) const GAP: Duration = Duration::from_millis(1);

/// A write of at most this much that answers something, or asks for the next, is a turn of an exchange and not a part of bulk: whoever wrote it waits.
const TURN_MAX_BYTES: usize = 16 << 10;

/// Bytes at hand never wait longer than this, whatever the relay does or does not say.
pub(super) const HOLD_MAX: Duration = Duration::from_millis(25);

/// Bytes that wait to be cut into blocks, a stream: a few blocks, so that the encoder does not starve while the relay is woken.
pub(super) const QUEUE_MAX_BYTES: u64 = 1 << 20;

/// A block that was encoded or is being so.
#[derive(Debug)]
pub(super) enum Slot {
    Encoding(JobId, LinkId),
    Ready(Box<Encoded>, LinkId),
}

impl Slot {
    /// The link that the block is for.
    pub(super) fn link(&self) -> LinkId {
        let (Self::Encoding(_, link) | Self::Ready(_, link)) = self;
        *link
    }

    /// The block is for another link from now on.
    pub(super) fn bind(&mut self, to: LinkId) {
        let (Self::Encoding(_, link) | Self::Ready(_, link)) = self;
        *link = to;
    }
}

/// A block of which some fragments were handed to a link.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) number: u64,
    pub(super) header: Bytes,
    pub(super) body: Bytes,
    pub(super) sent_bytes: usize,
}

/// How far the sending direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    /// No more bytes will be written.
    Finishing,
    /// Finish was handed to a link.
    Finished,
    /// Reset is to be sent.
    Resetting(Reason),
    /// Reset was handed to a link.
    Reset,
}

/// LAN to WAN.
#[derive(Debug)]
pub(super) struct SendSide {
    pub(super) state: SendState,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued_bytes: u64,
    /// Stream offset of the next byte to cut.
    pub(super) cut_offset: u64,
    pub(super) allowance: Allowance,
    pub(super) pipeline: VecDeque<Slot>,
    /// Replacements of refused blocks; they go before the pipeline.
    pub(super) repeats: VecDeque<Box<Encoded>>,
    /// Stream offset behind all blocks that have begun.
    pub(super) begun_to: u64,
    /// On the first link; those on further links are with them.
    pub(super) current: Option<Box<Outgoing>>,
    /// Blocks being encoded.
    pub(super) encoding: usize,
    /// Refused blocks being rebuilt.
    pub(super) rebuilding: usize,
    /// Numbers not yet acknowledged.
    pub(super) unacknowledged: usize,
    pub(super) hint: Option<Continuation>,
    pub(super) hint_offset: u64,
    pub(super) habit: Habit,
    pub(super) mostly_copies: bool,
    /// At what size the next block is closed.
    pub(super) block_bytes: u64,
    run_bytes: u64,
    pub(super) is_bulk: bool,
    pub(super) recent: Recent,
    pub(super) waiting_since: Option<Instant>,
    /// Something came the other way and reached the LAN side since the last write.
    pub(super) was_answered: bool,
    pub(super) last_write: Instant,
    /// What `send_capacity` said last.
    pub(super) capacity_said: u64,
    pub(super) has_idle_timer: bool,
    pub(super) in_encode_first: bool,
    pub(super) in_encode_more: bool,
    pub(super) is_starved: bool,
    pub(super) is_yielding: bool,
    /// The last Yield may have been lost.
    pub(super) yields_again: bool,
}

/// How far the receiving direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecvState {
    Open,
    /// The end was given out; some bytes before it are not yet delivered to the LAN.
    Finished,
    /// Nothing is delivered any more; the peer's Finish or Reset is awaited.
    Discarding,
    /// Everything was delivered, or Reset or the end of what is discarded has come.
    Over,
}

/// WAN to LAN.
#[derive(Debug)]
pub(super) struct RecvSide {
    pub(super) state: RecvState,
    pub(super) window: Window,
    pub(super) order: Reassembly,
    pub(super) finish: Option<u64>,
    /// Where the stream stands among those that owe a Credit.
    pub(super) credit_listed: Urgency,
    /// The last Credit may have been lost.
    pub(super) credit_again: bool,
    /// Pays for the window's growth.
    pub(super) growth: Option<Charge>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) domain: Option<DomainId>,
    pub(super) weight: u32,
    pub(super) opened_here: bool,
    /// Open is still to be sent.
    pub(super) open: Option<Box<Open>>,
    /// Open was sent on a link that is lost, and may not have arrived.
    pub(super) open_again: bool,
    /// The peer has the Open, so that blocks may go over any link.
    pub(super) is_known: bool,
    /// Opened is still to be sent.
    pub(super) opened: Option<Option<SocketAddr>>,
    /// Opened was said, here or by the peer.
    pub(super) is_answered: bool,
    /// StopSending is to be sent.
    pub(super) stop: Option<Reason>,
    pub(super) send: SendSide,
    pub(super) recv: RecvSide,
    pub(super) turn: Turn,
    pub(super) counted: CountedStream,
    pub(super) share: Option<StreamShare>,
    pub(super) opened_at: Instant,
    pub(super) wan_sent_bytes: u64,
    pub(super) wan_received_bytes: u64,
}

/// What a new stream begins with.
pub(super) struct NewStream {
    pub(super) domain: Option<DomainId>,
    pub(super) weight: u32,
    pub(super) opened_here: bool,
    pub(super) local_window_bytes: u64,
    pub(super) peer_window_bytes: u64,
    pub(super) counted: CountedStream,
    pub(super) share: Option<StreamShare>,
    pub(super) scattered: Scattered,
}

/// Memory of a stream that is idle, without its counters' shared parts.
#[doc(hidden)]
pub const STREAM_SIZE_BYTES: usize = size_of::<Stream>();

impl Stream {
    pub(super) fn new(new: NewStream, now: Instant) -> Self {
        Self {
            domain: new.domain,
            weight: new.weight.max(1),
            opened_here: new.opened_here,
            open: None,
            open_again: false,
            is_known: !new.opened_here,
            opened: None,
            is_answered: false,
            stop: None,
            send: SendSide::new(new.peer_window_bytes, now),
            recv: RecvSide {
                state: RecvState::Open,
                window: Window::new(new.local_window_bytes, now),
                order: Reassembly::new(new.scattered),
                finish: None,
                credit_listed: Urgency::Nothing,
                credit_again: false,
                growth: None,
            },
            turn: Turn::new(),
            counted: new.counted,
            share: new.share,
            opened_at: now,
            wan_sent_bytes: 0,
            wan_received_bytes: 0,
        }
    }

    /// Both directions are over and nothing is left to send or to be acknowledged.
    pub(super) fn is_closed(&self) -> bool {
        self.recv.state == RecvState::Over
            && matches!(self.send.state, SendState::Finished | SendState::Reset)
            && self.send.is_drained()
            && self.send.unacknowledged == 0
            && self.open.is_none()
            && self.opened.is_none()
            && self.stop.is_none()
    }

    /// Whether a frame or a fragment could go out now over the first link, which is `first`.
    pub(super) fn has_to_send(&self, first: LinkId) -> bool {
        self.open.is_some()
            || self.opened.is_some()
            || self.stop.is_some()
            || matches!(self.send.state, SendState::Resetting(_))
            || self.send.current.is_some()
            || !self.send.repeats.is_empty()
            || self.send.is_ready_for(first)
            || self.send.finishes_now()
    }

    /// The first thing that went wrong decides the result.
    pub(super) fn ends_with(&mut self, result: StreamResult) {
        if matches!(
            self.counted.result,
            StreamResult::TunnelLost | StreamResult::Completed
        ) {
            self.counted.result = result;
        }
    }
}

impl SendSide {
    pub(super) fn new(peer_window_bytes: u64, now: Instant) -> Self {
        Self {
            state: SendState::Open,
            queue: VecDeque::new(),
            queued_bytes: 0,
            cut_offset: 0,
            allowance: Allowance::new(peer_window_bytes),
            pipeline: VecDeque::new(),
            repeats: VecDeque::new(),
            begun_to: 0,
            current: None,
            encoding: 0,
            rebuilding: 0,
            unacknowledged: 0,
            hint: None,
            hint_offset: 0,
            habit: Habit::default(),
            mostly_copies: false,
            block_bytes: BULK_BLOCK_BYTES,
            run_bytes: 0,
            is_bulk: false,
            recent: Recent::new(now),
            waiting_since: None,
            was_answered: false,
            last_write: now,
            capacity_said: 0,
            has_idle_timer: false,
            in_encode_first: false,
            in_encode_more: false,
            is_starved: false,
            is_yielding: false,
            yields_again: false,
        }
    }

    /// Stream offset behind the last byte written.
    pub(super) fn written(&self) -> u64 {
        self.cut_offset + self.queued_bytes
    }

    /// What the peer's credit and the queue's bound still take.
    pub(super) fn room_bytes(&self) -> u64 {
        let credit = self.allowance.limit().saturating_sub(self.written());
        credit.min(QUEUE_MAX_BYTES.saturating_sub(self.queued_bytes))
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == SendState::Open
    }

    /// Whether written bytes are still to be delivered to the peer.
    pub(super) fn delivers(&self) -> bool {
        matches!(
            self.state,
            SendState::Open | SendState::Finishing | SendState::Finished
        )
    }

    /// Gives up what has not begun; a block that has begun is finished all the same.
    pub(super) fn give_up(&mut self, reason: Reason) {
        self.state = SendState::Resetting(reason);
        self.queue.clear();
        self.queued_bytes = 0;
        self.repeats.clear();
        self.pipeline.clear();
    }

    /// Whether the next block for `link` can begin.
    pub(super) fn is_ready_for(&self, link: LinkId) -> bool {
        let next = self.pipeline.iter().find(|slot| slot.link() == link);
        matches!(next, Some(Slot::Ready(..)))
    }

    /// Takes the next block for `link`, if it is encoded.
    pub(super) fn take_ready_for(&mut self, link: LinkId) -> Option<Box<Encoded>> {
        let at = self
            .pipeline
            .iter()
            .position(|slot| slot.link() == link)
            .filter(|at| matches!(self.pipeline.get(*at), Some(Slot::Ready(..))))?;
        match self.pipeline.remove(at) {
            Some(Slot::Ready(block, _)) => Some(block),
            _ => None,
        }
    }

    fn is_drained(&self) -> bool {
        self.queue.is_empty()
            && self.pipeline.is_empty()
            && self.repeats.is_empty()
            && self.current.is_none()
            && self.rebuilding == 0
    }

    /// Everything before Finish has been handed to a link.
    pub(super) fn finishes_now(&self) -> bool {
        self.state == SendState::Finishing
            && self.queue.is_empty()
            && self.pipeline.is_empty()
            && self.current.is_none()
    }

    /// The relay has brought bytes.
    pub(super) fn push(&mut self, data: Bytes, now: Instant) {
        let waited = self
            .waiting_since
            .take()
            .is_some_and(|since| now.saturating_duration_since(since) >= GAP);
        let is_turn = std::mem::take(&mut self.was_answered) && data.len() <= TURN_MAX_BYTES;
        if waited || is_turn {
            self.gap();
        }
        self.last_write = now;
        self.run_bytes = self.run_bytes.saturating_add(data.len() as u64);
        self.is_bulk |= self.run_bytes >= BULK_AFTER_BYTES;
        self.recent.wrote(data.len() as u64, now);
        self.queued_bytes += data.len() as u64;
        self.queue.push_back(data);
    }

    /// The LAN side has paused: the stream is not in bulk any more.
    pub(super) fn gap(&mut self) {
        self.run_bytes = 0;
        self.is_bulk = false;
    }
}
