//! Credit of one stream in one direction, as its receiver grants it and as its sender sees it.

use std::time::{Duration, Instant};

/// A window never grows beyond this: 20 Gbit/s at 100 ms.
pub(super) const WINDOW_MAX_BYTES: u64 = 256 << 20;

/// What a new stream is granted at once when memory allows: a page or a small file comes without a further round trip.
pub(super) const WINDOW_AT_OPEN_BYTES: u64 = 256 << 10;

/// In bulk, credit comes in steps of at least this much, so that it costs less than 0.01 % of the other direction.
pub(super) const STEP_BYTES: u64 = 128 << 10;

/// A window grows when half of it was consumed within so many round trips: then it may be what limits the stream.
const GROW_WITHIN_ROUND_TRIPS: u32 = 2;

/// The receiver's side: what it has granted and what it holds memory for.
///
/// `granted − consumed ≤ window`, and everything of the window above the reserved part is charged to the budget before it is granted.
#[derive(Debug)]
pub(super) struct Window {
    reserved_bytes: u64,
    window_bytes: u64,
    granted: u64,
    consumed: u64,
    turn: u64,
    /// The largest window so far: to be had again at once after a Yield.
    reached_bytes: u64,
    tuned_at: Instant,
    tuned_consumed: u64,
}

/// What is worth doing about credit that could be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    Nothing,
    /// With the next frames, or after a short while.
    Later,
    Now,
}

impl Window {
    pub(super) fn new(reserved_bytes: u64, now: Instant) -> Self {
        Self {
            reserved_bytes,
            window_bytes: reserved_bytes,
            granted: reserved_bytes,
            consumed: 0,
            turn: 0,
            reached_bytes: 0,
            tuned_at: now,
            tuned_consumed: 0,
        }
    }

    /// The absolute offset granted so far.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    pub(super) fn consumed_bytes(&self) -> u64 {
        self.consumed
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn
    }

    /// The largest window that the stream had.
    pub(super) fn reached_bytes(&self) -> u64 {
        self.reached_bytes.max(self.window_bytes)
    }

    /// Whether the window is smaller than what a new stream is offered: memory was short then, or a Yield has shrunk it.
    pub(super) fn is_small(&self) -> bool {
        self.window_bytes < WINDOW_AT_OPEN_BYTES
    }

    /// What of the window is charged to the budget.
    pub(super) fn charged_bytes(&self) -> u64 {
        self.window_bytes - self.reserved_bytes
    }

    /// `bytes` were delivered to the LAN; returns how much the window wants to grow.
    pub(super) fn consume(&mut self, bytes: u64, round_trip: Duration, now: Instant) -> u64 {
        self.consumed = self.consumed.saturating_add(bytes).min(self.granted);
        if self.consumed - self.tuned_consumed < self.window_bytes.div_ceil(2) {
            return 0;
        }
        let quick =
            now.saturating_duration_since(self.tuned_at) <= round_trip * GROW_WITHIN_ROUND_TRIPS;
        self.tuned_at = now;
        self.tuned_consumed = self.consumed;
        if quick {
            self.window_bytes
                .min(WINDOW_MAX_BYTES.saturating_sub(self.window_bytes))
        } else {
            0
        }
    }

    /// What is missing to a window of `target_bytes`.
    pub(super) fn missing_to(&self, target_bytes: u64) -> u64 {
        target_bytes
            .min(WINDOW_MAX_BYTES)
            .saturating_sub(self.window_bytes)
    }

    /// The budget was charged with `bytes` for this window.
    pub(super) fn grow(&mut self, bytes: u64) {
        self.window_bytes += bytes;
        self.reached_bytes = self.reached_bytes.max(self.window_bytes);
    }

    /// How urgent the next Credit is.
    pub(super) fn urgency(&self) -> Urgency {
        let more = self.grantable();
        if more == 0 {
            Urgency::Nothing
        } else if more >= self.window_bytes / 4 {
            Urgency::Now
        } else {
            Urgency::Later
        }
    }

    /// Whether the next Credit is large enough to ride along with other frames.
    pub(super) fn is_worth_a_ride(&self) -> bool {
        self.grantable() >= STEP_BYTES.min(self.window_bytes / 4).max(1)
    }

    fn grantable(&self) -> u64 {
        (self.consumed.saturating_add(self.window_bytes)).saturating_sub(self.granted)
    }

    /// The Credit that was sent last, if one was.
    pub(super) fn last_grant(&self) -> Option<(u64, u64)> {
        (self.turn > 0).then_some((self.turn, self.granted))
    }

    /// Grants what can be granted: the turn and offset of the Credit to send.
    pub(super) fn grant(&mut self) -> Option<(u64, u64)> {
        let more = self.grantable();
        if more == 0 {
            return None;
        }
        self.granted += more;
        self.turn += 1;
        self.check();
        Some((self.turn, self.granted))
    }

    /// The sender gives back what was granted above `offset`, which is at least `received`. Returns what of the charge is free again.
    pub(super) fn take_back(&mut self, offset: u64) -> u64 {
        self.granted = self.granted.min(offset).max(self.consumed);
        let smaller = (self.granted - self.consumed)
            .max(self.reserved_bytes)
            .min(self.window_bytes);
        let freed = self.window_bytes - smaller;
        self.window_bytes = smaller;
        self.check();
        freed
    }

    /// Nothing will be held for the stream any more. Returns what of the charge is free again.
    pub(super) fn close(&mut self) -> u64 {
        let freed = self.charged_bytes();
        self.reached_bytes = self.reached_bytes();
        self.window_bytes = self.reserved_bytes;
        freed
    }

    fn check(&self) {
        debug_assert!(
            self.consumed <= self.granted,
            "consumed more than was granted: {self:?}"
        );
        debug_assert!(
            self.granted - self.consumed <= self.window_bytes,
            "granted more than is charged: {self:?}"
        );
        debug_assert!(
            self.window_bytes >= self.reserved_bytes,
            "less than is reserved: {self:?}"
        );
    }
}

/// The sender's side: what it may send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// What the receiver keeps reserved; never yielded.
    reserved_bytes: u64,
    limit: u64,
    turn: u64,
    /// Growth of this turn was given back.
    has_yielded: bool,
}

impl Allowance {
    pub(super) fn new(reserved_bytes: u64) -> Self {
        Self {
            reserved_bytes,
            limit: reserved_bytes,
            turn: 0,
            has_yielded: false,
        }
    }

    /// The absolute offset up to which may be sent.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// A Credit. False if it is an older turn's and changes nothing.
    pub(super) fn credit(&mut self, turn: u64, offset: u64) -> bool {
        if turn <= self.turn {
            return false;
        }
        self.turn = turn;
        self.limit = offset;
        self.has_yielded = false;
        true
    }

    /// Whether there is something to give back, with `used` bytes sent or queued.
    pub(super) fn has_growth(&self, used: u64) -> bool {
        self.turn > 0 && self.limit > used.saturating_add(self.reserved_bytes)
    }

    /// Gives growth back: the turn and offset of the Yield to send.
    pub(super) fn give_back(&mut self, used: u64) -> Option<(u64, u64)> {
        if !self.has_growth(used) {
            return None;
        }
        self.limit = used + self.reserved_bytes;
        self.has_yielded = true;
        Some((self.turn, self.limit))
    }

    /// Whether growth of the present turn was given back.
    pub(super) fn has_yielded(&self) -> bool {
        self.has_yielded
    }

    /// The Yield of the present turn, if there was one.
    pub(super) fn last_yield(&self) -> Option<(u64, u64)> {
        self.has_yielded.then_some((self.turn, self.limit))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RESERVED: u64 = 16 << 10;
    const ROUND_TRIP: Duration = Duration::from_millis(80);

    #[test]
    fn a_window_doubles_while_it_limits() {
        let mut now = Instant::now();
        let mut window = Window::new(RESERVED, now);
        for _ in 0..8 {
            now += ROUND_TRIP;
            let before = window.window_bytes;
            let more = window.consume(before, ROUND_TRIP, now);
            assert_eq!(more, before);
            window.grow(more);
            assert_eq!(window.urgency(), Urgency::Now);
            window.grant().unwrap();
        }
        now += ROUND_TRIP * 5;
        assert_eq!(
            window.consume(window.window_bytes, ROUND_TRIP, now),
            0,
            "slow consumption does not"
        );
    }

    #[test]
    fn a_window_ends_at_its_bound() {
        let now = Instant::now();
        let mut window = Window::new(RESERVED, now);
        window.grow(window.missing_to(WINDOW_MAX_BYTES - 100));
        window.grant().unwrap();
        assert_eq!(window.consume(WINDOW_MAX_BYTES / 2, ROUND_TRIP, now), 100);
    }

    #[test]
    fn an_older_turn_changes_nothing() {
        let mut allowance = Allowance::new(RESERVED);
        assert!(allowance.credit(2, 100_000));
        assert!(!allowance.credit(1, 50_000));
        assert!(!allowance.credit(2, 200_000));
        assert_eq!(allowance.limit(), 100_000);
        assert_eq!(allowance.give_back(10), Some((2, 10 + RESERVED)));
        assert_eq!(allowance.give_back(10), None);
    }

    #[test]
    fn a_yielded_window_keeps_the_reserve_and_what_is_under_way() {
        let mut window = Window::new(RESERVED, Instant::now());
        window.grow(window.missing_to(1 << 20));
        let (_, granted) = window.grant().unwrap();
        assert_eq!(granted, 1 << 20);
        assert_eq!(
            window.take_back(RESERVED + 1000),
            (1 << 20) - RESERVED - 1000
        );
        assert_eq!(window.charged_bytes(), 1000);
        assert_eq!(window.reached_bytes(), 1 << 20);
        assert_eq!(window.close(), 1000);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Send(u64),
        Consume(u64),
        Grant,
        DeliverCredit,
        Yield,
        DeliverYield,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (1..40_000u64).prop_map(Act::Send),
            (1..40_000u64).prop_map(Act::Consume),
            Just(Act::Grant),
            Just(Act::DeliverCredit),
            Just(Act::Yield),
            Just(Act::DeliverYield),
        ]
    }

    proptest! {
        /// Whatever crosses on the line, the sender never may send more than the receiver has memory for.
        #[test]
        fn credit_is_conserved(acts in proptest::collection::vec(act(), 1..200)) {
            let now = Instant::now();
            let mut window = Window::new(RESERVED, now);
            let mut allowance = Allowance::new(RESERVED);
            let (mut sent, mut consumed) = (0u64, 0u64);
            let (mut credits, mut yields) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
            for act in acts {
                match act {
                    Act::Send(n) => sent += n.min(allowance.limit() - sent),
                    Act::Consume(n) => {
                        let n = n.min(sent - consumed);
                        consumed += n;
                        let more = window.consume(n, ROUND_TRIP, now);
                        window.grow(more);
                    }
                    Act::Grant => credits.extend(window.grant()),
                    Act::DeliverCredit => if let Some((turn, offset)) = credits.pop_front() {
                        allowance.credit(turn, offset);
                    },
                    Act::Yield => yields.extend(allowance.give_back(sent)),
                    Act::DeliverYield => if let Some((turn, offset)) = yields.pop_front()
                        && turn == window.turn() {
                        // Links keep order: what was sent before the Yield has arrived before it.
                        window.take_back(offset);
                    },
                }
                prop_assert!(allowance.limit() >= sent);
                prop_assert!(sent <= window.granted(), "sent {sent} granted {}", window.granted());
                prop_assert!(window.granted() - window.consumed_bytes() <= window.window_bytes);
            }
        }
    }
}
