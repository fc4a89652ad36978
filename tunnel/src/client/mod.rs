//! The client edge's side: dials the server, keeps one tunnel up, renews the certificate.

mod error;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::frame::{DomainId, Frame, HelloStatus, Reason};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

pub use error::ConnectError;

use crate::backoff::Backoff;
use crate::driver::{Driver, Mail, Parts};
use crate::environment::{
    ClientIdentity, Environment, HANDSHAKE_TIMEOUT, Refused, VERSION_MAX, VERSION_MIN,
};
use crate::handle::{EndCause, Published, TunnelHandle};
use crate::link::{Link, LinkError};
use crate::pool::{JobName, Pools};
use crate::resolve::{ResolveError, resolve};
use crate::state::{LinkId, Side, Tunnel};
use crate::stream::IncomingStream;
use crate::tls::TlsError;
use crate::wake::mailbox;

/// One address of a server gets this long to answer a SYN.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause between attempts; doubles, with jitter, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause: a branch whose line is back waits no longer than this. Half of what a new connection waits by default, so that one that
/// comes when the line is back is not refused for the pause's sake.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A tunnel that was up this long counts as a success: the next attempt starts from [`BACKOFF_MIN`] again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How often a certificate's age is looked at while a tunnel is up.
const RENEWAL_CHECK_EVERY: Duration = Duration::from_secs(3600);
/// A server that has not answered a request for a certificate by then will not: signing takes milliseconds, the line perhaps seconds.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Tunnels that a server is leaving and whose streams still run; with the present one as many as a server admits. Beyond, the oldest ends.
const LEFT_TUNNELS_MAX: usize = 3;

/// A domain of one of this edge's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// 0 for the shared domain, odd for this edge's isolated ones.
    pub id: DomainId,
    /// Empty for the shared domain, `c:SERVICE` otherwise.
    pub name: String,
}

/// What a connector is started with.
pub struct ConnectorConfig {
    /// `HOST:PORT` of the servers, tried in this order.
    pub servers: Vec<String>,
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
            task: tokio::spawn(dialer.run()),
        }
    }

    /// The present tunnel, if it takes streams.
    pub fn present(&self) -> Option<TunnelHandle> {
        self.present
            .borrow()
            .clone()
            .filter(|t| t.is_up() && !t.is_draining())
    }

    /// Waits up to `wait` for a tunnel that takes streams.
    pub async fn tunnel(&self, wait: Duration) -> Option<TunnelHandle> {
        let mut present = self.present.clone();
        let usable =
            |t: &Option<TunnelHandle>| t.as_ref().is_some_and(|t| t.is_up() && !t.is_draining());
        tokio::time::timeout(wait, async move {
            present.wait_for(usable).await.ok().and_then(|t| t.clone())
        })
        .await
        .ok()
        .flatten()
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
        let left = self.left.lock().clone();
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

/// Tunnels that take no new streams because the server goes away, the oldest first.
#[derive(Default)]
struct LeftTunnels(Mutex<Vec<TunnelHandle>>);

impl LeftTunnels {
    fn lock(&self) -> MutexGuard<'_, Vec<TunnelHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, tunnel: TunnelHandle) {
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

struct Dialer {
    config: ConnectorConfig,
    identity: Arc<dyn ClientIdentity>,
    environment: Environment,
    incoming: mpsc::UnboundedSender<IncomingStream>,
    publish: watch::Sender<Option<TunnelHandle>>,
    left: Arc<LeftTunnels>,
    status: Arc<Mutex<ConnectorStatus>>,
    draining: watch::Receiver<bool>,
}

impl Dialer {
    async fn run(self) {
        let mut waits = backoff().waits(rand::random::<f64>);
        loop {
            let started = Instant::now();
            let mut again_at_once = false;
            match self.connect_any().await {
                Ok((tunnel, server)) if self.identity.is_invite() => {
                    tracing::info!(peer = %tunnel.peer(), %server, "exchanging the invite for a certificate");
                    again_at_once = self.exchange(&tunnel).await;
                }
                Ok((tunnel, server)) => {
                    tracing::info!(peer = %tunnel.peer(), %server, "tunnel up");
                    self.note(None);
                    let _ = self.publish.send_replace(Some(tunnel.clone()));
                    if *self.draining.borrow() {
                        // It came up while `drain` was looking for tunnels.
                        tunnel.go_away(Reason::GoingAway);
                    }
                    self.attend(&tunnel).await;
                    if tunnel.is_up() {
                        tracing::info!(peer = %tunnel.peer(), %server, "the tunnel takes no new streams");
                        self.left.add(tunnel.clone());
                        // A server that goes away is restarted, or another takes over.
                        again_at_once = started.elapsed() >= STABLE_AFTER;
                    }
                    let _ = self.publish.send_replace(None);
                    tokio::spawn(async move {
                        let cause = tunnel.ended().await;
                        tracing::warn!(peer = %tunnel.peer(), %server, %cause, "tunnel down");
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no tunnel");
                    self.note(Some(error.to_string()));
                }
            }
            if *self.draining.borrow() {
                return;
            }
            if again_at_once || started.elapsed() >= STABLE_AFTER {
                waits.reset();
            }
            if !again_at_once {
                let pause = waits.next().unwrap_or(BACKOFF_MAX);
                let mut draining = self.draining.clone();
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = draining.wait_for(|d| *d) => return,
                }
            }
        }
    }

    fn note(&self, error: Option<String>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.tunnels += u64::from(error.is_none());
        status.last_error = error;
    }

    /// Exchanges the invite over a tunnel that is good for nothing else, and is therefore not published. True when it worked.
    async fn exchange(&self, tunnel: &TunnelHandle) -> bool {
        let exchanged = match self.renew(tunnel).await {
            Ok(true) => true,
            Ok(false) => {
                self.note(Some(
                    "the line was lost before the invite was exchanged".to_owned(),
                ));
                false
            }
            Err(error) => {
                tracing::error!(%error, "the invite could not be exchanged");
                self.note(Some(format!("the invite could not be exchanged: {error}")));
                false
            }
        };
        tunnel.close(EndCause::Closed("the invite's link is done".to_owned()));
        tunnel.ended().await;
        exchanged
    }

    /// Renews when due, until the tunnel takes no more streams. A new certificate is for the next link; the streams of this one
    /// go on.
    async fn attend(&self, tunnel: &TunnelHandle) {
        let renewing = async {
            loop {
                match self.renew(tunnel).await {
                    Ok(true) => tracing::info!("the certificate was renewed"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the certificate could not be renewed"),
                }
                tokio::time::sleep(RENEWAL_CHECK_EVERY).await;
            }
        };
        tokio::select! {
            () = tunnel.unusable() => {}
            () = renewing => {}
        }
    }

    async fn renew(&self, tunnel: &TunnelHandle) -> Result<bool, String> {
        let pools = &self.environment.pools;
        let identity = self.identity.clone();
        let request = file_work(
            pools,
            "begin renewal",
            Box::new(move || identity.begin_renewal()),
        )
        .await??;
        let Some(request) = request else {
            return Ok(false);
        };
        let answer = tokio::time::timeout(RENEWAL_TIMEOUT, tunnel.renew(request)).await;
        let Some(answer) = answer.map_err(|_| "the server does not answer".to_owned())? else {
            return Ok(false);
        };
        let identity = self.identity.clone();
        file_work(
            pools,
            "finish renewal",
            Box::new(move || identity.finish_renewal(answer)),
        )
        .await?
    }

    async fn connect_any(&self) -> Result<(TunnelHandle, String), ConnectError> {
        let mut last = None;
        for server in &self.config.servers {
            match self.connect(server).await {
                Ok(tunnel) => return Ok((tunnel, server.clone())),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ConnectError::Resolve {
            server: String::new(),
            source: ResolveError::NoAddress,
        }))
    }

    async fn connect(&self, server: &str) -> Result<TunnelHandle, ConnectError> {
        let socket = self.dial(server).await?;
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(server, socket)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout {
                server: server.to_owned(),
            }),
        }
    }

    async fn dial(&self, server: &str) -> Result<TcpStream, ConnectError> {
        let addresses = resolve(&self.environment.pools.resolve, server)
            .await
            .map_err(|source| ConnectError::Resolve {
                server: server.to_owned(),
                source,
            })?;
        let mut last = ConnectError::Resolve {
            server: server.to_owned(),
            source: ResolveError::NoAddress,
        };
        for address in addresses {
            let source = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await
            {
                Ok(Ok(socket)) => {
                    (self.environment.tune)(&socket);
                    return Ok(socket);
                }
                Ok(Err(e)) => e,
                Err(_) => std::io::ErrorKind::TimedOut.into(),
            };
            last = ConnectError::Dial {
                server: server.to_owned(),
                address,
                source,
            };
        }
        Err(last)
    }

    async fn handshake(
        &self,
        server: &str,
        socket: TcpStream,
    ) -> Result<TunnelHandle, ConnectError> {
        let tls_error = |source: TlsError| ConnectError::Tls {
            server: server.to_owned(),
            source,
        };
        let link_error = |source: LinkError| ConnectError::Link {
            server: server.to_owned(),
            source,
        };
        let address = socket.peer_addr().map_err(|e| tls_error(e.into()))?;
        let (socket, session) = self
            .identity
            .tls()
            .connect(socket, &self.environment.pools.crypto)
            .await
            .map_err(tls_error)?;
        let peer = self
            .identity
            .check_server(session.peer_chain())
            .map_err(|why| ConnectError::Identity {
                server: server.to_owned(),
                why,
            })?;
        let mut link = Link::new(LinkId::from(0), socket, session, address);
        link.send_frame(&Frame::Hello(self.environment.hello()))
            .await
            .map_err(link_error)?;
        // The server's refusal of this edge's certificate shows only here: TLS 1.3 lets the client finish first.
        let hello = match link.recv_frame().await.map_err(link_error)? {
            Frame::Hello(hello) => hello,
            other => {
                return Err(ConnectError::NoHello {
                    server: server.to_owned(),
                    kind: format!("{:?}", other.kind()),
                });
            }
        };
        if !hello.status.is_accepted() {
            return Err(Refused {
                status: hello.status,
                message: hello.message,
            }
            .into());
        }
        if hello.version_max < VERSION_MIN || hello.version_min > VERSION_MAX {
            return Err(Refused {
                status: HelloStatus::Version,
                message: format!(
                    "it speaks version {} to {}, this client {VERSION_MIN} to {VERSION_MAX}",
                    hello.version_min, hello.version_max
                ),
            }
            .into());
        }
        link.counters
            .count_for(self.environment.counters.peer(&peer.name));
        let mut tunnel = Tunnel::new(
            self.environment
                .tunnel_config(Side::Client, &peer.name, &hello, true),
            self.environment.budget.clone(),
            self.environment.counters.clone(),
            Instant::now(),
        );
        for domain in &self.config.domains {
            let histories = self.environment.histories.domain(&peer.name, &domain.name);
            if let Some(histories) = histories {
                tunnel.attach_domain(domain.id, domain.name.clone(), histories, Instant::now());
            }
        }
        let peer: Arc<str> = peer.name.into();
        let published = Published::new(peer, link.session().peer_chain());
        let (sender, receiver) = mailbox::<Mail>();
        let handle = TunnelHandle::new(sender.clone(), published.clone());
        let driver = Driver::new(Parts {
            tunnel,
            link,
            pools: self.environment.pools.clone(),
            inline_below_bytes: self.environment.inline_below_bytes,
            mail: (sender, receiver),
            incoming: self.incoming.clone(),
            renewals: None,
            histories: Some(self.environment.histories.clone()),
            published,
        });
        tokio::spawn(driver);
        Ok(handle)
    }
}

#[expect(clippy::expect_used, reason = "constants; a test builds it")]
fn backoff() -> Backoff {
    Backoff::new(BACKOFF_MIN, BACKOFF_MAX, 2.0).expect("the constants are in order")
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
