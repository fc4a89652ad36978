//! The end of a program after its drain: each step until its time, so that it is gone within a second whatever it was at. What one step leaves of its
//! time the next ones have, and most goes to histories: what their disk takes need not be sent again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tunnel::handle::TunnelHandle;

use super::THREADS_TIMEOUT;
use crate::metrics::Sources;

/// Until when tunnels may say goodbye, once nothing more is carried.
const GOODBYE_UNTIL: Duration = Duration::from_millis(250);
/// Until when relays may write their last lines of the log, after the tunnels have drained.
const LAST_LINES_UNTIL: Duration = Duration::from_millis(500);
/// Until when histories may write what the last moments brought.
const HISTORIES_UNTIL: Duration = Duration::from_millis(700);
/// Until when the pools' workers may finish what they are at.
const POOLS_UNTIL: Duration = Duration::from_millis(800);
/// What is left after all that and the threads, for the system to end the process.
const EXIT_TIME: Duration = Duration::from_millis(100);

const _: () = assert!(
    POOLS_UNTIL.as_millis() + THREADS_TIMEOUT.as_millis() + EXIT_TIME.as_millis() <= 1000,
    "the process is gone within a second"
);

/// How long histories may take to be written before their directory is left to a successor, whose connections wait meanwhile.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Leaves the directory of histories to another program, once what is new in them is on disk.
pub async fn release_histories(sources: Arc<Sources>) {
    let (histories, pools) = (&sources.histories, &sources.pools);
    histories.release(&pools.storage, RELEASE_TIMEOUT).await;
}

/// What a program has left once its drain has ended, well or not.
#[derive(Debug)]
pub struct LastSecond(Instant);

impl LastSecond {
    /// It begins now.
    #[expect(clippy::new_without_default, reason = "a moment")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Waits until tunnels that were told to end have ended.
    pub async fn say_goodbye(&self, tunnels: &[TunnelHandle]) {
        let goodbye = async {
            for tunnel in tunnels {
                tunnel.ended().await;
            }
        };
        let _ = timeout_at(self.0 + GOODBYE_UNTIL, goodbye).await;
    }

    /// Ends what tunnels shared: histories are written for the last time. `all_done` is closed when the last relay is gone.
    pub async fn end(self, mut all_done: mpsc::Receiver<()>, sources: &Sources) {
        let written = timeout_at(self.0 + HISTORIES_UNTIL, sources.histories.close());
        let last_lines = timeout_at(self.0 + LAST_LINES_UNTIL, all_done.recv());
        if let (Err(_elapsed), _) = tokio::join!(written, last_lines) {
            tracing::warn!(
                "the disk is too slow for the last bytes of histories; they will be sent again"
            );
        }
        let left = (self.0 + POOLS_UNTIL).saturating_duration_since(Instant::now());
        sources.pools.destroy(left).await;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::mpsc::channel;

    use tunnel::histories::{Histories, HistoriesConfig, Home, Lean, OpenDirectory};
    use tunnel::pool::{JobName, call};

    use super::*;
    use crate::metrics::sources;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_hangs_and_a_relay_that_stays_do_not_hold_the_program_up() {
        let directory = tempfile::tempdir().unwrap();
        let opened = OpenDirectory::open(&directory.path().join("history")).unwrap();
        let mut sources = sources();
        sources.histories = Arc::new(Histories::new(HistoriesConfig {
            home: Home::Disk(opened),
            ..HistoriesConfig::in_memory(Lean::Sending, 1 << 20)
        }));
        // The only thread that writes waits for the disk.
        let storage = sources.pools.storage.clone();
        let (hold, held) = channel::<()>();
        let (begin, begun) = channel();
        let name = JobName {
            who: "test".into(),
            why: "hang",
        };
        let hangs = tokio::spawn(async move {
            let work = move || {
                begin.send(()).unwrap();
                held.recv()
            };
            call(&storage, name, Box::new(work)).await
        });
        begun.recv().unwrap();
        sources.histories.start_keeper(&sources.pools.storage);
        let (relay, all_done) = mpsc::channel::<()>(1);
        LastSecond::new().end(all_done, &sources).await;
        // It ended before both.
        hold.send(()).unwrap();
        drop(relay);
        hangs.await.unwrap();
    }
}
