//! Programs that run until somebody ends them.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves once this program was asked to end, by SIGTERM or Ctrl-C. Signals count from the call on, which comes before a program says that it
/// is ready: whoever reads that may send one at once.
///
/// # Errors
/// When the system takes no handler.
pub fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
