//! Encoded blocks: the clear header and the operations inside (docs/protocol.md, section 3).

mod error;
mod header;
pub mod ops;

pub use error::BlockError;
pub use header::{BlockHeader, BodyKind, Known};
pub use ops::Op;

use std::ops::Range;

/// Plain bytes of a block: enough for zstd to see context, little enough that its job lasts a few milliseconds.
pub const BLOCK_PLAIN_MAX: u32 = 262_144;
/// Bytes of the range that a block's zstd frame may use as its prefix: the window it is allowed.
pub const PREFIX_MAX: u32 = 262_144;
/// Bytes of the clear header: all of its fields at their longest fit, and the smallest fragment (4 KiB) holds it whole.
pub const HEADER_MAX_BYTES: usize = 128;
/// Bytes of the shortest copy: below it an operation hardly pays for itself.
pub const COPY_MIN: u32 = 32;
/// The end of all positions in a log: differences of two positions, and sums of such with a plain offset, fit an `i64`. At 10 GB/s
/// a log reaches it after 14 years.
pub const POSITION_MAX: u64 = 1 << 62;

/// Bytes of the inner part of a block of `plain_length` bytes: operations never need more than the plain bytes themselves do.
#[must_use]
pub const fn inner_max_bytes(plain_length: u32) -> u64 {
    2 * plain_length as u64 + 64
}

/// How blocks are written: the wire version that both edges speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockVersion {
    /// Every field in full.
    One,
    /// Headers leave out what both ends know; an operation may go on where one of the last two copies did.
    Two,
}

impl BlockVersion {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// That of a wire version; the newest for one that is not known yet.
    #[must_use]
    pub const fn of_wire(version: u64) -> Self {
        match version {
            0 | 1 => Self::One,
            _ => Self::Two,
        }
    }
}

/// The longest that a prefix of at most `length` bytes may be in version 2, where one byte says it: in eight steps to each doubling, from 8 bytes on.
/// 0 if that is too short.
#[must_use]
pub const fn prefix_fit(length: u32) -> u32 {
    match length.checked_ilog2() {
        Some(log @ 3..) => length >> (log - 3) << (log - 3),
        _ => 0,
    }
}

/// Whose history a copy reads, seen from the block: the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The history of the block's sender (0 on the wire).
    Sender = 0,
    /// The history of the block's receiver, i.e. what came the other way (1 on the wire).
    Receiver = 1,
}

impl Space {
    /// Both spaces, in the order of their codes.
    pub const BOTH: [Self; 2] = [Self::Sender, Self::Receiver];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The space with this number; none for an unknown one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Sender),
            1 => Some(Self::Receiver),
            _ => None,
        }
    }

    /// The other space.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }

    /// This space's entry of a pair in the order of [`Space::BOTH`].
    #[must_use]
    pub const fn of<T: Copy>(self, pair: [T; 2]) -> T {
        let [sender, receiver] = pair;
        match self {
            Self::Sender => sender,
            Self::Receiver => receiver,
        }
    }

    /// As [`Space::of`], to write to.
    pub const fn of_mut<T>(self, pair: &mut [T; 2]) -> &mut T {
        let [sender, receiver] = pair;
        match self {
            Self::Sender => sender,
            Self::Receiver => receiver,
        }
    }
}

/// A range of one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Its first position, in bytes from the log's beginning.
    pub position: u64,
    /// Its length in bytes.
    pub length: u32,
}

impl Span {
    /// The position behind the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.position.saturating_add(self.length as u64)
    }

    /// The positions.
    #[must_use]
    pub const fn range(self) -> Range<u64> {
        self.position..self.end()
    }

    /// Whether it ends at [`POSITION_MAX`] or below.
    #[must_use]
    pub const fn is_in_bounds(self) -> bool {
        self.end() <= POSITION_MAX
    }
}

/// A range of one of the two histories that a block may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// Whose history.
    pub space: Space,
    /// Its first position, in bytes from the log's beginning.
    pub position: u64,
    /// Its length in bytes.
    pub length: u32,
}

impl Source {
    /// The range without its space.
    #[must_use]
    pub const fn span(self) -> Span {
        Span {
            position: self.position,
            length: self.length,
        }
    }
}
