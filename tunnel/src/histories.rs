//! Which histories exist: one [`Domain`] for each peer and domain name, kept while the program runs, so that a new
//! tunnel to the same peer is warm at once. Room is reserved when a peer first comes, and nobody evicts another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::domain::{Domain, DomainConfig};

/// A peer for whom no room is left gets this much, so that it still gains within its recent traffic.
const SMALL_BYTES: u64 = 8 << 20;

/// Domains of one peer: the names come from it, also over many tunnels, and each takes room.
const DOMAINS_PER_PEER_MAX: usize = 16;

/// An index entry (8 bytes) for every 128 bytes of history, and as much again so that buckets rarely overflow.
const HISTORY_BYTES_PER_INDEX_BYTE: u64 = 8;

/// Which side these histories are on: sets how room is shared out, and how a domain's room is split between what is
/// sent and what is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lean {
    /// A branch: mostly received, so two thirds for the mirror; one peer, so nearly all for the first domain.
    Receiving,
    /// Headquarters: mostly sent, so two thirds for the own history; many peers, so half of what is left for each new domain.
    Sending,
}

/// All histories of one program.
pub struct Histories {
    lean: Lean,
    capacity_bytes: u64,
    rooms: Mutex<Rooms>,
}

struct Rooms {
    rest_bytes: u64,
    domains: HashMap<(String, String), Arc<Domain>>,
}

/// Sums over all histories, for the admin endpoint. All in bytes except lookups and hits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HistoriesStats {
    /// Held in own histories.
    pub own_bytes: u64,
    /// Held in mirrors.
    pub mirror_bytes: u64,
    /// Bound on both together.
    pub capacity_bytes: u64,
    /// Memory of the indexes.
    pub index_bytes: u64,
    /// Anchors looked up.
    pub lookups: u64,
    /// Anchors that led to a copy.
    pub hits: u64,
}

impl Histories {
    /// Room for `capacity_bytes` in all. Memory is taken as histories fill, not here.
    pub fn new(capacity_bytes: u64, lean: Lean) -> Self {
        let rooms = Rooms {
            rest_bytes: capacity_bytes,
            domains: HashMap::new(),
        };
        Self {
            lean,
            capacity_bytes,
            rooms: Mutex::new(rooms),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The histories shared with `peer` in the domain of this name (empty: the shared one); made at first use. `None` for a
    /// peer that has come with more names than it may: it goes without.
    pub fn domain(&self, peer: &str, name: &str) -> Option<Arc<Domain>> {
        let mut rooms = self.lock();
        let key = (peer.to_owned(), name.to_owned());
        if let Some(domain) = rooms.domains.get(&key) {
            return Some(domain.clone());
        }
        if rooms.domains.keys().filter(|(p, _)| p == peer).count() >= DOMAINS_PER_PEER_MAX {
            return None;
        }
        let share = match self.lean {
            Lean::Receiving => rooms.rest_bytes / 8 * 7,
            Lean::Sending => rooms.rest_bytes / 2,
        };
        let room = share.max(SMALL_BYTES);
        rooms.rest_bytes = rooms.rest_bytes.saturating_sub(room);
        let third = room / 3;
        let (own, mirror) = match self.lean {
            Lean::Receiving => (third, room - third),
            Lean::Sending => (room - third, third),
        };
        let domain = Arc::new(Domain::in_memory(DomainConfig {
            own_capacity_bytes: own,
            mirror_capacity_bytes: mirror,
            index_capacity_bytes: room / HISTORY_BYTES_PER_INDEX_BYTE,
            epoch: rand::random(),
        }));
        rooms.domains.insert(key, domain.clone());
        Some(domain)
    }

    /// Bytes held for `peer`: own histories and mirrors.
    pub fn peer_bytes(&self, peer: &str) -> (u64, u64) {
        let rooms = self.lock();
        rooms.domains.iter().filter(|((p, _), _)| p == peer).fold(
            (0, 0),
            |(own, mirror), (_, domain)| {
                let stats = domain.stats();
                (own + stats.own_bytes, mirror + stats.mirror_bytes)
            },
        )
    }

    /// Sums over all peers and domains.
    pub fn stats(&self) -> HistoriesStats {
        let rooms = self.lock();
        let mut sum = HistoriesStats {
            capacity_bytes: self.capacity_bytes,
            ..HistoriesStats::default()
        };
        for domain in rooms.domains.values() {
            let stats = domain.stats();
            sum.own_bytes += stats.own_bytes;
            sum.mirror_bytes += stats.mirror_bytes;
            sum.index_bytes += stats.index_bytes;
            sum.lookups += stats.lookups;
            sum.hits += stats.hits;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_same_peer_and_name_give_the_same_histories() {
        let histories = Histories::new(64 << 20, Lean::Sending);
        let first = histories.domain("a", "").unwrap();
        assert!(Arc::ptr_eq(&first, &histories.domain("a", "").unwrap()));
        assert!(!Arc::ptr_eq(&first, &histories.domain("b", "").unwrap()));
        assert!(!Arc::ptr_eq(
            &first,
            &histories.domain("a", "c:files").unwrap()
        ));
    }

    #[test]
    fn a_peer_that_invents_names_gets_no_more_than_its_number() {
        let histories = Histories::new(64 << 20, Lean::Sending);
        let made = (0..100)
            .filter_map(|n| histories.domain("a", &format!("c:{n}")))
            .count();
        assert_eq!(made, DOMAINS_PER_PEER_MAX);
        assert!(histories.domain("b", "").is_some());
    }

    #[test]
    fn room_is_reserved_and_the_late_get_little() {
        let histories = Histories::new(64 << 20, Lean::Sending);
        let capacities: Vec<u64> = (0..8)
            .map(|n| {
                histories
                    .domain(&format!("peer-{n}"), "")
                    .unwrap()
                    .stats()
                    .capacity_bytes
            })
            .collect();
        assert_eq!(capacities[0], 32 << 20);
        assert_eq!(capacities[1], 16 << 20);
        assert!(
            capacities[2..].iter().all(|c| *c == SMALL_BYTES),
            "{capacities:?}"
        );
    }
}
