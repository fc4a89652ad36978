//! The ways in: LAN connections are accepted, told where to go by their service, and carried over a stream.

pub mod socks5;

mod carry;
mod http;
mod transparent;
mod uplink;

use std::io;
use std::num::NonZeroU16;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use codec::frame::DomainId;
use edge::config::{Bind, ListenConfig, ListenKind, Method, ProxyConfig};
use edge::lan::LanListener;
use edge::log::Throttle;
use edge::os;
use edge::pace::Pace;
use edge::users::Users;
use tokio::task::JoinHandle;

pub use transparent::OwnConnections;
pub use uplink::Uplink;

/// Pause after an accept that failed because descriptors or memory ran out, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A failing accept is logged once in this time.
const ACCEPT_LOG_PERIOD: Duration = Duration::from_secs(60);

/// What a listener does with a connection.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How it learns the target.
    pub kind: ListenKind,
    /// The domain whose histories its streams use; none: dedup is off.
    pub domain: Option<DomainId>,
    /// Its share of the line.
    pub weight: NonZeroU16,
    /// The rate that its streams keep to together.
    pub pace: Arc<Pace>,
    /// What it does with the PROXY protocol.
    pub proxy: ProxyConfig,
    /// Who may use it; nothing when everybody may who reaches it.
    pub users: Option<Arc<Users>>,
}

/// A listener at work. Dropping it closes its socket; its connections go on.
pub struct Listener {
    /// What it was made from.
    pub config: ListenConfig,
    /// Where it listens.
    pub address: Bind,
    socket: Arc<LanListener>,
    service: Arc<RwLock<Arc<Service>>>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Starts accepting on `socket`.
    ///
    /// # Errors
    /// The socket does not know its address.
    pub fn start(
        socket: LanListener,
        config: ListenConfig,
        service: Service,
        uplink: Arc<Uplink>,
    ) -> io::Result<Self> {
        let address = socket.bound()?;
        let socket = Arc::new(socket);
        let service = Arc::new(RwLock::new(Arc::new(service)));
        let task = tokio::spawn(accept(
            socket.clone(),
            address.clone(),
            service.clone(),
            uplink,
        ));
        Ok(Self {
            config,
            address,
            socket,
            service,
            task,
        })
    }

    /// Prepares the socket for what a new configuration wants of it, which hurts nobody if that is not used after all.
    ///
    /// # Errors
    /// The kernel does not let us; see [`os::may_have_foreign_addresses`].
    pub fn prepare(&self, kind: &ListenKind) -> io::Result<()> {
        match kind {
            ListenKind::Transparent(config) if config.method == Method::Tproxy => {
                os::mark_own(&*self.socket)?;
                os::set_transparent(&*self.socket)
            }
            _ => Ok(()),
        }
    }

    /// Serves new connections by another target, dedup or weight, on the same socket.
    pub fn replace(&mut self, config: ListenConfig, service: Service) {
        self.config = config;
        *self.service.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(service);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    socket: Arc<LanListener>,
    address: Bind,
    service: Arc<RwLock<Arc<Service>>>,
    uplink: Arc<Uplink>,
) {
    let throttle = Throttle::new(ACCEPT_LOG_PERIOD);
    loop {
        match socket.accept().await {
            Ok((connection, application)) => {
                let service = service
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let (uplink, address) = (uplink.clone(), address.clone());
                let accepted = uplink.accepted();
                let between = (application, address);
                tokio::spawn(async move {
                    carry::carry(connection, between, accepted, service, uplink).await
                });
            }
            // The application went away between the kernel's handshake and our accept.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                if let Some(held_back) = throttle.admit(&error.raw_os_error(), Instant::now()) {
                    let service = service
                        .read()
                        .unwrap_or_else(PoisonError::into_inner)
                        .name
                        .clone();
                    tracing::warn!(service, %error, held_back, "cannot accept a connection; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
