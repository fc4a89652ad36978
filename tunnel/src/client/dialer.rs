//! Keeps a tunnel for new streams: dials the servers, waits between attempts, and starts the driver.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::frame::Reason;
use tokio::sync::{mpsc, watch};

use super::greet::Greeted;
use super::left::{LeftTunnels, go_away_when_idle};
use super::resume::Ticket;
use super::{
    BACKOFF_MAX, BACKOFF_MIN, ConnectError, ConnectorConfig, ConnectorStatus, RENEWAL_CHECK_EVERY,
    STABLE_AFTER,
};
use crate::backoff::Backoff;
use crate::driver::{Driver, Mail, Parts};
use crate::environment::{ClientIdentity, Environment, Refused};
use crate::handle::{Published, TunnelHandle};
use crate::resolve::ResolveError;
use crate::state::{Side, Tunnel};
use crate::stream::IncomingStream;
use crate::wake::mailbox;

pub(super) struct Dialer {
    pub(super) config: ConnectorConfig,
    pub(super) identity: Arc<dyn ClientIdentity>,
    pub(super) environment: Environment,
    pub(super) incoming: mpsc::UnboundedSender<IncomingStream>,
    pub(super) publish: watch::Sender<Option<TunnelHandle>>,
    pub(super) left: Arc<LeftTunnels>,
    pub(super) status: Arc<Mutex<ConnectorStatus>>,
    pub(super) draining: watch::Receiver<bool>,
}

impl Dialer {
    pub(super) async fn run(self: Arc<Self>) {
        let mut waits = backoff().waits(rand::random::<f64>);
        let mut found = None;
        loop {
            let started = Instant::now();
            let mut again_at_once = false;
            let attempt = match found.take() {
                Some(found) => Ok(found),
                None => self.connect_any(None).await,
            };
            match attempt {
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
                    found = self.attend(&tunnel, &server).await;
                    if tunnel.is_up() {
                        tracing::info!(peer = %tunnel.peer(), %server, "the tunnel takes no new streams");
                        self.left.add(tunnel.clone());
                        // A server that goes away is restarted, or another takes over.
                        again_at_once = started.elapsed() >= STABLE_AFTER;
                    }
                    if found.is_some() {
                        again_at_once = true;
                        tokio::spawn(go_away_when_idle(tunnel.clone()));
                    } else {
                        let _ = self.publish.send_replace(None);
                    }
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

    pub(super) fn note(&self, error: Option<String>) {
        if error.is_none() {
            self.status().tunnels += 1;
        }
        self.note_error(error);
    }

    pub(super) fn note_error(&self, error: Option<String>) {
        self.status().last_error = error;
    }

    fn status(&self) -> MutexGuard<'_, ConnectorStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews when due, until the tunnel takes no more streams. A new certificate is for the next link; the streams of this one
    /// go on. Gives what takes over, where the line to this server is away and another server can be had.
    async fn attend(
        self: &Arc<Self>,
        tunnel: &TunnelHandle,
        server: &str,
    ) -> Option<(TunnelHandle, String)> {
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
            () = tunnel.unusable() => None,
            () = renewing => None,
            found = self.take_over(tunnel, server) => Some(found),
        }
    }

    /// Another server's tunnel for new streams, once every server was asked to carry on with `tunnel`: asked for a new one, the server that has
    /// it would end it.
    async fn take_over(
        self: &Arc<Self>,
        tunnel: &TunnelHandle,
        server: &str,
    ) -> (TunnelHandle, String) {
        if self.config.servers.iter().all(|other| other == server) {
            return std::future::pending().await;
        }
        let mut waits = backoff().waits(rand::random::<f64>);
        loop {
            tunnel.sought_in_vain().await;
            let other = async {
                loop {
                    match self.connect_any(Some(server)).await {
                        Ok(found) => return found,
                        Err(error) => tracing::warn!(%error, "no other server takes over"),
                    }
                    tokio::time::sleep(waits.next().unwrap_or(BACKOFF_MAX)).await;
                }
            };
            tokio::select! {
                () = tunnel.becomes_attached(true) => {}
                found = other => return found,
            }
            if !tunnel.is_up() {
                return std::future::pending().await;
            }
        }
    }

    /// A new tunnel with the first server that can be had, but not `but`.
    async fn connect_any(
        self: &Arc<Self>,
        but: Option<&str>,
    ) -> Result<(TunnelHandle, String), ConnectError> {
        let mut last = None;
        let servers = self.config.servers.iter();
        for server in servers.filter(|server| but.is_none_or(|but| **server != but)) {
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

    async fn connect(self: &Arc<Self>, server: &str) -> Result<TunnelHandle, ConnectError> {
        let Greeted { link, hello, peer } =
            self.greet(server, |_| self.environment.hello()).await?;
        if !hello.status.is_accepted() {
            return Err(Refused {
                status: hello.status,
                message: hello.message,
            }
            .into());
        }
        let ticket = hello.tunnel.zip(hello.secret.clone());
        let ticket = ticket.map(|(id, secret)| Ticket {
            id,
            secret,
            instance: hello.instance,
            server: server.to_owned(),
        });
        let mut config = self
            .environment
            .tunnel_config(Side::Client, &peer.name, &hello, true);
        if ticket.is_none() || self.identity.is_invite() {
            config.resume_window = Duration::ZERO;
        }
        let is_resumable = !config.resume_window.is_zero();
        let tunnel = Tunnel::new(
            config,
            self.environment.budget.clone(),
            self.environment.counters.clone(),
            Instant::now(),
        );
        let (histories, domains) = (&self.environment.histories, &self.config.domains);
        histories
            .prepare(&self.environment.pools.storage, &peer.name, domains)
            .await;
        let counters = self.environment.counters.peer(&peer.name);
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
            histories: Some(histories.clone()),
            domains: domains.clone(),
            counters,
            published,
            sample: self.environment.sample,
        });
        tokio::spawn(driver);
        if let Some(ticket) = ticket.filter(|_| is_resumable) {
            tokio::spawn(self.clone().keep(handle.clone(), ticket));
        }
        Ok(handle)
    }
}

#[expect(clippy::expect_used, reason = "constants; a test builds it")]
pub(super) fn backoff() -> Backoff {
    Backoff::new(BACKOFF_MIN, BACKOFF_MAX, 2.0).expect("the constants are in order")
}
