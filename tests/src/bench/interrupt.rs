//! SIGINT, SIGTERM and SIGHUP end a run early but in order: programs, namespaces and files of the present pair go first.

use std::thread;

use anyhow::{Context, Result, bail};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether somebody wants the run to end.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on, until the process ends.
    pub(super) fn listen() -> Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _inside = runtime.enter();
            [
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ]
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .context("cannot listen to signals")?
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    if let [interrupt, terminate, hangup] = signals.as_mut_slice() {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                            _ = hangup.recv() => {}
                        }
                    }
                    let _nobody = sender.send(true);
                    // It stays so.
                    std::future::pending::<()>().await;
                });
            })?;
        Ok(Self(receiver))
    }

    /// An error once it was asked for.
    pub(super) fn check(&self) -> Result<()> {
        if *self.0.borrow() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for it.
    pub(super) async fn asked(mut self) {
        // Who would ask is there as long as the process.
        let _asked = self.0.wait_for(|asked| *asked).await;
    }
}
