//! When bulk may go while a latency-sensitive stream is active: at a little less than the line carries, so that no queue stands in front of it.
//!
//! What the line carries shows only when more is asked of it, and asking for more makes a queue. So the pace goes up by a hundredth each round
//! trip until the round trips show a queue of a few milliseconds, and then stays below what arrived until that queue is gone: between 95 % and
//! a little more than what the line carries.
//!
//! Round trips tell of both directions. So every other time, by chance, nothing is done at first but to wait whether the queue goes away: then it
//! was the other direction's, which does the same, and only the one that fills its line is held down. While a queue of ours drains, more
//! arrives than is sent; when no more arrives, the queue is other traffic's, or the way has become longer, and draining ends.
//!
//! A machine that is busy makes round trips long and arrivals few, too. So the pace is judged by what was sent and not by itself: who sends less than
//! the pace allows makes no queue by it. It never falls below three quarters of what arrived of late, and a queue found to be another's is
//! tolerated at its longest for a while.
//!
//! Delay as the sign goes back to TCP Vegas (Brakmo and Peterson, 1995). Here it only ever holds back bulk beside what is urgent; the congestion
//! control of the kernel stays what it was.

use std::time::{Duration, Instant};

use super::line::{LineMeasure, Round, bytes_in};

/// A queue counts when it is longer than this and than [`QUEUE_DIVISOR`] of the empty line's round trip.
const QUEUE_MIN: Duration = Duration::from_micros(2500);
/// See [`QUEUE_MIN`].
const QUEUE_DIVISOR: u32 = 20;

/// Draining, the pace is this much of what arrived, in permille, less what drains the queue in [`DRAIN_ROUND_TRIPS`].
const BELOW_PERMILLE: u64 = 970;
/// See [`BELOW_PERMILLE`].
const DRAIN_ROUND_TRIPS: u64 = 8;

/// After so many round trips of draining, no more arrives than is sent if the queue is not ours: no more than [`OURS_PERMILLE`] of it. Less than
/// [`SLOWER_PERMILLE`] of it at any time means that the line became slower.
const JUDGED_AFTER: u8 = 5;
/// See [`JUDGED_AFTER`].
const OURS_PERMILLE: u64 = 1015;
/// See [`JUDGED_AFTER`].
const SLOWER_PERMILLE: u64 = 970;

/// A queue that may be another's is waited for this long, while it does not grow by [`QUEUE_GROWTH`].
const WAITS_MAX: u8 = 8;
/// See [`WAITS_MAX`].
const QUEUE_GROWTH: Duration = Duration::from_millis(1);

/// Without a queue, the pace grows by this much in a round trip, twice as much after [`GROWTH_ROUNDS`], and so on up to [`GROWTH_MAX_PERMILLE`].
const GROWTH_PERMILLE: u64 = 10;
/// See [`GROWTH_PERMILLE`].
const GROWTH_ROUNDS: u32 = 10;
/// See [`GROWTH_PERMILLE`].
const GROWTH_MAX_PERMILLE: u64 = 80;
/// It does not grow beyond this much of what arrived of late.
const MOST_PERMILLE: u64 = 1250;

/// A pace of which less than this was sent is not what makes a queue.
const USED_PERMILLE: u64 = 900;

/// The pace is no less than this much of the most that arrived in one or two times [`RECENT_SPAN`], held back or not, or as many times [`FULL_ROUNDS`]. A
/// machine that is busy for a minute makes each round look like a slower line, and the pace would follow what it has itself caused, round by round, to
/// the least there is (measured: 6 % of the line within 20 s). A line that has really become slower does not take what the pace allows: the
/// socket is full, and those rounds count.
const LEAST_PERMILLE: u64 = 750;
/// See [`LEAST_PERMILLE`].
const RECENT_SPAN: Duration = Duration::from_secs(30);
/// See [`LEAST_PERMILLE`].
const FULL_ROUNDS: u32 = 16;

/// A tolerated queue is forgotten by this part of the difference in each round.
const TOLERATED_DIVISOR: u32 = 16;

/// The pace is never less: a line that stood still must show when it goes again.
const RATE_MIN_BYTES_PER_S: u64 = 64 << 10;

/// Bulk goes in steps of so much of the line's time, or every few bytes would cost a wake-up.
const STEP: Duration = Duration::from_millis(2);

/// So much of the line's time may be sent at once: what a wake-up that comes late has missed.
const BURST: Duration = Duration::from_millis(8);

/// At least so much may, or frames would not fit.
const BURST_MIN_BYTES: u64 = 8 << 10;

/// So much of the line's time may lie unsent in the socket before bulk waits, and at least [`UNSENT_MIN_BYTES`].
const UNSENT: Duration = Duration::from_millis(2);
/// See [`UNSENT`].
const UNSENT_MIN_BYTES: u64 = 4 << 10;

/// The same while the line's rate is not known.
const UNSENT_UNSETTLED: Duration = Duration::from_millis(20);
/// See [`UNSENT_UNSETTLED`].
const UNSENT_UNSETTLED_MIN_BYTES: u64 = 32 << 10;

/// Meanwhile a round trip that is longer than the empty line's by a quarter, and by at least this much, is a queue of the connection's start: what bulk
/// adds to it is in the way of what is urgent, and then lost, and what is urgent with it. As much as arrives in a round trip of the empty line may be
/// under way all the same, for a busy machine makes round trips long, too.
const START_QUEUE_MIN: Duration = Duration::from_millis(10);
/// See [`START_QUEUE_MIN`].
const START_QUEUE_DIVISOR: u32 = 4;

/// A tiny congestion window is left to what is urgent for so long; BBR's looking for the round trip takes 200 ms. Then bulk gets half of it.
const TINY_WINDOW: Duration = Duration::from_millis(300);

/// A wait is not shorter: timers are no finer, and each costs a wake-up.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Nor longer: what the kernel says is looked at again.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// While the socket is full it is looked at this often: nobody tells when it has sent.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// Rounds of which the mean is what was sent: as many as make the line's rate.
const SENT_ROUNDS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Bytes a second at which bulk leaves; 0 while none is held back.
    rate_bytes_per_s: u64,
    /// Bytes that may go now; negative after a burst of what is not held back.
    tokens_bytes: i64,
    refilled: Instant,
    /// Bytes handed to the link since the last sample.
    since_sample_bytes: u64,
    /// The least round trip of this round.
    least: Option<Duration>,
    /// A round trip whose queue is not ours.
    tolerated: Duration,
    /// The longest since this queue was noticed.
    longest: Duration,
    /// Bytes handed to the link in this round, and what they were a second in the last four.
    sent_bytes: u64,
    round_start: Instant,
    sent: [u64; SENT_ROUNDS],
    /// Bulk waited in this round because the socket was full: more was asked than the line carries.
    was_full: bool,
    /// The same, and it was not that the congestion control allowed next to nothing.
    was_unsent: bool,
    /// The most that arrived in this span of rounds and in the one before.
    recent: [u64; 2],
    recent_since: Instant,
    /// Rounds since then in which the socket was full.
    full_rounds: u32,
    /// Rounds in which the pace has grown, one behind the other.
    growing: u32,
    queue: Queue,
    chance: u64,
}

/// What is done about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    None,
    /// It may be another's; how long it was, and for how many rounds it has stood.
    Waiting(Duration, u8),
    /// It has been draining for so many rounds.
    Draining(u8),
}

impl Pacer {
    /// `chance` should differ between the two ends.
    pub(super) fn new(chance: u64, now: Instant) -> Self {
        Self {
            rate_bytes_per_s: 0,
            tokens_bytes: 0,
            refilled: now,
            since_sample_bytes: 0,
            least: None,
            tolerated: Duration::ZERO,
            longest: Duration::ZERO,
            sent_bytes: 0,
            round_start: now,
            sent: [0; SENT_ROUNDS],
            was_full: false,
            was_unsent: false,
            recent: [0; 2],
            recent_since: now,
            full_rounds: 0,
            growing: 0,
            queue: Queue::None,
            chance,
        }
    }

    /// A sample was taken, with which a round may have ended. While no bulk is held back, the queue is the congestion control's.
    pub(super) fn sampled(
        &mut self,
        line: &LineMeasure,
        round: Round,
        is_active: bool,
        now: Instant,
    ) {
        self.since_sample_bytes = 0;
        if round == Round::Busy {
            self.remember(line, now);
        }
        if !is_active {
            // From the start again when it is.
            self.rate_bytes_per_s = 0;
            return;
        }
        if self.rate_bytes_per_s == 0 {
            *self = Self {
                recent: self.recent,
                recent_since: self.recent_since,
                full_rounds: self.full_rounds,
                ..Self::new(self.chance, now)
            };
            self.set_rate(permille(line.rate_bytes_per_s(), BELOW_PERMILLE));
        }
        self.refill(now);
        let round_trip = line.last().round_trip;
        let least = self.least.map_or(round_trip, |least| least.min(round_trip));
        self.least = Some(least);
        if round == Round::GoesOn {
            return;
        }
        self.least = None;
        let length = now.saturating_duration_since(self.round_start);
        let sent = super::line::rate(std::mem::take(&mut self.sent_bytes), length);
        self.round_start = now;
        let was_full = std::mem::take(&mut self.was_full);
        if round == Round::Busy {
            self.count(sent);
            self.round_ended(least, was_full, line);
        }
    }

    fn round_ended(&mut self, least: Duration, was_full: bool, line: &LineMeasure) {
        let empty = line.round_trip_min();
        let less = self.tolerated.saturating_sub(least) / TOLERATED_DIVISOR;
        self.tolerated = self.tolerated.saturating_sub(less);
        let is_used = self.sent_bytes_per_s() >= permille(self.rate_bytes_per_s, USED_PERMILLE);
        if !is_used && !was_full {
            self.queue = Queue::None;
            return;
        }
        let queue = least.saturating_sub(empty.max(self.tolerated));
        let too_long = QUEUE_MIN.max(empty / QUEUE_DIVISOR);
        let is_short = queue <= too_long / 2;
        self.longest = match self.queue {
            Queue::None => least,
            Queue::Waiting(..) | Queue::Draining(_) => self.longest.max(least),
        };
        match self.queue {
            Queue::None if queue <= too_long => self.grow(line),
            Queue::None => {
                if self.flip() {
                    self.queue = Queue::Waiting(queue, 0);
                } else {
                    self.drain(queue, least, line);
                }
            }
            Queue::Waiting(..) | Queue::Draining(_) if is_short => self.queue = Queue::None,
            Queue::Waiting(before, rounds)
                if rounds < WAITS_MAX && queue <= before + QUEUE_GROWTH =>
            {
                self.queue = Queue::Waiting(before, rounds + 1);
            }
            Queue::Waiting(..) => self.drain(queue, least, line),
            Queue::Draining(rounds) => {
                let (arrived, sent) = (line.rate_bytes_per_s(), self.sent_bytes_per_s());
                let is_least = self.rate_bytes_per_s <= self.least_rate(line);
                let is_slower = was_full || arrived < permille(sent, SLOWER_PERMILLE);
                if rounds > 0 && is_slower && (was_full || !is_least) {
                    self.drain(queue, least, line);
                } else if rounds < JUDGED_AFTER {
                    self.queue = Queue::Draining(rounds + 1);
                } else if is_least || arrived <= permille(sent, OURS_PERMILLE) {
                    self.queue = Queue::None;
                    self.tolerated = self.longest;
                }
            }
        }
    }

    fn drain(&mut self, queue: Duration, least: Duration, line: &LineMeasure) {
        self.growing = 0;
        self.queue = Queue::Draining(0);
        let below = below(line, queue, least).max(self.least_rate(line));
        self.set_rate(self.rate_bytes_per_s.min(below));
    }

    /// Notes what a round has sent.
    fn count(&mut self, sent: u64) {
        self.sent.rotate_left(1);
        if let Some(last) = self.sent.last_mut() {
            *last = sent;
        }
    }

    /// Notes what has arrived.
    fn remember(&mut self, line: &LineMeasure, now: Instant) {
        let [present, before] = &mut self.recent;
        *present = (*present).max(line.rate_bytes_per_s());
        self.full_rounds += u32::from(std::mem::take(&mut self.was_unsent));
        let is_long_ago = now.saturating_duration_since(self.recent_since) >= RECENT_SPAN;
        if is_long_ago || self.full_rounds >= FULL_ROUNDS {
            self.recent_since = now;
            self.full_rounds = 0;
            *before = *present;
            *present = line.rate_bytes_per_s();
        }
    }

    fn sent_bytes_per_s(&self) -> u64 {
        self.sent.iter().sum::<u64>() / SENT_ROUNDS as u64
    }

    fn least_rate(&self, line: &LineMeasure) -> u64 {
        let [present, before] = self.recent;
        let recent = present.max(before).max(line.rate_bytes_per_s());
        permille(recent, LEAST_PERMILLE)
    }

    /// Heads or tails (the generator is Knuth's).
    fn flip(&mut self) -> bool {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 63 == 1
    }

    fn grow(&mut self, line: &LineMeasure) {
        let doublings = (self.growing / GROWTH_ROUNDS).min(GROWTH_MAX_PERMILLE.ilog2());
        let growth = (GROWTH_PERMILLE << doublings).min(GROWTH_MAX_PERMILLE);
        self.growing = self.growing.saturating_add(1);
        let most = permille(line.rate_bytes_per_s(), MOST_PERMILLE);
        let more = permille(self.rate_bytes_per_s, 1000 + growth);
        // What arrives may lag behind for a while; that is no reason to go slower.
        self.set_rate(more.min(most).max(self.rate_bytes_per_s.min(most)));
    }

    fn set_rate(&mut self, rate_bytes_per_s: u64) {
        self.rate_bytes_per_s = rate_bytes_per_s.max(RATE_MIN_BYTES_PER_S);
    }

    /// When bulk may go: `None` is now.
    pub(super) fn waits(&mut self, line: &LineMeasure, now: Instant) -> Option<Instant> {
        if self.rate_bytes_per_s == 0 {
            // Held back for the first time: the next sample sets the pace.
            return Some(now + WAIT_MIN);
        }
        self.refill(now);
        let is_unsent = self.is_unsent(line);
        self.was_unsent |= is_unsent;
        if is_unsent || self.is_window_tiny(line, now) {
            self.was_full = true;
            return Some(now + FULL_WAIT);
        }
        if self.tokens_bytes > 0 {
            return None;
        }
        let step = bytes_in(self.rate_bytes_per_s, STEP).max(UNSENT_MIN_BYTES);
        let wanted = u128::from(self.tokens_bytes.unsigned_abs() + step);
        let rate = u128::from(self.rate_bytes_per_s);
        let wait = u64::try_from(wanted * 1_000_000 / rate).unwrap_or(u64::MAX);
        Some(now + Duration::from_micros(wait).clamp(WAIT_MIN, WAIT_MAX))
    }

    /// `bytes` were handed to the link, of bulk or not.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.refill(now);
        // What is not held back counts too, but not for longer than a few bursts.
        let floor = -i64::try_from(self.burst_bytes())
            .unwrap_or(i64::MAX)
            .saturating_mul(4);
        self.tokens_bytes = self
            .tokens_bytes
            .saturating_sub_unsigned(bytes as u64)
            .max(floor);
        self.since_sample_bytes = self.since_sample_bytes.saturating_add(bytes as u64);
        self.sent_bytes = self.sent_bytes.saturating_add(bytes as u64);
    }

    fn burst_bytes(&self) -> u64 {
        bytes_in(self.rate_bytes_per_s, BURST).max(BURST_MIN_BYTES)
    }

    fn refill(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        let fresh = bytes_in(self.rate_bytes_per_s, span);
        let most = i64::try_from(self.burst_bytes()).unwrap_or(i64::MAX);
        self.tokens_bytes = self.tokens_bytes.saturating_add_unsigned(fresh).min(most);
    }

    /// When bulk may go while the line's rate is not known: the socket must have something to send, or it would never be, but no more than that.
    pub(super) fn waits_unsettled(&self, line: &LineMeasure, now: Instant) -> Option<Instant> {
        let most = line
            .bytes_in(UNSENT_UNSETTLED)
            .max(UNSENT_UNSETTLED_MIN_BYTES);
        let is_full = line.last().unsent_bytes + self.since_sample_bytes > most;
        let empty = line.round_trip_min();
        let too_long = empty + START_QUEUE_MIN.max(empty / START_QUEUE_DIVISOR);
        let under_way = line.last().in_flight_bytes + self.since_sample_bytes;
        let is_queueing = line.last().round_trip > too_long
            && under_way > line.bytes_in(empty).max(UNSENT_UNSETTLED_MIN_BYTES);
        (is_full || is_queueing).then(|| now + FULL_WAIT)
    }

    /// What bulk adds now would only wait in the socket, in front of what is urgent.
    fn is_unsent(&self, line: &LineMeasure) -> bool {
        // What was added since the sample is being sent by now, as far as the pace allowed it.
        let added = self.since_sample_bytes.saturating_sub(self.burst_bytes());
        line.last().unsent_bytes + added > line.bytes_in(UNSENT).max(UNSENT_MIN_BYTES)
    }

    /// The congestion control allows so little that it is left to what is urgent.
    fn is_window_tiny(&self, line: &LineMeasure, now: Instant) -> bool {
        let last = line.last();
        let Some(since) = line.window_tiny_since() else {
            return false;
        };
        now.saturating_duration_since(since) < TINY_WINDOW
            || last.in_flight_bytes + self.since_sample_bytes > last.window_bytes / 2
    }
}

fn permille(of: u64, permille: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(permille) / 1000).unwrap_or(u64::MAX)
}

/// Below what arrives, by as much as drains `queue` soon.
fn below(line: &LineMeasure, queue: Duration, round_trip: Duration) -> u64 {
    let part = queue.as_micros() * 1000 / round_trip.as_micros().max(1);
    let part = u64::try_from(part).unwrap_or(1000).min(1000);
    let below = BELOW_PERMILLE - part / DRAIN_ROUND_TRIPS;
    permille(line.rate_bytes_per_s(), below)
}

#[cfg(test)]
mod tests;
