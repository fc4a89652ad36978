//! The server edge's side: accepts links, authenticates them, starts their tunnels.
//!
//! Nothing is allocated for a peer before it has proved who it is, beyond its TLS handshake, of which a bounded number
//! are under way at once; the rest waits in the listen queue.

mod tunnels;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use codec::frame::{Frame, Hello, HelloStatus, Reason, Secret};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::client::file_work;
use crate::driver::{Driver, Mail, Parts};
use crate::environment::{Environment, HANDSHAKE_TIMEOUT, PeerIdentity, ServerIdentity};
use crate::handle::{EndCause, LinkName, Published, TunnelHandle};
use crate::histories::DomainSpec;
use crate::link::{Link, LinkError};
use crate::state::{LinkId, Side, Tunnel};
use crate::stream::IncomingStream;
use crate::wake::mailbox;

use tunnels::{Announced, Known, Tunnels};

/// Connections that have not yet said an acceptable Hello, in all.
pub const UNAUTHENTICATED_MAX: usize = 256;
/// The same from one address, once more than half of [`UNAUTHENTICATED_MAX`] are used.
pub const UNAUTHENTICATED_PER_ADDRESS_MAX: usize = 16;
/// Tunnels that one identity may have at once; one of them holds the histories.
pub const TUNNELS_PER_IDENTITY_MAX: usize = 4;
/// Pause after a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts tunnels. Dropping it stops accepting; running tunnels go on.
pub struct Acceptor {
    tunnels: Arc<Tunnels>,
    draining: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Acceptor {
    /// Starts accepting on `listener`. `incoming` gets the streams that clients open; they carry their peer's name.
    pub fn start(
        listener: TcpListener,
        identity: Arc<dyn ServerIdentity>,
        environment: Environment,
        incoming: mpsc::UnboundedSender<IncomingStream>,
    ) -> Self {
        let tunnels = Arc::new(Tunnels::default());
        let draining = watch::Sender::new(false);
        let accepting = Accepting {
            listener,
            identity,
            environment,
            incoming,
            tunnels: tunnels.clone(),
            draining: draining.subscribe(),
            gate: Arc::new(Gate::default()),
        };
        Self {
            tunnels,
            draining,
            task: tokio::spawn(accepting.run()),
        }
    }

    /// True once [`drain`](Self::drain) has begun: no new tunnels are accepted.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Tunnels that have not ended.
    pub fn tunnels(&self) -> Vec<TunnelHandle> {
        self.tunnels.all()
    }

    /// Waits up to `wait` for a tunnel of the client `peer` that takes streams and has its line.
    pub async fn tunnel_of(&self, peer: &str, wait: Duration) -> Option<TunnelHandle> {
        tokio::time::timeout(wait, self.tunnels.wait_for(peer))
            .await
            .ok()
    }

    /// Ends every tunnel for which `refuse` gives a reason (its identity was revoked).
    pub fn end_where(&self, refuse: impl Fn(&TunnelHandle) -> Option<String>) {
        for tunnel in self.tunnels() {
            if let Some(why) = refuse(&tunnel) {
                tunnel.close(EndCause::Closed(why));
            }
        }
    }

    /// Accepts no more, says GoAway on every tunnel; resolves when all have ended by themselves.
    pub async fn drain(&self) {
        let _ = self.draining.send_replace(true);
        for tunnel in self.tunnels() {
            tunnel.go_away(Reason::GoingAway);
        }
        for tunnel in self.tunnels() {
            tunnel.ended().await;
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.task.abort();
        for tunnel in self.tunnels() {
            tunnel.close(EndCause::Closed("this program ends".to_owned()));
        }
    }
}

/// Counts unauthenticated connections, in all and by address.
struct Gate {
    all: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(UNAUTHENTICATED_MAX)),
            by_address: Mutex::default(),
        }
    }
}

/// One unauthenticated connection's place.
struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A place for a connection from `address`, or none when that address has its share while places are short.
    fn enter(self: &Arc<Self>, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Place> {
        let address = counted_as(address);
        let mut by_address = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let short = self.all.available_permits() < UNAUTHENTICATED_MAX / 2;
        let count = by_address.entry(address).or_insert(0);
        if short && *count >= UNAUTHENTICATED_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        drop(by_address);
        Some(Place {
            gate: self.clone(),
            address,
            _permit: permit,
        })
    }
}

/// Who counts as one address: a host of IPv4, however it is written, and a network of IPv6, of which one host has 2^64 addresses.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self
            .gate
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

struct Accepting {
    listener: TcpListener,
    identity: Arc<dyn ServerIdentity>,
    environment: Environment,
    incoming: mpsc::UnboundedSender<IncomingStream>,
    tunnels: Arc<Tunnels>,
    draining: watch::Receiver<bool>,
    gate: Arc<Gate>,
}

/// What one connection's handshake needs of the acceptor.
struct Admission {
    identity: Arc<dyn ServerIdentity>,
    environment: Environment,
    incoming: mpsc::UnboundedSender<IncomingStream>,
    tunnels: Arc<Tunnels>,
    draining: watch::Receiver<bool>,
}

impl Accepting {
    async fn run(mut self) {
        loop {
            let Ok(permit) = self.gate.all.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = self.draining.wait_for(|d| *d) => return,
            };
            match accepted {
                Ok((socket, address)) => self.admit(socket, address, permit),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a link");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, socket: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let Some(place) = self.gate.enter(address.ip(), permit) else {
            tracing::debug!(%address, "too many unauthenticated connections from this address");
            return;
        };
        let admission = Admission {
            identity: self.identity.clone(),
            environment: self.environment.clone(),
            incoming: self.incoming.clone(),
            tunnels: self.tunnels.clone(),
            draining: self.draining.clone(),
        };
        tokio::spawn(async move {
            let admitted =
                tokio::time::timeout(HANDSHAKE_TIMEOUT, admission.handshake(socket, address)).await;
            drop(place);
            match admitted {
                Ok(Ok(admitted)) => admission.run(admitted).await,
                Ok(Err(error)) => tracing::info!(%address, %error, "link refused"),
                Err(_) => tracing::info!(%address, error = "no Hello within 10 s", "link refused"),
            }
        });
    }
}

struct Admitted {
    link: Link,
    peer: PeerIdentity,
    hello: Hello,
    purpose: Purpose,
}

/// What an admitted link is for.
enum Purpose {
    /// A new tunnel, of this id and secret.
    Begin(Announced, Secret),
    /// A tunnel that has lost its line.
    Resume(TunnelHandle),
    /// A further link of a tunnel.
    Join(TunnelHandle),
}

#[derive(Debug, thiserror::Error)]
enum AdmissionError {
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{0} came where Hello was due")]
    NoHello(String),
    #[error("{status}: {message}")]
    Refused {
        status: HelloStatus,
        message: String,
    },
}

impl Admission {
    async fn handshake(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> Result<Admitted, AdmissionError> {
        (self.environment.tune)(&socket);
        let (socket, session) = self
            .identity
            .tls()
            .accept(socket, &self.environment.pools.crypto)
            .await?;
        let mut link = Link::new(LinkId::from(0), socket, session, address);
        let hello = match link.recv_frame().await? {
            Frame::Hello(hello) => hello,
            other => return Err(AdmissionError::NoHello(format!("{:?}", other.kind()))),
        };
        if let Some(id) = hello.tunnel {
            self.tunnels.settle(id).await;
        }
        let (peer, resumed) = match self.judge(&link, &hello) {
            Ok(judged) => judged,
            Err((status, message)) => {
                let answer = Hello {
                    status,
                    message: bounded(&message),
                    ..self.environment.hello()
                };
                link.send_frame(&Frame::Hello(answer)).await?;
                link.close().await?;
                return Err(AdmissionError::Refused { status, message });
            }
        };
        let own = self.environment.hello();
        let mut answer = Hello {
            // An invite's link is only for exchanging it.
            streams_max: if peer.invite { 0 } else { own.streams_max },
            ..own
        };
        let purpose = match resumed {
            Some(tunnel) => {
                answer.tunnel = hello.tunnel;
                answer.generation = hello.generation;
                answer.link_index = hello.link_index;
                if hello.link_index > 0 {
                    Purpose::Join(tunnel)
                } else {
                    Purpose::Resume(tunnel)
                }
            }
            None => {
                let announced = self.tunnels.announce(rand::random());
                let secret = Secret(rand::random());
                answer.tunnel = Some(announced.id);
                answer.secret = Some(secret.clone());
                Purpose::Begin(announced, secret)
            }
        };
        link.send_frame(&Frame::Hello(answer)).await?;
        Ok(Admitted {
            link,
            peer,
            hello,
            purpose,
        })
    }

    /// Who the client is, and which tunnel it carries on with, if not a new one.
    fn judge(
        &self,
        link: &Link,
        hello: &Hello,
    ) -> Result<(PeerIdentity, Option<TunnelHandle>), (HelloStatus, String)> {
        let ours = self.environment.hello();
        if ours.common_version(hello).is_none() {
            let message = format!(
                "this server speaks version {} to {}, the client {} to {}",
                ours.version_min, ours.version_max, hello.version_min, hello.version_max
            );
            return Err((HelloStatus::Version, message));
        }
        if *self.draining.borrow() {
            return Err((
                HelloStatus::Draining,
                "this server is being stopped".to_owned(),
            ));
        }
        let peer = self
            .identity
            .check_client(link.session().peer_chain())
            .map_err(|why| (HelloStatus::IdentityRefused, why))?;
        if let Some(id) = hello.tunnel {
            let tunnel = self.tunnels.resume(&peer.name, id, hello, link.session())?;
            return Ok((peer, Some(tunnel)));
        }
        if !self.tunnels.has_room(&peer.name, hello.instance) {
            return Err((
                HelloStatus::Limit,
                format!(
                    "{} has {TUNNELS_PER_IDENTITY_MAX} tunnels already",
                    peer.name
                ),
            ));
        }
        Ok((peer, None))
    }

    async fn run(self, admitted: Admitted) {
        let Admitted {
            link,
            peer,
            hello,
            purpose,
        } = admitted;
        let (announced, secret) = match purpose {
            Purpose::Begin(announced, secret) => (announced, secret),
            // The driver drops a link for which its tunnel has no use any more: it has ended, or goes away.
            Purpose::Resume(tunnel) => return tunnel.attach(link, hello.generation),
            Purpose::Join(tunnel) => {
                let name = LinkName {
                    generation: hello.generation,
                    index: hello.link_index,
                };
                tunnel.join(link, name).await;
                return;
            }
        };
        let address = link.peer_address;
        let chain = link.session().peer_chain().to_vec();
        self.tunnels.supersede(&peer.name, hello.instance).await;
        let (tunnels, heartbeat) = (self.tunnels.clone(), self.environment.heartbeat);
        let (of, instance) = (peer.name.clone(), hello.instance);
        tokio::spawn(async move { tunnels.probe_others(&of, instance, heartbeat).await });
        let mut config =
            self.environment
                .tunnel_config(Side::Server, &peer.name, &hello, !peer.invite);
        if peer.invite {
            // It is for one exchange, and the client begins anew with what it got.
            config.resume_window = Duration::ZERO;
        }
        let tunnel = Tunnel::new(
            config,
            self.environment.budget.clone(),
            self.environment.counters.clone(),
            Instant::now(),
        );
        let name: Arc<str> = peer.name.as_str().into();
        let domains = if peer.invite {
            Vec::new()
        } else {
            vec![DomainSpec::shared()]
        };
        let histories = &self.environment.histories;
        histories
            .prepare(&self.environment.pools.storage, &name, &domains)
            .await;
        let published = Published::new(name.clone(), hello.features, &chain);
        let (sender, receiver) = mailbox::<Mail>();
        let handle = TunnelHandle::new(sender.clone(), published.clone());
        let (renewals, mut requests) = mpsc::unbounded_channel();
        let driver = Driver::new(Parts {
            tunnel,
            link,
            pools: self.environment.pools.clone(),
            inline_below_bytes: self.environment.inline_below_bytes,
            mail: (sender, receiver),
            incoming: self.incoming.clone(),
            renewals: Some(renewals),
            histories: (!peer.invite).then(|| histories.clone()),
            domains,
            counters: self.environment.counters.peer(&name),
            published,
            sample: self.environment.sample,
        });
        let known = Known {
            tunnel: handle.clone(),
            instance: hello.instance,
            id: announced.id,
            secret,
            generation: 0,
            is_invite: peer.invite,
        };
        if !self.tunnels.add(known) {
            handle.close(EndCause::Closed("the peer has too many tunnels".to_owned()));
        }
        drop(announced);
        // From here on a reload or a drain finds the tunnel; what happened since it was judged is looked at now.
        if let Err(why) = self.identity.check_client(&chain) {
            handle.close(EndCause::Closed(why));
        }
        if *self.draining.borrow() {
            handle.go_away(Reason::GoingAway);
        }
        tracing::info!(peer = %name, %address, invite = peer.invite, "tunnel up");
        let mut driver = tokio::spawn(driver);
        let cause = loop {
            tokio::select! {
                Some(request) = requests.recv() => {
                    let (identity, chain) = (self.identity.clone(), handle.peer_chain());
                    let signed = file_work(&self.environment.pools, "sign", Box::new(move || identity.sign(&chain, &request))).await;
                    let answer = signed.unwrap_or_else(|message| codec::frame::Renewed::Refused { status: 1, message: bounded(&message) });
                    handle.renewed(answer);
                }
                ended = &mut driver => break ended.unwrap_or_else(|e| EndCause::Closed(format!("the tunnel's driver failed: {e}"))),
            }
        };
        self.tunnels.remove_ended();
        tracing::info!(peer = %name, %address, %cause, "tunnel down");
    }
}

/// A message cut to what a Hello may carry.
fn bounded(message: &str) -> String {
    let mut end = message.len().min(codec::frame::MESSAGE_MAX_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message
        .get(..end)
        .unwrap_or_default()
        .replace(|c: char| c.is_control(), " ")
}
