//! One listening socket, and what becomes of the connections to it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use super::{Application, LanListener, LanStream};
use crate::cli::Failure;
use crate::config::{Bind, ListenConfig};
use crate::log::Throttle;

/// Pause after an accept that failed because descriptors or memory ran out, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A failing accept is logged once in this time.
const ACCEPT_LOG_PERIOD: Duration = Duration::from_secs(60);

/// What a program does with its listeners and with the connections to them.
pub trait Carry: Send + Sync + 'static {
    /// What a listener knows of its service; another one after a reload.
    type Service: Send + Sync + 'static;

    /// Opens the socket of a new listener.
    ///
    /// # Errors
    /// It cannot be had; the line says whose it was to be.
    fn open(config: &ListenConfig) -> Result<LanListener, Failure> {
        LanListener::open_for(&config.name, &config.bind)
    }

    /// Prepares the socket of a listener that stays for what its service becomes. It hurts nobody if that is not used after all.
    ///
    /// # Errors
    /// The system does not let us.
    fn refit(_socket: &LanListener, _config: &ListenConfig) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes a connection from `between.0`, which the listener at `between.1` has just accepted; what it returns carries it to its end.
    fn carry(
        self: Arc<Self>,
        socket: LanStream,
        between: (Application, Bind),
        service: Arc<Self::Service>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// A listener at work. Dropping it closes its socket; its connections go on.
pub struct Listener<C: Carry> {
    /// What it was made from.
    pub config: ListenConfig,
    /// Where it listens.
    pub address: Bind,
    pub(super) socket: Arc<LanListener>,
    service: Arc<ArcSwap<C::Service>>,
    task: JoinHandle<()>,
}

impl<C: Carry> Listener<C> {
    /// Starts accepting on `socket`, which is at `address`.
    pub(super) fn start(
        socket: LanListener,
        address: Bind,
        config: ListenConfig,
        service: C::Service,
        carry: Arc<C>,
    ) -> Self {
        let socket = Arc::new(socket);
        let service = Arc::new(ArcSwap::from_pointee(service));
        let from = (socket.clone(), address.clone());
        let task = tokio::spawn(accept(from, config.name.clone(), service.clone(), carry));
        Self {
            config,
            address,
            socket,
            service,
            task,
        }
    }

    /// Serves new connections by what the service is now, on the same socket.
    pub(super) fn replace(&mut self, config: ListenConfig, service: C::Service) {
        self.config = config;
        self.service.store(Arc::new(service));
    }
}

impl<C: Carry> Drop for Listener<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<C: Carry>(
    (socket, address): (Arc<LanListener>, Bind),
    name: String,
    service: Arc<ArcSwap<C::Service>>,
    carry: Arc<C>,
) {
    let throttle = Throttle::new(ACCEPT_LOG_PERIOD);
    loop {
        match socket.accept().await {
            Ok((connection, application)) => {
                let between = (application, address.clone());
                tokio::spawn(
                    carry
                        .clone()
                        .carry(connection, between, service.load_full()),
                );
            }
            // The application went away between the kernel's handshake and our accept.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                if let Some(held_back) = throttle.admit(&error.raw_os_error(), Instant::now()) {
                    tracing::warn!(service = name, %error, held_back, "cannot accept a connection; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
