//! The clear header: what both edges must know of a block before any of its bytes are decoded.

mod first;
mod second;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BLOCK_PLAIN_MAX, BlockError, BlockVersion, HEADER_MAX_BYTES, PREFIX_MAX, Source, Space, Span,
    inner_max_bytes, prefix_fit,
};
use crate::frame::{DomainId, StreamId};
use crate::varint;

/// How a block's body holds its plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// The plain bytes themselves.
    Raw = 0,
    /// Operations and literals, uncompressed.
    Stored = 1,
    /// Operations and literals in a zstd frame.
    Zstd = 2,
    /// The same in one compressed block of zstd, without the frame around it, of which nothing is unknown. Version 2.
    ZstdBlock = 3,
}

impl BodyKind {
    /// Whether zstd made it.
    #[must_use]
    pub const fn is_compressed(self) -> bool {
        matches!(self, Self::Zstd | Self::ZstdBlock)
    }
}

/// What both ends of a tunnel know before a block: a header of version 2 says how far beyond it is, and from the same the receiver reads it.
///
/// They are lower bounds. The sender's may be older than the receiver's, for it learns by an Ack what the receiver has: as long as the block itself has
/// not come, what it says lies at or above both (docs/protocol.md, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// No byte of the stream that is still to come, but those that are repeated after a Refuse, lies below.
    pub stream_offset: u64,
    /// No append range in the sender's history that is still to come lies below.
    pub append_position: u64,
}

/// Plain bytes up to which version 2 takes half of the checksum. What it is to find is a mistake, not an enemy: TLS guards the line, and pages on disk have
/// checksums of their own. One mistake in 2^32 goes unseen, where a message that is 4 bytes shorter is a twentieth smaller.
const SHORT_CHECKSUM_BYTES: usize = 4096;

const fn has_short_checksum(version: BlockVersion, plain_bytes: usize) -> bool {
    matches!(version, BlockVersion::Two) && plain_bytes <= SHORT_CHECKSUM_BYTES
}

/// The clear header of an encoded block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHeader {
    /// How it and the operations are written.
    pub version: BlockVersion,
    /// The stream whose bytes these are.
    pub stream: StreamId,
    /// Where in the stream the plain bytes begin.
    pub stream_offset: u64,
    /// 1 to [`BLOCK_PLAIN_MAX`] plain bytes.
    pub plain_length: u32,
    /// What the body is.
    pub body: BodyKind,
    /// The domain whose histories the block reads and appends to; must be there for `append`, `prefix` and `diagonals`.
    pub domain: Option<DomainId>,
    /// Where in the sender's history the literals (and copies that say so) are appended; 1 to `plain_length` bytes, all of them
    /// for a raw body.
    pub append: Option<Span>,
    /// The range that the zstd frame was made with as its prefix; 1 to [`PREFIX_MAX`] bytes.
    pub prefix: Option<Source>,
    /// For each space (in the order of [`Space::BOTH`]) that copies may read: source minus plain offset of the diagonal they
    /// start from.
    pub diagonals: [Option<i64>; 2],
    /// Bytes of what zstd compressed, 1 to [`inner_max_bytes`]; 0 unless the body is compressed. In version 2 the plain length if nothing is copied.
    pub inner_length: u32,
    /// The number of the refused block whose bytes these are.
    pub replaces: Option<u64>,
    /// See [`BlockHeader::checksum_of`]; only a raw body that is not appended may do without, and in version 2 does.
    pub checksum: Option<u64>,
}

impl BlockHeader {
    /// Appends the header: at most [`HEADER_MAX_BYTES`]. In version 2 it is written against what both ends know.
    ///
    /// The header must satisfy [`BlockHeader::check`], or the other side will end the tunnel; debug builds assert it.
    pub fn encode(&self, known: Known, out: &mut BytesMut) {
        debug_assert_eq!(self.check(), Ok(()));
        let before = out.len();
        match self.version {
            BlockVersion::One => first::encode(self, out),
            BlockVersion::Two => second::encode(self, known, out),
        }
        debug_assert!(out.len() - before <= HEADER_MAX_BYTES);
    }

    /// Reads the header at the start of a block's first fragment and advances `fragment` to the body. `known` says what this end knows of a stream and of the
    /// sender's history in a domain.
    ///
    /// # Errors
    /// Any [`BlockError`]; `fragment` is then somewhere inside the header.
    pub fn decode(
        fragment: &mut Bytes,
        version: BlockVersion,
        known: impl FnOnce(StreamId, Option<DomainId>) -> Known,
    ) -> Result<Self, BlockError> {
        let header = match version {
            BlockVersion::One => first::decode(fragment)?,
            BlockVersion::Two => second::decode(fragment, known)?,
        };
        header.check()?;
        Ok(header)
    }

    /// What stands in a header for the checksum of `plain`: xxh3-64, of which version 2 takes half for a short block.
    #[must_use]
    pub fn checksum_of(version: BlockVersion, plain: &[u8]) -> u64 {
        let whole = xxh3_64(plain);
        if has_short_checksum(version, plain.len()) {
            whole & u64::from(u32::MAX)
        } else {
            whole
        }
    }

    /// Bytes of the checksum at the header's end.
    #[must_use]
    pub const fn checksum_bytes(&self) -> usize {
        if self.checksum.is_none() {
            0
        } else if has_short_checksum(self.version, self.plain_length as usize) {
            4
        } else {
            8
        }
    }

    /// Whether some operation copies.
    #[must_use]
    pub fn copies(&self) -> bool {
        self.diagonals.iter().any(Option::is_some)
    }

    /// Whether the header is one that a correct sender writes: all bounds, and which parts need or exclude one another.
    ///
    /// # Errors
    /// [`BlockError::OutOfBounds`] or [`BlockError::Contradiction`].
    pub fn check(&self) -> Result<(), BlockError> {
        let bound = |holds: bool, field| {
            if holds {
                Ok(())
            } else {
                Err(BlockError::OutOfBounds(field))
            }
        };
        let rule = |holds: bool, rule| {
            if holds {
                Ok(())
            } else {
                Err(BlockError::Contradiction(rule))
            }
        };
        bound(!self.stream.is_tunnel(), "stream")?;
        bound(
            (1..=BLOCK_PLAIN_MAX).contains(&self.plain_length),
            "plain length",
        )?;
        bound(
            self.stream_offset
                .checked_add(u64::from(self.plain_length))
                .is_some(),
            "stream offset",
        )?;
        bound(
            self.domain.is_none_or(|domain| domain <= DomainId::MAX),
            "domain",
        )?;
        let copies = self.copies();
        let two = self.version == BlockVersion::Two;
        let uses_history = self.append.is_some() || self.prefix.is_some() || copies;
        rule(
            self.domain.is_some() || !uses_history,
            "append, prefix and copies need a domain",
        )?;
        if let Some(append) = self.append {
            bound(
                (1..=self.plain_length).contains(&append.length) && append.is_in_bounds(),
                "append range",
            )?;
        }
        if let Some(prefix) = self.prefix {
            rule(self.body.is_compressed(), "a prefix needs a zstd body")?;
            bound(
                (1..=PREFIX_MAX).contains(&prefix.length) && prefix.span().is_in_bounds(),
                "prefix range",
            )?;
            rule(
                !self.appends_to(prefix),
                "a block must not use its own append range",
            )?;
            if two {
                bound(prefix_fit(prefix.length) == prefix.length, "prefix length")?;
                let above = |append: Span| {
                    prefix.space == Space::Sender && prefix.span().end() > append.position
                };
                rule(
                    !self.append.is_some_and(above),
                    "a prefix lies below the append range",
                )?;
            }
        }
        for diagonal in self.diagonals.into_iter().flatten() {
            bound(
                diagonal >= -i64::from(BLOCK_PLAIN_MAX)
                    && diagonal.unsigned_abs() <= super::POSITION_MAX,
                "diagonal",
            )?;
        }
        match self.body {
            BodyKind::Raw => {
                rule(!copies, "a raw body has no copies")?;
                rule(
                    self.append
                        .is_none_or(|append| append.length == self.plain_length),
                    "a raw body appends everything",
                )?;
            }
            BodyKind::Zstd | BodyKind::ZstdBlock => {
                bound(
                    self.inner_length >= 1
                        && u64::from(self.inner_length) <= inner_max_bytes(self.plain_length),
                    "inner length",
                )?;
                bound(
                    !two || copies || self.inner_length == self.plain_length,
                    "inner length",
                )?;
            }
            BodyKind::Stored => {}
        }
        rule(
            two || self.body != BodyKind::ZstdBlock,
            "a body of one zstd block needs version 2",
        )?;
        rule(
            self.body.is_compressed() || self.inner_length == 0,
            "an inner length needs a zstd body",
        )?;
        if let Some(number) = self.replaces {
            bound(number >= 1, "replaced number")?;
            rule(
                !uses_history,
                "a replacement has no append, prefix or copies",
            )?;
        }
        if has_short_checksum(self.version, self.plain_length as usize) {
            bound(
                self.checksum
                    .is_none_or(|checksum| checksum <= u64::from(u32::MAX)),
                "checksum",
            )?;
        }
        let optional = self.body == BodyKind::Raw && self.append.is_none();
        rule(
            !two || !optional || self.checksum.is_none(),
            "a checksum of what needs none",
        )?;
        rule(
            self.checksum.is_some() || optional,
            "the checksum is missing",
        )
    }

    /// Whether `source` reads bytes that the block itself appends.
    #[must_use]
    pub fn appends_to(&self, source: Source) -> bool {
        let overlaps =
            |append: Span| source.position < append.end() && append.position < source.span().end();
        source.space == Space::Sender && self.append.is_some_and(overlaps)
    }
}

fn number(fragment: &mut Bytes, field: &'static str) -> Result<u64, BlockError> {
    varint::take_bytes(fragment).map_err(|error| BlockError::varint(field, error))
}

fn length(fragment: &mut Bytes, field: &'static str) -> Result<u32, BlockError> {
    u32::try_from(number(fragment, field)?).map_err(|_| BlockError::OutOfBounds(field))
}
