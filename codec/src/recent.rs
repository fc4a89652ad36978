//! Where each stream's newest bytes lie in a log: what its next bytes most likely resemble, even where no copy is found.
//!
//! Entries are hints in relaxed atomics, like those of the index: what they lead to is read only where it is covered, and a wrong one costs a few bytes of
//! compression. Streams share a small table; one that meets another's entry has none.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::StreamId;
use crate::policy::MESSAGE_BYTES;

/// Streams whose place is remembered, a log: 2 KiB. Of more than that which are active at once, some compress like new ones.
const SLOTS: usize = 256;

/// Low bits of an entry that hold the position, 256 TiB of log; above them is a part of the stream's id.
const POSITION_BITS: u32 = 48;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// See the module.
pub(crate) struct Recent {
    slots: Box<[AtomicU64; SLOTS]>,
    /// Behind the newest short append of any stream; 0: none.
    short: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            slots: Box::new([const { AtomicU64::new(0) }; SLOTS]),
            short: AtomicU64::new(0),
        }
    }
}

impl Recent {
    /// An append of `length` bytes of `stream` was laid down and ends at `end`. A short one is taken for a message: a new stream's first one likely resembles the last
    /// one of another.
    pub fn note(&self, stream: StreamId, end: u64, length: u32) {
        if length as usize <= MESSAGE_BYTES {
            self.short.store(end, Ordering::Relaxed);
        }
        if let (Some(slot), Some(entry)) = (self.slot(stream), entry(stream, end)) {
            slot.store(entry, Ordering::Relaxed);
        }
    }

    /// Behind the newest append of `stream`, as far as is remembered.
    pub fn of(&self, stream: StreamId) -> Option<u64> {
        let found = self.slot(stream)?.load(Ordering::Relaxed);
        let position = found & POSITION_MASK;
        (position > 0 && entry(stream, position) == Some(found)).then_some(position)
    }

    /// Behind the newest short append of any stream.
    pub fn short(&self) -> Option<u64> {
        Some(self.short.load(Ordering::Relaxed)).filter(|position| *position > 0)
    }

    fn slot(&self, stream: StreamId) -> Option<&AtomicU64> {
        self.slots
            .get(usize::try_from(stream.0 % SLOTS as u64).ok()?)
    }
}

fn entry(stream: StreamId, position: u64) -> Option<u64> {
    let tag = (stream.0 / SLOTS as u64) << POSITION_BITS;
    (position <= POSITION_MASK).then_some(tag | position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_finds_its_own_place_and_no_others() {
        let recent = Recent::default();
        assert_eq!((recent.of(StreamId(1)), recent.short()), (None, None));
        recent.note(StreamId(1), 5000, 5000);
        recent.note(StreamId(2), 5100, 100);
        assert_eq!(recent.of(StreamId(1)), Some(5000));
        assert_eq!(recent.of(StreamId(2)), Some(5100));
        assert_eq!(recent.short(), Some(5100));
        let other = StreamId(1 + SLOTS as u64);
        assert_eq!(recent.of(other), None, "the same slot, another stream");
        recent.note(other, 9000, 9000);
        assert_eq!(
            (recent.of(StreamId(1)), recent.of(other)),
            (None, Some(9000))
        );
    }

    #[test]
    fn a_position_that_does_not_fit_is_not_kept() {
        let recent = Recent::default();
        recent.note(StreamId(1), 1 << POSITION_BITS, 9000);
        assert_eq!(recent.of(StreamId(1)), None);
    }
}
