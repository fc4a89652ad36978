//! Tunnels that carry their last streams, beside the present one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codec::frame::Reason;

use crate::handle::{EndCause, TunnelHandle};

/// Tunnels that take no new streams and still run; with the present one as many as a server admits. Beyond, the oldest ends.
const LEFT_TUNNELS_MAX: usize = 3;

/// How often it is looked whether a tunnel that another server has taken over from has streams left.
const LAST_STREAM_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Tunnels that get no new streams: their server goes away, or another has taken over. The oldest first.
#[derive(Default)]
pub(super) struct LeftTunnels(Mutex<Vec<TunnelHandle>>);

impl LeftTunnels {
    fn lock(&self) -> MutexGuard<'_, Vec<TunnelHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> Vec<TunnelHandle> {
        self.lock().clone()
    }

    pub(super) fn add(&self, tunnel: TunnelHandle) {
        let mut left = self.lock();
        left.retain(TunnelHandle::is_up);
        if left.len() >= LEFT_TUNNELS_MAX {
            left.remove(0).close(EndCause::Closed(
                "too many tunnels wait for their last streams".to_owned(),
            ));
        }
        left.push(tunnel);
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
