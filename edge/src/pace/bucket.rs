//! A token bucket. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::config::Rate;

/// The burst is what the rate lets through in this time: long enough that timers of a millisecond cost no rate, short enough that nobody's
/// router notices.
const BURST_TIME_MS: u64 = 100;
/// But never less, or a slow rate would cut every write to pieces.
const BURST_MIN_BYTES: u64 = 8 * 1024;
/// A turn takes this part of the burst, so that several streams share it.
const QUANTUM_DIVISOR: u64 = 4;
/// And never more: one read from a socket.
const QUANTUM_MAX_BYTES: u64 = 128 * 1024;

const BITS_PER_BYTE: u128 = 8;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Lets bytes through at a rate, and at most [`burst_bytes`](Self::burst_bytes) more. Whoever reserves waits as long as it is told; reservations
/// queue behind each other, so those who share it take turns.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// When it is full again if nobody reserves more.
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    pub const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// What may pass at once after a pause.
    pub fn burst_bytes(&self) -> u64 {
        let in_time = self.rate.bits_per_second() / (8 * 1000 / BURST_TIME_MS);
        in_time.max(BURST_MIN_BYTES)
    }

    /// What one turn takes at most.
    pub fn quantum_bytes(&self) -> usize {
        let quantum = (self.burst_bytes() / QUANTUM_DIVISOR).min(QUANTUM_MAX_BYTES);
        usize::try_from(quantum).unwrap_or(usize::MAX)
    }

    /// Reserves `bytes`; they may pass after the time that is returned.
    pub fn reserve(&mut self, bytes: usize, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + self.time_of(bytes as u64);
        let debt = self.full_at.saturating_duration_since(now);
        debt.saturating_sub(self.time_of(self.burst_bytes()))
    }

    /// Of what was reserved, `bytes` did not pass.
    pub fn give_back(&mut self, bytes: usize) {
        let time = self.time_of(bytes as u64);
        self.full_at = self.full_at.checked_sub(time).unwrap_or(self.full_at);
    }

    /// Rounded up, so that the rate is never exceeded.
    fn time_of(&self, bytes: u64) -> Duration {
        /// A century: beyond it nothing is added up.
        const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let bits = u128::from(bytes) * BITS_PER_BYTE;
        let nanos = (bits * NANOS_PER_SECOND).div_ceil(u128::from(self.rate.bits_per_second()));
        u64::try_from(nanos)
            .map_or(MAX, Duration::from_nanos)
            .min(MAX)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn rate(kilobits: u64) -> Rate {
        format!("{kilobits}kbit/s").parse().unwrap()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_counts() {
        let start = Instant::now();
        let mut bucket = Bucket::new("8Mbit/s".parse().unwrap(), start);
        assert_eq!(
            (bucket.burst_bytes(), bucket.quantum_bytes()),
            (100_000, 25_000)
        );
        for _ in 0..4 {
            assert_eq!(bucket.reserve(25_000, start), Duration::ZERO);
        }
        assert_eq!(bucket.reserve(25_000, start), Duration::from_millis(25));
        assert_eq!(bucket.reserve(25_000, start), Duration::from_millis(50));
        bucket.give_back(25_000);
        assert_eq!(bucket.reserve(25_000, start), Duration::from_millis(50));
        let later = start + Duration::from_secs(9);
        assert_eq!(bucket.reserve(100_000, later), Duration::ZERO);
        assert_eq!(bucket.reserve(1_000, later), Duration::from_millis(1));
    }

    #[test]
    fn the_slowest_and_the_fastest_rate_can_be_reckoned_with() {
        let start = Instant::now();
        for text in ["1bit/s", "18446744073Gbit/s"] {
            if let Ok(rate) = text.parse() {
                let mut bucket = Bucket::new(rate, start);
                for _ in 0..1000 {
                    let _wait = bucket.reserve(usize::MAX, start);
                    let _wait = bucket.reserve(1, start);
                }
            }
        }
    }

    proptest! {
        /// Streams that wait as they are told, of which some do not use all they reserved: at no time more than burst and rate have passed, and a
        /// backlog is served at the rate.
        #[test]
        fn no_more_passes_than_burst_and_rate_and_a_backlog_no_less(
            kilobits in 1u64..10_000_000,
            steps in prop::collection::vec((0usize..4, 1usize..200_000, 0u64..50_000, 0usize..100), 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate(kilobits), start);
            let mut streams = [start; 4];
            let mut passed: Vec<(Duration, u64)> = Vec::new();
            let mut now = start;
            for (stream, wanted, idle_us, unused_percent) in steps {
                now += Duration::from_micros(idle_us);
                let ready = &mut streams[stream];
                if *ready > now {
                    continue;
                }
                let bytes = wanted.min(bucket.quantum_bytes());
                *ready = now + bucket.reserve(bytes, now);
                let unused = bytes * unused_percent / 100;
                // Given back when the turn has come; here nothing reserves in between.
                bucket.give_back(unused);
                passed.push((*ready - start, (bytes - unused) as u64));
            }
            passed.sort();
            let burst = bucket.burst_bytes();
            let allowed = |time: Duration| u128::from(burst) + u128::from(kilobits) * 125 * time.as_nanos() / NANOS_PER_SECOND + 1;
            let mut sum = 0u128;
            for (time, bytes) in &passed {
                sum += u128::from(*bytes);
                prop_assert!(sum <= allowed(*time) + 4 * u128::from(QUANTUM_MAX_BYTES).min(u128::from(burst)), "{sum} after {time:?}");
            }
            // A backlog from here on.
            let mut at = now.max(streams.into_iter().max().unwrap_or(now));
            let begun = at;
            let mut served = 0u64;
            for _ in 0..100 {
                let bytes = bucket.quantum_bytes();
                at += bucket.reserve(bytes, at);
                served += bytes as u64;
            }
            let time = (at - begun).as_nanos();
            let at_rate = u128::from(kilobits) * 125 * time / NANOS_PER_SECOND;
            prop_assert!(u128::from(served) + 1 >= at_rate, "{served} in {time} ns");
            prop_assert!(u128::from(served) <= at_rate + u128::from(burst) + 1, "{served} in {time} ns");
        }
    }
}
