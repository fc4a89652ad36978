//! What the encoder makes of a block.

use bytes::{Bytes, BytesMut};

use super::{Append, Continuation};
use crate::block::{BlockHeader, BodyKind, HEADER_MAX_BYTES, Known, Span};
use crate::domain::Log;
use crate::policy::{BULK_BLOCK_BYTES, COPIED_BLOCK_BYTES, Habit, NEARLY_ALL};

/// The lowest position of each log that a block refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    /// Of this side's own history.
    pub own: Option<u64>,
    /// Of the mirror.
    pub mirror: Option<u64>,
}

/// How a block's plain bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Plain bytes that are copies.
    pub copied_bytes: u32,
    /// Plain bytes that are literals in a compressed body.
    pub compressed_bytes: u32,
    /// Plain bytes that travel as they are.
    pub raw_bytes: u32,
}

impl Tally {
    /// All plain bytes of the block.
    #[must_use]
    pub const fn plain_bytes(&self) -> u64 {
        self.copied_bytes as u64 + self.compressed_bytes as u64 + self.raw_bytes as u64
    }

    /// How long the next block of a stream in bulk should be.
    #[must_use]
    pub const fn bulk_block_bytes(&self) -> u64 {
        let plain_bytes = self.plain_bytes();
        if (plain_bytes - self.copied_bytes as u64) * NEARLY_ALL <= plain_bytes {
            COPIED_BLOCK_BYTES
        } else {
            BULK_BLOCK_BYTES
        }
    }
}

/// A block, ready to go.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub(super) header: BlockHeader,
    pub(super) checksum: u64,
    pub(super) body: Bytes,
    pub(super) append: Option<Append>,
    /// For the next block of the stream.
    pub continuation: Option<Continuation>,
    /// For the next block of the stream.
    pub habit: Habit,
    /// What must not be dropped while the block is unacknowledged.
    pub uses: Uses,
    /// For the metrics.
    pub tally: Tally,
}

impl Encoded {
    /// How many positions to reserve for it; 0 if it is not to be appended.
    #[must_use]
    pub fn append_length(&self) -> u32 {
        self.append.as_ref().map_or(0, Append::length)
    }

    /// The most bytes that the block takes on the wire, without the frames around its fragments.
    #[must_use]
    pub fn encoded_bytes_bound(&self) -> usize {
        HEADER_MAX_BYTES + self.body.len()
    }

    /// The header and body to send, the block being appended at `append_position`; with `None` it is not appended, even if that was planned. `known` is what
    /// the receiver certainly knows.
    pub fn wire(&mut self, append_position: Option<u64>, known: Known) -> (Bytes, Bytes) {
        let length = self.append_length();
        self.header.append = append_position
            .filter(|_| length > 0)
            .map(|position| Span { position, length });
        let is_plain = self.header.body == BodyKind::Raw && self.header.append.is_none();
        self.header.checksum = (!is_plain).then_some(self.checksum);
        let mut bytes = BytesMut::with_capacity(HEADER_MAX_BYTES);
        self.header.encode(known, &mut bytes);
        (bytes.freeze(), self.body.clone())
    }

    /// What to commit once the last fragment was handed to a link. `None` if nothing is appended, or if it was taken before.
    pub fn take_append(&mut self) -> Option<Append> {
        self.append.take()
    }

    /// The header as it was last sent.
    #[must_use]
    pub const fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

impl Uses {
    pub(super) fn add(&mut self, log: Log, position: u64) {
        let lowest = match log {
            Log::Own => &mut self.own,
            Log::Mirror => &mut self.mirror,
        };
        *lowest = Some(lowest.map_or(position, |lowest| lowest.min(position)));
    }
}
