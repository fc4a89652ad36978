//! Waiting for a condition that another process brings about.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take before the test fails: far longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` finds what it wants (`Ok`), and returns it.
///
/// # Panics
/// After a minute, with `what` was waited for and what the last look found (`Err`).
pub async fn eventually<T, E: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(
                Instant::now() < deadline,
                "{what}: not within {LIMIT:?}; last seen: {last:?}"
            ),
        }
        sleep(PAUSE).await;
    }
}
