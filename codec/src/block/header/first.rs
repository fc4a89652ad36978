//! The clear header of version 1: every field in full.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BlockHeader, BodyKind, length, number};
use crate::block::{BlockError, BlockVersion, Source, Space, Span};
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

pub(super) fn encode(header: &BlockHeader, out: &mut BytesMut) {
    let [sender, receiver] = HAS_DIAGONAL;
    let flag = |bit: u64, present: bool| if present { bit } else { 0 };
    let flags = header.body as u64
        | flag(HAS_DOMAIN, header.domain.is_some())
        | flag(HAS_APPEND, header.append.is_some())
        | flag(HAS_PREFIX, header.prefix.is_some())
        | flag(sender, Space::Sender.of(header.diagonals).is_some())
        | flag(receiver, Space::Receiver.of(header.diagonals).is_some())
        | flag(HAS_CHECKSUM, header.checksum.is_some())
        | flag(HAS_REPLACES, header.replaces.is_some());
    varint::put(out, flags);
    varint::put(out, header.stream.0);
    varint::put(out, header.stream_offset);
    varint::put(out, u64::from(header.plain_length));
    if let Some(domain) = header.domain {
        varint::put(out, domain.0);
    }
    if let Some(append) = header.append {
        varint::put(out, append.position);
        varint::put(out, u64::from(append.length));
    }
    if let Some(prefix) = header.prefix {
        out.put_u8(prefix.space.code());
        varint::put(out, prefix.position);
        varint::put(out, u64::from(prefix.length));
    }
    for diagonal in header.diagonals.into_iter().flatten() {
        varint::put_signed(out, diagonal);
    }
    if header.body == BodyKind::Zstd {
        varint::put(out, u64::from(header.inner_length));
    }
    if let Some(number) = header.replaces {
        varint::put(out, number);
    }
    if let Some(checksum) = header.checksum {
        out.put_u64_le(checksum);
    }
}

pub(super) fn decode(fragment: &mut Bytes) -> Result<BlockHeader, BlockError> {
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
    Ok(BlockHeader {
        version: BlockVersion::One,
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
    })
}
