//! How long to wait before the next attempt.

use std::time::Duration;

/// A jittered exponential backoff: the settings, all of them within bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    factor: f64,
}

impl Backoff {
    /// The longest wait that can be asked for. Bounds the arithmetic; who wants to wait longer than a day wants to be stopped.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// A backoff whose waits lie between `min` and `max`, and whose upper end grows by `factor` from one to the next.
    ///
    /// # Errors
    /// Where `min` is zero, `max` is below `min` or beyond [`Self::LONGEST`], or `factor` is not a number from 1 to 16.
    pub fn new(min: Duration, max: Duration, factor: f64) -> Result<Self, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::Zero);
        }
        if max < min {
            return Err(BackoffError::Inverted { min, max });
        }
        if max > Self::LONGEST {
            return Err(BackoffError::TooLong { max });
        }
        // Beyond 16 the second attempt is all but the last; also refuses what is not a number.
        if !(1.0..=16.0).contains(&factor) {
            return Err(BackoffError::Factor { factor });
        }
        Ok(Self { min, max, factor })
    }

    /// The waits, one for each attempt, without end. `random` gives numbers from 0 to 1, evenly distributed.
    ///
    /// The k-th wait (from 1) lies evenly between half of `min(max, min * factor^k)` and the whole of it, and never below `min`: spread
    /// widely, so that a thousand branches do not return at the same moment.
    pub fn waits<R: FnMut() -> f64>(self, random: R) -> Waits<R> {
        Waits {
            backoff: self,
            ceiling: self.min,
            random,
        }
    }
}

/// Why a backoff cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BackoffError {
    /// Attempts without a wait between them.
    #[error("the shortest wait must be longer than zero")]
    Zero,
    /// The ends are in the wrong order.
    #[error("the longest wait ({max:?}) is below the shortest ({min:?})")]
    Inverted {
        /// What was given as the shortest wait.
        min: Duration,
        /// What was given as the longest wait.
        max: Duration,
    },
    /// Beyond [`Backoff::LONGEST`].
    #[error("the longest wait ({max:?}) is beyond a day")]
    TooLong {
        /// What was given as the longest wait.
        max: Duration,
    },
    /// Shrinking, exploding or not a number.
    #[error("the factor between waits must be from 1 to 16, and is {factor}")]
    Factor {
        /// What was given as the factor.
        factor: f64,
    },
}

/// The waits of a [`Backoff`]. See [`Backoff::waits`].
#[derive(Clone, Debug)]
pub struct Waits<R> {
    backoff: Backoff,
    ceiling: Duration,
    random: R,
}

impl<R> Waits<R> {
    /// Begins again with the shortest waits: an attempt has succeeded.
    pub fn reset(&mut self) {
        self.ceiling = self.backoff.min;
    }
}

impl<R: FnMut() -> f64> Iterator for Waits<R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let Backoff { min, max, factor } = self.backoff;
        // At most 16 days: far from where this panics.
        self.ceiling = self.ceiling.mul_f64(factor).min(max);
        let floor = (self.ceiling / 2).max(min);
        // A source of randomness that is out of bounds shall not put the wait out of its own. Taking the maximum first makes 0 of NaN.
        let random = (self.random)().max(0.0).clamp(0.0, 1.0);
        Some(floor + (self.ceiling.saturating_sub(floor)).mul_f64(random))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_grow_by_the_factor_to_the_longest_and_begin_again_after_a_reset() {
        let backoff = Backoff::new(ms(100), ms(1_000), 2.0).unwrap();
        let mut highest = backoff.waits(|| 1.0);
        let waits: Vec<_> = highest.by_ref().take(5).collect();
        assert_eq!(waits, [200, 400, 800, 1_000, 1_000].map(ms));
        highest.reset();
        assert_eq!(highest.next(), Some(ms(200)));
        let lowest: Vec<_> = backoff.waits(|| 0.0).take(5).collect();
        assert_eq!(lowest, [100, 200, 400, 500, 500].map(ms));
    }

    #[test]
    fn a_random_source_out_of_bounds_does_not_put_the_wait_out_of_its_own() {
        let backoff = Backoff::new(ms(100), ms(1_000), 2.0).unwrap();
        for (random, wait) in [
            (f64::NAN, 100),
            (-5.0, 100),
            (f64::INFINITY, 200),
            (7.0, 200),
        ] {
            assert_eq!(backoff.waits(|| random).next(), Some(ms(wait)));
        }
    }

    #[test]
    fn settings_out_of_range_cannot_be_built() {
        assert_eq!(
            Backoff::new(Duration::ZERO, ms(1), 2.0),
            Err(BackoffError::Zero)
        );
        let (min, max) = (ms(2), ms(1));
        assert_eq!(
            Backoff::new(min, max, 2.0),
            Err(BackoffError::Inverted { min, max })
        );
        assert!(Backoff::new(min, min, 1.0).is_ok());
        assert!(Backoff::new(min, Backoff::LONGEST, 16.0).is_ok());
        let max = Backoff::LONGEST + Duration::from_nanos(1);
        assert_eq!(
            Backoff::new(min, max, 2.0),
            Err(BackoffError::TooLong { max })
        );
        for factor in [0.99, 16.01, -1.0, f64::INFINITY] {
            assert_eq!(
                Backoff::new(min, min, factor),
                Err(BackoffError::Factor { factor })
            );
        }
        assert!(Backoff::new(min, min, f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn every_wait_lies_between_the_shortest_and_the_longest(
            min_ms in 1_u64..10_000,
            more_ms in 0_u64..86_390_000,
            factor in 1.0..=16.0,
            random in proptest::collection::vec(any::<f64>(), 1..40),
        ) {
            let (min, max) = (ms(min_ms), ms(min_ms + more_ms));
            let count = random.len();
            let mut random = random.into_iter();
            let waits = Backoff::new(min, max, factor).unwrap().waits(move || random.next().unwrap());
            for wait in waits.take(count) {
                prop_assert!(min <= wait && wait <= max, "{wait:?}");
            }
        }
    }
}
