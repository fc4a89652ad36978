//! A domain whose logs are on disk: opening it, its pages, and what waits to be written.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLockWriteGuard};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::upkeep::Unloaded;
use super::{Domain, DomainConfig, DomainStats, Log};
use crate::history::cache::PageCache;
use crate::history::disk::{DiskLog, LogIdentity, LogSide, Opened, ReadError, segment_bytes_for};
use crate::history::log::History;
use crate::history::reader::Unseen;
use crate::history::storage::{Storage, is_passing};
use crate::history::used::UsedPages;

/// Where a domain's histories are.
#[derive(Debug, Clone)]
pub struct Place {
    /// What has the files.
    pub storage: Arc<dyn Storage>,
    /// The domain's directory in it; see [`Place::dir_name`].
    pub dir: PathBuf,
    /// The peer's name, at most 255 bytes.
    pub peer: String,
    /// The domain's name, at most 255 bytes; empty for the shared one.
    pub name: String,
    /// Memory for pages that were read.
    pub cache: Arc<PageCache>,
}

impl Place {
    /// The usual name of the directory of a domain: 32 hex digits.
    #[must_use]
    pub fn dir_name(peer: &str, name: &str) -> String {
        let mut hash = Xxh3::new();
        for part in [peer, name] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        format!("{:032x}", hash.digest128())
    }
}

/// What a domain has beside its logs in memory if they are on disk.
pub(super) struct OnDisk {
    logs: [DiskLog; 2],
    cache: Arc<PageCache>,
    cached_as: [AtomicU64; 2],
    used: UsedPages,
    /// Bytes of the logs' pages in memory.
    unsaved: [AtomicU64; 2],
    is_dirty: AtomicBool,
    poke: OnceLock<Box<dyn Fn() + Send + Sync>>,
    is_read_only: AtomicBool,
    damaged_pages: AtomicU64,
    /// Logs whose files are to be removed, since they were forgotten.
    pub(super) forgotten: [AtomicBool; 2],
    /// One flush at a time.
    pub(super) flushing: Mutex<()>,
    /// Segments whose anchors the index does not know yet.
    pub(super) unloaded: Mutex<VecDeque<Unloaded>>,
}

impl Domain {
    /// A domain whose histories are on disk, as they were left there. What cannot be used is set aside; that is said in the warnings.
    ///
    /// Blocking; what is held is known at once, the index learns of it by [`Domain::load_index_step`].
    ///
    /// # Errors
    /// What the system says: nothing is known then of what is there, and it is as it was.
    pub fn open(config: DomainConfig, place: Place) -> io::Result<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let mut open = |log: Log, capacity_bytes: u64| -> io::Result<(DiskLog, History)> {
            let side = log_side(log);
            let Opened {
                log: disk,
                recovered,
                set_aside,
            } = DiskLog::open(
                Arc::clone(&place.storage),
                &place.dir.join(side.to_string()),
                LogIdentity {
                    side,
                    peer: place.peer.clone(),
                    domain: place.name.clone(),
                },
                xxh3_128_with_seed(&config.epoch, side as u64 + 1).to_le_bytes(),
                segment_bytes_for(capacity_bytes),
            )?;
            if let Some(why) = set_aside {
                warnings.push(format!(
                    "the {side} history with {} in {} was set aside, since {why}",
                    place.peer,
                    place.dir.display()
                ));
            }
            let history = History::reopened(recovered, disk.segment_bytes(), disk.pages());
            Ok((disk, history))
        };
        let (own, own_history) = open(Log::Own, config.own_capacity_bytes)?;
        let (mirror, mirror_history) = open(Log::Mirror, config.mirror_capacity_bytes)?;
        let unloaded = super::upkeep::unloaded(&own, &mirror);
        let disk = OnDisk {
            logs: [own, mirror],
            cached_as: [place.cache.add_log(), place.cache.add_log()].map(AtomicU64::new),
            cache: place.cache,
            used: UsedPages::default(),
            unsaved: [const { AtomicU64::new(0) }; 2],
            is_dirty: AtomicBool::new(false),
            poke: OnceLock::new(),
            is_read_only: AtomicBool::new(false),
            damaged_pages: AtomicU64::new(0),
            forgotten: [const { AtomicBool::new(false) }; 2],
            flushing: Mutex::new(()),
            unloaded: Mutex::new(unloaded),
        };
        let domain = Self::with(config, [own_history, mirror_history], Some(Box::new(disk)));
        // The manifest says what room is reserved from the first day on.
        domain.set_capacity(config.own_capacity_bytes, config.mirror_capacity_bytes);
        Ok((domain, warnings))
    }

    /// What is called when something is to be written and nothing was, and again when much is; it must not block, nor call this domain.
    /// Only the first one counts.
    pub fn on_dirty(&self, poke: Box<dyn Fn() + Send + Sync>) {
        if let Some(disk) = &self.disk
            && disk.poke.set(poke).is_ok()
            && self.is_dirty()
        {
            disk.poke();
        }
    }

    /// Whether the files lack something: [`Domain::flush`] is wanted.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|disk| disk.is_dirty.load(Ordering::Acquire))
    }

    /// Whether so much waits to be written that it should not wait longer.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|disk| disk.cache.is_pressed(disk.unsaved_bytes()))
    }

    /// Whether nothing is appended because nothing could be written; see [`Domain::flush`].
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|disk| disk.is_read_only.load(Ordering::Relaxed))
    }

    /// Lets go of a log's lock, and sees to it that what changed will be written.
    pub(super) fn after_change(&self, log: Log, history: RwLockWriteGuard<'_, History>) {
        let Some(disk) = &self.disk else { return };
        let was_pressed = self.is_pressed();
        disk.count_unsaved(log, &history);
        let is_dirty = history.is_changed();
        drop(history);
        let is_new = is_dirty && !disk.is_dirty.swap(true, Ordering::AcqRel);
        if is_new || !was_pressed && self.is_pressed() {
            disk.poke();
        }
    }

    /// Whether more may wait to be written beside `coming_bytes` that are under way.
    pub(super) fn takes_unsaved(&self, coming_bytes: u64) -> bool {
        self.disk.as_ref().is_none_or(|disk| {
            disk.cache
                .takes_more(disk.unsaved_bytes().saturating_add(coming_bytes))
        })
    }

    /// Reads a page of which `limit` is wanted. What cannot be read is a hole from now on.
    pub(super) fn read_page(
        &self,
        disk: &OnDisk,
        log: Log,
        cached_as: u64,
        page: u64,
        limit: &Range<u64>,
    ) -> Result<Bytes, Unseen> {
        match disk.log(log).read_page(page) {
            Ok(bytes) => {
                disk.cache.insert(cached_as, page, bytes.clone());
                Ok(bytes)
            }
            Err(error) => match self.lose_page(disk, log, page, &error) {
                Loss::Dropped => Err(Unseen::Gone),
                Loss::Damaged | Loss::Passing => Err(Unseen::Unreadable(limit.clone())),
            },
        }
    }

    /// A page could not be read.
    pub(super) fn lose_page(&self, disk: &OnDisk, log: Log, page: u64, error: &ReadError) -> Loss {
        if matches!(error, ReadError::Io(cause) if is_passing(cause)) {
            return Loss::Passing;
        }
        let mut history = self.write(log);
        let was_held = history.lose_page(page);
        self.after_change(log, history);
        if was_held {
            disk.damaged_pages.fetch_add(1, Ordering::Relaxed);
            Loss::Damaged
        } else {
            Loss::Dropped
        }
    }
}

/// What became of a page that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It is a hole now.
    Damaged,
    /// It may well be readable another time: the system was short of something.
    Passing,
    /// It was dropped meanwhile, and nothing is wrong.
    Dropped,
}

impl OnDisk {
    pub fn log(&self, log: Log) -> &DiskLog {
        log.of(&self.logs)
    }

    pub const fn used_pages(&self) -> &UsedPages {
        &self.used
    }

    /// Under what the log's pages are in the cache. It changes when the log is forgotten, while its lock is held.
    pub fn cached_as(&self, log: Log) -> u64 {
        log.of(&self.cached_as).load(Ordering::Relaxed)
    }

    pub fn cached(&self, cached_as: u64, page: u64) -> Option<Bytes> {
        self.cache.get(cached_as, page)
    }

    pub fn keep(&self, cached_as: u64, page: u64, bytes: Bytes) {
        self.cache.insert_written(cached_as, page, bytes);
    }

    /// The log was forgotten; its lock is held.
    pub fn forget(&self, log: Log) {
        let other = self.cache.add_log();
        log.of(&self.cached_as).store(other, Ordering::Relaxed);
        log.of(&self.forgotten).store(true, Ordering::Relaxed);
        self.unloaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|unloaded| unloaded.log != log);
    }

    pub fn stats(&self, stats: DomainStats) -> DomainStats {
        let unloaded = self
            .unloaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        DomainStats {
            is_on_disk: true,
            disk_bytes: self.logs.iter().map(DiskLog::disk_bytes).sum(),
            unsaved_bytes: self.unsaved_bytes(),
            is_read_only: self.is_read_only.load(Ordering::Relaxed),
            is_index_loaded: unloaded.is_empty(),
            damaged_pages: self.damaged_pages.load(Ordering::Relaxed),
            ..stats
        }
    }

    pub fn count_unsaved(&self, log: Log, history: &History) {
        let now = history.resident_bytes();
        let before = log.of(&self.unsaved).swap(now, Ordering::Relaxed);
        self.cache.count_unsaved(before, now);
    }

    pub fn set_dirty(&self, is_dirty: bool) {
        self.is_dirty.store(is_dirty, Ordering::Release);
    }

    pub fn set_read_only(&self, is_read_only: bool) {
        self.is_read_only.store(is_read_only, Ordering::Relaxed);
    }

    fn unsaved_bytes(&self) -> u64 {
        self.unsaved
            .iter()
            .map(|bytes| bytes.load(Ordering::Relaxed))
            .sum()
    }

    fn poke(&self) {
        if let Some(poke) = self.poke.get() {
            poke();
        }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.cache.count_unsaved(self.unsaved_bytes(), 0);
    }
}

pub(super) const fn log_side(log: Log) -> LogSide {
    match log {
        Log::Own => LogSide::Own,
        Log::Mirror => LogSide::Mirror,
    }
}
