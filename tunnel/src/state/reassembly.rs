//! The receiving direction's order: decoded blocks come in any order and leave in the stream's.

use std::collections::BTreeMap;

use bytes::Bytes;
use codec::ranges::RangeSet;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// Behind the last byte given out.
    given: u64,
    /// What blocks have announced, decoded or not; above `given` only.
    announced: RangeSet,
    decoded: BTreeMap<u64, Bytes>,
}

impl Reassembly {
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
        self.decoded.insert(offset, plain);
    }

    /// The next bytes in order, if they are there.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let entry = self.decoded.first_entry()?;
        if *entry.key() != self.given {
            return None;
        }
        let plain = entry.remove();
        self.given += plain.len() as u64;
        self.announced.remove(0..self.given);
        Some(plain)
    }

    /// Forgets what is held; nothing more will be given out.
    pub(super) fn clear(&mut self) {
        self.decoded.clear();
        self.announced.clear();
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
