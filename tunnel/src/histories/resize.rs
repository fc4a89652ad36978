//! Orders to running histories: another size, and to forget.

use std::sync::Arc;

use codec::domain;

use super::{Histories, Key, QuotaOf, Room};
use crate::pool::{JobName, Pool};

/// What became of an order to forget. Domains are named `PEER DOMAIN`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cleared {
    /// Empty now.
    pub done: Vec<String>,
    /// In use: their tunnel gives up what there is as soon as nothing under way needs it.
    pub under_way: Vec<String>,
    /// Not cleared, with why.
    pub failed: Vec<String>,
}

impl Histories {
    /// Another size and other quotas, in `pool`: rooms change in proportion, and peers are told. What is above its new room goes as soon as nothing uses it.
    pub async fn resize(self: &Arc<Self>, pool: &Pool, size_bytes: u64, quota_of: QuotaOf) {
        let histories = self.clone();
        let work = Box::new(move || histories.resize_now(size_bytes, quota_of));
        let _stopping = crate::pool::call(pool, job("resize"), work).await;
    }

    pub(super) fn resize_now(&self, size_bytes: u64, quota_of: QuotaOf) {
        let _alone = self.file_work();
        let mut state = self.lock();
        let before = state.rooms.size_bytes();
        state.rooms.resize(size_bytes, |peer| quota_of(peer));
        state.size_most_bytes = state.size_most_bytes.max(size_bytes);
        state.quota_of = quota_of;
        for (peer, name, room) in state.rooms.all() {
            let Some(domain) = state.domains.get(&(peer.into(), name.into())) else {
                continue;
            };
            if let Room::Reserved(bytes) = room {
                let (own, mirror) = self.lean.split(bytes);
                domain.set_capacity(own, mirror);
                self.desk.may_have_room(&(peer.into(), name.into()));
            }
        }
        if before != size_bytes {
            tracing::info!(
                before_bytes = before,
                size_bytes,
                "histories have another size"
            );
        }
        if let Some(disk) = &self.disk {
            disk.save_rooms(&state.rooms);
        }
    }

    /// Opens all that is on disk, on the calling thread.
    pub fn open_all_now(&self) {
        for key in self.on_disk() {
            self.open_now(&key);
        }
    }

    /// Writes all that is open and not written yet, on the calling thread.
    ///
    /// # Errors
    /// What could not be written first, in one line.
    pub fn flush_now(&self) -> Result<(), String> {
        let domains: Vec<_> = self.lock().domains.values().cloned().collect();
        let mut result = Ok(());
        for domain in domains {
            let flushed = domain
                .flush()
                .error
                .map_or(Ok(()), |error| Err(error.to_string()));
            result = result.and(flushed);
        }
        result
    }

    /// Forgets what is shared with `peer`, or with everybody, in `pool`. `None` if the pool has stopped.
    pub async fn clear(self: &Arc<Self>, pool: &Pool, peer: Option<String>) -> Option<Cleared> {
        let histories = self.clone();
        let work = Box::new(move || histories.clear_now(peer.as_deref()));
        crate::pool::call(pool, job("clear"), work).await
    }

    /// The same on the calling thread.
    pub fn clear_now(&self, peer: Option<&str>) -> Cleared {
        let _alone = self.file_work();
        let keys: Vec<Key> = {
            let state = self.lock();
            let all = state
                .rooms
                .all()
                .filter(|(of, ..)| peer.is_none_or(|peer| peer == *of));
            all.map(|(peer, name, _)| (peer.into(), name.into()))
                .collect()
        };
        let mut cleared = Cleared::default();
        for key in keys {
            let label = format!("{} {}", key.0, key.1);
            match (self.opened(&key), &self.disk) {
                (Some(domain), _) => {
                    match domain.clear() {
                        domain::Cleared::Now => cleared.done.push(label),
                        domain::Cleared::UnderWay => cleared.under_way.push(label),
                    }
                    self.desk.may_have_room(&key);
                }
                (None, Some(disk)) => match disk.remove(&key) {
                    Ok(()) => {
                        // Its room is free for others: nobody of this name has come since the start.
                        self.lock().rooms.release(&key.0, &key.1);
                        cleared.done.push(label);
                    }
                    Err(error) => cleared.failed.push(format!("{label}: {error}")),
                },
                (None, None) => {}
            }
        }
        if let Some(disk) = &self.disk {
            disk.save_rooms(&self.lock().rooms);
        }
        tracing::info!(
            cleared = cleared.done.len(),
            under_way = cleared.under_way.len(),
            failed = cleared.failed.len(),
            "histories were cleared"
        );
        cleared
    }
}

fn job(why: &'static str) -> JobName {
    JobName {
        who: "histories".into(),
        why,
    }
}
