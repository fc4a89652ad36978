//! What histories are made with: which side they are on, how much they may take, and where they live.

use std::sync::Arc;

use codec::frame::DomainId;

use super::OpenDirectory;
use super::rooms::Room;

/// The name of the shared domain, as the wire and the files have it.
const SHARED_NAME: &str = "shared";

/// An index entry (8 bytes) for every 128 bytes of history, and as much again so that buckets rarely overflow.
const HISTORY_BYTES_PER_INDEX_BYTE: u64 = 8;

/// Which side these histories are on: sets how room is shared out, and how a domain's room is split between what is
/// sent and what is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lean {
    /// A branch: mostly received, so two thirds for the mirror; one peer, so nearly all for the first domain.
    Receiving,
    /// Headquarters: mostly sent, so two thirds for the own history; many peers, so half of what is left for each new one.
    Sending,
}

impl Lean {
    /// A domain's room as that of its own history and of its mirror.
    pub(super) const fn split(self, room_bytes: u64) -> (u64, u64) {
        let third = room_bytes / 3;
        match self {
            Self::Receiving => (third, room_bytes - third),
            Self::Sending => (room_bytes - third, third),
        }
    }
}

/// What the configuration gives a peer of this name, all its domains together, in bytes; `None` if it says nothing of it.
pub type QuotaOf = Arc<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// What [`Histories`](super::Histories) are made with.
pub struct HistoriesConfig {
    /// Which side they are on.
    pub lean: Lean,
    /// What all of them may take together where they live, in bytes.
    pub size_bytes: u64,
    /// Memory for small histories of those who come when all room is reserved, in bytes.
    pub small_bytes: u64,
    /// Memory for all indexes, in bytes.
    pub index_bytes: u64,
    /// Memory for pages of histories on disk, in bytes.
    pub cache_bytes: u64,
    /// What the configuration gives to whom.
    pub quota_of: QuotaOf,
    /// Where they live.
    pub home: Home,
}

impl HistoriesConfig {
    /// In memory, with `size_bytes` for them and their indexes on top.
    #[must_use]
    pub fn in_memory(lean: Lean, size_bytes: u64) -> Self {
        Self {
            lean,
            size_bytes,
            small_bytes: 0,
            index_bytes: size_bytes / HISTORY_BYTES_PER_INDEX_BYTE,
            cache_bytes: 0,
            quota_of: Arc::new(|_| None),
            home: Home::Memory { excuse: None },
        }
    }
}

/// Where histories live.
pub enum Home {
    /// In memory, and gone with the program.
    Memory {
        /// Why they do although a directory is configured, in one line for `status`.
        excuse: Option<String>,
    },
    /// In a directory.
    Disk(OpenDirectory),
}

/// A domain by its number in a tunnel and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// 0 for the shared domain; of the isolated ones odd for those of a client edge, even for those of a server edge.
    pub id: DomainId,
    /// `shared` (or empty), or `c:SERVICE` or `s:SERVICE`.
    pub name: String,
}

impl DomainSpec {
    /// The domain of all services that share one.
    #[must_use]
    pub fn shared() -> Self {
        Self {
            id: DomainId::SHARED,
            name: SHARED_NAME.to_owned(),
        }
    }
}

/// The shared domain has but one name here, whatever it was asked for by.
pub(super) const fn canonical(name: &str) -> &str {
    if name.is_empty() { SHARED_NAME } else { name }
}

/// A domain's part of the memory for indexes.
pub(super) fn index_bytes(room: Room, index_bytes: u64, size_bytes: u64) -> u64 {
    let dense = room.bytes() / HISTORY_BYTES_PER_INDEX_BYTE;
    let share = u128::from(index_bytes) * u128::from(room.bytes()) / u128::from(size_bytes.max(1));
    match room {
        Room::Reserved(_) => u64::try_from(share).map_or(dense, |share| share.min(dense)),
        Room::Small(_) => dense,
    }
}
