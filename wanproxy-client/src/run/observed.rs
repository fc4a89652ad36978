//! The client edge as its admin endpoint shows it.

use std::sync::{Arc, PoisonError, RwLock};

use edge::admin::{HistoryAccess, Observed, Pulse, Status, TunnelStatus};
use edge::config::ClientConfig;
use edge::credentials::ClientCredentials;
use edge::lan::Listeners;
use edge::metrics::{Family, OwnService, Sources};

use crate::listener::Uplink;

/// The state of a tunnel that there is not yet, or not any more.
const CONNECTING: &str = "connecting";

/// What the admin endpoint asks.
pub struct Client {
    sources: Arc<Sources>,
    credentials: Arc<ClientCredentials>,
    uplink: Arc<Uplink>,
    server: String,
    services: RwLock<Vec<OwnService>>,
}

impl Client {
    /// Shows the edge of these parts.
    pub fn new(
        sources: Arc<Sources>,
        credentials: Arc<ClientCredentials>,
        uplink: Arc<Uplink>,
        config: &ClientConfig,
        listeners: &Listeners<Uplink>,
    ) -> Self {
        let server = config
            .tunnel
            .paths
            .routes()
            .first()
            .map(|route| route.server.clone())
            .unwrap_or_default();
        let client = Self {
            sources,
            credentials,
            uplink,
            server,
            services: RwLock::default(),
        };
        client.set_services(listeners);
        client
    }

    /// Notes the present services.
    pub fn set_services(&self, listeners: &Listeners<Uplink>) {
        *self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = listeners.services();
    }
}

impl Observed for Client {
    fn status(&self) -> Status {
        let tunnels = self.uplink.connector().tunnels();
        let services = self
            .services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut status = self.sources.status(&tunnels, &services);
        if status.tunnels.is_empty() {
            status.tunnels.push(TunnelStatus {
                peer: self.server.clone(),
                state: CONNECTING.to_owned(),
                error: self.uplink.connector().status().last_error,
                ..TunnelStatus::default()
            });
        }
        status
    }

    fn pulse(&self) -> Pulse {
        let mut pulse = self.sources.pulse(&self.uplink.connector().tunnels());
        if pulse.tunnels.is_empty() {
            pulse
                .tunnels
                .push((self.server.clone(), CONNECTING.to_owned()));
        }
        pulse
    }

    fn metrics(&self) -> Vec<Family> {
        self.sources
            .set_certificate_expiry(self.credentials.not_after());
        self.sources.families(&self.uplink.connector().tunnels())
    }

    fn ready(&self) -> Result<(), String> {
        let present = self.uplink.connector().present();
        if present.is_some_and(|tunnel| tunnel.is_attached()) {
            return Ok(());
        }
        let why = self.uplink.connector().status().last_error;
        Err(why.map_or_else(
            || "no tunnel is up".to_owned(),
            |why| format!("no tunnel is up: {why}"),
        ))
    }

    fn history(&self) -> HistoryAccess {
        self.sources.history()
    }
}
