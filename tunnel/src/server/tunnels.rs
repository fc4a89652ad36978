//! The tunnels that a server edge has, by the peer's name: who may have another, and which one a link belongs to.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codec::frame::{Hello, HelloStatus, Secret};

use super::TUNNELS_PER_IDENTITY_MAX;
use crate::handle::{EndCause, TunnelHandle};
use crate::tls::Session;

/// An older tunnel that is superseded ends within this time, unless its driver is held up; the new one then does without histories at first.
const SUPERSEDE_MAX: Duration = Duration::from_secs(1);

/// Tunnels that have not ended, by the peer's name.
#[derive(Default)]
pub(super) struct Tunnels(Mutex<HashMap<String, Vec<Known>>>);

/// A tunnel, and what its client must show to carry on with it.
pub(super) struct Known {
    pub(super) tunnel: TunnelHandle,
    /// The start of the program at the other end.
    pub(super) instance: [u8; 16],
    pub(super) id: [u8; 16],
    pub(super) secret: Secret,
    /// Of the newest link that was admitted.
    pub(super) generation: u64,
}

impl Known {
    /// Whether it ends when a client of `instance` begins a new tunnel: the client has given it up, or was restarted and knows nothing of it. A
    /// tunnel of another start of the program that has its line is another machine's.
    fn is_superseded_by(&self, instance: [u8; 16]) -> bool {
        let is_own = self.instance == instance;
        self.tunnel.is_up() && !self.tunnel.is_draining() && (is_own || !self.tunnel.is_attached())
    }
}

impl Tunnels {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that have not ended.
    pub(super) fn all(&self) -> Vec<TunnelHandle> {
        let all = self.lock();
        let tunnels = all.values().flatten().map(|known| known.tunnel.clone());
        tunnels.filter(TunnelHandle::is_up).collect()
    }

    /// Ends the older tunnels that a new one of this client takes the place of, and waits until they have let go of their histories.
    pub(super) async fn supersede(&self, peer: &str, instance: [u8; 16]) {
        let older: Vec<TunnelHandle> = {
            let all = self.lock();
            let of_peer = all.get(peer).into_iter().flatten();
            of_peer
                .filter(|known| known.is_superseded_by(instance))
                .map(|known| known.tunnel.clone())
                .collect()
        };
        for tunnel in older {
            tunnel.close(EndCause::Closed("the client has dialed anew".to_owned()));
            let _ = tokio::time::timeout(SUPERSEDE_MAX, tunnel.ended()).await;
        }
    }

    /// Registers a tunnel unless its peer has too many.
    pub(super) fn add(&self, known: Known) -> bool {
        let mut all = self.lock();
        let of_peer = all.entry(known.tunnel.peer().to_string()).or_default();
        of_peer.retain(|other| other.tunnel.is_up());
        if of_peer.len() >= TUNNELS_PER_IDENTITY_MAX {
            return false;
        }
        of_peer.push(known);
        true
    }

    /// Whether a client may begin a new tunnel, beside those that it does not supersede.
    pub(super) fn has_room(&self, peer: &str, instance: [u8; 16]) -> bool {
        let all = self.lock();
        all.get(peer).is_none_or(|of_peer| {
            of_peer
                .iter()
                .filter(|known| known.tunnel.is_up() && !known.is_superseded_by(instance))
                .count()
                < TUNNELS_PER_IDENTITY_MAX
        })
    }

    /// The tunnel that a link of `peer` is to carry on with, if its Hello proves that it may. From then on no older link is admitted to it.
    pub(super) fn resume(
        &self,
        peer: &str,
        id: [u8; 16],
        hello: &Hello,
        session: &Session,
    ) -> Result<TunnelHandle, (HelloStatus, String)> {
        let mut all = self.lock();
        let known = all
            .get_mut(peer)
            .into_iter()
            .flatten()
            .find(|known| known.id == id && known.instance == hello.instance)
            .filter(|known| known.tunnel.is_up())
            .ok_or_else(|| {
                (
                    HelloStatus::UnknownTunnel,
                    "this server holds no such tunnel".to_owned(),
                )
            })?;
        let is_proved = hello.proof.is_some_and(|proof| {
            session.verifies(&known.secret, hello.generation, hello.link_index, &proof)
        });
        if !is_proved {
            return Err((
                HelloStatus::ProofWrong,
                "the proof does not belong to this link".to_owned(),
            ));
        }
        if hello.generation <= known.generation {
            return Err((
                HelloStatus::ProofWrong,
                format!(
                    "generation {} is over: the tunnel is in {}",
                    hello.generation, known.generation
                ),
            ));
        }
        known.generation = hello.generation;
        Ok(known.tunnel.clone())
    }

    pub(super) fn remove_ended(&self) {
        self.lock().retain(|_, of_peer| {
            of_peer.retain(|known| known.tunnel.is_up());
            !of_peer.is_empty()
        });
    }
}
