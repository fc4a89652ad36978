//! What a thread is to the system's scheduler.

/// Tells the system that this thread works through large pieces: when a piece arrives for it, whoever runs is not interrupted for it. It has the same share of
/// the processor as before. For the threads of pool `codec`, so that on few cores a small message does not wait until a block is encoded.
///
/// Elsewhere than on Linux nothing happens.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "sched_setscheduler has no safe wrapper; it reads one number"
)]
pub fn be_batch_work() {
    // SAFETY: all bytes of the struct may be zero, which is the only priority that SCHED_BATCH knows.
    let priority: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the struct during the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "a codec thread is scheduled like any other");
    }
}

/// Tells the system that this thread works through large pieces, on Linux; here nothing happens.
#[cfg(not(target_os = "linux"))]
pub fn be_batch_work() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    /// Field 41 of proc_pid_stat(5).
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_thread_that_says_so_is_batch_work() {
        let before = policy();
        let inside = std::thread::spawn(|| {
            super::be_batch_work();
            policy()
        });
        // SCHED_BATCH, or as before where a container does not allow it.
        assert!([3, before].contains(&inside.join().unwrap()));
        assert_eq!(policy(), before);
    }
}
