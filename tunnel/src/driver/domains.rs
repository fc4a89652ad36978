//! Where a tunnel's histories come from: at hand, or opened in pool `storage` while the tunnel works without them.

use std::time::Instant;

use codec::frame::DomainId;

use super::{Command, Driver, Mail};
use crate::histories::Lookup;

impl Driver {
    /// Attaches the histories of a domain as soon as they are at hand. What the peer says of them meanwhile is kept by the state machine.
    pub(super) fn want_domain(&mut self, id: DomainId, name: String, now: Instant) {
        let Some(histories) = &self.histories else {
            return;
        };
        if self.tunnel.has_domain(id) {
            return;
        }
        let peer = self.published.peer.clone();
        match histories.look_up(&peer, &name) {
            Lookup::Found(domain) => self.tunnel.attach_domain(id, name, domain, now),
            Lookup::Refused => {}
            Lookup::OnDisk => {
                let (histories, pool) = (histories.clone(), self.pools.storage.clone());
                let sender = self.sender.clone();
                // Not awaited: a tunnel that ends meanwhile drops its mailbox, and the mail with it.
                drop(tokio::spawn(async move {
                    if let Some(domain) = histories.open(&pool, &peer, &name).await {
                        let _ = sender.send(Mail::Command(Command::AttachDomain(id, name, domain)));
                    }
                }));
            }
        }
    }
}
