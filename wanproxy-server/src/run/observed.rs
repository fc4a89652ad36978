//! The server edge as its admin endpoint shows it.

use std::sync::{Arc, PoisonError, RwLock};

use edge::admin::{HistoryAccess, Observed, Pulse, Status};
use edge::credentials::ServerCredentials;
use edge::metrics::{Family, OwnService, Sources};
use tunnel::server::Acceptor;

use crate::reverse::Reverse;

/// What the admin endpoint asks.
pub struct Server {
    sources: Arc<Sources>,
    credentials: Arc<ServerCredentials>,
    acceptor: Arc<Acceptor>,
    services: RwLock<Vec<OwnService>>,
}

impl Server {
    /// Shows the edge of these parts.
    pub fn new(
        sources: Arc<Sources>,
        credentials: Arc<ServerCredentials>,
        acceptor: Arc<Acceptor>,
        reverse: &Reverse,
    ) -> Self {
        Self {
            sources,
            credentials,
            acceptor,
            services: RwLock::new(reverse.listeners().services()),
        }
    }

    /// Notes the present services.
    pub fn set_services(&self, reverse: &Reverse) {
        let services = reverse.listeners().services();
        *self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = services;
    }
}

impl Observed for Server {
    fn status(&self) -> Status {
        let services = self
            .services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.sources.status(&self.acceptor.tunnels(), &services)
    }

    fn pulse(&self) -> Pulse {
        self.sources.pulse(&self.acceptor.tunnels())
    }

    fn metrics(&self) -> Vec<Family> {
        self.sources
            .set_certificate_expiry(self.credentials.not_after());
        self.sources.families(&self.acceptor.tunnels())
    }

    /// It listens for tunnels until it drains.
    fn ready(&self) -> Result<(), String> {
        if self.acceptor.is_draining() {
            Err("draining: no new tunnels are accepted".to_owned())
        } else {
            Ok(())
        }
    }

    fn history(&self) -> HistoryAccess {
        self.sources.history()
    }
}
