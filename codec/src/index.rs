//! The index: from an anchor's key to where its bytes stood, for both logs of a domain.
//!
//! Entries are hints and are always verified against the bytes, so reads and writes are relaxed atomics without locks: a race may lose or
//! double a hint and do no other harm. A bucket is one cache line of eight entries, the newest first. The table is cut into shards by
//! the key's top bits; a shard that fills doubles alone, so that growth never stops everybody for long. Of a history that is too large for
//! its index only a part of the anchors is used, picked by bits of the key.

mod bucket;

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::domain::Log;
use bucket::Bucket;

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

/// Anchors added at once: fewer than the smallest table has free slots, or they would push each other out before it grows.
const GROWN_BATCH: usize = 256;

const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const LOG_BIT: u64 = 1 << POSITION_BITS;
const TAG_SHIFT: u32 = POSITION_BITS + 1;
/// Bits above position and log: together with the first bucket bits they hold all bucket bits that a shard can ever have.
const TAG_MASK: u64 = (1 << (u64::BITS - TAG_SHIFT)) - 1;

/// Bits of a key that an entry or a saved anchor ever needs: the shard's, and from the low end those of bucket and tag.
const SAVED_LOW_BITS: u32 = u64::BITS - TAG_SHIFT + FIRST_BITS;
const _: () = assert!(SAVED_LOW_BITS + SHARDS.ilog2() == u32::BITS);

/// Every 32nd anchor is the fewest that are kept: one in 4 KiB, as dense as those of noise, which are all kept.
const THINNING_MAX: u32 = 5;

/// The bits of a key that never make an index leave its anchor out: all but those by which it thins.
pub(crate) const NEVER_THINNED: u64 =
    !(((1 << THINNING_MAX) - 1) << (SAVED_LOW_BITS - THINNING_MAX));

/// Bytes of a history for each of its anchors, over all: dense ones stand 144 bytes apart, those of noise 4 KiB.
const BYTES_PER_ANCHOR: u64 = 192;

/// What is saved of a key.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "two parts of 32 bits")]
pub const fn save_key(key: u64) -> u32 {
    (key >> u32::BITS) as u32 >> SAVED_LOW_BITS << SAVED_LOW_BITS
        | key as u32 & ((1 << SAVED_LOW_BITS) - 1)
}

/// A key that the index takes for the one that was saved.
#[must_use]
pub const fn load_key(saved: u32) -> u64 {
    (saved as u64 >> SAVED_LOW_BITS) << (u32::BITS + SAVED_LOW_BITS)
        | saved as u64 & ((1 << SAVED_LOW_BITS) - 1)
}

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
    /// One in 2^this anchors is kept.
    thinning: AtomicU32,
}

type Table = [Arc<Shard>; SHARDS];

struct Shard {
    bits: u32,
    used: AtomicUsize,
    buckets: Box<[Bucket]>,
}

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
            thinning: AtomicU32::new(0),
        }
    }

    /// Keeps as many anchors as there is room for when the histories are `history_bytes` long: from now on, and of what is added later.
    pub fn thin_for(&self, history_bytes: u64) {
        let buckets = (SHARDS as u64) << self.last_bits;
        let anchors = history_bytes / BYTES_PER_ANCHOR;
        let wanted = anchors.div_ceil(buckets * SLOTS as u64).max(1);
        let thinning = wanted.next_power_of_two().ilog2().min(THINNING_MAX);
        self.thinning.store(thinning, Ordering::Relaxed);
    }

    /// The key bits that must be zero for an anchor to be kept: the tag's highest, which never pick a bucket.
    fn thinned_bits(&self) -> u64 {
        let thinning = self.thinning.load(Ordering::Relaxed);
        ((1 << thinning) - 1) << (SAVED_LOW_BITS - thinning)
    }

    /// Whether the anchor with this key is kept.
    #[must_use]
    pub fn keeps(&self, key: u64) -> bool {
        key & self.thinned_bits() == 0
    }

    /// Appends to `out` what is known about each of `keys`: per key the newest first.
    ///
    /// All keys of a stretch are looked up at once, so that the cache misses of independent buckets overlap.
    pub fn look_up(&self, keys: &[u64], out: &mut Vec<Hint>) {
        let table = self.table();
        let thinned = self.thinned_bits();
        for (number, &key) in (0..).zip(keys) {
            if key & thinned != 0 {
                continue;
            }
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
        let mut anchors = anchors.into_iter().peekable();
        // The table grows in between.
        while anchors.peek().is_some() {
            self.add(log, anchors.by_ref().take(GROWN_BATCH), Bucket::insert);
        }
    }

    /// Adds pairs that are older than all that is there, oldest first: they take what is free and push nothing out.
    pub fn insert_older(&self, log: Log, anchors: &[(u64, u64)]) {
        // The table grows in between.
        for some in anchors.rchunks(GROWN_BATCH) {
            self.add(log, some.iter().rev().copied(), Bucket::insert_older);
        }
    }

    fn add(
        &self,
        log: Log,
        anchors: impl IntoIterator<Item = (u64, u64)>,
        put: impl Fn(&Bucket, u64) -> bool,
    ) {
        let table = self.table();
        let thinned = self.thinned_bits();
        let log_bit = if log == Log::Own { 0 } else { LOG_BIT };
        // Counted here and added at the end: a shared counter in the loop would serialise what the batches overlap.
        let mut taken = [0usize; SHARDS];
        let mut anchors = anchors
            .into_iter()
            .filter(|(key, _)| key & thinned == 0)
            .peekable();
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
                    *taken += usize::from(put(bucket, entry));
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
mod tests;
