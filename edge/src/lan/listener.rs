//! One listening socket, and what becomes of the connections to it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use super::{Application, LanListener, LanStream};
use crate::config::{Bind, ListenConfig};
use crate::log::Throttle;

/// Pause after an accept that failed because descriptors or memory ran out, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A failing accept is logged once in this time.
const ACCEPT_LOG_PERIOD: Duration = Duration::from_secs(60);

/// What a program does with a connection that a listener has accepted.
pub trait Carry: Send + Sync + 'static {
    /// What the listener knows of its service; another one after a reload.
    type Service: Send + Sync + 'static;
    /// Carries one connection from its accept to its end.
    fn carry(
        &self,
        socket: LanStream,
        application: Application,
        service: Arc<Self::Service>,
    ) -> impl Future<Output = ()> + Send;
}

/// A listener at work. Dropping it closes its socket; its connections go on.
pub struct Listener<S> {
    /// What it was made from.
    pub config: ListenConfig,
    /// Where it listens.
    pub address: Bind,
    service: Arc<ArcSwap<S>>,
    task: JoinHandle<()>,
}

impl<S: Send + Sync + 'static> Listener<S> {
    /// Starts accepting on `socket`.
    ///
    /// # Errors
    /// The socket does not know its address.
    pub fn start(
        socket: LanListener,
        config: ListenConfig,
        service: S,
        carry: Arc<impl Carry<Service = S>>,
    ) -> io::Result<Self> {
        let address = socket.bound()?;
        let service = Arc::new(ArcSwap::from_pointee(service));
        let task = tokio::spawn(accept(socket, config.name.clone(), service.clone(), carry));
        Ok(Self {
            config,
            address,
            service,
            task,
        })
    }

    /// Serves new connections by what the service is now, on the same socket.
    pub fn replace(&mut self, config: ListenConfig, service: S) {
        self.config = config;
        self.service.store(Arc::new(service));
    }
}

impl<S> Drop for Listener<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<C: Carry>(
    socket: LanListener,
    name: String,
    service: Arc<ArcSwap<C::Service>>,
    carry: Arc<C>,
) {
    let throttle = Throttle::new(ACCEPT_LOG_PERIOD);
    loop {
        match socket.accept().await {
            Ok((connection, application)) => {
                let (service, carry) = (service.load_full(), carry.clone());
                tokio::spawn(async move { carry.carry(connection, application, service).await });
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
