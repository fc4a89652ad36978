//! What histories say about themselves: sums for metrics, and a line a domain for `history stats`.

use std::path::Path;

use super::{Disk, Histories, Key, Room};

/// Sums over all histories, for the admin endpoint. All in bytes except lookups, hits and pages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HistoriesStats {
    /// Held in own histories.
    pub own_bytes: u64,
    /// Held in mirrors.
    pub mirror_bytes: u64,
    /// Bound on both together.
    pub capacity_bytes: u64,
    /// Taken on disk.
    pub disk_bytes: u64,
    /// Memory of the indexes.
    pub index_bytes: u64,
    /// Memory of pages: cached, or not written yet, or of histories without a place on disk.
    pub memory_bytes: u64,
    /// Anchors looked up.
    pub lookups: u64,
    /// Anchors that led to a copy.
    pub hits: u64,
    /// Pages that could not be read or failed their checksum since the start.
    pub damaged_pages: u64,
    /// Bytes that files still lack.
    pub unwritten_bytes: u64,
    /// Some of them cannot be written at present.
    pub is_read_only: bool,
    /// Some indexes are still being filled from disk.
    pub is_loading: bool,
}

impl HistoriesStats {
    /// Bytes held, own and mirrors; on disk what their files take, those of peers included that have not come since the start.
    #[must_use]
    pub const fn held_bytes(&self) -> u64 {
        let open = self.own_bytes + self.mirror_bytes;
        if self.disk_bytes > open {
            self.disk_bytes
        } else {
            open
        }
    }
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainReport {
    /// The peer.
    pub peer: String,
    /// The domain's name.
    pub name: String,
    /// What is reserved for it, or what memory it may take, in bytes.
    pub room_bytes: u64,
    /// It lives on disk.
    pub is_on_disk: bool,
    /// It was used since the start. What follows is known then only, but for `disk_bytes`.
    pub is_open: bool,
    /// Held in the own history, in bytes.
    pub own_bytes: u64,
    /// Held in the mirror, in bytes.
    pub mirror_bytes: u64,
    /// Taken on disk, in bytes.
    pub disk_bytes: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Files lack something of it.
    pub is_dirty: bool,
    /// It cannot be written at present.
    pub is_read_only: bool,
    /// A tunnel uses it.
    pub is_in_use: bool,
    /// Pages that could not be read or failed their checksum since the start.
    pub damaged_pages: u64,
}

impl Histories {
    /// The directory they live in, if they do not live in memory.
    pub fn directory(&self) -> Option<&Path> {
        self.disk.as_ref().map(|disk| disk.path.as_path())
    }

    /// Why they live in memory although a directory is configured.
    pub fn excuse(&self) -> Option<&str> {
        self.excuse.as_deref()
    }

    /// Bytes held for `peer`: own histories and mirrors.
    pub fn peer_bytes(&self, peer: &str) -> (u64, u64) {
        let state = self.lock();
        let of_peer = state.domains.iter().filter(|((of, _), _)| **of == *peer);
        of_peer.fold((0, 0), |(own, mirror), (_, domain)| {
            let stats = domain.stats();
            (own + stats.own_bytes, mirror + stats.mirror_bytes)
        })
    }

    /// Sums over all peers and domains.
    pub fn stats(&self) -> HistoriesStats {
        let state = self.lock();
        let mut sum = HistoriesStats {
            capacity_bytes: state.rooms.size_bytes(),
            memory_bytes: self.disk.as_ref().map_or(0, Disk::cached_bytes),
            disk_bytes: self.disk.as_ref().map_or(0, Disk::all_found_bytes),
            ..HistoriesStats::default()
        };
        for domain in state.domains.values() {
            let stats = domain.stats();
            sum.own_bytes += stats.own_bytes;
            sum.mirror_bytes += stats.mirror_bytes;
            sum.index_bytes += stats.index_bytes;
            sum.lookups += stats.lookups;
            sum.hits += stats.hits;
            sum.disk_bytes += stats.disk_bytes;
            if !stats.is_on_disk {
                sum.memory_bytes += stats.own_bytes + stats.mirror_bytes;
            }
            sum.damaged_pages += stats.damaged_pages;
            sum.unwritten_bytes += stats.unsaved_bytes;
            sum.is_read_only |= stats.is_read_only;
            sum.is_loading |= stats.is_on_disk && !stats.is_index_loaded;
        }
        sum
    }

    /// Every domain with every peer.
    pub fn reports(&self) -> Vec<DomainReport> {
        let state = self.lock();
        let report = |(peer, name, room): (&str, &str, Room)| {
            let key = (peer.into(), name.into());
            let found = DomainReport {
                peer: peer.to_owned(),
                name: name.to_owned(),
                room_bytes: room.bytes(),
                is_on_disk: self.disk.is_some() && matches!(room, Room::Reserved(_)),
                is_open: false,
                own_bytes: 0,
                mirror_bytes: 0,
                disk_bytes: self.disk.as_ref().map_or(0, |disk| disk.found_bytes(&key)),
                index_bytes: 0,
                is_dirty: false,
                is_read_only: false,
                is_in_use: false,
                damaged_pages: 0,
            };
            let Some(domain) = state.domains.get(&key) else {
                return found;
            };
            let stats = domain.stats();
            DomainReport {
                is_on_disk: stats.is_on_disk,
                is_open: true,
                own_bytes: stats.own_bytes,
                mirror_bytes: stats.mirror_bytes,
                disk_bytes: stats.disk_bytes,
                index_bytes: stats.index_bytes,
                is_dirty: domain.is_dirty() || self.desk.is_writing(&key),
                is_read_only: stats.is_read_only,
                is_in_use: domain.is_leased(),
                damaged_pages: stats.damaged_pages,
                ..found
            }
        };
        state.rooms.all().map(report).collect()
    }

    /// All domains that live on disk.
    pub(super) fn on_disk(&self) -> Vec<Key> {
        let state = self.lock();
        let all = state.rooms.all();
        all.filter(|(.., room)| matches!(room, Room::Reserved(_)))
            .map(|(peer, name, _)| (peer.into(), name.into()))
            .collect()
    }

    /// What a domain takes on disk.
    pub(super) fn disk_bytes(&self, key: &Key) -> u64 {
        match (self.opened(key), &self.disk) {
            (Some(domain), _) => domain.stats().disk_bytes,
            (None, Some(disk)) => disk.found_bytes(key),
            (None, None) => 0,
        }
    }
}
