//! Keeps a tunnel for new streams: dials the servers, waits between attempts, and starts the driver.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::frame::Reason;
use tokio::sync::{mpsc, watch};

use super::greet::Greeted;
use super::left::{LeftTunnels, go_away_when_idle};
use super::links::Names;
use super::resume::Ticket;
use super::{
    BACKOFF_MAX, BACKOFF_MIN, ConnectError, ConnectorConfig, ConnectorStatus, RENEWAL_CHECK_EVERY,
    RETURN_EVERY, Route, STABLE_AFTER,
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
                None => self.connect_any(|_| true).await,
            };
            match attempt {
                Ok((tunnel, route)) if self.identity.is_invite() => {
                    let server = self.name_of(route);
                    tracing::info!(peer = %tunnel.peer(), %server, "exchanging the invite for a certificate");
                    again_at_once = self.exchange(&tunnel).await;
                }
                Ok((tunnel, route)) => {
                    let server = self.name_of(route);
                    tracing::info!(peer = %tunnel.peer(), %server, "tunnel up");
                    self.note(None);
                    let _ = self.publish.send_replace(Some(tunnel.clone()));
                    if *self.draining.borrow() {
                        // It came up while `drain` was looking for tunnels.
                        tunnel.go_away(Reason::GoingAway);
                    }
                    found = self.attend(&tunnel, route).await;
                    if tunnel.is_up() {
                        tracing::info!(peer = %tunnel.peer(), %server, "the tunnel takes no new streams");
                        let gives_way = found.is_some() && !tunnel.is_draining();
                        let idle =
                            gives_way.then(|| tokio::spawn(go_away_when_idle(tunnel.clone())));
                        self.left.add(tunnel.clone(), route, idle);
                        // A server that goes away is restarted, or another takes over.
                        again_at_once = started.elapsed() >= STABLE_AFTER;
                    }
                    if found.is_some() {
                        again_at_once = true;
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
        route: usize,
    ) -> Option<(TunnelHandle, usize)> {
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
            found = self.take_over(tunnel, route) => Some(found),
            found = self.go_back(route) => Some(found),
        }
    }

    /// A tunnel to a server that goes before that of `route`, once there is one. A tunnel of ours that lives there gets the new streams again; as long
    /// as it waits for its line none is begun, for that would end it.
    async fn go_back(self: &Arc<Self>, route: usize) -> (TunnelHandle, usize) {
        let present = self.site_of(route);
        if present == 0 {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(RETURN_EVERY.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
            for site in 0..present {
                let left = self.left.usable().into_iter();
                match left
                    .into_iter()
                    .find(|(_, route)| self.site_of(*route) == site)
                {
                    Some((tunnel, route)) => {
                        if tunnel.is_attached() && self.left.take_back(route) {
                            return (tunnel, route);
                        }
                    }
                    None => {
                        let there = |route: &Route| route.site == site;
                        match self.connect_any(there).await {
                            Ok(found) => return found,
                            Err(error) => {
                                tracing::debug!(%error, "a preferred server is still away")
                            }
                        }
                    }
                }
            }
        }
    }

    /// Another server's tunnel for new streams, once every server was asked to carry on with `tunnel`: asked for a new one, the server that has
    /// it would end it.
    async fn take_over(
        self: &Arc<Self>,
        tunnel: &TunnelHandle,
        route: usize,
    ) -> (TunnelHandle, usize) {
        let site = self.site_of(route);
        if self.config.routes.iter().all(|other| other.site == site) {
            return std::future::pending().await;
        }
        let mut waits = backoff().waits(rand::random::<f64>);
        loop {
            tunnel.sought_in_vain().await;
            let other = async {
                loop {
                    match self.connect_any(|other| other.site != site).await {
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

    /// A new tunnel over the first route, of those that will do, over which one can be had.
    async fn connect_any(
        self: &Arc<Self>,
        will_do: impl Fn(&Route) -> bool,
    ) -> Result<(TunnelHandle, usize), ConnectError> {
        let mut last = None;
        for (index, route) in self.config.routes.iter().enumerate() {
            if !will_do(route) {
                continue;
            }
            match self.connect(index, route).await {
                Ok(tunnel) => return Ok((tunnel, index)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(no_route))
    }

    pub(super) fn route(&self, index: usize) -> Result<&Route, ConnectError> {
        self.config.routes.get(index).ok_or_else(no_route)
    }

    pub(super) fn site_of(&self, route: usize) -> usize {
        self.config.routes.get(route).map_or(0, |route| route.site)
    }

    fn name_of(&self, route: usize) -> String {
        let route = self.config.routes.get(route);
        route.map(ToString::to_string).unwrap_or_default()
    }

    async fn connect(
        self: &Arc<Self>,
        index: usize,
        route: &Route,
    ) -> Result<TunnelHandle, ConnectError> {
        let Greeted { link, hello, peer } = self.greet(route, |_| self.environment.hello()).await?;
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
            route: index,
            features: hello.features,
            names: Names::new(index),
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
        let published = Published::new(peer, hello.features, link.session().peer_chain());
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
        if let Some(ticket) = ticket.filter(|_| !self.identity.is_invite()) {
            let ticket = Arc::new(ticket);
            self.stripe(&handle, &ticket);
            if is_resumable {
                tokio::spawn(self.clone().keep(handle.clone(), ticket));
            }
        }
        Ok(handle)
    }
}

fn no_route() -> ConnectError {
    ConnectError::Resolve {
        server: String::new(),
        source: ResolveError::NoAddress,
    }
}

#[expect(clippy::expect_used, reason = "constants; a test builds it")]
pub(super) fn backoff() -> Backoff {
    Backoff::new(BACKOFF_MIN, BACKOFF_MAX, 2.0).expect("the constants are in order")
}
