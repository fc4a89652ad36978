//! The end of a program after its drain: each step within its time, so that it is gone within a second whatever it was at.

use std::time::Duration;

use tokio::sync::mpsc;
use tunnel::handle::TunnelHandle;

use crate::metrics::Sources;

/// How long tunnels may take to say goodbye, once nothing more is carried.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long relays may take to write their last lines of the log, after the tunnels have drained.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(250);
/// How long histories may take to write what the last moments brought.
const HISTORIES_TIMEOUT: Duration = Duration::from_millis(300);
/// How long the pools' workers may finish what they are at.
const POOLS_TIMEOUT: Duration = Duration::from_millis(200);

/// Waits until tunnels that were told to end have ended.
pub async fn say_goodbye(tunnels: &[TunnelHandle]) {
    let goodbye = async {
        for tunnel in tunnels {
            tunnel.ended().await;
        }
    };
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
}

/// Ends what tunnels shared: histories are written for the last time. `all_done` is closed when the last relay is gone.
pub async fn end(mut all_done: mpsc::Receiver<()>, sources: &Sources) {
    let written = tokio::time::timeout(HISTORIES_TIMEOUT, sources.histories.close());
    let last_lines = tokio::time::timeout(LAST_LINES_TIMEOUT, all_done.recv());
    if let (Err(_elapsed), _) = tokio::join!(written, last_lines) {
        tracing::warn!(
            "the disk is too slow for the last bytes of histories; they will be sent again"
        );
    }
    sources.pools.destroy(POOLS_TIMEOUT).await;
}
