//! Addresses that another program holds which was killed a moment ago: its sockets are closed after its memory was taken apart, and that takes a while.

use std::io;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

static UNTIL: OnceLock<Instant> = OnceLock::new();

/// For so long from now on, who wants to listen at an address that is in use waits for it. To be called once, at the start of a program, when nothing
/// else runs yet: the calling thread sleeps.
pub fn wait_for_addresses(time: Duration) {
    let _once = UNTIL.set(Instant::now() + time);
}

/// Tries until it is no longer an address in use that it fails for, or the time for that is over.
pub(super) fn patiently<T>(mut listen: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match listen() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && UNTIL.get().is_some_and(|until| Instant::now() < *until) =>
            {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}
