//! What a pool counts. Plain atomics, read as a snapshot, so that a scrape never waits for a worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::job::JobState;

/// Upper bounds, in seconds, of the buckets of a pool's waiting times: from a wake-up's cost to where an operator must act. What
/// waited longer is counted in one more bucket.
pub const WAIT_BOUNDS_SECONDS: [f64; 10] = [
    0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// What a pool has done and what it is doing, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSnapshot {
    /// The pool's name: the value of the metrics' label `pool`.
    pub pool: &'static str,
    /// Its workers.
    pub threads: usize,
    /// Jobs that ended with a result.
    pub finished_total: u64,
    /// Jobs that ended without one.
    pub stopped_total: u64,
    /// Jobs that panicked.
    pub panicked_total: u64,
    /// How many jobs stand in each state now, in the order of [`JobState::ALL`]. Of those that have ended, the ones not yet reaped.
    pub jobs: [u64; JobState::ALL.len()],
    /// How long jobs waited for their first thread.
    pub wait: WaitSnapshot,
}

impl PoolSnapshot {
    /// How many jobs stand in `state`.
    #[must_use]
    pub fn jobs_in(&self, state: JobState) -> u64 {
        self.jobs[state as usize]
    }
}

/// A histogram of waiting times.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitSnapshot {
    /// Waits up to each of [`WAIT_BOUNDS_SECONDS`] and beyond the one before, and at the end those beyond the last: not cumulative.
    pub counts: [u64; WAIT_BOUNDS_SECONDS.len() + 1],
    /// The sum of all waits in seconds.
    pub sum_seconds: f64,
}

/// How a job ended, as the metric's label `result` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Stopped,
    Panicked,
}

/// The counters of one pool.
#[derive(Debug, Default)]
pub(super) struct Counters {
    ended: [AtomicU64; 3],
    jobs: [AtomicU64; JobState::ALL.len()],
    wait_counts: [AtomicU64; WAIT_BOUNDS_SECONDS.len() + 1],
    wait_sum_ns: AtomicU64,
}

impl Counters {
    pub(super) fn enter(&self, state: JobState) {
        self.jobs[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, state: JobState) {
        self.jobs[state as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn pass(&self, from: JobState, to: JobState) {
        if from != to {
            // Entered first: a reader may see a job twice for a moment, and never a gauge below zero.
            self.enter(to);
            self.leave(from);
        }
    }

    pub(super) fn ended(&self, end: End) {
        self.ended[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, wait: Duration) {
        let seconds = wait.as_secs_f64();
        let bucket = WAIT_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.wait_counts[bucket].fetch_add(1, Ordering::Relaxed);
        let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.wait_sum_ns.fetch_add(wait_ns, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, pool: &'static str, threads: usize) -> PoolSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ended = self.ended.each_ref().map(read);
        PoolSnapshot {
            pool,
            threads,
            finished_total: ended[End::Finished as usize],
            stopped_total: ended[End::Stopped as usize],
            panicked_total: ended[End::Panicked as usize],
            jobs: self.jobs.each_ref().map(read),
            wait: WaitSnapshot {
                counts: self.wait_counts.each_ref().map(read),
                sum_seconds: Duration::from_nanos(read(&self.wait_sum_ns)).as_secs_f64(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let counters = Counters::default();
        counters.waited(Duration::ZERO);
        counters.waited(Duration::from_micros(50));
        counters.waited(Duration::from_micros(51));
        counters.waited(Duration::from_secs(30));
        counters.waited(Duration::from_secs(31));
        let wait = counters.snapshot("codec", 1).wait;
        assert_eq!(wait.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert!((wait.sum_seconds - 61.000_101).abs() < 1e-9);
    }

    #[test]
    fn every_state_has_its_own_gauge() {
        for (index, state) in JobState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
        }
    }
}
