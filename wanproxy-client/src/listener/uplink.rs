//! The way from the listeners into the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codec::frame::{FEATURE_SOURCE, Target};
use edge::log::Throttle;
use edge::metrics::Sources;
use tokio::sync::{mpsc, watch};
use tunnel::client::Connector;
use tunnel::handle::TunnelHandle;
use tunnel::state::OpenSpec;
use tunnel::stream::StreamHandle;

use super::{OwnConnections, Service};

/// Refusals for want of a tunnel are logged once in this time and service.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// A program that is about to end waits so long for streams of connections that it has accepted; what takes longer waits for its application.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Opens streams for the listeners, and counts what they carry so that a drain knows when it is over.
pub struct Uplink {
    connector: Connector,
    connect_wait_ms: AtomicU64,
    carrying: mpsc::Sender<()>,
    /// Connections that were accepted and have no stream yet.
    accepted: watch::Sender<usize>,
    own: Arc<OwnConnections>,
    sources: Arc<Sources>,
    throttle: Throttle<String>,
}

/// See [`Uplink::accepted`].
pub struct Accepted(Arc<Uplink>);

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.accepted.send_modify(|count| *count -= 1);
    }
}

impl Uplink {
    /// Opens streams on `connector`'s tunnel. The receiver ends when the uplink and all that is [`carrying`](Self::carrying) are gone.
    /// `own` knows the connections that are the edge's own; what is refused is counted in `sources`.
    pub fn new(
        connector: Connector,
        connect_wait: Duration,
        own: Arc<OwnConnections>,
        sources: Arc<Sources>,
    ) -> (Self, mpsc::Receiver<()>) {
        let (carrying, all_done) = mpsc::channel(1);
        let uplink = Self {
            connector,
            connect_wait_ms: AtomicU64::new(0),
            carrying,
            accepted: watch::Sender::new(0),
            own,
            sources,
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

    /// What the edge's own connections are known by.
    pub fn own(&self) -> &Arc<OwnConnections> {
        &self.own
    }

    /// A connection is not carried, for this reason.
    pub fn count_refusal(&self, reason: &'static str) {
        self.sources.refusals.count(reason);
    }

    /// To be held by whoever carries a connection.
    pub fn carrying(&self) -> mpsc::Sender<()> {
        self.carrying.clone()
    }

    /// To be held for a connection from when it was accepted until it has its stream, or is refused.
    pub fn accepted(self: &Arc<Self>) -> Accepted {
        self.accepted.send_modify(|count| *count += 1);
        Accepted(self.clone())
    }

    /// Resolves when every connection that was accepted has its stream or was refused, or soon.
    pub async fn settled(&self) {
        let mut accepted = self.accepted.subscribe();
        let all = accepted.wait_for(|count| *count == 0);
        let _late = tokio::time::timeout(SETTLE_TIME, all).await;
    }

    /// Once a while, for each service.
    fn say_refused(&self, service: &Service, why: &str) {
        if let Some(held_back) = self.throttle.admit(&service.name, Instant::now()) {
            tracing::warn!(
                service = service.name,
                held_back,
                "{why}; connections are refused"
            );
        }
    }

    /// Opens a stream; while no tunnel is up it waits `connect_wait` for one. Nothing when none came.
    pub async fn open(
        &self,
        service: &Service,
        target: &Target,
    ) -> Option<(TunnelHandle, StreamHandle)> {
        self.open_from(service, target, None).await
    }

    /// The same, and the other edge connects from `source`. Nothing, too, when it does not know how.
    pub async fn open_from(
        &self,
        service: &Service,
        target: &Target,
        source: Option<SocketAddr>,
    ) -> Option<(TunnelHandle, StreamHandle)> {
        let end =
            Instant::now() + Duration::from_millis(self.connect_wait_ms.load(Ordering::Relaxed));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(tunnel) = self.connector.tunnel(left).await else {
                self.say_refused(service, "no tunnel is up");
                return None;
            };
            let spec = OpenSpec {
                domain: service.domain,
                target: target.clone(),
                service: service.name.clone(),
                weight: service.weight,
                source,
            };
            let missing = spec.needed_features() & !tunnel.peer_features();
            if missing != 0 {
                let what = if missing & FEATURE_SOURCE == 0 {
                    "a Unix socket as target"
                } else {
                    "preserve_source"
                };
                self.say_refused(service, &format!("the server edge is too old for {what}"));
                return None;
            }
            if let Ok(stream) = tunnel.open_taken(spec).await {
                return Some((tunnel, stream));
            }
            // It ended between the two; the connector is about to notice.
            tokio::task::yield_now().await;
        }
    }
}
