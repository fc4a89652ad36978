//! Tunnels that carry their last streams, beside the present one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codec::frame::Reason;
use tokio::task::JoinHandle;

use crate::handle::{EndCause, TunnelHandle};

/// Tunnels that take no new streams and still run; with the present one as many as a server admits. Beyond, the oldest ends.
const LEFT_TUNNELS_MAX: usize = 3;

/// How often it is looked whether a tunnel that another server has taken over from has streams left.
const LAST_STREAM_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Tunnels that get no new streams: their server goes away, or another has taken over. The oldest first.
#[derive(Default)]
pub(super) struct LeftTunnels(Mutex<Vec<Left>>);

struct Left {
    tunnel: TunnelHandle,
    /// The route that it was begun over.
    route: usize,
    /// Says GoAway in the end; not where the server has said so.
    idle: Option<JoinHandle<()>>,
}

impl LeftTunnels {
    fn lock(&self) -> MutexGuard<'_, Vec<Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> Vec<TunnelHandle> {
        self.lock().iter().map(|left| left.tunnel.clone()).collect()
    }

    /// Those that may still take new streams, and the routes that they were begun over.
    pub(super) fn usable(&self) -> Vec<(TunnelHandle, usize)> {
        let all = self.lock();
        let usable = all
            .iter()
            .filter(|left| left.tunnel.is_up() && !left.tunnel.is_draining());
        usable
            .map(|left| (left.tunnel.clone(), left.route))
            .collect()
    }

    /// The tunnel gets new streams again. False if it does not take them any more.
    pub(super) fn take_back(&self, route: usize) -> bool {
        let mut all = self.lock();
        let found = all
            .iter()
            .position(|left| left.route == route && !left.tunnel.is_draining());
        let Some(left) = found.map(|at| all.remove(at)) else {
            return false;
        };
        if let Some(idle) = left.idle {
            idle.abort();
        }
        left.tunnel.is_up() && !left.tunnel.is_draining()
    }

    /// `idle`: it says GoAway itself when its last stream has ended.
    pub(super) fn add(&self, tunnel: TunnelHandle, route: usize, idle: Option<JoinHandle<()>>) {
        let mut left = self.lock();
        left.retain(|left| left.tunnel.is_up());
        if left.len() >= LEFT_TUNNELS_MAX {
            left.remove(0).tunnel.close(EndCause::Closed(
                "too many tunnels wait for their last streams".to_owned(),
            ));
        }
        left.push(Left {
            tunnel,
            route,
            idle,
        });
    }
}

/// Says GoAway once the tunnel has no stream any more. Before, it would not be resumed if its line is lost once more.
pub(super) async fn go_away_when_idle(tunnel: TunnelHandle) {
    while tunnel.is_up() && tunnel.streams_open() > 0 {
        tokio::select! {
            () = tokio::time::sleep(LAST_STREAM_CHECK_EVERY) => {}
            _ = tunnel.ended() => {}
        }
    }
    tunnel.go_away(Reason::GoingAway);
}
