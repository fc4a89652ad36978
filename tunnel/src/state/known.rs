//! What both ends know of where blocks lie: headers of version 2 are written and read against it.
//!
//! Each direction has a frontier, the lowest number that its receiver has not finished. Of blocks below it both ends know where they ended, in their
//! stream and in the history. The sender learns the frontier by Acks, so its own lies at or below the receiver's; and a block that has not come has a number
//! at or above both. Stream offsets and append positions rise with the numbers (replacements apart, which say their place in full), so whichever bound the
//! sender had, the block lies at or above the one that the receiver has now: over several links, and again after a resume.

use std::collections::{BTreeMap, HashMap};

use codec::block::{BlockHeader, Known};
use codec::frame::{DomainId, StreamId};

/// Where a block ends.
#[derive(Debug, Clone, Copy)]
struct End {
    stream: StreamId,
    offset: u64,
    append: Option<(DomainId, u64)>,
}

/// One direction's blocks. There are at most as many above the frontier as a window has numbers.
#[derive(Debug, Default)]
pub(super) struct KnownEnds {
    above: BTreeMap<u64, End>,
    streams: HashMap<StreamId, u64>,
    domains: HashMap<DomainId, u64>,
}

impl KnownEnds {
    /// The block `number` was begun by its sender, or its header has come.
    pub(super) fn begin(&mut self, number: u64, header: &BlockHeader) {
        let end = End {
            stream: header.stream,
            offset: header
                .stream_offset
                .saturating_add(header.plain_length.into()),
            append: header
                .domain
                .zip(header.append)
                .map(|(domain, append)| (domain, append.end())),
        };
        self.above.insert(number, end);
    }

    /// All numbers below `frontier` are finished. Of streams that are over nothing is remembered.
    pub(super) fn advance(&mut self, frontier: u64, is_open: impl Fn(StreamId) -> bool) {
        while let Some(entry) = self
            .above
            .first_entry()
            .filter(|entry| *entry.key() < frontier)
        {
            let end = entry.remove();
            if is_open(end.stream) {
                raise(&mut self.streams, end.stream, end.offset);
            }
            if let Some((domain, position)) = end.append {
                raise(&mut self.domains, domain, position);
            }
        }
    }

    /// The stream is over.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// What is known before a block of `stream` that uses `domain`.
    pub(super) fn of(&self, stream: StreamId, domain: Option<DomainId>) -> Known {
        Known {
            stream_offset: self.streams.get(&stream).copied().unwrap_or_default(),
            append_position: domain
                .and_then(|domain| self.domains.get(&domain).copied())
                .unwrap_or_default(),
        }
    }
}

/// A replacement ends below what came after the block that it replaces.
fn raise<K: Eq + std::hash::Hash>(ends: &mut HashMap<K, u64>, key: K, end: u64) {
    let known = ends.entry(key).or_default();
    *known = end.max(*known);
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::block::{BlockVersion, BodyKind, Span};

    fn block(stream: u64, stream_offset: u64, position: u64) -> BlockHeader {
        BlockHeader {
            version: BlockVersion::Two,
            stream: StreamId(stream),
            stream_offset,
            plain_length: 10,
            body: BodyKind::Raw,
            domain: Some(DomainId::SHARED),
            append: Some(Span {
                position,
                length: 10,
            }),
            prefix: None,
            diagonals: [None; 2],
            inner_length: 0,
            replaces: None,
            checksum: Some(0),
        }
    }

    fn known(ends: &KnownEnds, stream: u64) -> (u64, u64) {
        let known = ends.of(StreamId(stream), Some(DomainId::SHARED));
        (known.stream_offset, known.append_position)
    }

    #[test]
    fn only_what_lies_below_the_frontier_counts() {
        let mut ends = KnownEnds::default();
        // Over two links the later ones came first.
        for (number, stream, offset, position) in [(3, 1, 20, 120), (1, 1, 0, 100), (4, 3, 0, 130)]
        {
            ends.begin(number, &block(stream, offset, position));
        }
        assert_eq!(known(&ends, 1), (0, 0));
        ends.advance(2, |_| true);
        assert_eq!(known(&ends, 1), (10, 110));
        ends.begin(2, &block(1, 10, 110));
        ends.advance(5, |_| true);
        assert_eq!((known(&ends, 1), known(&ends, 3)), ((30, 140), (10, 140)));
        assert_eq!(ends.of(StreamId(1), None).append_position, 0);
        assert!(ends.above.is_empty());
    }

    #[test]
    fn a_replacement_takes_nothing_back_and_a_stream_that_is_over_leaves_nothing() {
        let mut ends = KnownEnds::default();
        ends.begin(1, &block(1, 0, 100));
        ends.begin(2, &block(1, 10, 110));
        let replacement = BlockHeader {
            append: None,
            replaces: Some(1),
            ..block(1, 0, 0)
        };
        ends.begin(3, &replacement);
        ends.begin(4, &block(3, 0, 120));
        ends.advance(5, |stream| stream == StreamId(1));
        assert_eq!((known(&ends, 1), known(&ends, 3)), ((20, 130), (0, 130)));
        ends.forget(StreamId(1));
        assert!(ends.streams.is_empty());
    }
}
