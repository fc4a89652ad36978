//! One log: its bytes, and the sets of positions that say what may be done with them.

use std::ops::Range;

use super::coverage::{claim, common_epochs, held};
use super::pages::{PAGE_BYTES, Pages, Seen};
use super::saving::Saving;
use crate::block::{POSITION_MAX, Span};
use crate::error::Violation;
use crate::frame::{COVERAGE_EPOCHS_MAX, COVERAGE_HOLES_MAX, Coverage, Epoch};
use crate::ranges::RangeSet;

/// One history, or one mirror.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(super) floor: u64,
    pub(super) tail: u64,
    pub(super) epochs: Vec<Epoch>,
    /// The tail when the present lease began: below it, what may be used is what was agreed.
    pub(super) lease_base: u64,
    pub(super) agreed: bool,
    /// Bytes that lie in the pages, lost ones included: what a repeat is rebuilt from.
    pub(super) present: RangeSet,
    /// Present and not lost: what a claim says.
    pub(super) held: RangeSet,
    /// What this lease may read: agreed, or filled since. A part of `held`.
    pub(super) covered: RangeSet,
    /// Reserved or registered in this lease, and still to be filled.
    pub(super) pending: RangeSet,
    /// Skipped by what was registered; blocks that come later over another link may still be appended there.
    pub(super) open: RangeSet,
    pub(super) pages: Pages,
    /// Of a log on disk.
    pub(super) saving: Option<Saving>,
}

/// What a source's range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All of it can be read.
    Covered,
    /// Some of it is still to be filled, the rest is covered.
    Pending,
    /// Some of it is gone for good, or was never held.
    Gone,
    /// Some of it lies at or above the tail.
    Beyond,
}

/// Which bytes a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// What is covered.
    Covered,
    /// What a block to be encoded may copy: covered, and not about to be dropped.
    Source,
    /// Whatever is still in memory: to rebuild a block of one's own, which its checksum verifies.
    Present,
}

impl History {
    pub fn claim(&self) -> Coverage {
        claim(self.floor, self.tail, &self.epochs, &self.held)
    }

    pub const fn floor(&self) -> u64 {
        self.floor
    }

    pub const fn tail(&self) -> u64 {
        self.tail
    }

    pub const fn is_agreed(&self) -> bool {
        self.agreed
    }

    /// Memory of the pages, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.pages.resident_bytes()
    }

    /// What counts against the capacity, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.pages.used_bytes()
    }

    /// Positions that are reserved or registered and not filled.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.len_bytes()
    }

    /// A new tunnel takes the log over: it may use nothing until it has agreed.
    pub fn begin_lease(&mut self) {
        self.end_lease();
        self.lease_base = self.tail;
    }

    /// What was to be filled never will be.
    pub fn end_lease(&mut self) {
        self.agreed = false;
        self.covered.clear();
        self.pending.clear();
        self.open.clear();
    }

    /// Narrows what was held when the lease began to what the peer claims too. What came since is not touched, so it may be said again.
    pub fn agree(&mut self, peer: &Coverage) {
        let mut common = common_epochs(&self.epochs, &peer.epochs)
            .intersect(&held(peer))
            .intersect(&self.held);
        common.remove(self.lease_base..POSITION_MAX);
        self.held.remove(0..self.lease_base);
        self.held.insert_all(&common);
        self.covered.remove(0..self.lease_base);
        self.covered.insert_all(&common);
        self.agreed = true;
        self.changed();
    }

    /// Takes over the owner's epochs (this is the mirror).
    pub fn learn_epochs(&mut self, epochs: &[Epoch]) {
        if self.epochs != epochs {
            self.epochs = epochs.to_vec();
            self.trim_epochs();
            self.changed();
        }
    }

    /// Starts an epoch at `start` or at the tail, whichever is higher, so that no page has bytes of two epochs (this is the owner's log).
    pub fn start_epoch(&mut self, id: [u8; 16], start: u64) {
        // Nothing was appended in the last one, so nothing needs its name.
        self.epochs.pop_if(|last| last.start == self.tail);
        self.tail = self
            .tail
            .max(start)
            .next_multiple_of(PAGE_BYTES)
            .min(POSITION_MAX);
        self.epochs.push(Epoch {
            id,
            start: self.tail,
        });
        self.trim_epochs();
        self.changed();
    }

    /// Takes the next `length` positions, to be filled later.
    pub fn reserve(&mut self, length: u32) -> Option<u64> {
        let position = self.tail;
        let end = position
            .checked_add(u64::from(length))
            .filter(|end| *end <= POSITION_MAX)?;
        self.pending.insert(position..end);
        self.tail = end;
        Some(position)
    }

    /// Takes a range that the owner has announced, to be filled later: above the tail, or in a gap that is open. With `leaves_gap` what it skips may
    /// still come; else it is a hole from now on. Tells whether it left a gap.
    pub fn register(&mut self, span: Span, leaves_gap: bool) -> Result<bool, Violation> {
        let Span { position, length } = span;
        if length == 0 || !span.is_in_bounds() {
            return Err(Violation::Registration { position, length });
        }
        if position < self.tail {
            let range = span.range();
            if !self.open.contains_range(&range) {
                return Err(Violation::Registration { position, length });
            }
            self.open.remove(range.clone());
            // What lies below the floor is taken, and not kept.
            if self.floor < range.end {
                self.pending.insert(range.start.max(self.floor)..range.end);
            }
            return Ok(false);
        }
        let has_gap = leaves_gap && position > self.tail;
        if has_gap {
            self.open.insert(self.tail..position);
        }
        self.pending.insert(span.range());
        self.tail = span.end();
        Ok(has_gap)
    }

    /// What lies open below `end` is a hole from now on: all blocks that could have filled it have come.
    pub fn close_gaps(&mut self, end: u64) {
        let closed: Vec<Range<u64>> = self.open.within(0..end).collect();
        for gap in closed {
            self.open.remove(gap.clone());
            self.settle(gap);
        }
    }

    /// Lays down the bytes of a reserved or registered range; what the floor has passed meanwhile is left out. False if the range is no longer
    /// awaited, or not all of it: then none of it is.
    pub fn fill<'a>(&mut self, span: Span, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let range = span.position.max(self.floor)..span.end();
        if range.is_empty() {
            return true;
        }
        // A page that is on disk is complete, though a log that was opened again may end in the middle of one.
        if !self.pending.contains_range(&range) || self.pages.is_stored(&range) {
            self.pending.remove(span.range());
            self.settle(span.range());
            return false;
        }
        let mut at = span.position;
        for part in parts {
            let below = usize::try_from(range.start.saturating_sub(at)).unwrap_or(usize::MAX);
            if let Some(above) = part.get(below..) {
                self.pages.write(at + below as u64, above);
            }
            at += part.len() as u64;
        }
        debug_assert_eq!(at, span.end(), "parts make up the span");
        self.pending.remove(range.clone());
        for set in [&mut self.present, &mut self.held, &mut self.covered] {
            set.insert(range.clone());
        }
        self.changed();
        self.settle(range);
        true
    }

    /// Makes a range a hole for good. Its bytes stay until they are evicted, for a block that may have to be rebuilt from them.
    pub fn lose(&mut self, range: Range<u64>) {
        for set in [&mut self.held, &mut self.covered, &mut self.pending] {
            set.remove(range.clone());
        }
        self.changed();
        self.settle(range);
    }

    /// Forgets everything below `floor`.
    pub fn drop_below(&mut self, floor: u64) {
        let floor = floor.min(self.tail);
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        // A gap stays open: what comes for it must still be taken.
        for set in [
            &mut self.present,
            &mut self.held,
            &mut self.covered,
            &mut self.pending,
        ] {
            set.remove(0..floor);
        }
        self.pages.drop_below(floor);
        self.changed();
        self.trim_epochs();
    }

    /// The position below which all must go to free at least `bytes`.
    pub fn floor_to_free(&self, bytes: u64) -> Option<u64> {
        self.pages
            .floor_to_free(bytes)
            .map(|floor| floor.min(self.tail))
            .filter(|floor| *floor > self.floor)
    }

    pub fn standing(&self, range: &Range<u64>) -> Standing {
        if range.end > self.tail || self.open.overlaps(range) {
            return Standing::Beyond;
        }
        if self.covered.contains_range(range) {
            return Standing::Covered;
        }
        let gone = self
            .covered
            .gaps(range.clone())
            .any(|gap| !self.pending.contains_range(&gap));
        if gone {
            Standing::Gone
        } else {
            Standing::Pending
        }
    }

    /// The parts of `range` that are neither covered nor awaited.
    pub fn gone(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let gaps = self.covered.gaps(range.clone());
        gaps.flat_map(|gap| self.pending.gaps(gap).collect::<Vec<_>>())
            .collect()
    }

    /// A stretch around `position`, at or above `from`, that may be read; `None` if that very position may not.
    pub fn view(&self, position: u64, access: Access, from: u64) -> Option<Seen> {
        let set = match access {
            Access::Covered | Access::Source => &self.covered,
            Access::Present => &self.present,
        };
        let page = position / PAGE_BYTES * PAGE_BYTES;
        let limit = set
            .within(page.max(from)..page + PAGE_BYTES)
            .find(|range| range.contains(&position))?;
        self.pages.view(position, &limit)
    }

    /// The covered part of `within` that contains `position`.
    pub fn covered_around(&self, position: u64, within: &Range<u64>) -> Option<Range<u64>> {
        self.covered
            .within(within.clone())
            .find(|range| range.contains(&position))
    }

    /// After ranges were filled or given up: finished pages freeze, and the count of holes is kept in its bound.
    pub(super) fn settle(&mut self, range: Range<u64>) {
        let (pending, open, tail) = (&self.pending, &self.open, self.tail);
        self.pages.freeze(range, tail, |page| {
            pending.overlaps(&page) || open.overlaps(&page)
        });
        // Between two held ranges lies a hole, or something that is still to come.
        let to_come = self.pending.range_count() + self.open.range_count();
        let pieces = self.held.range_count().saturating_sub(to_come);
        let oldest_kept = self
            .held
            .iter()
            .nth(pieces.saturating_sub(COVERAGE_HOLES_MAX));
        if let Some(oldest_kept) = oldest_kept.filter(|_| pieces > COVERAGE_HOLES_MAX) {
            self.drop_below(oldest_kept.start);
        }
    }

    /// Drops the epochs that lie below the floor, and the oldest beyond the bound with all their bytes.
    fn trim_epochs(&mut self) {
        let below = self
            .epochs
            .iter()
            .skip(1)
            .take_while(|next| next.start <= self.floor)
            .count();
        let forgotten = self.epochs.len().saturating_sub(COVERAGE_EPOCHS_MAX);
        self.epochs.drain(..below.max(forgotten));
        let first = self.epochs.first().map_or(0, |first| first.start);
        if forgotten > below {
            self.drop_below(first);
        }
    }
}
