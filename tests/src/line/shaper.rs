//! When a byte leaves the bottleneck and when it arrives: arithmetic on times, without a clock.

use std::time::Duration;

use tokio::time::Instant;

use super::LineConfig;

/// Shortest queue in time: a timer wakes on whole milliseconds, so a shorter queue would run empty between two wakes.
const MIN_QUEUE_TIME: Duration = Duration::from_millis(5);

/// Largest run of bytes put on the line at once.
const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// Smallest such run: a TCP segment of an Ethernet packet.
const MIN_CHUNK_BYTES: usize = 1448;

/// The bottleneck of one direction, first come first served.
#[derive(Debug)]
pub(super) struct Shaper {
    rate_bits_per_s: Option<u64>,
    delay: Duration,
    queue_time: Duration,
    /// When everything accepted so far has left the bottleneck.
    free_at: Option<Instant>,
}

impl Shaper {
    pub(super) fn new(config: &LineConfig) -> Self {
        // A rate of zero would never deliver; the smallest rate is a bit a second.
        let rate_bits_per_s = config.rate_bits_per_s.map(|rate| rate.max(1));
        let queue_time = rate_bits_per_s.map_or(Duration::ZERO, |rate| {
            send_time(config.queue_bytes, rate).max(MIN_QUEUE_TIME)
        });
        Self {
            rate_bits_per_s,
            delay: config.delay,
            queue_time,
            free_at: None,
        }
    }

    /// Bytes to read and send at once: what the rate carries in a millisecond, so that connections interleave finely.
    pub(super) fn chunk_bytes(&self) -> usize {
        let Some(rate) = self.rate_bits_per_s else {
            return MAX_CHUNK_BYTES;
        };
        usize::try_from(rate / 8 / 1000)
            .unwrap_or(usize::MAX)
            .clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
    }

    /// When the queue has room again; `None` when it has room at `now`.
    pub(super) fn room_at(&self, now: Instant) -> Option<Instant> {
        let room = self.free_at?.checked_sub(self.queue_time)?;
        (room > now).then_some(room)
    }

    /// Puts `bytes` into the queue at `now` and returns when the last of them arrives at the other end.
    pub(super) fn send(&mut self, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.rate_bits_per_s else {
            return now + self.delay;
        };
        let begin = self.free_at.map_or(now, |free| free.max(now));
        let left = begin + send_time(bytes, rate);
        self.free_at = Some(left);
        left + self.delay
    }
}

fn send_time(bytes: usize, rate_bits_per_s: u64) -> Duration {
    let nanos = bytes as u128 * 8 * 1_000_000_000 / u128::from(rate_bits_per_s);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn shaper(rate_bits_per_s: u64, delay_ms: u64, queue_bytes: usize) -> Shaper {
        let delay = Duration::from_millis(delay_ms);
        Shaper::new(&LineConfig {
            rate_bits_per_s: Some(rate_bits_per_s),
            delay,
            queue_bytes,
        })
    }

    #[test]
    fn bytes_take_their_time_at_the_rate_and_then_the_delay() {
        let mut shaper = shaper(8_000, 40, 1000);
        let now = Instant::now();
        assert_eq!(shaper.send(now, 100) - now, Duration::from_millis(140));
        assert_eq!(shaper.send(now, 100) - now, Duration::from_millis(240));
        let later = now + Duration::from_secs(10);
        assert_eq!(shaper.send(later, 100) - later, Duration::from_millis(140));
    }

    #[test]
    fn a_full_queue_says_when_it_has_room() {
        let mut shaper = shaper(8_000, 40, 1000);
        let now = Instant::now();
        assert_eq!(shaper.room_at(now), None);
        shaper.send(now, 1000);
        assert_eq!(shaper.room_at(now), None);
        shaper.send(now, 500);
        assert_eq!(
            shaper.room_at(now).unwrap() - now,
            Duration::from_millis(500)
        );
        assert_eq!(shaper.room_at(now + Duration::from_millis(500)), None);
    }

    #[test]
    fn without_a_rate_only_the_delay_counts() {
        let config = LineConfig {
            delay: Duration::from_millis(7),
            ..LineConfig::unshaped()
        };
        let mut shaper = Shaper::new(&config);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(shaper.send(now, 1 << 30) - now, Duration::from_millis(7));
            assert_eq!(shaper.room_at(now), None);
        }
    }

    #[test]
    fn chunks_follow_the_rate_within_bounds() {
        assert_eq!(shaper(1_000, 0, 0).chunk_bytes(), MIN_CHUNK_BYTES);
        assert_eq!(shaper(20_000_000, 0, 0).chunk_bytes(), 2_500);
        assert_eq!(shaper(u64::MAX, 0, 0).chunk_bytes(), MAX_CHUNK_BYTES);
    }

    #[test]
    fn absurd_values_do_not_overflow() {
        let mut shaper = shaper(0, 0, usize::MAX);
        let now = Instant::now();
        assert!(shaper.send(now, 10) > now);
    }
}
