//! Pages of logs on disk that were read or written lately, kept for all logs of a program in one bounded place.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::pages::PAGE_BYTES;

/// What a domain may have in memory that its files lack, in bytes: a quarter of a second of 1 Gbit/s.
pub const UNSAVED_MAX_BYTES: u64 = 32 << 20;

/// The same for all domains of a program, at least: with less, a program with little memory would append nothing.
const UNSAVED_ALL_MIN_BYTES: u64 = 8 << 20;

/// Pages that were just written are kept up to so many bytes, or an eighth of all. Most are not looked at soon, and those that are can be read from the
/// system's cache; in as many as there is room for, every page of a bulk transfer would be memory that was never touched before.
const WRITTEN_MAX_BYTES: u64 = 64 << 20;

/// What a page takes beyond its bytes.
const ENTRY_BYTES: u64 = 128;

/// All pages in memory of all logs on disk: those that can be read again are kept within a bound, those that are still to be written are
/// counted against another.
pub struct PageCache {
    /// Those that somebody has looked at.
    wanted: Cache<Key, Bytes, PageBytes>,
    /// Those that were only written.
    written: Cache<Key, Bytes, PageBytes>,
    logs: AtomicU64,
    unsaved_bytes: AtomicU64,
    unsaved_max_bytes: u64,
    unsaved_all_max_bytes: u64,
}

/// A log, and the number of its page.
type Key = (u64, u64);

#[derive(Clone)]
struct PageBytes;

impl Weighter<Key, Bytes> for PageBytes {
    fn weight(&self, _key: &Key, page: &Bytes) -> u64 {
        page.len() as u64 + ENTRY_BYTES
    }
}

impl PageCache {
    /// Room for `capacity_bytes` of pages that are on disk. What is still to be written comes on top: half as much again at most, and at most
    /// [`UNSAVED_MAX_BYTES`] a domain.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        let unsaved_all_max_bytes = (capacity_bytes / 2).max(UNSAVED_ALL_MIN_BYTES);
        let written_bytes = (capacity_bytes / 8).min(WRITTEN_MAX_BYTES);
        let room_for = |bytes: u64| {
            let pages = usize::try_from(bytes / PAGE_BYTES).unwrap_or(usize::MAX);
            Cache::with_weighter(pages, bytes, PageBytes)
        };
        Self {
            wanted: room_for(capacity_bytes - written_bytes),
            written: room_for(written_bytes),
            logs: AtomicU64::new(0),
            unsaved_bytes: AtomicU64::new(0),
            unsaved_max_bytes: UNSAVED_MAX_BYTES.min(unsaved_all_max_bytes),
            unsaved_all_max_bytes,
        }
    }

    /// Sets what may wait to be written, in bytes: of one domain, and of all.
    #[must_use]
    pub fn with_unsaved_max(self, of_domain_bytes: u64, of_all_bytes: u64) -> Self {
        Self {
            unsaved_max_bytes: of_domain_bytes.min(of_all_bytes),
            unsaved_all_max_bytes: of_all_bytes,
            ..self
        }
    }

    /// Memory of the pages kept, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.wanted.weight() + self.written.weight()
    }

    /// Memory of the pages that are still to be written, in bytes.
    #[must_use]
    pub fn unsaved_bytes(&self) -> u64 {
        self.unsaved_bytes.load(Ordering::Relaxed)
    }

    /// A number for a log, under which its pages are kept.
    pub(crate) fn add_log(&self) -> u64 {
        self.logs.fetch_add(1, Ordering::Relaxed)
    }

    /// A page, if it is here.
    pub(crate) fn get(&self, log: u64, page: u64) -> Option<Bytes> {
        let key = (log, page);
        self.wanted.get(&key).or_else(|| {
            let (_, bytes) = self.written.remove(&key)?;
            self.wanted.insert(key, bytes.clone());
            Some(bytes)
        })
    }

    /// A page was read from its file, for somebody who looks at it.
    pub(crate) fn insert(&self, log: u64, page: u64, bytes: Bytes) {
        self.wanted.insert((log, page), bytes);
    }

    /// A page was written to its file.
    pub(crate) fn insert_written(&self, log: u64, page: u64, bytes: Bytes) {
        self.written.insert((log, page), bytes);
    }

    /// A domain's unsaved bytes have changed.
    pub(crate) fn count_unsaved(&self, before: u64, after: u64) {
        if after >= before {
            self.unsaved_bytes
                .fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.unsaved_bytes
                .fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Whether a domain that has `unsaved_bytes` to be written may have more.
    pub(crate) fn takes_more(&self, unsaved_bytes: u64) -> bool {
        unsaved_bytes < self.unsaved_max_bytes && self.unsaved_bytes() < self.unsaved_all_max_bytes
    }

    /// Whether a domain that has `unsaved_bytes` to be written should not wait any longer with it.
    pub(crate) fn is_pressed(&self, unsaved_bytes: u64) -> bool {
        unsaved_bytes >= self.unsaved_max_bytes / 2
            || self.unsaved_bytes() >= self.unsaved_all_max_bytes / 2
    }
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache")
            .field("size_bytes", &self.size_bytes())
            .field("unsaved_bytes", &self.unsaved_bytes())
            .finish_non_exhaustive()
    }
}
