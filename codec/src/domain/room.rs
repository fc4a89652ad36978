//! What a domain may hold: capacities, the peer's quota, floors, and forgetting everything.

use std::sync::atomic::Ordering;

use super::{Domain, Log};
use crate::history::log::History;
use crate::history::pages::PAGE_BYTES;

/// Two pages: with less, nothing that was appended would still be there when it is referred to.
const CAPACITY_MIN_BYTES: u64 = 2 * PAGE_BYTES;

/// An eighth of the bound stays free while a Floor is on its way.
const FLOOR_ROOM: u64 = 8;

/// A Floor frees at least a sixteenth of the bound.
const FLOOR_STEP: u64 = 16;

/// What a mirror in memory may exceed its capacity by before it drops on its own account: partly filled pages, and a Floor on its way.
const MIRROR_SLACK_BYTES: u64 = 1 << 20;

/// The Quota of a mirror that is to become empty: less than anything that could be held, and not 0, by which an owner drops nothing.
const QUOTA_TO_EMPTY_BYTES: u64 = 1;

/// When a domain is empty after [`Domain::clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// It is, but for its files, which the next [`Domain::flush`] removes.
    Now,
    /// A tunnel uses it. It is asked to give up what there is, by Floor and Quota; what is left when it ends goes then.
    UnderWay,
}

impl Domain {
    /// The peer's Quota: what its mirror of our own history may hold, in bytes. 0: nothing is appended. It is 0 until the peer says otherwise.
    pub fn set_quota(&self, bytes: u64) {
        self.quota_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What to tell the peer as Quota, now and whenever it has changed: what our mirror may hold, in bytes.
    #[must_use]
    pub fn quota_offer(&self) -> u64 {
        let bound = self.mirror_bound_bytes();
        // First: on a full disk, forgetting is what makes room.
        if self.is_clearing(Log::Mirror) {
            QUOTA_TO_EMPTY_BYTES
        } else if self.is_read_only() || bound < CAPACITY_MIN_BYTES {
            0
        } else {
            bound
        }
    }

    /// Changes the room of both logs, in bytes. What is above goes by Floor, and the peer is told by Quota: see [`Domain::quota_offer`].
    pub fn set_capacity(&self, own_bytes: u64, mirror_bytes: u64) {
        for (log, bytes) in Log::BOTH.into_iter().zip([own_bytes, mirror_bytes]) {
            log.of(&self.capacities).store(bytes, Ordering::Relaxed);
            let mut history = self.write(log);
            history.changed();
            self.after_change(log, history);
        }
        if self.disk.is_some() {
            self.index.thin_for(own_bytes.saturating_add(mirror_bytes));
        }
    }

    /// Gives the next `length` positions of our own history to a block whose first fragment is about to be handed to a link. `None`: nothing may be
    /// appended now, and the block goes without.
    #[must_use]
    pub fn reserve(&self, length: u32) -> Option<u64> {
        let quota_bytes = self.quota_bytes.load(Ordering::Relaxed);
        let bound = self.capacity_bytes(Log::Own).min(quota_bytes);
        if bound < CAPACITY_MIN_BYTES || self.is_read_only() {
            return None;
        }
        let mut own = self.write(Log::Own);
        let pending = own.pending_bytes();
        let fits = own.used_bytes() + pending + u64::from(length) <= bound;
        if own.is_agreed() && fits && self.takes_unsaved(pending) {
            own.reserve(length)
        } else {
            None
        }
    }

    /// The position below which our own history wants to be dropped, to stay within its capacity and the peer's quota; to be sent as Floor once no
    /// unacknowledged block uses bytes below it.
    #[must_use]
    pub fn floor_wanted(&self) -> Option<u64> {
        let own = self.read(Log::Own);
        let cleared = self.cleared_below(Log::Own);
        if own.floor() < cleared {
            return Some(cleared.min(own.tail()));
        }
        let used = own.used_bytes() + own.pending_bytes();
        let bound = self.own_bound_bytes();
        // Room for what is sent until the peer has answered; in steps that are worth a frame.
        let limit = bound - bound / FLOOR_ROOM;
        let target = limit - bound / FLOOR_STEP;
        if used > limit {
            own.floor_to_free(used - target)
        } else {
            None
        }
    }

    /// Forgets all that both logs hold. The peer learns of it as of any other loss, and what is sent again is sent whole.
    pub fn clear(&self) -> Cleared {
        for log in Log::BOTH {
            let tail = self.read(log).tail();
            log.of(&self.cleared).store(tail, Ordering::Relaxed);
        }
        if self.forget_cleared() {
            Cleared::Now
        } else {
            Cleared::UnderWay
        }
    }

    /// Forgets what is to be forgotten, unless a tunnel holds the domain.
    pub(super) fn forget_cleared(&self) -> bool {
        if !Log::BOTH.into_iter().any(|log| self.is_clearing(log)) {
            return true;
        }
        let free = self
            .leased
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire);
        if free.is_err() {
            return false;
        }
        for log in Log::BOTH {
            let mut history = self.write(log);
            history.forget();
            if let Some(disk) = &self.disk {
                disk.forget(log);
            }
            self.after_change(log, history);
        }
        self.leased.store(false, Ordering::Release);
        true
    }

    fn cleared_below(&self, log: Log) -> u64 {
        log.of(&self.cleared).load(Ordering::Relaxed)
    }

    fn is_clearing(&self, log: Log) -> bool {
        self.read(log).floor() < self.cleared_below(log)
    }

    pub(super) fn capacity_bytes(&self, log: Log) -> u64 {
        log.of(&self.capacities).load(Ordering::Relaxed)
    }

    /// What our own history may hold. A peer that takes nothing more keeps what it has.
    fn own_bound_bytes(&self) -> u64 {
        let capacity_bytes = self.capacity_bytes(Log::Own);
        let bound = match self.quota_bytes.load(Ordering::Relaxed) {
            0 => capacity_bytes,
            quota_bytes => capacity_bytes.min(quota_bytes),
        };
        if bound < CAPACITY_MIN_BYTES { 0 } else { bound }
    }

    /// What the peer may make our mirror hold: on disk, where the capacity is the end of it, that leaves room for segments of which a part is dropped.
    fn mirror_bound_bytes(&self) -> u64 {
        let capacity_bytes = self.capacity_bytes(Log::Mirror);
        if self.disk.is_some() {
            capacity_bytes - capacity_bytes / FLOOR_ROOM
        } else {
            capacity_bytes
        }
    }

    /// Whether the mirror may get more.
    pub(super) fn mirror_takes(&self) -> bool {
        self.mirror_bound_bytes() >= CAPACITY_MIN_BYTES
            && !self.is_read_only()
            && self.takes_unsaved(0)
    }

    /// Where the mirror has to be dropped because it is too large. A peer that respects the quota never makes it so: it has dropped, and told us,
    /// before.
    pub(super) fn mirror_excess(&self, mirror: &History) -> Option<u64> {
        let capacity_bytes = self.capacity_bytes(Log::Mirror);
        let most = if self.disk.is_some() {
            capacity_bytes
        } else {
            capacity_bytes + capacity_bytes / FLOOR_ROOM + MIRROR_SLACK_BYTES
        };
        let excess = mirror.used_bytes().saturating_sub(most);
        if excess > 0 {
            mirror.floor_to_free(excess)
        } else {
            None
        }
    }

    /// Below this position, what is copied is appended again, since it is about to be dropped: the oldest tenth of a log that is nearly full.
    pub(crate) fn renew_below(&self, log: Log) -> u64 {
        let history = self.read(log);
        let bound = match log {
            Log::Own => self.own_bound_bytes(),
            Log::Mirror => self.mirror_bound_bytes(),
        };
        let full = history.used_bytes() >= bound / 4 * 3;
        if full {
            history.floor() + (history.tail() - history.floor()) / 10
        } else {
            0
        }
    }
}
