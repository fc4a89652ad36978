//! Frames without a number: what waits to be sent, and when it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codec::frame::{Frame, Reason, StreamId};

use super::credit::{Urgency, WINDOW_AT_OPEN_BYTES};
use super::stream::{RecvState, Stream};
use super::timers::Timer;
use super::{Event, Tunnel, TunnelConfig, Violation};
use crate::budget::Use;

/// Credit that nothing rides with goes alone after this time.
const CREDIT_DELAY: Duration = Duration::from_millis(25);

/// A sender that was idle for so long gives growth back.
const IDLE: Duration = Duration::from_secs(1);

/// Streams whose Credit is looked at for riding along, each time.
const RIDERS: usize = 16;

/// Pings that wait to be answered; more are a flood, and only the newest matter.
const PONGS_MAX: usize = 16;

/// What waits to be sent besides numbered frames.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    /// Frames that were handed to the link before its Ping of this token: until the Pong nobody knows whether they arrived.
    doubtful: VecDeque<(u64, Frame)>,
    credit_now: VecDeque<StreamId>,
    credit_later: VecDeque<StreamId>,
    yields: VecDeque<StreamId>,
    credit_due: Option<Instant>,
}

impl Outbox {
    /// Queues a frame. One that says the same thing newer takes the older one's place, so that a peer which does not read cannot
    /// make the queue grow.
    pub(super) fn push(&mut self, frame: Frame) {
        self.frames.retain(|queued| !is_outdated(queued, &frame));
        self.frames.push_back(frame);
    }

    pub(super) fn extend(&mut self, frames: Vec<Frame>) {
        for frame in frames {
            self.push(frame);
        }
    }

    /// Takes what waits. It is in doubt until `confirm` of the token of a Ping that goes behind it.
    fn take_frames(&mut self, next_ping: u64, out: &mut Vec<Frame>) {
        for frame in self.frames.drain(..) {
            self.doubtful
                .retain(|(_, doubtful)| !is_outdated(doubtful, &frame));
            if is_said_once(&frame) {
                self.doubtful.push_back((next_ping, frame.clone()));
            }
            out.push(frame);
        }
    }

    /// The peer has answered the Ping of this token.
    pub(super) fn confirm(&mut self, token: u64) {
        self.doubtful.retain(|(next_ping, _)| *next_ping > token);
    }

    /// The link is lost: what may not have arrived goes again, before what was not sent yet.
    pub(super) fn repeat_doubtful(&mut self) {
        while let Some((_, frame)) = self.doubtful.pop_back() {
            if !self.frames.iter().any(|newer| is_outdated(&frame, newer)) {
                self.frames.push_front(frame);
            }
        }
    }

    /// Whether it is not known that the peer has heard all Coverage.
    pub(super) fn has_doubtful_coverage(&self) -> bool {
        let mut doubtful = self.doubtful.iter().map(|(_, frame)| frame);
        let is_coverage = |frame: &Frame| matches!(frame, Frame::Coverage(_));
        doubtful.any(is_coverage) || self.frames.iter().any(is_coverage)
    }

    /// The stream's Credit goes again at once.
    pub(super) fn repeat(&mut self, stream: StreamId) {
        self.credit_now.push_back(stream);
    }

    /// The stream's Yield goes again.
    pub(super) fn repeat_yield(&mut self, stream: StreamId) {
        self.yields.push_back(stream);
    }

    pub(super) fn credit_deadline(&self) -> Option<Instant> {
        self.credit_due
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.credit_due.is_some_and(|due| due <= now) {
            self.credit_due = None;
            self.credit_now.append(&mut self.credit_later);
        }
    }

    fn list(&mut self, stream: StreamId, urgency: Urgency, now: Instant) {
        match urgency {
            Urgency::Nothing => {}
            Urgency::Now => self.credit_now.push_back(stream),
            Urgency::Later => {
                self.credit_later.push_back(stream);
                self.credit_due.get_or_insert(now + CREDIT_DELAY);
            }
        }
    }
}

/// Whether `newer` makes `queued` pointless.
fn is_outdated(queued: &Frame, newer: &Frame) -> bool {
    match (queued, newer) {
        (Frame::Coverage(a), Frame::Coverage(b)) => (a.domain, a.side) == (b.domain, b.side),
        (Frame::Quota { domain: a, .. }, Frame::Quota { domain: b, .. })
        | (Frame::Floor { domain: a, .. }, Frame::Floor { domain: b, .. })
        | (Frame::Floored { domain: a, .. }, Frame::Floored { domain: b, .. }) => a == b,
        (Frame::Renew { .. }, Frame::Renew { .. }) | (Frame::Renewed(_), Frame::Renewed(_)) => true,
        _ => false,
    }
}

/// Whether nothing but the frame itself would tell the peer; what others say is repeated from their own state.
fn is_said_once(frame: &Frame) -> bool {
    matches!(
        frame,
        Frame::Coverage(_) | Frame::Quota { .. } | Frame::Renew { .. } | Frame::Renewed(_)
    )
}

/// Opens both ways: Credit of stream 0.
#[derive(Debug)]
pub(super) struct Opens {
    /// Opens made here.
    pub(super) made: u64,
    allowed: u64,
    turn: u64,
    /// Somebody was told that there are no more.
    pub(super) is_wanted: bool,
    /// Opens of the peer that came.
    pub(super) received: u64,
    pub(super) granted: u64,
    grant_turn: u64,
    /// The last Credit may have been lost.
    grant_again: bool,
    /// Streams of the peer that are closed.
    closed: u64,
    open_max: u64,
}

impl Opens {
    pub(super) fn new(config: &TunnelConfig) -> Self {
        Self {
            made: 0,
            allowed: config.peer.streams_max,
            turn: 0,
            is_wanted: false,
            received: 0,
            granted: config.local.streams_max,
            grant_turn: 0,
            grant_again: false,
            closed: 0,
            open_max: config.local.streams_max,
        }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.made < self.allowed
    }

    fn grant(&mut self) -> Option<Frame> {
        let target = self.closed.saturating_add(self.open_max);
        let repeats = std::mem::take(&mut self.grant_again) && self.grant_turn > 0;
        if target > self.granted {
            self.granted = target;
            self.grant_turn += 1;
        } else if !repeats {
            return None;
        }
        Some(Frame::Credit {
            stream: StreamId::TUNNEL,
            turn: self.grant_turn,
            offset: self.granted,
        })
    }

    /// What was granted last is said once more.
    pub(super) fn repeat_grant(&mut self) {
        self.grant_again = true;
    }
}

impl Tunnel {
    // ---- giving credit ----

    /// One more of the peer's streams is closed: it may open another.
    pub(super) fn peer_stream_closed(&mut self, now: Instant) {
        self.opens.closed += 1;
        let owed = self
            .opens
            .closed
            .saturating_add(self.opens.open_max)
            .saturating_sub(self.opens.granted);
        let urgency = if owed * 4 >= self.opens.open_max {
            Urgency::Now
        } else {
            Urgency::Later
        };
        // Stream 0 stands in the lists at most once: when the first Open is owed, and when it becomes urgent.
        if owed == 1 || urgency == Urgency::Now {
            self.outbox.list(StreamId::TUNNEL, urgency, now);
        }
    }

    /// A new stream, or one that woke up, gets more than the reserve if memory allows.
    pub(super) fn grow_at_open(&mut self, id: StreamId, now: Instant) {
        let target = self.window_recent_bytes.max(WINDOW_AT_OPEN_BYTES);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let target = target.max(stream.recv.window.reached_bytes());
        // Under pressure a small growth is better than none.
        for target in [
            target,
            WINDOW_AT_OPEN_BYTES,
            WINDOW_AT_OPEN_BYTES / 4,
            WINDOW_AT_OPEN_BYTES / 16,
        ] {
            let missing = stream.recv.window.missing_to(target);
            if self.memory.may_offer(missing) && stream.try_grow(missing) {
                break;
            }
        }
        self.list_credit(id, now);
    }

    /// Puts the stream on the list that its owed credit belongs to.
    pub(super) fn list_credit(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.recv.state != RecvState::Open || stream.recv.finish.is_some() {
            return;
        }
        let urgency = stream.recv.window.urgency();
        if urgency > stream.recv.credit_listed {
            stream.recv.credit_listed = urgency;
            self.outbox.list(id, urgency, now);
        }
    }

    /// The Credit that the stream is owed, if its state still wants one.
    fn credit_frame(&mut self, id: StreamId) -> Option<Frame> {
        if id.is_tunnel() {
            return self.opens.grant();
        }
        let stream = self.streams.get_mut(&id)?;
        stream.recv.credit_listed = Urgency::Nothing;
        if stream.open.is_some() || stream.open_again {
            // The peer does not know the stream yet; listed again when its Open goes out.
            return None;
        }
        if stream.recv.state != RecvState::Open || stream.recv.finish.is_some() {
            return None;
        }
        let repeats = std::mem::take(&mut stream.recv.credit_again);
        let window = &mut stream.recv.window;
        let last = window.last_grant().filter(|_| repeats);
        let (turn, offset) = window.grant().or(last)?;
        Some(Frame::Credit {
            stream: id,
            turn,
            offset,
        })
    }

    /// All that goes without a number: what is due, and with `riding` also what may go along with other frames. The link's next Ping, of the token
    /// `next_ping`, goes behind it.
    pub(super) fn poll_control(&mut self, riding: bool, next_ping: u64, out: &mut Vec<Frame>) {
        self.outbox.take_frames(next_ping, out);
        self.inbound.poll_acknowledgements(riding, out);
        while let Some(id) = self.outbox.credit_now.pop_front() {
            out.extend(self.credit_frame(id));
        }
        if riding {
            for _ in 0..RIDERS {
                let Some(&id) = self.outbox.credit_later.front() else {
                    break;
                };
                let worth = self
                    .streams
                    .get(&id)
                    .is_none_or(|stream| stream.recv.window.is_worth_a_ride());
                if !worth {
                    break;
                }
                self.outbox.credit_later.pop_front();
                out.extend(self.credit_frame(id));
            }
        }
        if self.outbox.credit_later.is_empty() {
            self.outbox.credit_due = None;
        }
        while let Some(id) = self.outbox.yields.pop_front() {
            if let Some(stream) = self.streams.get_mut(&id) {
                let send = &mut stream.send;
                let used = send.written();
                let repeats = std::mem::take(&mut send.yields_again);
                let last = send.allowance.last_yield().filter(|_| repeats);
                let yielded = std::mem::take(&mut send.is_yielding)
                    .then(|| send.allowance.give_back(used))
                    .flatten();
                out.extend(yielded.or(last).map(|(turn, offset)| Frame::Yield {
                    stream: id,
                    turn,
                    offset,
                }));
            }
        }
    }

    /// Whether `poll_control` would give something without anything to ride with.
    pub(super) fn has_urgent_control(&self) -> bool {
        !self.outbox.frames.is_empty()
            || !self.outbox.credit_now.is_empty()
            || !self.outbox.yields.is_empty()
    }

    // ---- taking credit ----

    pub(super) fn handle_credit(
        &mut self,
        id: StreamId,
        turn: u64,
        offset: u64,
        now: Instant,
    ) -> Result<(), Violation> {
        if id.is_tunnel() {
            if turn > self.opens.turn {
                if offset < self.opens.allowed {
                    return Err(Violation::CreditTakenBack(id));
                }
                self.opens.turn = turn;
                self.opens.allowed = offset;
                if self.opens.is_allowed() && std::mem::take(&mut self.opens.is_wanted) {
                    self.events.push_back(Event::OpensAvailable);
                }
            }
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let before = stream.send.allowance;
        if !stream.send.allowance.credit(turn, offset) {
            return Ok(());
        }
        if offset < stream.send.cut_offset {
            stream.send.allowance = before;
            return Err(Violation::CreditTakenBack(id));
        }
        self.watch_idle(id, now);
        self.want_encode(id);
        self.tell_writable(id);
        Ok(())
    }

    pub(super) fn handle_yield(
        &mut self,
        id: StreamId,
        turn: u64,
        offset: u64,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let recv = &mut stream.recv;
        if turn > recv.window.turn() {
            return Err(Violation::YieldOutOfBounds(id));
        }
        if turn < recv.window.turn() || recv.state != RecvState::Open {
            return Ok(());
        }
        if offset < recv.order.announced_end() || offset > recv.window.granted() {
            return Err(Violation::YieldOutOfBounds(id));
        }
        if offset == recv.window.granted() {
            // A repetition: it was taken back before.
            return Ok(());
        }
        let freed = recv.window.take_back(offset);
        stream.release_growth(freed);
        self.list_credit(id, now);
        Ok(())
    }

    // ---- giving credit back ----

    /// Sees to it that an idle stream's growth is given back.
    pub(super) fn watch_idle(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.send.has_idle_timer && stream.send.allowance.has_growth(stream.send.written()) {
            stream.send.has_idle_timer = true;
            self.timers.set(now + IDLE, id, Timer::Idle);
        }
    }

    pub(super) fn idle_timer(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let send = &mut stream.send;
        send.has_idle_timer = false;
        if !send.is_open() || !send.allowance.has_growth(send.written()) {
            return;
        }
        let idle_at = send.last_write + IDLE;
        if now < idle_at || send.queued_bytes > 0 {
            send.has_idle_timer = true;
            self.timers
                .set(idle_at.max(now + IDLE / 2), id, Timer::Idle);
        } else if !std::mem::replace(&mut send.is_yielding, true) {
            self.outbox.yields.push_back(id);
        }
    }

    // ---- pings ----

    pub(super) fn answer_ping(&mut self, link: super::LinkId, token: u64) {
        if let Some(state) = self.link_mut(link) {
            if state.pongs.len() == PONGS_MAX {
                state.pongs.pop_front();
            }
            state.pongs.push_back(token);
        }
    }

    pub(super) fn take_goaway(&mut self) -> Option<Reason> {
        self.goaway_to_send.take()
    }
}

impl Stream {
    /// Charges the budget for `bytes` more of window. False if it has no room.
    pub(super) fn try_grow(&mut self, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let (Some(share), Ok(more)) = (&self.share, usize::try_from(bytes)) else {
            return false;
        };
        let charged = match &mut self.recv.growth {
            Some(growth) => growth.try_grow(more),
            None => {
                self.recv.growth = share.try_charge(Use::Credit, more);
                self.recv.growth.is_some()
            }
        };
        if charged {
            self.recv.window.grow(bytes);
        }
        debug_assert_eq!(
            self.growth_bytes(),
            self.recv.window.charged_bytes(),
            "a window is what was charged for"
        );
        charged
    }

    /// Gives back what the window has shrunk by.
    pub(super) fn release_growth(&mut self, bytes: u64) {
        if let Some(growth) = &mut self.recv.growth {
            growth.release(usize::try_from(bytes).unwrap_or(usize::MAX));
            if growth.bytes() == 0 {
                self.recv.growth = None;
            }
        }
        debug_assert_eq!(
            self.growth_bytes(),
            self.recv.window.charged_bytes(),
            "a window is what was charged for"
        );
    }

    fn growth_bytes(&self) -> u64 {
        self.recv
            .growth
            .as_ref()
            .map_or(0, |growth| growth.bytes() as u64)
    }
}
