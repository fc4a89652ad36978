//! The client edge's side: dials the server, keeps one tunnel up and sees to its line, renews the certificate.

mod dialer;
mod error;
mod greet;
mod left;
mod links;
mod renewal;
mod resume;
mod route;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use codec::frame::Reason;
use tokio::sync::{mpsc, watch};

pub use error::ConnectError;
pub use route::{Bind, Route};

use crate::environment::{ClientIdentity, Environment};
use crate::handle::{EndCause, TunnelHandle};
pub use crate::histories::DomainSpec;
use crate::pool::{JobName, Pools};
use crate::stream::IncomingStream;
use dialer::Dialer;
use left::LeftTunnels;

/// One address of a server gets this long to answer a SYN.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause between attempts; doubles, with jitter, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause: a branch whose line is back waits no longer than this. Half of what a new connection waits by default, so that one that
/// comes when the line is back is not refused for the pause's sake.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A tunnel that was up this long counts as a success: the next attempt starts from [`BACKOFF_MIN`] again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// While a tunnel leads to a server that is not the first, those before it are looked for this often, give or take a quarter.
const RETURN_EVERY: Duration = Duration::from_secs(10);
/// How often a certificate's age is looked at while a tunnel is up.
const RENEWAL_CHECK_EVERY: Duration = Duration::from_secs(3600);
/// A server that has not answered a request for a certificate by then will not: signing takes milliseconds, the line perhaps seconds.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connector is started with.
pub struct ConnectorConfig {
    /// Ways to the servers, tried in this order, those of one site next to each other.
    pub routes: Vec<Route>,
    /// Links that a tunnel shall have over each route of its site.
    pub links_per_route: usize,
    /// Domains of this edge's services; the shared one always included.
    pub domains: Vec<DomainSpec>,
}

/// How the connector is doing.
#[derive(Debug, Clone, Default)]
pub struct ConnectorStatus {
    /// Why the last attempt failed, if none has succeeded since.
    pub last_error: Option<String>,
    /// Tunnels that were up so far.
    pub tunnels: u64,
}

/// Keeps one tunnel up for new streams. When the server says GoAway the streams of that tunnel go on, and another is dialed beside it.
/// Dropping the connector stops dialing; running tunnels are ended.
pub struct Connector {
    present: watch::Receiver<Option<TunnelHandle>>,
    left: Arc<LeftTunnels>,
    status: Arc<Mutex<ConnectorStatus>>,
    draining: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Connector {
    /// Starts dialing. `incoming` gets the streams that the server opens.
    pub fn start(
        config: ConnectorConfig,
        identity: Arc<dyn ClientIdentity>,
        environment: Environment,
        incoming: mpsc::UnboundedSender<IncomingStream>,
    ) -> Self {
        let (publish, present) = watch::channel(None);
        let status = Arc::new(Mutex::new(ConnectorStatus::default()));
        let draining = watch::Sender::new(false);
        let left = Arc::new(LeftTunnels::default());
        let dialer = Dialer {
            config,
            identity,
            environment,
            incoming,
            publish,
            left: left.clone(),
            status: status.clone(),
            draining: draining.subscribe(),
        };
        Self {
            present,
            left,
            status,
            draining,
            task: tokio::spawn(Arc::new(dialer).run()),
        }
    }

    /// The present tunnel, if it takes streams; it may be waiting for its line.
    pub fn present(&self) -> Option<TunnelHandle> {
        self.present
            .borrow()
            .clone()
            .filter(|t| t.is_up() && !t.is_draining())
    }

    /// Waits up to `wait` for a tunnel that takes streams and has its line.
    pub async fn tunnel(&self, wait: Duration) -> Option<TunnelHandle> {
        let mut present = self.present.clone();
        let usable =
            |t: &Option<TunnelHandle>| t.as_ref().is_some_and(|t| t.is_up() && !t.is_draining());
        let wanted = async move {
            loop {
                let tunnel = present.wait_for(usable).await.ok()?.clone()?;
                if tunnel.is_attached() {
                    return Some(tunnel);
                }
                tokio::select! {
                    () = tunnel.becomes_attached(true) => {}
                    changed = present.changed() => changed.ok()?,
                }
            }
        };
        tokio::time::timeout(wait, wanted).await.ok().flatten()
    }

    /// How dialing goes.
    pub fn status(&self) -> ConnectorStatus {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// All tunnels that are up: the present one first, then those that take no new streams.
    pub fn tunnels(&self) -> Vec<TunnelHandle> {
        let present = self.present.borrow().clone();
        let left = self.left.all();
        present
            .into_iter()
            .chain(left)
            .filter(TunnelHandle::is_up)
            .collect()
    }

    /// Says GoAway and dials no more; resolves when all tunnels have ended by themselves.
    pub async fn drain(&self) {
        let _ = self.draining.send_replace(true);
        for tunnel in self.tunnels() {
            tunnel.go_away(Reason::GoingAway);
        }
        for tunnel in self.tunnels() {
            tunnel.ended().await;
        }
    }

    /// Ends the tunnels; one is dialed anew after a short pause.
    pub fn reconnect(&self, why: &str) {
        for tunnel in self.tunnels() {
            tunnel.close(EndCause::Closed(why.to_owned()));
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.task.abort();
        self.reconnect("this program ends");
    }
}

/// File work of identities, in pool `storage`.
pub(crate) async fn file_work<T: Send + 'static>(
    pools: &Pools,
    why: &'static str,
    work: Box<dyn FnOnce() -> T + Send>,
) -> Result<T, String> {
    let name = JobName {
        who: "identity".into(),
        why,
    };
    crate::pool::call(&pools.storage, name, work)
        .await
        .ok_or_else(|| "the storage pool has stopped, or the work panicked".to_owned())
}
