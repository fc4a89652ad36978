//! The way from the listeners into the tunnel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codec::frame::Target;
use edge::log::Throttle;
use tokio::sync::mpsc;
use tunnel::client::Connector;
use tunnel::handle::TunnelHandle;
use tunnel::state::OpenSpec;
use tunnel::stream::StreamHandle;

use super::Service;

/// Refusals for want of a tunnel are logged once in this time and service.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// Opens streams for the listeners, and counts what they carry so that a drain knows when it is over.
pub struct Uplink {
    connector: Connector,
    connect_wait_ms: AtomicU64,
    carrying: mpsc::Sender<()>,
    throttle: Throttle<String>,
}

impl Uplink {
    /// Opens streams on `connector`'s tunnel. The receiver ends when the uplink and all that is [`carrying`](Self::carrying) are gone.
    pub fn new(connector: Connector, connect_wait: Duration) -> (Self, mpsc::Receiver<()>) {
        let (carrying, all_done) = mpsc::channel(1);
        let uplink = Self {
            connector,
            connect_wait_ms: AtomicU64::new(0),
            carrying,
            throttle: Throttle::new(REFUSAL_LOG_PERIOD),
        };
        uplink.set_connect_wait(connect_wait);
        (uplink, all_done)
    }

    /// How long a new connection waits for a tunnel from now on.
    pub fn set_connect_wait(&self, wait: Duration) {
        self.connect_wait_ms.store(
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// The connector.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// To be held by whoever carries a connection.
    pub fn carrying(&self) -> mpsc::Sender<()> {
        self.carrying.clone()
    }

    /// Opens a stream; while no tunnel is up it waits `connect_wait` for one. Nothing when none came.
    pub async fn open(
        &self,
        service: &Service,
        target: &Target,
    ) -> Option<(TunnelHandle, StreamHandle)> {
        let end =
            Instant::now() + Duration::from_millis(self.connect_wait_ms.load(Ordering::Relaxed));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(tunnel) = self.connector.tunnel(left).await else {
                if let Some(held_back) = self.throttle.admit(&service.name, Instant::now()) {
                    tracing::warn!(
                        service = service.name,
                        held_back,
                        "no tunnel is up; connections are refused"
                    );
                }
                return None;
            };
            let spec = OpenSpec {
                domain: service.domain,
                target: target.clone(),
                service: service.name.clone(),
                weight: service.weight.get().into(),
            };
            if let Ok(stream) = tunnel.open(spec) {
                return Some((tunnel, stream));
            }
            // It ended between the two; the connector is about to notice.
            tokio::task::yield_now().await;
        }
    }
}
