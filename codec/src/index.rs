//! The index: from an anchor's key to where its bytes stood, for both logs of a domain.
//!
//! Entries are hints and are always verified against the bytes, so reads and writes are relaxed atomics without locks: a race may lose or
//! double a hint and do no other harm. A bucket is one cache line of eight entries, the newest first. The table is cut into shards by
//! the key's top bits; a shard that fills doubles alone, so that growth never stops everybody for long.

use std::array;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::domain::Log;

/// Entries a bucket: eight times eight bytes are one cache line, which is one miss a look-up.
const SLOTS: usize = 8;

/// Equal tags that a bucket keeps: what repeats everywhere (a licence's text) must not push out the rest.
const SAME_TAG_MAX: usize = 4;

/// Shards: a power of two; growing one of them touches a thirty-second of the table.
const SHARDS: usize = 32;

/// Buckets of a shard at the start, as a power of two: 8 KiB a domain, since most domains stay small.
const FIRST_BITS: u32 = 2;

/// Low bits of a position that an entry holds: 256 GiB of history, far above what is kept; the rest follows from the log's tail.
const POSITION_BITS: u32 = 38;

/// Entries of one tag closer than this replace each other: a short period would otherwise fill its buckets with itself.
const SAME_TAG_GAP_BYTES: u64 = 4096;

/// A shard grows when this part of its slots is used: 5/8. More loses hints to full buckets, less wastes memory.
const GROW_EIGHTHS: usize = 5;

/// Buckets that are read ahead of being written, so that their cache misses overlap: about what a core keeps in flight.
const TOUCH_BATCH: usize = 16;

const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const LOG_BIT: u64 = 1 << POSITION_BITS;
const TAG_SHIFT: u32 = POSITION_BITS + 1;
/// Bits above position and log: together with the first bucket bits they hold all bucket bits that a shard can ever have.
const TAG_MASK: u64 = (1 << (u64::BITS - TAG_SHIFT)) - 1;

/// Where an anchor's bytes may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Which of the keys looked up together this belongs to.
    pub key: u32,
    /// The log.
    pub log: Log,
    /// The low [`POSITION_BITS`] bits of the position just behind the window; see [`Hint::position`].
    low: u64,
}

impl Hint {
    /// The highest position up to `tail` that this can mean; `None` if there is none.
    #[must_use]
    pub fn position(self, tail: u64) -> Option<u64> {
        let position = (tail & !POSITION_MASK) | self.low;
        if position <= tail {
            Some(position)
        } else {
            position.checked_sub(1 << POSITION_BITS)
        }
    }
}

/// The index of one domain.
pub struct Index {
    table: RwLock<Arc<Table>>,
    growing: Mutex<()>,
    last_bits: u32,
}

type Table = [Arc<Shard>; SHARDS];

struct Shard {
    bits: u32,
    used: AtomicUsize,
    buckets: Box<[Bucket]>,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; SLOTS]);

impl Index {
    /// An index that grows up to `capacity_bytes` (rounded down to a power of two, at least 8 KiB, at most 8 GiB).
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        let buckets = capacity_bytes / (SHARDS * size_of::<Bucket>()) as u64;
        let last_bits = buckets.checked_ilog2().unwrap_or(0).clamp(FIRST_BITS, 22);
        let table = array::from_fn(|_| Arc::new(Shard::new(FIRST_BITS)));
        Self {
            table: RwLock::new(Arc::new(table)),
            growing: Mutex::new(()),
            last_bits,
        }
    }

    /// Appends to `out` what is known about each of `keys`: per key the newest first.
    ///
    /// All keys of a stretch are looked up at once, so that the cache misses of independent buckets overlap.
    pub fn look_up(&self, keys: &[u64], out: &mut Vec<Hint>) {
        let table = self.table();
        for (number, &key) in (0..).zip(keys) {
            let Some(bucket) = bucket_of(&table, key).map(|(_, bucket)| bucket) else {
                continue;
            };
            let tag = tag(key);
            for slot in &bucket.0 {
                let entry = slot.load(Ordering::Relaxed);
                if entry >> TAG_SHIFT == tag && entry & POSITION_MASK != 0 {
                    let log = if entry & LOG_BIT == 0 {
                        Log::Own
                    } else {
                        Log::Mirror
                    };
                    out.push(Hint {
                        key: number,
                        log,
                        low: entry & POSITION_MASK,
                    });
                }
            }
        }
    }

    /// Adds `(key, position just behind the window)` pairs of one log, oldest first.
    pub fn insert(&self, log: Log, anchors: impl IntoIterator<Item = (u64, u64)>) {
        let table = self.table();
        let log_bit = if log == Log::Own { 0 } else { LOG_BIT };
        // Counted here and added at the end: a shared counter in the loop would serialise what the batches overlap.
        let mut taken = [0usize; SHARDS];
        let mut anchors = anchors.into_iter().peekable();
        while anchors.peek().is_some() {
            let mut batch = [(0, 0); TOUCH_BATCH];
            let mut filled = 0;
            let mut touched = 0;
            for (slot, anchor) in batch.iter_mut().zip(&mut anchors) {
                *slot = anchor;
                filled += 1;
                touched ^= bucket_of(&table, anchor.0).map_or(0, |(_, bucket)| bucket.touch());
            }
            std::hint::black_box(touched);
            for &(key, position) in batch.iter().take(filled) {
                let Some((_, bucket)) = bucket_of(&table, key) else {
                    continue;
                };
                let entry = tag(key) << TAG_SHIFT | log_bit | position & POSITION_MASK;
                if let Some(taken) = taken.get_mut(shard_of(key)) {
                    *taken += usize::from(bucket.insert(entry));
                }
            }
        }
        let mut full = false;
        for (shard, taken) in table.iter().zip(taken) {
            shard.used.fetch_add(taken, Ordering::Relaxed);
            full |= shard.is_full(self.last_bits);
        }
        if full {
            self.grow();
        }
    }

    /// Memory of the table in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.table()
            .iter()
            .map(|shard| (shard.buckets.len() * size_of::<Bucket>()) as u64)
            .sum()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Doubles the full shards. Whoever finds another at it leaves it to him; hints that are inserted into an old shard meanwhile are lost.
    fn grow(&self) {
        let Ok(_growing) = self.growing.try_lock() else {
            return;
        };
        let mut table = Table::clone(&self.table());
        for shard in table
            .iter_mut()
            .filter(|shard| shard.is_full(self.last_bits))
        {
            *shard = Arc::new(shard.doubled());
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

impl Shard {
    fn new(bits: u32) -> Self {
        Self {
            bits,
            used: AtomicUsize::new(0),
            buckets: (0..1usize << bits).map(|_| Bucket::default()).collect(),
        }
    }

    fn is_full(&self, last_bits: u32) -> bool {
        self.bits < last_bits
            && self.used.load(Ordering::Relaxed) > self.buckets.len() * GROW_EIGHTHS
    }

    /// The same entries in twice the buckets: the next bit of the key, which the tag has, picks the half.
    fn doubled(&self) -> Self {
        let mut halves: [Vec<Bucket>; 2] =
            array::from_fn(|_| Vec::with_capacity(self.buckets.len() * 2));
        let mut used = 0;
        for bucket in &self.buckets {
            let mut split: [[u64; SLOTS]; 2] = Default::default();
            let [low, high] = &mut split;
            let (mut low, mut high) = (low.iter_mut(), high.iter_mut());
            for slot in &bucket.0 {
                let entry = slot.load(Ordering::Relaxed);
                let goes_high = entry >> (TAG_SHIFT + self.bits - FIRST_BITS) & 1 == 1;
                if entry != 0
                    && let Some(free) = if goes_high { high.next() } else { low.next() }
                {
                    *free = entry;
                    used += 1;
                }
            }
            for (half, entries) in halves.iter_mut().zip(split) {
                half.push(Bucket(entries.map(AtomicU64::new)));
            }
        }
        let [mut buckets, high] = halves;
        buckets.extend(high);
        Self {
            bits: self.bits + 1,
            used: AtomicUsize::new(used),
            buckets: buckets.into_boxed_slice(),
        }
    }
}

impl Bucket {
    /// Reads it, so that its cache line is on the way.
    fn touch(&self) -> u64 {
        self.0
            .first()
            .map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Puts `entry` first and moves the others on; true if that took a free slot. Free slots are the last ones.
    fn insert(&self, entry: u64) -> bool {
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
        let near = |other: u64| {
            other >> POSITION_BITS == entry >> POSITION_BITS
                && (other & POSITION_MASK).abs_diff(entry & POSITION_MASK) < SAME_TAG_GAP_BYTES
        };
        if entries
            .first()
            .is_some_and(|&first| first != 0 && near(first))
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

    fn store(&self, slot: usize, entry: u64) {
        if let Some(slot) = self.0.get(slot) {
            slot.store(entry, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a few bits are left")]
fn shard_of(key: u64) -> usize {
    (key >> (u64::BITS - SHARDS.ilog2())) as usize
}

fn bucket_of(table: &Table, key: u64) -> Option<(&Shard, &Bucket)> {
    let shard = table.get(shard_of(key))?;
    let mask = shard.buckets.len() - 1;
    #[expect(clippy::cast_possible_truncation, reason = "masked")]
    let bucket = shard.buckets.get(key as usize & mask)?;
    Some((shard, bucket))
}

/// Bits of the key from the first bucket bits up: a shard's later bucket bits are the tag's low bits.
fn tag(key: u64) -> u64 {
    key >> FIRST_BITS & TAG_MASK
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A key for each number, spread over all bits.
    fn key(number: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())
    }

    fn positions(index: &Index, key: u64) -> Vec<(Log, u64)> {
        let mut hints = Vec::new();
        index.look_up(&[key], &mut hints);
        hints
            .iter()
            .map(|hint| (hint.log, hint.position(1 << 40).unwrap()))
            .collect()
    }

    /// A tail for `positions` of which the low bits are zero, so positions come out 2^38 below it, or as themselves above.
    fn at(position: u64) -> u64 {
        (1 << 40) - (1 << POSITION_BITS) + position
    }

    #[test]
    fn newest_first_and_both_logs() {
        let index = Index::new(1 << 20);
        index.insert(Log::Own, [(key(1), at(10_000))]);
        index.insert(Log::Mirror, [(key(1), at(20_000))]);
        index.insert(Log::Own, [(key(1), at(30_000))]);
        assert_eq!(
            positions(&index, key(1)),
            [
                (Log::Own, at(30_000)),
                (Log::Mirror, at(20_000)),
                (Log::Own, at(10_000))
            ]
        );
        assert_eq!(positions(&index, key(2)), []);
    }

    #[test]
    fn growth_keeps_what_is_known_and_stops_at_capacity() {
        let index = Index::new(1 << 20);
        let small = index.size_bytes();
        index.insert(Log::Own, (1..=20_000).map(|n| (key(n), at(n * 100))));
        for batch in 0..40 {
            index.insert(
                Log::Own,
                (1..=500)
                    .map(|n| batch * 500 + n)
                    .map(|n| (key(n), at(n * 100))),
            );
        }
        assert!(index.size_bytes() > small);
        let known = (1..=20_000)
            .filter(|&n| positions(&index, key(n)).contains(&(Log::Own, at(n * 100))))
            .count();
        assert!(known > 19_000, "{known} of 20000");
        for batch in 0..4000 {
            index.insert(
                Log::Own,
                (1..=500)
                    .map(|n| batch * 500 + n)
                    .map(|n| (key(n), at(n * 100))),
            );
        }
        assert_eq!(index.size_bytes(), 1 << 20);
    }

    #[test]
    fn a_period_does_not_flood() {
        let index = Index::new(1 << 16);
        index.insert(Log::Own, [(key(7), at(500))]);
        index.insert(
            Log::Own,
            (0..10_000).map(|n| (key(7), at(100_000 + 16 * n))),
        );
        let found = positions(&index, key(7));
        assert!(found.len() <= SAME_TAG_MAX);
        assert_eq!(found.first(), Some(&(Log::Own, at(100_000 + 16 * 9_999))));
    }

    #[test]
    fn a_repeated_key_leaves_room_for_others() {
        let index = Index::new(0);
        index.insert(Log::Own, [(key(3), at(77))]);
        index.insert(
            Log::Own,
            (0..100).map(|n| (key(3) ^ 1 << 20, at(10_000 * n + 10_000))),
        );
        assert_eq!(positions(&index, key(3)), [(Log::Own, at(77))]);
    }

    #[test]
    fn positions_follow_the_tail() {
        let hint = Hint {
            key: 0,
            log: Log::Own,
            low: 5000,
        };
        assert_eq!(hint.position(5000), Some(5000));
        assert_eq!(hint.position(4999), None);
        assert_eq!(hint.position((1 << 38) + 4999), Some(5000));
        assert_eq!(hint.position((1 << 38) + 5000), Some((1 << 38) + 5000));
    }
}
