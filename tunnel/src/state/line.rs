//! What a line carries and how long a queue stands in front of it, learnt from what the kernel says of a link's socket.
//!
//! The rate is what arrived in the last few round trips in which there was always something to send; others can only raise it. It is a mean and
//! not the most, as in BBR: with bulk both ways, acknowledgements come in a rush whenever the queue of the other direction shrinks, and single
//! round trips then show a tenth more than the line carries (measured). The empty line's round trip is the least that was seen of late.

use std::time::{Duration, Instant};

/// What the kernel says of a link's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineSample {
    /// Bytes that have arrived at the other end since the connection began.
    pub delivered_bytes: u64,
    /// Bytes that the socket took and has not yet sent.
    pub unsent_bytes: u64,
    /// Bytes sent and on their way.
    pub in_flight_bytes: u64,
    /// Bytes that the congestion control would let be on their way.
    pub window_bytes: u64,
    /// The smoothed round trip of packets.
    pub round_trip: Duration,
}

/// A round lasts a round trip, and at least this long: shorter ones see bursts and not the line.
const ROUND_MIN: Duration = Duration::from_millis(20);

/// The rate is the mean of so many rounds.
const ROUNDS: usize = 4;

/// A rate that grew by less than a quarter in so many rounds is the line's, and not the start of a connection.
const ROUNDS_WITHOUT_GROWTH: u8 = 3;

/// The least round trip of the last one or two of these counts as the empty line's.
const ROUND_TRIP_SPAN: Duration = Duration::from_secs(15);

/// What a sample says of the present round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    GoesOn,
    /// It has ended, and there was always something to send.
    Busy,
    /// It has ended, and says little of the line.
    Idle,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LineMeasure {
    last: LineSample,
    round_start: Instant,
    round_length: Duration,
    round_delivered: u64,
    /// There was something to send all the time.
    round_is_busy: bool,
    /// What arrived in the last rounds, and how long they took.
    rounds: [(u64, Duration); ROUNDS],
    next_round: usize,
    rate_bytes_per_s: u64,
    growth_base: u64,
    rounds_without_growth: u8,
    round_trip_spans: [Duration; 2],
    span_start: Instant,
    window_tiny_since: Option<Instant>,
}

impl LineMeasure {
    pub(super) fn new(sample: LineSample, now: Instant) -> Self {
        Self {
            last: sample,
            round_start: now,
            round_length: sample.round_trip.max(ROUND_MIN),
            round_delivered: sample.delivered_bytes,
            round_is_busy: false,
            rounds: [(0, Duration::ZERO); ROUNDS],
            next_round: 0,
            rate_bytes_per_s: 0,
            growth_base: 0,
            rounds_without_growth: 0,
            round_trip_spans: [sample.round_trip; 2],
            span_start: now,
            window_tiny_since: None,
        }
    }

    /// Takes a sample; `is_busy`: something waited for the line since the last one. Tells whether a round has ended with it.
    pub(super) fn take(&mut self, sample: LineSample, is_busy: bool, now: Instant) -> Round {
        self.last = sample;
        if self.last.window_bytes < self.bytes_in(self.round_trip_min()) / 4 {
            self.window_tiny_since.get_or_insert(now);
        } else {
            self.window_tiny_since = None;
        }
        self.round_is_busy &= is_busy && self.window_tiny_since.is_none();
        self.take_round_trip(sample.round_trip, now);
        let length = now.saturating_duration_since(self.round_start);
        if length < self.round_length {
            return Round::GoesOn;
        }
        let delivered = sample.delivered_bytes.saturating_sub(self.round_delivered);
        self.take_round(delivered, length);
        self.round_start = now;
        // As long as it is now: one that grows with the round trips would never end while a queue grows faster than time passes.
        self.round_length = sample.round_trip.max(ROUND_MIN);
        self.round_delivered = sample.delivered_bytes;
        if std::mem::replace(&mut self.round_is_busy, true) {
            Round::Busy
        } else {
            Round::Idle
        }
    }

    /// Since when the congestion control has allowed far less than what fills the line: BBR looks for the empty line's round trip, or much was
    /// lost.
    pub(super) fn window_tiny_since(&self) -> Option<Instant> {
        self.window_tiny_since
    }

    fn take_round(&mut self, delivered: u64, length: Duration) {
        let rate = rate(delivered, length);
        if !self.round_is_busy && rate <= self.rate_bytes_per_s {
            return;
        }
        if let Some(slot) = self.rounds.get_mut(self.next_round) {
            *slot = (delivered, length);
        }
        self.next_round = (self.next_round + 1) % ROUNDS;
        let (delivered, length) = self
            .rounds
            .iter()
            .fold((0, Duration::ZERO), |(bytes, time), round| {
                (bytes + round.0, time + round.1)
            });
        self.rate_bytes_per_s = self::rate(delivered, length);
        if rate > self.growth_base.saturating_add(self.growth_base / 4) {
            self.growth_base = rate;
            self.rounds_without_growth = 0;
        } else if self.round_is_busy {
            self.rounds_without_growth = self.rounds_without_growth.saturating_add(1);
        }
    }

    fn take_round_trip(&mut self, sample: Duration, now: Instant) {
        let [present, before] = &mut self.round_trip_spans;
        if now.saturating_duration_since(self.span_start) >= ROUND_TRIP_SPAN {
            *before = *present;
            *present = sample;
            self.span_start = now;
        }
        *present = (*present).min(sample);
    }

    pub(super) fn last(&self) -> &LineSample {
        &self.last
    }

    /// Bytes a second that the line carries, as far as is known; 0 when nothing is.
    pub(super) fn rate_bytes_per_s(&self) -> u64 {
        self.rate_bytes_per_s
    }

    /// Whether the rate is the line's, or still growing as at the start of a connection.
    pub(super) fn is_settled(&self) -> bool {
        self.rounds_without_growth >= ROUNDS_WITHOUT_GROWTH
    }

    /// The empty line's round trip.
    pub(super) fn round_trip_min(&self) -> Duration {
        let [present, before] = self.round_trip_spans;
        present.min(before)
    }

    /// What the line carries in `span`.
    pub(super) fn bytes_in(&self, span: Duration) -> u64 {
        bytes_in(self.rate_bytes_per_s(), span)
    }
}

/// Bytes a second.
pub(super) fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

pub(super) fn bytes_in(rate_bytes_per_s: u64, span: Duration) -> u64 {
    u64::try_from(u128::from(rate_bytes_per_s) * span.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sample(delivered_bytes: u64) -> LineSample {
        LineSample {
            delivered_bytes,
            round_trip: 40 * MS,
            window_bytes: 10 << 20,
            ..LineSample::default()
        }
    }

    /// Rounds of 40 ms in which `rate` bytes a second arrive.
    fn rounds(measure: &mut LineMeasure, count: u32, rate: u64, is_busy: bool, now: &mut Instant) {
        for _ in 0..count {
            *now += 40 * MS;
            let delivered = measure.last().delivered_bytes + rate * 40 / 1000;
            let wanted = if is_busy { Round::Busy } else { Round::Idle };
            assert_eq!(measure.take(sample(delivered), is_busy, *now), wanted);
        }
    }

    #[test]
    fn a_busy_line_shows_its_rate_and_an_idle_one_keeps_it() {
        let mut now = Instant::now();
        let mut measure = LineMeasure::new(sample(0), now);
        // The first round begins with the first sample.
        rounds(&mut measure, 1, 1_000_000, false, &mut now);
        rounds(&mut measure, 5, 1_000_000, true, &mut now);
        assert_eq!(measure.rate_bytes_per_s(), 1_000_000);
        rounds(&mut measure, 100, 10_000, false, &mut now);
        assert_eq!(measure.rate_bytes_per_s(), 1_000_000);
        rounds(&mut measure, 4, 500_000, true, &mut now);
        assert_eq!(
            measure.rate_bytes_per_s(),
            500_000,
            "the line has become slower"
        );
        rounds(&mut measure, 4, 2_000_000, false, &mut now);
        assert_eq!(measure.rate_bytes_per_s(), 2_000_000);
    }

    #[test]
    fn a_connection_that_still_doubles_is_not_settled() {
        let mut now = Instant::now();
        let mut measure = LineMeasure::new(sample(0), now);
        rounds(&mut measure, 1, 50_000, false, &mut now);
        for round in 0..8 {
            rounds(&mut measure, 1, 100_000 << round, true, &mut now);
            assert!(!measure.is_settled());
        }
        rounds(&mut measure, 3, 13_000_000, true, &mut now);
        assert!(measure.is_settled());
    }

    #[test]
    fn a_connection_that_sends_little_never_settles() {
        let mut now = Instant::now();
        let mut measure = LineMeasure::new(sample(0), now);
        rounds(&mut measure, 100, 1000, false, &mut now);
        assert!(!measure.is_settled());
    }

    #[test]
    fn the_least_round_trip_is_of_late() {
        let start = Instant::now();
        let mut measure = LineMeasure::new(sample(0), start);
        let with = |round_trip| LineSample {
            round_trip,
            ..sample(0)
        };
        measure.take(with(60 * MS), true, start + MS);
        assert_eq!(measure.round_trip_min(), 40 * MS);
        for second in 1..=31 {
            measure.take(with(60 * MS), true, start + 1000 * MS * second);
        }
        assert_eq!(
            measure.round_trip_min(),
            60 * MS,
            "the way has become longer"
        );
    }
}
