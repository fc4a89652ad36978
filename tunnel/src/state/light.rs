//! Which streams send little: what they send is taken to be waited for, by a person or a program.

use std::time::{Duration, Instant};

/// A stream that wrote less than this of late sends little: keys and their echo, questions and short answers, but no files.
const LIGHT_MAX_BYTES: u64 = 32 << 10;

/// What a stream wrote counts half after so long.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// What a stream wrote of late.
#[derive(Debug)]
pub(super) struct Recent {
    bytes: u64,
    since: Instant,
}

impl Recent {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            since: now,
        }
    }

    pub(super) fn wrote(&mut self, bytes: u64, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        let halvings = u32::try_from(age.as_millis() / HALF_LIFE.as_millis()).unwrap_or(u32::MAX);
        if halvings > 0 {
            self.bytes = self.bytes.checked_shr(halvings).unwrap_or(0);
            // To the last full half-life, so that many small steps count as one large one.
            let rest = age.as_nanos() % HALF_LIFE.as_nanos();
            self.since = now - Duration::from_nanos(u64::try_from(rest).unwrap_or(0));
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// As of the last write.
    pub(super) fn is_light(&self) -> bool {
        self.bytes < LIGHT_MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stream_is_light_by_what_it_wrote_of_late() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        assert!(recent.is_light(), "it has not begun");
        for second in 0..100 {
            recent.wrote(10 << 10, start + SECOND * second);
            assert!(recent.is_light());
        }
        recent.wrote(20 << 10, start + SECOND * 99);
        assert!(!recent.is_light());
        recent.wrote(1, start + SECOND * 100);
        assert!(recent.is_light());
        recent.wrote(64 << 10, start + SECOND * 100);
        assert!(!recent.is_light());
        recent.wrote(1, start + SECOND * 10_000);
        assert!(recent.is_light());
    }

    #[test]
    fn many_small_writes_are_forgotten_as_one_large_one() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        for step in 0..400 {
            recent.wrote(1 << 10, start + SECOND / 10 * step);
        }
        // 10 KiB a second, half of it forgotten each second: 20 KiB at most.
        assert!(recent.is_light());
    }
}
