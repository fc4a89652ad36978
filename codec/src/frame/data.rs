//! Data: a fragment of an encoded block.

use bytes::{BufMut, Bytes, BytesMut};

use super::payload::{PayloadReader, require};
use super::{FieldProblem, FrameError, FrameKind};
use crate::block::{BLOCK_PLAIN_MAX, HEADER_MAX_BYTES, inner_max_bytes};
use crate::varint::{self, VARINT_MAX_BYTES};

/// Bytes of a fragment's body: large enough that the 8 to 16 bytes before it stay below 0.1 %.
pub const FRAGMENT_MAX: usize = 65_536;

/// Bytes of the longest encoded block: the clear header and the longest inner part that a header may announce.
pub const BLOCK_ENCODED_MAX: u64 = HEADER_MAX_BYTES as u64 + inner_max_bytes(BLOCK_PLAIN_MAX);

/// Bytes before a fragment's body at most: type, length, number, offset.
const DATA_HEADER_MAX_BYTES: usize = 1 + 3 * VARINT_MAX_BYTES;

/// A fragment of an encoded block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The block's number, from 1; all its fragments carry it.
    pub number: u64,
    /// Where the fragment begins in the encoded block, in bytes.
    pub offset: u64,
    /// Whether the encoded block ends with this fragment.
    pub last: bool,
    /// 1 to [`FRAGMENT_MAX`] bytes of the encoded block.
    pub bytes: Bytes,
}

impl Data {
    const fn kind(&self) -> FrameKind {
        if self.last {
            FrameKind::DataLast
        } else {
            FrameKind::Data
        }
    }

    pub(super) fn read(last: bool, mut payload: PayloadReader) -> Result<Self, FrameError> {
        let number = payload.positive("number")?;
        let offset = payload.varint("offset")?;
        let data = Self {
            number,
            offset,
            last,
            bytes: payload.rest(),
        };
        data.check()?;
        Ok(data)
    }

    /// The frame up to its body; the body follows it on the link.
    pub(super) fn header(&self) -> Result<Bytes, FrameError> {
        self.check()?;
        Ok(data_header(
            self.number,
            self.offset,
            self.last,
            self.bytes.len(),
        ))
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = self.kind();
        require(self.number >= 1, kind, "number", FieldProblem::OutOfBounds)?;
        require(!self.bytes.is_empty(), kind, "bytes", FieldProblem::Missing)?;
        require(
            self.bytes.len() <= FRAGMENT_MAX,
            kind,
            "bytes",
            FieldProblem::OutOfBounds,
        )?;
        let end = self.offset.checked_add(self.bytes.len() as u64);
        require(
            end.is_some_and(|end| end <= BLOCK_ENCODED_MAX),
            kind,
            "offset",
            FieldProblem::OutOfBounds,
        )
    }
}

/// What stands before the body of a Data frame on the link, so that the body goes out without being copied.
///
/// `number` is the block's, from 1; `offset` and `body_bytes` say which part of the encoded block the fragment is, and `last` that
/// the block ends with it; `body_bytes` is 1 to [`FRAGMENT_MAX`], and the fragment ends at [`BLOCK_ENCODED_MAX`] at most.
#[must_use]
pub fn data_header(number: u64, offset: u64, last: bool, body_bytes: usize) -> Bytes {
    debug_assert!(number >= 1 && (1..=FRAGMENT_MAX).contains(&body_bytes));
    let kind = if last {
        FrameKind::DataLast
    } else {
        FrameKind::Data
    };
    let mut out = BytesMut::with_capacity(DATA_HEADER_MAX_BYTES);
    out.put_u8(kind.code());
    let payload_bytes = varint::encoded_bytes(number) + varint::encoded_bytes(offset) + body_bytes;
    varint::put(&mut out, payload_bytes as u64);
    varint::put(&mut out, number);
    varint::put(&mut out, offset);
    out.freeze()
}
