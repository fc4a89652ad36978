//! A bucket of the index: its entries in one cache line, the newest first, free slots last.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{POSITION_BITS, POSITION_MASK, SAME_TAG_GAP_BYTES, SAME_TAG_MAX, SLOTS, TAG_SHIFT};

#[derive(Default)]
#[repr(align(64))]
pub(super) struct Bucket(pub [AtomicU64; SLOTS]);

impl Bucket {
    /// Reads it, so that its cache line is on the way.
    pub fn touch(&self) -> u64 {
        self.0
            .first()
            .map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Puts `entry` first and moves the others on; true if that took a free slot. Free slots are the last ones.
    pub fn insert(&self, entry: u64) -> bool {
        let entries: [u64; SLOTS] = array::from_fn(|slot| {
            self.0
                .get(slot)
                .map_or(0, |slot| slot.load(Ordering::Relaxed))
        });
        let same_tag = |other: u64| other >> TAG_SHIFT == entry >> TAG_SHIFT;
        // Hardly a key is known already, so this is a branch that is foretold well; the rest has none.
        if entries
            .iter()
            .fold(false, |found, &other| found | same_tag(other))
        {
            return self.insert_again(entry, &entries);
        }
        let [.., last] = entries;
        self.store(0, entry);
        for (slot, other) in (1..SLOTS).zip(entries) {
            self.store(slot, other);
        }
        last == 0
    }

    /// Puts an `entry` first whose tag the bucket seems to have.
    #[cold]
    fn insert_again(&self, entry: u64, entries: &[u64; SLOTS]) -> bool {
        let same_tag = |other: u64| other != 0 && other >> TAG_SHIFT == entry >> TAG_SHIFT;
        if entries
            .first()
            .is_some_and(|&first| first != 0 && is_near(first, entry))
        {
            self.store(0, entry);
            return false;
        }
        let repeated = entries.iter().filter(|&&other| same_tag(other)).count() >= SAME_TAG_MAX;
        let goes = if repeated {
            entries.iter().rposition(|&other| same_tag(other))
        } else {
            entries.iter().position(|&other| other == 0)
        };
        let goes = goes.unwrap_or(SLOTS - 1);
        let mut carried = entry;
        for (slot, &old) in entries.iter().enumerate().take(goes + 1) {
            self.store(slot, carried);
            carried = old;
        }
        carried == 0
    }

    /// Puts `entry` behind all others; true if there was a free slot for it.
    pub fn insert_older(&self, entry: u64) -> bool {
        let mut same = 0;
        for slot in &self.0 {
            let other = slot.load(Ordering::Relaxed);
            if other == 0 {
                slot.store(entry, Ordering::Relaxed);
                return true;
            }
            same += usize::from(other >> TAG_SHIFT == entry >> TAG_SHIFT);
            if same >= SAME_TAG_MAX || is_near(other, entry) {
                return false;
            }
        }
        false
    }

    fn store(&self, slot: usize, entry: u64) {
        if let Some(slot) = self.0.get(slot) {
            slot.store(entry, Ordering::Relaxed);
        }
    }
}

/// Whether two entries have one tag and log, and stand close to each other.
fn is_near(one: u64, other: u64) -> bool {
    one >> POSITION_BITS == other >> POSITION_BITS
        && (one & POSITION_MASK).abs_diff(other & POSITION_MASK) < SAME_TAG_GAP_BYTES
}
