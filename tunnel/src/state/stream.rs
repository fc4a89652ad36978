//! One stream: its two directions and its place among the others.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use codec::block::BLOCK_PLAIN_MAX;
use codec::encoder::{Append, Continuation, Encoded};
use codec::frame::{DomainId, Open, Reason};
use codec::policy::Habit;

use super::credit::{Allowance, Urgency, Window};
use super::jobs::JobId;
use super::light::Recent;
use super::reassembly::Reassembly;
use super::scheduler::Turn;
use crate::budget::{Charge, StreamShare};
use crate::metrics::{CountedStream, StreamResult};

/// A stream in bulk closes a block at this size or more.
pub(super) const BULK_BLOCK_BYTES: u64 = 128 << 10;

/// So many bytes without a gap make a stream a bulk one.
const BULK_AFTER_BYTES: u64 = 256 << 10;

/// A wait for LAN bytes that is this long is a gap: the bytes at hand go out.
pub(super) const GAP: Duration = Duration::from_millis(1);

/// Bytes at hand never wait longer than this, whatever the relay does or does not say.
pub(super) const HOLD_MAX: Duration = Duration::from_millis(25);

/// Bytes that wait to be cut into blocks, a stream: a few blocks, so that the encoder does not starve while the relay is woken.
pub(super) const QUEUE_MAX_BYTES: u64 = 1 << 20;

/// A block that was encoded or is being so.
#[derive(Debug)]
pub(super) enum Slot {
    Encoding(JobId),
    Ready(Box<Encoded>),
}

/// A block of which some fragments were handed to a link.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) number: u64,
    pub(super) header: Bytes,
    pub(super) body: Bytes,
    pub(super) sent_bytes: usize,
    pub(super) append: Option<(DomainId, u64, Append)>,
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
    run_bytes: u64,
    pub(super) is_bulk: bool,
    pub(super) recent: Recent,
    pub(super) waiting_since: Option<Instant>,
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
            opened: None,
            is_answered: false,
            stop: None,
            send: SendSide::new(new.peer_window_bytes, now),
            recv: RecvSide {
                state: RecvState::Open,
                window: Window::new(new.local_window_bytes, now),
                order: Reassembly::default(),
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

    /// Whether a frame or a fragment could go out now.
    pub(super) fn has_to_send(&self) -> bool {
        self.open.is_some()
            || self.opened.is_some()
            || self.stop.is_some()
            || matches!(self.send.state, SendState::Resetting(_))
            || self.send.current.is_some()
            || !self.send.repeats.is_empty()
            || matches!(self.send.pipeline.front(), Some(Slot::Ready(_)))
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
    fn new(peer_window_bytes: u64, now: Instant) -> Self {
        Self {
            state: SendState::Open,
            queue: VecDeque::new(),
            queued_bytes: 0,
            cut_offset: 0,
            allowance: Allowance::new(peer_window_bytes),
            pipeline: VecDeque::new(),
            repeats: VecDeque::new(),
            current: None,
            encoding: 0,
            rebuilding: 0,
            unacknowledged: 0,
            hint: None,
            hint_offset: 0,
            habit: Habit::default(),
            mostly_copies: false,
            run_bytes: 0,
            is_bulk: false,
            recent: Recent::new(now),
            waiting_since: None,
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
        if self
            .waiting_since
            .take()
            .is_some_and(|since| now.saturating_duration_since(since) >= GAP)
        {
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

    /// Bytes that may be cut now.
    fn cuttable_bytes(&self) -> u64 {
        self.allowance
            .limit()
            .saturating_sub(self.cut_offset)
            .min(self.queued_bytes)
            .min(u64::from(BLOCK_PLAIN_MAX))
    }

    /// Whether a block should be cut now. `None`: yes. Otherwise the time at which to look again, or none if something else must happen first.
    pub(super) fn cut_waits(&self, has_room: bool, now: Instant) -> Option<Option<Instant>> {
        let bytes = self.cuttable_bytes();
        let one_at_a_time = !self.is_bulk || self.mostly_copies;
        if bytes == 0 || !self.delivers() || (one_at_a_time && self.encoding > 0) {
            return Some(None);
        }
        let relay_can_bring_more =
            self.state == SendState::Open && has_room && self.room_bytes() > 0;
        if !self.is_bulk || bytes >= BULK_BLOCK_BYTES || !relay_can_bring_more {
            return None;
        }
        let until = self.hold_until();
        if now >= until {
            None
        } else {
            Some(Some(until))
        }
    }

    /// When held bytes go out at the latest.
    pub(super) fn hold_until(&self) -> Instant {
        let at_most = self.last_write + HOLD_MAX;
        self.waiting_since
            .map_or(at_most, |since| (since + GAP).min(at_most))
    }

    /// Cuts the next block's bytes off the queue: a slice of one piece where that is a block's worth, gathered otherwise.
    pub(super) fn cut(&mut self) -> Bytes {
        let length = self.cuttable_bytes();
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let plain = match self.queue.front_mut() {
            None => Bytes::new(),
            Some(head) if head.len() > wanted => head.split_to(wanted),
            Some(head) if head.len() == wanted || head.len() as u64 >= BULK_BLOCK_BYTES => {
                self.queue.pop_front().unwrap_or_default()
            }
            Some(_) => self.gather(wanted),
        };
        self.queued_bytes -= plain.len() as u64;
        self.cut_offset += plain.len() as u64;
        plain
    }

    fn gather(&mut self, wanted: usize) -> Bytes {
        let mut plain = BytesMut::with_capacity(wanted);
        while plain.len() < wanted {
            let Some(head) = self.queue.front_mut() else {
                break;
            };
            let room = wanted - plain.len();
            if head.len() > room {
                plain.extend_from_slice(&head.split_to(room));
            } else {
                plain.extend_from_slice(head);
                self.queue.pop_front();
            }
        }
        plain.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send_side(now: Instant) -> SendSide {
        let mut send = SendSide::new(16 << 10, now);
        send.allowance.credit(1, 10 << 20);
        send
    }

    fn piece(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[test]
    fn a_small_write_is_cut_at_once() {
        let now = Instant::now();
        let mut send = send_side(now);
        assert_eq!(send.cut_waits(true, now), Some(None), "nothing there");
        send.push(piece(1), now);
        assert_eq!(send.cut_waits(true, now), None);
        assert_eq!(send.cut().len(), 1);
        assert_eq!((send.cut_offset, send.queued_bytes), (1, 0));
    }

    #[test]
    fn bulk_waits_for_a_full_block_or_a_gap() {
        let now = Instant::now();
        let mut send = send_side(now);
        for _ in 0..4 {
            send.push(piece(64 << 10), now);
        }
        assert!(send.is_bulk);
        assert_eq!(send.cut_waits(true, now), None);
        assert_eq!(send.cut().len(), 256 << 10);
        send.push(piece(1000), now);
        assert_eq!(send.cut_waits(true, now), Some(Some(now + HOLD_MAX)));
        send.waiting_since = Some(now);
        assert_eq!(send.cut_waits(true, now), Some(Some(now + GAP)));
        assert_eq!(send.cut_waits(true, now + GAP), None);
        assert_eq!(
            send.cut_waits(false, now),
            None,
            "without room the relay brings nothing"
        );
        send.state = SendState::Finishing;
        assert_eq!(send.cut_waits(true, now), None);
    }

    #[test]
    fn a_gap_ends_bulk() {
        let now = Instant::now();
        let mut send = send_side(now);
        send.push(piece(300 << 10), now);
        assert!(send.is_bulk);
        send.waiting_since = Some(now);
        send.push(piece(10), now + GAP);
        assert!(!send.is_bulk);
    }

    #[test]
    fn cutting_stops_at_credit_and_loses_nothing() {
        let now = Instant::now();
        let mut send = SendSide::new(1000, now);
        for length in [300, 300, 300, 300] {
            send.push(piece(length), now);
        }
        assert_eq!(send.cut().len(), 1000);
        assert_eq!(send.cut_waits(true, now), Some(None));
        send.allowance.credit(1, 1100);
        assert_eq!(send.cut().len(), 100);
        assert_eq!(
            (send.cut_offset, send.queued_bytes, send.queue.len()),
            (1100, 100, 1)
        );
    }

    #[test]
    fn a_large_piece_is_used_as_it_is() {
        let now = Instant::now();
        let mut send = send_side(now);
        let large = piece(200 << 10);
        let at = large.as_ptr();
        send.push(large, now);
        send.push(piece(200 << 10), now);
        let block = send.cut();
        assert_eq!((block.as_ptr(), block.len()), (at, 200 << 10));
    }
}
