//! How room is shared out: what each peer has reserved, and each of its domains of that. Arithmetic only; who gives it its bytes is in the module above.

use std::collections::BTreeMap;

use super::Lean;

/// A peer for whom no room is left gets this much memory at most, so that it still gains within its recent traffic.
pub(super) const SMALL_BYTES: u64 = 8 << 20;

/// Less than this is no history: nothing that was appended would still be there when it is referred to.
const SMALL_LEAST_BYTES: u64 = 1 << 20;

/// One small history takes at most this part of what is left for small ones, so that many get something.
const SMALL_DIVISOR: u64 = 4;

/// A room below this is not worth its files: two logs of at least two segments.
const ROOM_LEAST_BYTES: u64 = 4 << 20;

/// Of the room that its peer has left, a new domain takes seven eighths: nearly all peers have but the shared one.
const DOMAIN_SHARE: (u64, u64) = (7, 8);

/// Domains of one peer: the names come from it, also over many tunnels, and each takes room.
pub(super) const DOMAINS_PER_PEER_MAX: usize = 16;

/// What a domain may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Reserved for it.
    Reserved(u64),
    /// In memory, beside what is reserved; gone with the program.
    Small(u64),
}

impl Room {
    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::Reserved(bytes) | Self::Small(bytes) => bytes,
        }
    }
}

/// All rooms of one program.
#[derive(Debug)]
pub(super) struct Rooms {
    lean: Lean,
    size_bytes: u64,
    small_rest_bytes: u64,
    peers: BTreeMap<String, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    bytes: u64,
    /// What the configuration gives it, if it says anything.
    quota_bytes: Option<u64>,
    domains: BTreeMap<String, Room>,
}

impl Peer {
    fn reserved_bytes(&self) -> u64 {
        self.domains
            .values()
            .map(|room| match room {
                Room::Reserved(bytes) => *bytes,
                Room::Small(_) => 0,
            })
            .sum()
    }

    /// Gives the peer another room and its domains their parts of it. Where there was nothing to go by, they get what new ones would.
    fn resize(&mut self, bytes: u64) {
        let before = self.bytes;
        let had_room = self.reserved_bytes() > 0;
        let mut left = bytes;
        for room in self.domains.values_mut() {
            if let Room::Reserved(domain) = room {
                *domain = if had_room {
                    scaled(*domain, bytes, before)
                } else {
                    scaled(left, DOMAIN_SHARE.0, DOMAIN_SHARE.1)
                };
                left = left.saturating_sub(*domain);
            }
        }
        self.bytes = bytes;
    }

    /// It has less than a room, and not because nothing was left when it came.
    fn was_squeezed(&self) -> bool {
        let is_reserved = |room: &Room| matches!(room, Room::Reserved(_));
        self.quota_bytes.is_none()
            && self.bytes < ROOM_LEAST_BYTES
            && self.domains.values().any(is_reserved)
    }
}

impl Rooms {
    /// `small_bytes` is memory for those who come when all of `size_bytes` is reserved.
    pub(super) fn new(lean: Lean, size_bytes: u64, small_bytes: u64) -> Self {
        Self {
            lean,
            size_bytes,
            small_rest_bytes: small_bytes,
            peers: BTreeMap::new(),
        }
    }

    pub(super) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What each peer has reserved.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.peers
            .iter()
            .map(|(name, peer)| (name.as_str(), peer.bytes))
    }

    /// The room of a domain that has one.
    pub(super) fn of(&self, peer: &str, name: &str) -> Option<Room> {
        self.peers.get(peer)?.domains.get(name).copied()
    }

    /// All rooms by peer and domain.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, Room)> {
        self.peers.iter().flat_map(|(peer, rooms)| {
            rooms
                .domains
                .iter()
                .map(move |(name, room)| (peer.as_str(), name.as_str(), *room))
        })
    }

    fn rest_bytes(&self) -> u64 {
        let taken: u64 = self.peers.values().map(|peer| peer.bytes).sum();
        self.size_bytes.saturating_sub(taken)
    }

    /// A peer's room as an earlier start of the program left it, not more than what is left.
    pub(super) fn restore_peer(&mut self, peer: &str, bytes: u64, quota_bytes: Option<u64>) {
        let bytes = bytes.min(self.rest_bytes());
        self.peers.entry(peer.to_owned()).or_insert_with(|| Peer {
            bytes,
            quota_bytes,
            domains: BTreeMap::new(),
        });
    }

    /// A domain's room as an earlier start of the program left it, not more than its peer has left.
    pub(super) fn restore_domain(&mut self, peer: &str, name: &str, bytes: u64) -> Option<Room> {
        let peer = self.peers.get_mut(peer)?;
        if peer.domains.contains_key(name) || peer.domains.len() >= DOMAINS_PER_PEER_MAX {
            return None;
        }
        let room = Room::Reserved(bytes.min(peer.bytes.saturating_sub(peer.reserved_bytes())));
        peer.domains.insert(name.to_owned(), room);
        Some(room)
    }

    /// The room of a domain, reserved if it has none yet. `None` for a peer that has come with more names than it may.
    pub(super) fn reserve(
        &mut self,
        peer: &str,
        name: &str,
        quota_bytes: Option<u64>,
    ) -> Option<Room> {
        if let Some(room) = self.of(peer, name) {
            return Some(room);
        }
        let rest = self.rest_bytes();
        let small_bytes = self.small_bytes(quota_bytes);
        let share = self.lean.share(quota_bytes, rest);
        let of_peer = self.peers.entry(peer.to_owned()).or_insert_with(|| Peer {
            bytes: if share < ROOM_LEAST_BYTES { 0 } else { share },
            quota_bytes,
            domains: BTreeMap::new(),
        });
        if of_peer.domains.len() >= DOMAINS_PER_PEER_MAX {
            return None;
        }
        let left = of_peer.bytes.saturating_sub(of_peer.reserved_bytes());
        let bytes = scaled(left, DOMAIN_SHARE.0, DOMAIN_SHARE.1);
        let room = if bytes >= ROOM_LEAST_BYTES {
            Room::Reserved(bytes)
        } else {
            self.small_rest_bytes -= small_bytes;
            Room::Small(small_bytes)
        };
        of_peer.domains.insert(name.to_owned(), room);
        Some(room)
    }

    /// Memory for one who gets no room. What the configuration gives it is its bound here, too.
    fn small_bytes(&self, quota_bytes: Option<u64>) -> u64 {
        let bytes = (self.small_rest_bytes / SMALL_DIVISOR)
            .clamp(SMALL_LEAST_BYTES, SMALL_BYTES)
            .min(self.small_rest_bytes)
            .min(quota_bytes.unwrap_or(u64::MAX));
        if bytes < SMALL_LEAST_BYTES { 0 } else { bytes }
    }

    /// Forgets a peer's domain, whose bytes are gone; the peer itself with its last one.
    pub(super) fn release(&mut self, peer: &str, name: &str) {
        let Some(of_peer) = self.peers.get_mut(peer) else {
            return;
        };
        if let Some(Room::Small(bytes)) = of_peer.domains.remove(name) {
            self.small_rest_bytes += bytes;
        }
        if of_peer.domains.is_empty() {
            self.peers.remove(peer);
        }
    }

    /// Another size, and what the configuration now gives each peer: rooms without a quota change in proportion to the size, those with one
    /// only as far as they must, and grow to their quota where there is room. Those that a smaller size had left nothing worth having get what new ones would.
    pub(super) fn resize(&mut self, size_bytes: u64, quota_of: impl Fn(&str) -> Option<u64>) {
        let before = self.size_bytes;
        self.size_bytes = size_bytes;
        let mut others_bytes = 0;
        let mut named_bytes = 0;
        for (name, peer) in &mut self.peers {
            peer.quota_bytes = quota_of(name);
            match peer.quota_bytes {
                Some(quota) => named_bytes += peer.bytes.min(quota),
                None => {
                    let bytes = scaled(peer.bytes, size_bytes, before);
                    peer.resize(bytes);
                    others_bytes += bytes;
                }
            }
        }
        let for_named = size_bytes.saturating_sub(others_bytes);
        let mut rest = for_named.saturating_sub(named_bytes);
        for peer in self.peers.values_mut() {
            if let Some(quota) = peer.quota_bytes {
                let bytes = peer.bytes.min(quota);
                let bytes = if named_bytes > for_named {
                    scaled(bytes, for_named, named_bytes)
                } else {
                    let more = (quota - bytes).min(rest);
                    rest -= more;
                    bytes + more
                };
                peer.resize(bytes);
            }
        }
        let mut rest = self.rest_bytes();
        for peer in self.peers.values_mut().filter(|peer| peer.was_squeezed()) {
            let share = self.lean.share(None, rest + peer.bytes);
            if share >= ROOM_LEAST_BYTES {
                rest = (rest + peer.bytes) - share;
                peer.resize(share);
            }
        }
    }
}

impl Lean {
    /// What a peer that comes gets of what is left.
    fn share(self, quota_bytes: Option<u64>, rest_bytes: u64) -> u64 {
        match (quota_bytes, self) {
            (Some(quota), _) => quota.min(rest_bytes),
            (None, Self::Receiving) => rest_bytes,
            (None, Self::Sending) => rest_bytes / 2,
        }
    }
}

/// `bytes` × `to` / `from`, rounded down.
fn scaled(bytes: u64, to: u64, from: u64) -> u64 {
    let exact = u128::from(bytes) * u128::from(to) / u128::from(from.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
