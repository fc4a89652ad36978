//! The clear header: what both edges must know of a block before any of its bytes are decoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    BLOCK_PLAIN_MAX, BlockError, HEADER_MAX_BYTES, PREFIX_MAX, Source, Space, Span, inner_max_bytes,
};
use crate::frame::{DomainId, StreamId};
use crate::varint;

const BODY_BITS: u64 = 0b11;
const HAS_DOMAIN: u64 = 1 << 2;
const HAS_APPEND: u64 = 1 << 3;
const HAS_PREFIX: u64 = 1 << 4;
const HAS_DIAGONAL: [u64; 2] = [1 << 5, 1 << 6];
const HAS_CHECKSUM: u64 = 1 << 7;
const HAS_REPLACES: u64 = 1 << 8;
const KNOWN: u64 = (1 << 9) - 1;

/// How a block's body holds its plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// The plain bytes themselves.
    Raw = 0,
    /// Operations and literals, uncompressed.
    Stored = 1,
    /// Operations and literals in a zstd frame.
    Zstd = 2,
}

/// The clear header of an encoded block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHeader {
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
    /// Bytes of the zstd frame's content, 1 to [`inner_max_bytes`]; 0 unless the body is zstd.
    pub inner_length: u32,
    /// The number of the refused block whose bytes these are.
    pub replaces: Option<u64>,
    /// xxh3-64 of the plain bytes; only a raw body that is not appended may do without.
    pub checksum: Option<u64>,
}

impl BlockHeader {
    /// Appends the header: at most [`HEADER_MAX_BYTES`].
    ///
    /// The header must satisfy [`BlockHeader::check`], or the other side will end the tunnel; debug builds assert it.
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert_eq!(self.check(), Ok(()));
        let before = out.len();
        let [sender, receiver] = HAS_DIAGONAL;
        let flag = |bit: u64, present: bool| if present { bit } else { 0 };
        let flags = self.body as u64
            | flag(HAS_DOMAIN, self.domain.is_some())
            | flag(HAS_APPEND, self.append.is_some())
            | flag(HAS_PREFIX, self.prefix.is_some())
            | flag(sender, Space::Sender.of(self.diagonals).is_some())
            | flag(receiver, Space::Receiver.of(self.diagonals).is_some())
            | flag(HAS_CHECKSUM, self.checksum.is_some())
            | flag(HAS_REPLACES, self.replaces.is_some());
        varint::put(out, flags);
        varint::put(out, self.stream.0);
        varint::put(out, self.stream_offset);
        varint::put(out, u64::from(self.plain_length));
        if let Some(domain) = self.domain {
            varint::put(out, domain.0);
        }
        if let Some(append) = self.append {
            varint::put(out, append.position);
            varint::put(out, u64::from(append.length));
        }
        if let Some(prefix) = self.prefix {
            out.put_u8(prefix.space.code());
            varint::put(out, prefix.position);
            varint::put(out, u64::from(prefix.length));
        }
        for diagonal in self.diagonals.into_iter().flatten() {
            varint::put_signed(out, diagonal);
        }
        if self.body == BodyKind::Zstd {
            varint::put(out, u64::from(self.inner_length));
        }
        if let Some(number) = self.replaces {
            varint::put(out, number);
        }
        if let Some(checksum) = self.checksum {
            out.put_u64_le(checksum);
        }
        debug_assert!(out.len() - before <= HEADER_MAX_BYTES);
    }

    /// Reads the header at the start of a block's first fragment and advances `fragment` to the body.
    ///
    /// # Errors
    /// Any [`BlockError`]; `fragment` is then somewhere inside the header.
    pub fn decode(fragment: &mut Bytes) -> Result<Self, BlockError> {
        let flags = number(fragment, "flags")?;
        let body = match flags & BODY_BITS {
            0 => BodyKind::Raw,
            1 => BodyKind::Stored,
            2 => BodyKind::Zstd,
            _ => return Err(BlockError::UnknownFlags(flags)),
        };
        if flags & !KNOWN != 0 {
            return Err(BlockError::UnknownFlags(flags));
        }
        let has = |bit: u64| flags & bit != 0;
        let stream = StreamId(number(fragment, "stream")?);
        let stream_offset = number(fragment, "stream offset")?;
        let plain_length = length(fragment, "plain length")?;
        let domain = if has(HAS_DOMAIN) {
            Some(DomainId(number(fragment, "domain")?))
        } else {
            None
        };
        let append = if has(HAS_APPEND) {
            Some(Span {
                position: number(fragment, "append position")?,
                length: length(fragment, "append length")?,
            })
        } else {
            None
        };
        let prefix = if has(HAS_PREFIX) {
            let code = fragment
                .try_get_u8()
                .map_err(|_| BlockError::CutShort("prefix space"))?;
            let space = Space::from_code(code).ok_or(BlockError::OutOfBounds("prefix space"))?;
            Some(Source {
                space,
                position: number(fragment, "prefix position")?,
                length: length(fragment, "prefix length")?,
            })
        } else {
            None
        };
        let mut diagonals = [None; 2];
        for (diagonal, bit) in diagonals.iter_mut().zip(HAS_DIAGONAL) {
            if has(bit) {
                *diagonal = Some(varint::unzigzag(number(fragment, "diagonal")?));
            }
        }
        let inner_length = if body == BodyKind::Zstd {
            length(fragment, "inner length")?
        } else {
            0
        };
        let replaces = if has(HAS_REPLACES) {
            Some(number(fragment, "replaced number")?)
        } else {
            None
        };
        let checksum = if has(HAS_CHECKSUM) {
            Some(
                fragment
                    .try_get_u64_le()
                    .map_err(|_| BlockError::CutShort("checksum"))?,
            )
        } else {
            None
        };
        let header = Self {
            stream,
            stream_offset,
            plain_length,
            body,
            domain,
            append,
            prefix,
            diagonals,
            inner_length,
            replaces,
            checksum,
        };
        header.check()?;
        Ok(header)
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
        let copies = self.diagonals.iter().any(Option::is_some);
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
            rule(self.body == BodyKind::Zstd, "a prefix needs a zstd body")?;
            bound(
                (1..=PREFIX_MAX).contains(&prefix.length) && prefix.span().is_in_bounds(),
                "prefix range",
            )?;
            rule(
                !self.appends_to(prefix),
                "a block must not use its own append range",
            )?;
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
            BodyKind::Zstd => {
                bound(
                    self.inner_length >= 1
                        && u64::from(self.inner_length) <= inner_max_bytes(self.plain_length),
                    "inner length",
                )?;
            }
            BodyKind::Stored => {}
        }
        rule(
            self.body == BodyKind::Zstd || self.inner_length == 0,
            "an inner length needs a zstd body",
        )?;
        if let Some(number) = self.replaces {
            bound(number >= 1, "replaced number")?;
            rule(
                !uses_history,
                "a replacement has no append, prefix or copies",
            )?;
        }
        let optional = self.body == BodyKind::Raw && self.append.is_none();
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
