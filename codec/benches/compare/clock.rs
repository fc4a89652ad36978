//! What time is measured by.

use rustix::time::{ClockId, clock_gettime};

/// What `work` gives, and the seconds that this thread was on a processor for it, so that what else runs on the machine counts as little as can be.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let started = thread_seconds();
    let result = work();
    (result, thread_seconds() - started)
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
