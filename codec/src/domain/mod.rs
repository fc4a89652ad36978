//! A domain: the two logs that two edges share about one zone of trust, their index, and who may use them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::block::Span;
use crate::encoder::Append;
use crate::error::Violation;
use crate::frame::Coverage;
use crate::history::disk::SavedAnchor;
use crate::history::log::History;
use crate::index::{Hint, Index, save_key};
use crate::recent::Recent;

mod disk;
mod flush;
mod room;
mod upkeep;
mod view;

pub use disk::Place;
pub use flush::{Flush, FlushError};
pub use room::Cleared;
pub use upkeep::{Verified, VerifyCursor};

use disk::OnDisk;

/// One of a domain's two logs, seen from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Log {
    /// What this side has sent.
    Own,
    /// What the other side has sent.
    Mirror,
}

/// What a domain may use.
#[derive(Debug, Clone, Copy)]
pub struct DomainConfig {
    /// Room for this side's own history, in bytes; below 128 KiB nothing is kept.
    pub own_capacity_bytes: u64,
    /// Room for the mirror, by which the peer's Quota goes, in bytes.
    pub mirror_capacity_bytes: u64,
    /// Memory for the index, in bytes; see [`Index::new`].
    pub index_capacity_bytes: u64,
    /// Random, for this opening of the history: names its epochs.
    pub epoch: [u8; 16],
}

/// The histories of one domain with one peer, shared by all jobs that encode and decode for it.
pub struct Domain {
    epoch: [u8; 16],
    own: RwLock<History>,
    mirror: RwLock<History>,
    index: Index,
    /// Of the own log and the mirror.
    recent: [Recent; 2],
    /// Of the own log and the mirror, in bytes.
    capacities: [AtomicU64; 2],
    disk: Option<Box<OnDisk>>,
    leased: AtomicBool,
    /// Positions of the own log and the mirror below which all is to be forgotten as soon as the peer does so too.
    cleared: [AtomicU64; 2],
    /// Below these positions of the own log and the mirror nothing is copied any more: see [`Domain::retire_below`].
    retired: [AtomicU64; 2],
    quota_bytes: AtomicU64,
    epochs_started: AtomicU64,
    lookups: AtomicU64,
    hits: AtomicU64,
}

/// The right of one tunnel to use a domain's histories. Dropping it gives them back: nothing is covered until the next holder has agreed, and
/// what was reserved or registered and not filled are holes.
pub struct Lease {
    domain: Arc<Domain>,
}

/// What follows from a peer's Coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// A new epoch began: this side's Coverage for its own log must go out again before its next append.
    pub announce: bool,
}

/// Figures of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DomainStats {
    /// Room that this side's own history takes, in bytes: memory, or what it takes on disk.
    pub own_bytes: u64,
    /// Room that the mirror takes, in bytes.
    pub mirror_bytes: u64,
    /// The most that both may use, in bytes.
    pub capacity_bytes: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Keys looked up.
    pub lookups: u64,
    /// Copies found by them.
    pub hits: u64,
    /// Whether the histories are on disk; what follows is of such ones only.
    pub is_on_disk: bool,
    /// Bytes of their files.
    pub disk_bytes: u64,
    /// Bytes in memory that the files lack.
    pub unsaved_bytes: u64,
    /// Nothing is appended because nothing could be written, until a later [`Domain::flush`] succeeds.
    pub is_read_only: bool,
    /// The index knows all that was saved before this opening.
    pub is_index_loaded: bool,
    /// Pages that could not be read, or not as they were written.
    pub damaged_pages: u64,
}

impl Domain {
    /// A domain whose histories live in memory.
    #[must_use]
    pub fn in_memory(config: DomainConfig) -> Self {
        Self::with(config, [History::default(), History::default()], None)
    }

    fn with(config: DomainConfig, logs: [History; 2], disk: Option<Box<OnDisk>>) -> Self {
        let [own, mirror] = logs.map(RwLock::new);
        Self {
            epoch: config.epoch,
            own,
            mirror,
            index: Index::new(config.index_capacity_bytes),
            recent: [Recent::default(), Recent::default()],
            capacities: [config.own_capacity_bytes, config.mirror_capacity_bytes]
                .map(AtomicU64::new),
            disk,
            leased: AtomicBool::new(false),
            cleared: [const { AtomicU64::new(0) }; 2],
            retired: [const { AtomicU64::new(0) }; 2],
            quota_bytes: AtomicU64::new(0),
            epochs_started: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// The histories for one tunnel; `None` while another holds them.
    #[must_use]
    pub fn try_lease(self: &Arc<Self>) -> Option<Lease> {
        self.leased
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        self.write(Log::Own).begin_lease();
        self.write(Log::Mirror).begin_lease();
        Some(Lease {
            domain: Arc::clone(self),
        })
    }

    /// What this side holds of a log, to be sent as Coverage. What is not filled yet counts as a hole.
    #[must_use]
    pub fn claim(&self, log: Log) -> Coverage {
        self.read(log).claim()
    }

    /// Takes the peer's claim: of its mirror for [`Log::Own`], of its own history for [`Log::Mirror`]. What both hold may be used from now on. It may
    /// come more than once.
    pub fn agree(&self, log: Log, peer: &Coverage) -> Agreed {
        let mut history = self.write(log);
        history.agree(peer);
        let announce = match log {
            Log::Own => {
                let starts =
                    self.epochs_started.load(Ordering::Relaxed) == 0 || history.tail() < peer.tail;
                if starts {
                    history.start_epoch(self.next_epoch(), peer.tail);
                }
                starts
            }
            Log::Mirror => {
                history.learn_epochs(&peer.epochs);
                history.drop_below(peer.floor);
                false
            }
        };
        self.after_change(log, history);
        Agreed { announce }
    }

    /// The last fragment of a block was handed to a link: its appended bytes may be referred to by the blocks that follow. Nothing happens if the range is
    /// not reserved any more.
    pub fn commit(&self, position: u64, append: &Append) {
        self.fill(
            Log::Own,
            Span {
                position,
                length: append.length(),
            },
            append,
        );
    }

    /// A reserved range that will never be sent whole.
    pub fn abandon(&self, span: Span) {
        self.lose(Log::Own, span.position, u64::from(span.length));
    }

    /// Takes the append range of a block whose first fragment has arrived, in the order of arrival, before its job starts.
    ///
    /// # Errors
    /// [`Violation::Registration`] if it starts below the mirror's tail or its length is out of bounds.
    pub fn register(&self, span: Span) -> Result<(), Violation> {
        self.write(Log::Mirror).register(span, false).map(drop)
    }

    /// The same for a block that may have overtaken others on another link: what it skips stays open for them, until
    /// [`close_gaps`](Self::close_gaps). Tells whether it skipped anything.
    ///
    /// # Errors
    /// As [`register`](Self::register), but for a range in a gap that is open.
    pub fn register_ahead(&self, span: Span) -> Result<bool, Violation> {
        self.write(Log::Mirror).register(span, true)
    }

    /// All blocks that could be appended to the mirror below `end` have come: what is open there are holes from now on.
    pub fn close_gaps(&self, end: u64) {
        self.write(Log::Mirror).close_gaps(end);
    }

    /// Makes a range a hole for good: refused, or not stored by the peer.
    pub fn lose(&self, log: Log, position: u64, length: u64) {
        let mut history = self.write(log);
        history.lose(position..position.saturating_add(length));
        self.after_change(log, history);
    }

    /// From the next block to be encoded on nothing of a log is copied from below `position`, which is about to be dropped. What was encoded before
    /// can still be decoded and rebuilt.
    pub fn retire_below(&self, log: Log, position: u64) {
        self.retired(log).fetch_max(position, Ordering::Relaxed);
    }

    /// Forgets a log below `position`.
    pub fn drop_below(&self, log: Log, position: u64) {
        let mut history = self.write(log);
        history.drop_below(position);
        self.after_change(log, history);
    }

    /// Behind the highest position of a log that was reserved or registered.
    #[must_use]
    pub fn tail(&self, log: Log) -> u64 {
        self.read(log).tail()
    }

    /// Whether a tunnel uses the histories.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.leased.load(Ordering::Acquire)
    }

    /// Figures for status and metrics.
    #[must_use]
    pub fn stats(&self) -> DomainStats {
        let stats = DomainStats {
            own_bytes: self.read(Log::Own).used_bytes(),
            mirror_bytes: self.read(Log::Mirror).used_bytes(),
            capacity_bytes: self.capacity_bytes(Log::Own) + self.capacity_bytes(Log::Mirror),
            index_bytes: self.index.size_bytes(),
            lookups: self.lookups.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            ..DomainStats::default()
        };
        match &self.disk {
            Some(disk) => disk.stats(stats),
            None => stats,
        }
    }

    /// Lays an append's bytes into a log and its anchors into the index; false if the range is not awaited any more or there is no room.
    pub(crate) fn fill(&self, log: Log, span: Span, append: &Append) -> bool {
        let mut history = self.write(log);
        if log == Log::Mirror && !self.mirror_takes() {
            history.lose(span.range());
            return false;
        }
        if !history.fill(span, append.parts()) {
            return false;
        }
        let anchors = append
            .anchors()
            .map(|(key, offset)| (key, span.position + u64::from(offset)));
        if self.disk.is_some() {
            let kept = anchors.clone().filter(|(key, _)| self.index.keeps(*key));
            let saved = kept.map(|(key, position)| SavedAnchor {
                key: save_key(key),
                position,
            });
            history.keep_anchors(saved.take(saved_anchors_max(span)));
        }
        if log == Log::Mirror
            && let Some(floor) = self.mirror_excess(&history)
        {
            history.drop_below(floor);
        }
        self.note_pages(log, span);
        self.after_change(log, history);
        self.recent(log)
            .note(append.stream(), span.end(), span.length);
        self.index.insert(log, anchors);
        true
    }

    /// The lowest position of a log that a block to be encoded may copy.
    pub(crate) fn copies_from(&self, log: Log) -> u64 {
        self.retired(log).load(Ordering::Relaxed)
    }

    const fn retired(&self, log: Log) -> &AtomicU64 {
        log.of(&self.retired)
    }

    /// Where the newest bytes of its streams lie in a log.
    pub(crate) const fn recent(&self, log: Log) -> &Recent {
        log.of(&self.recent)
    }

    pub(crate) fn look_up(&self, keys: &[u64], out: &mut Vec<Hint>) {
        self.index.look_up(keys, out);
    }

    pub(crate) fn count(&self, lookups: u64, hits: u64) {
        self.lookups.fetch_add(lookups, Ordering::Relaxed);
        self.hits.fetch_add(hits, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, log: Log) -> RwLockReadGuard<'_, History> {
        self.lock(log)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, log: Log) -> RwLockWriteGuard<'_, History> {
        self.lock(log)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    const fn lock(&self, log: Log) -> &RwLock<History> {
        match log {
            Log::Own => &self.own,
            Log::Mirror => &self.mirror,
        }
    }

    /// An id for each epoch of this opening: as random as the opening's own.
    fn next_epoch(&self) -> [u8; 16] {
        match self.epochs_started.fetch_add(1, Ordering::Relaxed) {
            0 => self.epoch,
            count => xxh3_128_with_seed(&self.epoch, count).to_le_bytes(),
        }
    }
}

impl Log {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Own, Self::Mirror];

    /// Its part of a pair of own and mirror.
    pub(crate) const fn of<T>(self, [own, mirror]: &[T; 2]) -> &T {
        match self {
            Self::Own => own,
            Self::Mirror => mirror,
        }
    }
}

/// Anchors of an append that are saved: eight bytes for every 128 are what the capacity reckons with.
const fn saved_anchors_max(span: Span) -> usize {
    (span.length as usize >> crate::anchor::DENSE_BITS) + 1
}

impl Lease {
    /// The domain that is held.
    #[must_use]
    pub const fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.domain.write(Log::Own).end_lease();
        self.domain.write(Log::Mirror).end_lease();
        self.domain.quota_bytes.store(0, Ordering::Relaxed);
        self.domain.leased.store(false, Ordering::Release);
        self.domain.forget_cleared();
    }
}

impl std::fmt::Debug for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Domain")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lease").field(&self.domain).finish()
    }
}
