//! The server edge as its admin endpoint shows it.

use std::sync::Arc;

use edge::admin::{HistoryAccess, Observed, Status};
use edge::credentials::ServerCredentials;
use edge::metrics::{Family, Sources};
use tunnel::server::Acceptor;

/// What the admin endpoint asks.
pub struct Server {
    /// The figures.
    pub sources: Arc<Sources>,
    /// The certificate, for its expiry.
    pub credentials: Arc<ServerCredentials>,
    /// The tunnels.
    pub acceptor: Arc<Acceptor>,
}

impl Observed for Server {
    fn status(&self) -> Status {
        self.sources.status(&self.acceptor.tunnels(), &[])
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
