//! The tunnels that a server edge has, by the peer's name: who may have another, and which one a link belongs to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use codec::frame::{Hello, HelloStatus, Secret};
use tokio::sync::watch;

use super::TUNNELS_PER_IDENTITY_MAX;
use crate::driver::LINKS_MAX;
use crate::handle::{EndCause, TunnelHandle};
use crate::tls::Session;

/// An older tunnel that is superseded ends within this time, unless its driver is held up; the new one then does without histories at first.
const SUPERSEDE_MAX: Duration = Duration::from_secs(1);

/// A link that is asked whether it lives is found dead after a heartbeat, and a little later that is known.
const PROBE_MARGIN: Duration = Duration::from_secs(1);

/// Tunnels that have not ended, by the peer's name.
#[derive(Default)]
pub(super) struct Tunnels {
    by_peer: Mutex<HashMap<String, Vec<Known>>>,
    /// Told when one is added.
    added: watch::Sender<()>,
    /// Those that their clients know already.
    announced: watch::Sender<HashSet<[u8; 16]>>,
}

/// A tunnel of which its client hears before it is added: until this is dropped, links that ask for it wait.
pub(super) struct Announced {
    tunnels: Arc<Tunnels>,
    pub(super) id: [u8; 16],
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.tunnels.announced.send_modify(|announced| {
            announced.remove(&self.id);
        });
    }
}

/// A tunnel, and what its client must show to carry on with it.
pub(super) struct Known {
    pub(super) tunnel: TunnelHandle,
    /// The start of the program at the other end.
    pub(super) instance: [u8; 16],
    pub(super) id: [u8; 16],
    pub(super) secret: Secret,
    /// Of the newest link that was admitted.
    pub(super) generation: u64,
    /// It is for exchanging an invite only, and carries no streams.
    pub(super) is_invite: bool,
}

impl Known {
    /// Whether it ends when a client of `instance` begins a new tunnel: the client has given it up, or was restarted and knows nothing of it. A
    /// tunnel of another start of the program that has its line is another machine's.
    fn is_superseded_by(&self, instance: [u8; 16]) -> bool {
        let is_own = self.instance == instance;
        self.tunnel.is_up() && !self.tunnel.is_draining() && (is_own || !self.tunnel.is_attached())
    }
}

impl Known {
    /// The tunnel, for a further link of its present generation.
    fn admit_further(&self, hello: &Hello) -> Result<TunnelHandle, (HelloStatus, String)> {
        if hello.generation != self.generation {
            let message = format!(
                "generation {} is not the tunnel's present one, {}",
                hello.generation, self.generation
            );
            return Err((HelloStatus::ProofWrong, message));
        }
        let links = self.tunnel.links().len();
        if links == 0 || links >= LINKS_MAX {
            let message = format!("the tunnel has {links} links");
            return Err((HelloStatus::Limit, message));
        }
        Ok(self.tunnel.clone())
    }
}

impl Tunnels {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Known>>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A client of `instance` has begun: if it was restarted before this side has noticed that its old line is dead, its old tunnels shall not keep
    /// the histories for long. Those that another start of the program has are asked whether they live; those that do not answer end.
    pub(super) async fn probe_others(&self, peer: &str, instance: [u8; 16], heartbeat: Duration) {
        let others: Vec<TunnelHandle> = {
            let all = self.lock();
            let of_peer = all.get(peer).into_iter().flatten();
            of_peer
                .filter(|known| known.instance != instance && known.tunnel.is_attached())
                .map(|known| known.tunnel.clone())
                .collect()
        };
        for tunnel in &others {
            tunnel.probe();
        }
        let asked = Instant::now();
        for tunnel in others {
            let patience = (heartbeat + PROBE_MARGIN).saturating_sub(asked.elapsed());
            let silent = tokio::time::timeout(patience, tunnel.becomes_attached(false)).await;
            if silent.is_ok() && tunnel.is_up() && !tunnel.is_draining() {
                tunnel.close(EndCause::Closed(
                    "its client has begun anew, and does not answer on the old line".to_owned(),
                ));
            }
        }
    }

    /// A tunnel of this id will be added, or not.
    pub(super) fn announce(self: &Arc<Self>, id: [u8; 16]) -> Announced {
        self.announced.send_modify(|announced| {
            announced.insert(id);
        });
        Announced {
            tunnels: self.clone(),
            id,
        }
    }

    /// Waits while a tunnel of this id is announced and neither added nor given up.
    pub(super) async fn settle(&self, id: [u8; 16]) {
        let mut announced = self.announced.subscribe();
        // The sender is ours, so this cannot fail.
        let _settled = announced
            .wait_for(|announced| !announced.contains(&id))
            .await;
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
        drop(all);
        self.added.send_replace(());
        true
    }

    /// A tunnel of `peer` that takes streams, the newest that has its line; waits for one as long as it is let.
    pub(super) async fn wait_for(&self, peer: &str) -> TunnelHandle {
        let mut added = self.added.subscribe();
        loop {
            added.mark_unchanged();
            let usable = self.usable(peer);
            if let Some(tunnel) = usable.iter().find(|tunnel| tunnel.is_attached()) {
                return tunnel.clone();
            }
            let resumed = async {
                match usable.first() {
                    Some(tunnel) => tunnel.becomes_attached(true).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = resumed => tokio::task::yield_now().await,
                // The sender is ours, so this cannot fail.
                _ = added.changed() => {}
            }
        }
    }

    /// Those of `peer` that take streams, the newest first.
    fn usable(&self, peer: &str) -> Vec<TunnelHandle> {
        let all = self.lock();
        let of_peer = all.get(peer).into_iter().flatten().rev();
        of_peer
            .filter(|known| !known.is_invite && known.tunnel.is_up() && !known.tunnel.is_draining())
            .map(|known| known.tunnel.clone())
            .collect()
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
        if hello.link_index > 0 {
            return known.admit_further(hello);
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
