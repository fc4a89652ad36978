//! One connection to a reverse listener, from its accept to its end.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codec::frame::Target;
use edge::config::{Bind, ProxyConfig};
use edge::lan::{Application, Carry, Introduction, LanStream};
use edge::log::{Ended, Throttle};
use edge::os;
use edge::pace::{Pace, paced};
use edge::reach::Streams;
use edge::relay::{relay, send_preface};
use tokio::sync::mpsc;
use tunnel::handle::TunnelHandle;
use tunnel::histories::DomainSpec;
use tunnel::server::Acceptor;
use tunnel::state::OpenSpec;
use tunnel::stream::StreamHandle;

/// Refusals for want of a tunnel are logged once in this time and service.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// What a reverse listener does with a connection.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The client behind which the target is.
    pub client: String,
    /// Where to, as that client sees it.
    pub target: Target,
    /// The domain whose histories its streams use; none: dedup is off.
    pub domain: Option<DomainSpec>,
    /// Its share of the line.
    pub weight: NonZeroU16,
    /// The rate that its streams keep to together.
    pub pace: Arc<Pace>,
    /// What it does with the PROXY protocol.
    pub proxy: ProxyConfig,
}

/// The way from reverse listeners into clients' tunnels.
pub struct Downlink {
    acceptor: Arc<Acceptor>,
    streams: Arc<Streams>,
    connect_wait_ms: AtomicU64,
    carrying: mpsc::Sender<()>,
    throttle: Throttle<String>,
}

impl Downlink {
    /// Opens streams on the tunnels of `acceptor`; a connection waits `connect_wait` for one. They keep to the clients' rates, which `streams` knows. `carrying` is held by all that is carried.
    pub fn new(
        acceptor: Arc<Acceptor>,
        streams: Arc<Streams>,
        connect_wait: Duration,
        carrying: mpsc::Sender<()>,
    ) -> Arc<Self> {
        let downlink = Self {
            acceptor,
            streams,
            connect_wait_ms: AtomicU64::new(0),
            carrying,
            throttle: Throttle::new(REFUSAL_LOG_PERIOD),
        };
        downlink.set_connect_wait(connect_wait);
        Arc::new(downlink)
    }

    /// How long a new connection waits for its client's tunnel from now on.
    pub fn set_connect_wait(&self, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.connect_wait_ms.store(ms, Ordering::Relaxed);
    }

    /// Once a while, for each service.
    fn say_refused(&self, service: &Service, why: &str) {
        if let Some(held_back) = self.throttle.admit(&service.name, Instant::now()) {
            tracing::warn!(
                service = service.name,
                client = service.client,
                held_back,
                "{why}; connections are refused"
            );
        }
    }

    async fn open(&self, service: &Service) -> Option<(TunnelHandle, StreamHandle)> {
        let wait = Duration::from_millis(self.connect_wait_ms.load(Ordering::Relaxed));
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(tunnel) = self.acceptor.tunnel_of(&service.client, left).await else {
                self.say_refused(service, "no tunnel of the client is up");
                return None;
            };
            if let Some(domain) = &service.domain {
                tunnel.use_domain(domain.clone());
            }
            let spec = OpenSpec {
                domain: service.domain.as_ref().map(|domain| domain.id),
                target: service.target.clone(),
                service: service.name.clone(),
                weight: service.weight,
                source: None,
            };
            if spec.needed_features() & !tunnel.peer_features() != 0 {
                let why = "the client edge is too old for a Unix socket as target";
                self.say_refused(service, why);
                return None;
            }
            if let Ok(stream) = tunnel.open_taken(spec).await {
                return Some((tunnel, stream));
            }
            // It ended between the two; the next look does not find it.
            tokio::task::yield_now().await;
        }
    }
}

impl Carry for Downlink {
    type Service = Service;

    async fn carry(
        self: Arc<Self>,
        mut socket: LanStream,
        (peer, _listener): (Application, Bind),
        service: Arc<Service>,
    ) {
        let _carrying = self.carrying.clone();
        let started = Instant::now();
        socket.tune();
        let introduction = match Introduction::of(&mut socket, peer, service.proxy).await {
            Ok(introduction) => introduction,
            Err(error) => {
                tracing::debug!(service = service.name, %peer, %error, "connection refused");
                let _ = os::arm_reset(&socket);
                return;
            }
        };
        let Some((tunnel, stream)) = self.open(&service).await else {
            // Closed with an RST: nobody is there.
            let _ = os::arm_reset(&socket);
            return;
        };
        let end = stream.end();
        let (send, receive) = stream.split();
        let paces = [service.pace.clone(), self.streams.pace_of(&service.client)];
        let (mut send, receive) = paced(send, receive, &paces);
        send_preface(&mut send, introduction.preface()).await;
        let report = relay(socket, send, receive).await;
        let ended = Ended {
            service: &service.name,
            application: introduction.application,
            target: &service.target,
            tunnel: &tunnel,
            started,
        };
        ended.log(end, &report).await;
    }
}
