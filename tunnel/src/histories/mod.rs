//! Which histories exist: one [`Domain`] for each peer and domain name, kept while the program runs, so that a new
//! tunnel to the same peer is warm at once. Room is reserved when a peer first comes, and nobody evicts another.
//!
//! On disk, opening is file work: tunnels ask with [`Histories::look_up`] and get them by mail when pool `storage` has opened
//! them. What keeps them written is the [keeper](keeper).

mod config;
mod disk;
mod keeper;
mod report;
mod resize;
mod rooms;
mod verify;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use codec::domain::{Domain, DomainConfig};

pub use config::{DomainSpec, HistoriesConfig, Home, Lean, QuotaOf};
pub use disk::{OpenDirectory, OpenError};
pub use report::{DomainReport, HistoriesStats};
pub use resize::Cleared;
pub use verify::{Checked, Verification};

use crate::pool::{JobName, Pool};
use config::canonical;
use disk::Disk;
use keeper::Desk;
use rooms::{Room, Rooms};

/// A tunnel waits no longer for histories on disk before it begins; it gets them later then.
const PREPARE_MAX: Duration = Duration::from_millis(250);

/// A peer's name and a domain's.
type Key = (Arc<str>, Arc<str>);

/// All histories of one program.
pub struct Histories {
    lean: Lean,
    index_bytes: u64,
    disk: Option<Disk>,
    /// Why they are in memory although a directory is configured.
    excuse: Option<String>,
    state: Mutex<State>,
    /// Held during file work that concerns all: one opening, resizing or clearing at a time, and never by a thread that serves sockets.
    file_work: Mutex<()>,
    desk: Arc<Desk>,
    verifications: verify::Verifications,
    keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

struct State {
    rooms: Rooms,
    quota_of: QuotaOf,
    /// The largest size so far: what indexes are measured by, so that together they never exceed their memory.
    size_most_bytes: u64,
    domains: BTreeMap<Key, Arc<Domain>>,
}

/// What is found when histories are asked for.
pub(crate) enum Lookup {
    /// Here they are.
    Found(Arc<Domain>),
    /// They must be opened first, in pool `storage`.
    OnDisk,
    /// The peer has come with more names than it may: it goes without.
    Refused,
}

impl Histories {
    /// With room as `config` says. On disk, what earlier starts of the program have left keeps its room. This is file work.
    pub fn new(config: HistoriesConfig) -> Self {
        let HistoriesConfig {
            lean,
            size_bytes,
            small_bytes,
            index_bytes,
            cache_bytes,
            quota_of,
            home,
        } = config;
        let (disk, excuse, rooms) = match home {
            Home::Memory { excuse } => (None, excuse, Rooms::new(lean, size_bytes, small_bytes)),
            Home::Disk(directory) => {
                let (disk, rooms) = Disk::new(
                    directory,
                    cache_bytes,
                    (lean, size_bytes, small_bytes),
                    &quota_of,
                );
                (Some(disk), None, rooms)
            }
        };
        Self {
            lean,
            index_bytes,
            disk,
            excuse,
            state: Mutex::new(State {
                rooms,
                quota_of,
                size_most_bytes: size_bytes,
                domains: BTreeMap::new(),
            }),
            file_work: Mutex::default(),
            desk: Arc::default(),
            verifications: verify::Verifications::default(),
            keeper: Mutex::default(),
        }
    }

    /// The histories shared with `peer` in the domain of this name (`shared` or empty: the shared one), if they are open or need no file work.
    pub(crate) fn look_up(&self, peer: &str, name: &str) -> Lookup {
        let key = key(peer, name);
        let mut state = self.lock();
        if let Some(domain) = state.domains.get(&key) {
            return Lookup::Found(domain.clone());
        }
        if self.disk.is_some() {
            return Lookup::OnDisk;
        }
        match state.reserve(&key) {
            None => Lookup::Refused,
            Some(room) => {
                let domain = Arc::new(Domain::in_memory(self.domain_config(&state, room)));
                state.domains.insert(key, domain.clone());
                Lookup::Found(domain)
            }
        }
    }

    /// The same, opened in `pool` if need be. `None` for a peer that has come with more names than it may, or when the pool has stopped.
    pub async fn open(
        self: &Arc<Self>,
        pool: &Pool,
        peer: &str,
        name: &str,
    ) -> Option<Arc<Domain>> {
        match self.look_up(peer, name) {
            Lookup::Found(domain) => Some(domain),
            Lookup::Refused => None,
            Lookup::OnDisk => {
                let (histories, key) = (self.clone(), key(peer, name));
                let job = JobName {
                    who: key.0.to_string().into(),
                    why: "open",
                };
                crate::pool::call(pool, job, Box::new(move || histories.open_now(&key))).await?
            }
        }
    }

    /// Opens those of a peer that is coming, and waits for it a moment: its first bytes are not worth less than the others.
    pub(crate) async fn prepare(self: &Arc<Self>, pool: &Pool, peer: &str, domains: &[DomainSpec]) {
        let opening = async {
            for domain in domains {
                self.open(pool, peer, &domain.name).await;
            }
        };
        let _goes_on_without = tokio::time::timeout(PREPARE_MAX, opening).await;
    }

    /// Opens on the calling thread.
    fn open_now(&self, key: &Key) -> Option<Arc<Domain>> {
        let _alone = self.file_work();
        let (room, config) = {
            let mut state = self.lock();
            if let Some(domain) = state.domains.get(key) {
                return Some(domain.clone());
            }
            let room = state.reserve(key)?;
            (room, self.domain_config(&state, room))
        };
        let domain = match (&self.disk, room) {
            (Some(disk), Room::Reserved(_)) => {
                disk.save_rooms(&self.lock().rooms);
                disk.open(key, config)
            }
            (Some(disk), Room::Small(bytes)) => {
                disk.tell_no_room(key, bytes);
                Arc::new(Domain::in_memory(config))
            }
            (None, _) => Arc::new(Domain::in_memory(config)),
        };
        self.lock().domains.insert(key.clone(), domain.clone());
        // From here on the keeper finds it.
        self.desk.is_fresh(key);
        let (desk, poked) = (self.desk.clone(), key.clone());
        domain.on_dirty(Box::new(move || desk.is_dirty(&poked)));
        Some(domain)
    }

    /// What a domain with this room is made with.
    fn domain_config(&self, state: &State, room: Room) -> DomainConfig {
        let (own_capacity_bytes, mirror_capacity_bytes) = self.lean.split(room.bytes());
        DomainConfig {
            own_capacity_bytes,
            mirror_capacity_bytes,
            index_capacity_bytes: config::index_bytes(
                room,
                self.index_bytes,
                state.size_most_bytes,
            ),
            epoch: rand::random(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_work(&self) -> MutexGuard<'_, ()> {
        self.file_work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A domain that is open.
    fn opened(&self, key: &Key) -> Option<Arc<Domain>> {
        self.lock().domains.get(key).cloned()
    }
}

impl State {
    fn reserve(&mut self, (peer, name): &Key) -> Option<Room> {
        let quota = (self.quota_of)(peer);
        self.rooms.reserve(peer, name, quota)
    }
}

fn key(peer: &str, name: &str) -> Key {
    (peer.into(), canonical(name).into())
}

impl std::fmt::Debug for Histories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histories")
            .field("disk", &self.disk)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
