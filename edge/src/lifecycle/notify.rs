//! What a service manager is told (sd_notify(3)), where there is one.

use std::time::Duration;

use sd_notify::NotifyState;

/// The program is ready. It says which process it is, for it may have replaced the one that the service manager knows.
pub(super) fn ready() {
    say(&[
        NotifyState::Ready,
        NotifyState::MainPid(std::process::id()),
        NotifyState::Status("running"),
    ]);
}

/// The configuration is being read anew.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock for the service manager"),
    }
}

/// It was read, or not: `status` says which.
pub(super) fn reloaded(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The program is about to end.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Another process has taken over, so this one's end is not the service's.
pub(super) fn replaced() {
    say(&[NotifyState::Status(
        "replaced; the last streams are finishing",
    )]);
}

/// The pause between two signs of life: half of what the service manager waits for one. Nothing if it does not wait for any.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|interval| !interval.is_zero())
}

/// A sign of life.
pub(super) fn alive() {
    say(&[NotifyState::Watchdog]);
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
