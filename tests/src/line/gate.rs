//! The switch of a line: blocked or not, and how often it was cut.

use tokio::sync::watch;

/// Set by the owner of the line, watched by its connections.
#[derive(Debug)]
pub(super) struct Gate {
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    blocked: bool,
    cuts: u64,
}

/// A connection's view of the gate.
#[derive(Clone, Debug)]
pub(super) struct GateWatch {
    state: watch::Receiver<State>,
    /// Cuts that had happened when the connection began.
    cuts: u64,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(State::default()),
        }
    }

    pub(super) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.state.send_modify(|state| state.blocked = blocked);
    }

    pub(super) fn watch(&self) -> GateWatch {
        let state = self.state.subscribe();
        let cuts = state.borrow().cuts;
        GateWatch { state, cuts }
    }
}

impl GateWatch {
    /// Returns when the line is not blocked; at once if it is not. A line that is gone blocks nobody.
    pub(super) async fn open(&mut self) {
        let _gone = self.state.wait_for(|state| !state.blocked).await;
    }

    /// Returns when the line has been cut since the connection began, or is gone.
    pub(super) async fn cut(&mut self) {
        let cuts = self.cuts;
        let _gone = self.state.wait_for(|state| state.cuts != cuts).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn is_ready(future: impl Future) -> bool {
        pin!(future)
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_cut_is_seen_by_those_who_watched_before_it_only() {
        let gate = Gate::new();
        let mut before = gate.watch();
        assert!(!is_ready(before.cut()));
        gate.cut();
        let mut after = gate.watch();
        assert!(is_ready(before.cut()));
        assert!(!is_ready(after.cut()));
    }

    #[test]
    fn blocked_means_not_open_until_restored() {
        let gate = Gate::new();
        let mut watch = gate.watch();
        assert!(is_ready(watch.open()));
        gate.set_blocked(true);
        assert!(matches!(
            pin!(watch.open()).poll(&mut Context::from_waker(Waker::noop())),
            Poll::Pending
        ));
        gate.set_blocked(false);
        assert!(is_ready(watch.open()));
    }
}
