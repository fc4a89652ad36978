//! Reverse listeners: connections to this edge that lead to targets behind a client edge.
//!
//! The client checks its own `[[accept]]` rules and dials; this edge only chooses the tunnel.

mod carry;
mod domains;

use std::sync::Arc;

use edge::cli::Failure;
use edge::config::{ListenConfig, ListenKind};
use edge::lan::{Listeners, Prepared};
use edge::pace::Paces;

pub use carry::{Downlink, Service};
use domains::Domains;

/// The reverse listeners of this edge.
pub struct Reverse {
    downlink: Arc<Downlink>,
    domains: Domains,
    paces: Paces,
    listeners: Listeners<Downlink>,
}

impl Reverse {
    /// Without any listener yet; their streams go by `downlink`.
    pub fn new(downlink: Arc<Downlink>) -> Self {
        Self {
            downlink,
            domains: Domains::default(),
            paces: Paces::default(),
            listeners: Listeners::default(),
        }
    }

    /// Binds what is new in `services`; nothing changes before [`apply`](Self::apply).
    ///
    /// # Errors
    /// An address cannot be had.
    pub fn prepare(&mut self, services: &[ListenConfig]) -> Result<Prepared<Downlink>, Failure> {
        let mut all = Vec::with_capacity(services.len());
        for config in services {
            // The configuration lets nothing else through.
            let (ListenKind::Forward(target), Some(client)) = (&config.kind, &config.client) else {
                continue;
            };
            let service = Service {
                name: config.name.clone(),
                client: client.as_str().to_owned(),
                target: target.to_wire(),
                domain: self.domains.of(config, client),
                weight: config.weight,
                pace: self.paces.of(&config.name),
                proxy: config.proxy,
            };
            all.push((config.clone(), service));
        }
        self.listeners.prepare(all)
    }

    /// Uses what was prepared.
    pub fn apply(&mut self, prepared: Prepared<Downlink>) {
        self.listeners.apply(prepared, &self.downlink);
        let rate_of = |name: &str| self.listeners.rate_of(name);
        self.paces.set_all(rate_of);
    }

    /// Takes no more connections.
    pub fn close(&mut self) {
        self.listeners.clear();
    }

    /// The listeners at work.
    pub const fn listeners(&self) -> &Listeners<Downlink> {
        &self.listeners
    }
}
