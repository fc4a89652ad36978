//! The receiving direction's order: decoded blocks come in any order and leave in the stream's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use codec::ranges::RangeSet;

use crate::pieces::{SMALL_BYTES, belong_together, join};

/// Counts the small pieces that wait behind a gap, of all streams of a tunnel: each costs far more memory than the bytes that it is charged for.
#[derive(Debug, Clone, Default)]
pub(super) struct Scattered(Arc<AtomicUsize>);

impl Scattered {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// Behind the last byte given out.
    given: u64,
    /// What blocks have announced, decoded or not; above `given` only.
    announced: RangeSet,
    /// Neighbours are joined as long as they are small.
    decoded: BTreeMap<u64, Bytes>,
    /// Small ones among `decoded`, which `scattered` counts.
    small: usize,
    scattered: Scattered,
}

impl Reassembly {
    /// Nothing has come yet; `scattered` counts what will wait.
    pub(super) fn new(scattered: Scattered) -> Self {
        let mut order = Self::default();
        order.scattered = scattered;
        order
    }

    /// The stream offset behind the last byte given out.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// The stream offset behind the last byte announced.
    pub(super) fn announced_end(&self) -> u64 {
        self.announced.last().map_or(self.given, |range| range.end)
    }

    /// A block's header has come; false if another block had these bytes.
    pub(super) fn announce(&mut self, offset: u64, length: u64) -> bool {
        let range = offset..offset.saturating_add(length);
        if offset < self.given || self.announced.overlaps(&range) {
            return false;
        }
        self.announced.insert(range);
        true
    }

    /// The block that announced this range was refused: another may bring it.
    pub(super) fn withdraw(&mut self, offset: u64, length: u64) {
        self.announced.remove(offset..offset.saturating_add(length));
    }

    /// An announced block was decoded.
    pub(super) fn insert(&mut self, offset: u64, plain: Bytes) {
        debug_assert!(offset >= self.given, "bytes that were given out already");
        let (mut offset, mut plain) = (offset, plain);
        let before = self.decoded.range(..offset).next_back();
        if let Some((&start, before)) = before
            && start + before.len() as u64 == offset
            && belong_together(before, &plain)
            && let Some(before) = self.remove(start)
        {
            (offset, plain) = (start, join(before, &plain));
        }
        let behind = offset + plain.len() as u64;
        if let Some(next) = self.decoded.get(&behind)
            && belong_together(&plain, next)
            && let Some(next) = self.remove(behind)
        {
            plain = join(plain, &next);
        }
        if plain.len() < SMALL_BYTES {
            self.small += 1;
            self.scattered.0.fetch_add(1, Ordering::Relaxed);
        }
        self.decoded.insert(offset, plain);
    }

    fn remove(&mut self, offset: u64) -> Option<Bytes> {
        let plain = self.decoded.remove(&offset)?;
        if plain.len() < SMALL_BYTES {
            self.forget_small(1);
        }
        Some(plain)
    }

    fn forget_small(&mut self, count: usize) {
        self.small -= count;
        self.scattered.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// The next bytes in order, if they are there.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let plain = self.remove(self.given)?;
        self.given += plain.len() as u64;
        self.announced.remove(0..self.given);
        Some(plain)
    }

    /// Forgets what is held; nothing more will be given out.
    pub(super) fn clear(&mut self) {
        self.decoded.clear();
        self.announced.clear();
        self.forget_small(self.small);
    }
}

impl Drop for Reassembly {
    fn drop(&mut self) {
        self.forget_small(self.small);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_announced_once() {
        let mut order = Reassembly::default();
        assert!(order.announce(0, 10) && order.announce(20, 10));
        assert!(!order.announce(5, 1) && !order.announce(0, 10) && !order.announce(15, 6));
        order.withdraw(0, 10);
        assert!(order.announce(0, 10));
        order.insert(0, Bytes::from_static(&[0; 10]));
        assert!(order.pop().is_some() && order.pop().is_none());
        assert_eq!((order.given(), order.announced_end()), (10, 30));
        assert!(!order.announce(9, 2), "given out already");
    }

    #[test]
    fn what_is_scattered_is_counted_until_it_is_joined_or_given_out() {
        let scattered = Scattered::default();
        let mut order = Reassembly::new(scattered.clone());
        let byte = || Bytes::from_static(b"a");
        for offset in 1..=999 {
            order.insert(2 * offset, byte());
        }
        assert_eq!(scattered.count(), 999);
        order.insert(4_000, Bytes::from(vec![0; SMALL_BYTES]));
        assert_eq!(scattered.count(), 999, "what is large pays for itself");
        for offset in (1..999).rev() {
            order.insert(2 * offset + 1, byte());
        }
        assert!(scattered.count() <= 1, "{}", scattered.count());
        order.insert(0, byte());
        order.insert(1, byte());
        let mut given = 0;
        while let Some(plain) = order.pop() {
            given += plain.len();
        }
        assert_eq!((given, scattered.count()), (1_999, 0));
        order.insert(3_000, byte());
        order.clear();
        assert_eq!(scattered.count(), 0);
        order.insert(3_000, byte());
        drop(order);
        assert_eq!(scattered.count(), 0);
    }

    proptest! {
        #[test]
        fn any_order_of_decoding_gives_the_streams(lengths in proptest::collection::vec(1..50usize, 1..30), shuffle in any::<u64>()) {
            let total: usize = lengths.iter().sum();
            let stream: Bytes = (0..total).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
            let mut order = Reassembly::default();
            let mut blocks = Vec::new();
            let mut at = 0;
            for length in lengths {
                prop_assert!(order.announce(at as u64, length as u64));
                blocks.push((at, stream.slice(at..at + length)));
                at += length;
            }
            let mut seed = shuffle;
            let mut out = Vec::new();
            while !blocks.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = usize::try_from(seed >> 33).unwrap_or(0) % blocks.len();
                let (offset, plain) = blocks.swap_remove(index);
                order.insert(offset as u64, plain);
                while let Some(plain) = order.pop() {
                    out.extend_from_slice(&plain);
                }
            }
            prop_assert_eq!(out, stream);
        }
    }
}
