//! A domain: the two logs that two edges share about one zone of trust, their index, and who may use them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::block::Span;
use crate::encoder::Append;
use crate::error::Violation;
use crate::frame::Coverage;
use crate::history::log::{Access, History};
use crate::history::pages::{PAGE_BYTES, View};
use crate::index::{Hint, Index};
use crate::recent::Recent;

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
    /// Memory for this side's own history, in bytes; below 128 KiB nothing is kept.
    pub own_capacity_bytes: u64,
    /// Memory for the mirror, which the peer is told by Quota, in bytes.
    pub mirror_capacity_bytes: u64,
    /// Memory for the index, in bytes; see [`Index::new`].
    pub index_capacity_bytes: u64,
    /// Random, for this opening of the history: names its epochs.
    pub epoch: [u8; 16],
}

/// The histories of one domain with one peer, shared by all jobs that encode and decode for it.
pub struct Domain {
    config: DomainConfig,
    own: RwLock<History>,
    mirror: RwLock<History>,
    index: Index,
    /// Of the own log and the mirror.
    recent: [Recent; 2],
    leased: AtomicBool,
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
    /// Memory of this side's own history, in bytes.
    pub own_bytes: u64,
    /// Memory of the mirror, in bytes.
    pub mirror_bytes: u64,
    /// The most that both may use, in bytes.
    pub capacity_bytes: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Keys looked up.
    pub lookups: u64,
    /// Copies found by them.
    pub hits: u64,
}

impl Domain {
    /// A domain whose histories live in memory.
    #[must_use]
    pub fn in_memory(config: DomainConfig) -> Self {
        Self {
            config,
            own: RwLock::default(),
            mirror: RwLock::default(),
            index: Index::new(config.index_capacity_bytes),
            recent: [Recent::default(), Recent::default()],
            leased: AtomicBool::new(false),
            retired: [AtomicU64::new(0), AtomicU64::new(0)],
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
        Agreed { announce }
    }

    /// The peer's Quota: what its mirror of our own history may hold, in bytes. 0: nothing is appended. It is 0 until the peer says otherwise.
    pub fn set_quota(&self, bytes: u64) {
        self.quota_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What to tell the peer as Quota: what our mirror may hold, in bytes.
    #[must_use]
    pub const fn quota_offer(&self) -> u64 {
        let capacity_bytes = self.config.mirror_capacity_bytes;
        if capacity_bytes < CAPACITY_MIN_BYTES {
            0
        } else {
            capacity_bytes
        }
    }

    /// Gives the next `length` positions of our own history to a block whose first fragment is about to be handed to a link. `None`: nothing may be
    /// appended now, and the block goes without.
    #[must_use]
    pub fn reserve(&self, length: u32) -> Option<u64> {
        let bound = self.own_bound_bytes()?;
        let mut own = self.write(Log::Own);
        let fits = own.resident_bytes() + own.pending_bytes() + u64::from(length) <= bound;
        if own.is_agreed() && fits {
            own.reserve(length)
        } else {
            None
        }
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
        self.write(Log::Own).lose(span.range());
    }

    /// Takes the append range of a block whose first fragment has arrived, in the order of arrival, before its job starts.
    ///
    /// # Errors
    /// [`Violation::Registration`] if it starts below the mirror's tail or its length is out of bounds.
    pub fn register(&self, span: Span) -> Result<(), Violation> {
        self.write(Log::Mirror).register(span)
    }

    /// Makes a range a hole for good: refused, or not stored by the peer.
    pub fn lose(&self, log: Log, position: u64, length: u64) {
        self.write(log)
            .lose(position..position.saturating_add(length));
    }

    /// The position below which our own history wants to be dropped, to stay within its capacity and the peer's quota; to be sent as Floor once no
    /// unacknowledged block uses bytes below it.
    #[must_use]
    pub fn floor_wanted(&self) -> Option<u64> {
        let own = self.read(Log::Own);
        let used = own.resident_bytes() + own.pending_bytes();
        let bound = self.own_bound_bytes().unwrap_or(0);
        // Room for what is sent until the peer has answered; in steps that are worth a frame.
        let limit = bound - bound / FLOOR_ROOM;
        let target = limit - bound / FLOOR_STEP;
        if used > limit {
            own.floor_to_free(used - target)
        } else {
            None
        }
    }

    /// From the next block to be encoded on nothing of a log is copied from below `position`, which is about to be dropped. What was encoded before
    /// can still be decoded and rebuilt.
    pub fn retire_below(&self, log: Log, position: u64) {
        self.retired(log).fetch_max(position, Ordering::Relaxed);
    }

    /// Forgets a log below `position`.
    pub fn drop_below(&self, log: Log, position: u64) {
        self.write(log).drop_below(position);
    }

    /// Figures for status and metrics.
    #[must_use]
    pub fn stats(&self) -> DomainStats {
        DomainStats {
            own_bytes: self.read(Log::Own).resident_bytes(),
            mirror_bytes: self.read(Log::Mirror).resident_bytes(),
            capacity_bytes: self.config.own_capacity_bytes + self.config.mirror_capacity_bytes,
            index_bytes: self.index.size_bytes(),
            lookups: self.lookups.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
        }
    }

    /// Lays an append's bytes into a log and its anchors into the index; false if the range is not awaited any more or there is no room.
    pub(crate) fn fill(&self, log: Log, span: Span, append: &Append) -> bool {
        let mut history = self.write(log);
        if log == Log::Mirror && self.config.mirror_capacity_bytes < CAPACITY_MIN_BYTES {
            history.lose(span.range());
            return false;
        }
        if !history.fill(span, append.parts()) {
            return false;
        }
        if log == Log::Mirror {
            // A peer that respects the quota never gets here: it has dropped, and told us, before.
            let most = self.config.mirror_capacity_bytes
                + self.config.mirror_capacity_bytes / FLOOR_ROOM
                + MIRROR_SLACK_BYTES;
            let excess = history.resident_bytes().saturating_sub(most);
            if let Some(floor) = (excess > 0)
                .then(|| history.floor_to_free(excess))
                .flatten()
            {
                history.drop_below(floor);
            }
        }
        drop(history);
        self.recent(log)
            .note(append.stream(), span.end(), span.length);
        self.index.insert(
            log,
            append
                .anchors()
                .map(|(key, offset)| (key, span.position + u64::from(offset))),
        );
        true
    }

    pub(crate) fn view(&self, log: Log, position: u64, access: Access) -> Option<View> {
        let from = match access {
            Access::Source => self.copies_from(log),
            Access::Covered | Access::Present => 0,
        };
        self.read(log).view(position, access, from)
    }

    /// The lowest position of a log that a block to be encoded may copy.
    pub(crate) fn copies_from(&self, log: Log) -> u64 {
        self.retired(log).load(Ordering::Relaxed)
    }

    const fn retired(&self, log: Log) -> &AtomicU64 {
        let [own, mirror] = &self.retired;
        match log {
            Log::Own => own,
            Log::Mirror => mirror,
        }
    }

    /// Where the newest bytes of its streams lie in a log.
    pub(crate) const fn recent(&self, log: Log) -> &Recent {
        let [own, mirror] = &self.recent;
        match log {
            Log::Own => own,
            Log::Mirror => mirror,
        }
    }

    pub(crate) fn look_up(&self, keys: &[u64], out: &mut Vec<Hint>) {
        self.index.look_up(keys, out);
    }

    pub(crate) fn count(&self, lookups: u64, hits: u64) {
        self.lookups.fetch_add(lookups, Ordering::Relaxed);
        self.hits.fetch_add(hits, Ordering::Relaxed);
    }

    /// Below this position, what is copied is appended again, since it is about to be dropped: the oldest tenth of a log that is nearly full.
    pub(crate) fn renew_below(&self, log: Log) -> u64 {
        let history = self.read(log);
        let capacity = match log {
            Log::Own => self.own_bound_bytes().unwrap_or(0),
            Log::Mirror => self.config.mirror_capacity_bytes,
        };
        let full = history.resident_bytes() >= capacity / 4 * 3;
        if full {
            history.floor() + (history.tail() - history.floor()) / 10
        } else {
            0
        }
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

    /// What our own history may hold; `None` if that is not worth a page.
    fn own_bound_bytes(&self) -> Option<u64> {
        let bound = self
            .config
            .own_capacity_bytes
            .min(self.quota_bytes.load(Ordering::Relaxed));
        (bound >= CAPACITY_MIN_BYTES).then_some(bound)
    }

    /// An id for each epoch of this opening: as random as the opening's own.
    fn next_epoch(&self) -> [u8; 16] {
        match self.epochs_started.fetch_add(1, Ordering::Relaxed) {
            0 => self.config.epoch,
            count => xxh3_128_with_seed(&self.config.epoch, count).to_le_bytes(),
        }
    }
}

/// Two pages: with less, nothing that was appended would still be there when it is referred to.
const CAPACITY_MIN_BYTES: u64 = 2 * PAGE_BYTES;

/// An eighth of the bound stays free while a Floor is on its way.
const FLOOR_ROOM: u64 = 8;

/// A Floor frees at least a sixteenth of the bound.
const FLOOR_STEP: u64 = 16;

/// What a mirror may exceed its capacity by before it drops on its own account: partly filled pages, and a Floor on its way.
const MIRROR_SLACK_BYTES: u64 = 1 << 20;

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
