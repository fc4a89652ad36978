//! The clear header of version 2: what both ends know is left out.
//!
//! A message of a hundred bytes has a header of ten: its place in the stream and in the history are those that both expect, its prefix ends where it is
//! appended, and all of it is.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BlockHeader, BodyKind, Known, has_short_checksum, length, number};
use crate::block::{BlockError, BlockVersion, Source, Space, Span};
use crate::frame::{DomainId, StreamId};
use crate::varint;

const BODY_BITS: u64 = 0b11;
/// All plain bytes are appended.
const APPENDS_ALL: u64 = 1 << 2;
const HAS_PREFIX: u64 = 1 << 3;
/// The stream offset or the append position is not what is known: a byte says how many bytes of each follow.
const HAS_PLACES: u64 = 1 << 4;
const HAS_DIAGONAL: [u64; 2] = [1 << 5, 1 << 6];
/// Some of the plain bytes are appended: their number follows.
const APPENDS_SOME: u64 = 1 << 7;
/// The domain is not the shared one.
const HAS_DOMAIN: u64 = 1 << 8;
const HAS_REPLACES: u64 = 1 << 9;
const FLAGS: u64 = (1 << 10) - 1;

/// Bytes of a place that is written in full.
const WHOLE_BYTES: u8 = 8;

pub(super) fn encode(header: &BlockHeader, known: Known, out: &mut BytesMut) {
    let appends_all = header
        .append
        .is_some_and(|append| append.length == header.plain_length);
    // Of a block that uses no history it says nothing which one that would be.
    let domain = header.domain.filter(|_| uses_history(header));
    let other_domain = domain.filter(|domain| *domain != DomainId::SHARED);
    // What is repeated after a Refuse may lie below what the receiver knows by now, whatever the sender knows.
    let offset_bytes = if header.replaces.is_some() {
        WHOLE_BYTES
    } else {
        bytes_beyond(header.stream_offset, known.stream_offset)
    };
    let position_bytes = header.append.map_or(0, |append| {
        bytes_beyond(append.position, known.append_position)
    });
    let flag = |bit: u64, present: bool| if present { bit } else { 0 };
    let [sender, receiver] = HAS_DIAGONAL;
    let flags = header.body as u64
        | flag(APPENDS_ALL, appends_all)
        | flag(HAS_PREFIX, header.prefix.is_some())
        | flag(HAS_PLACES, offset_bytes | position_bytes != 0)
        | flag(sender, Space::Sender.of(header.diagonals).is_some())
        | flag(receiver, Space::Receiver.of(header.diagonals).is_some())
        | flag(APPENDS_SOME, header.append.is_some() && !appends_all)
        | flag(HAS_DOMAIN, other_domain.is_some())
        | flag(HAS_REPLACES, header.replaces.is_some());
    varint::put(out, flags);
    varint::put(out, header.stream.0);
    if let Some(domain) = other_domain {
        varint::put(out, domain.0);
    }
    if flags & HAS_PLACES != 0 {
        out.put_u8(offset_bytes | position_bytes << 4);
        out.put_uint_le(low(header.stream_offset, offset_bytes), offset_bytes.into());
        if let Some(append) = header.append {
            out.put_uint_le(low(append.position, position_bytes), position_bytes.into());
        }
    }
    varint::put(out, u64::from(header.plain_length));
    if let Some(append) = header.append.filter(|_| !appends_all) {
        varint::put(out, u64::from(append.length));
    }
    if let Some(prefix) = header.prefix {
        let place = match header.append {
            Some(append) if prefix.space == Space::Sender => {
                append.position.saturating_sub(prefix.span().end())
            }
            _ => prefix.position,
        };
        varint::put(out, place << 1 | u64::from(prefix.space.code()));
        out.put_u8(length_code(prefix.length));
    }
    for diagonal in header.diagonals.into_iter().flatten() {
        varint::put_signed(out, diagonal);
    }
    if header.body.is_compressed() && header.copies() {
        varint::put(out, u64::from(header.inner_length));
    }
    if let Some(number) = header.replaces {
        varint::put(out, number);
    }
    if let Some(checksum) = header.checksum {
        let bytes = checksum_bytes(header.plain_length);
        out.put_uint_le(low(checksum, bytes), bytes.into());
    }
}

pub(super) fn decode(
    fragment: &mut Bytes,
    known: impl FnOnce(StreamId, Option<DomainId>) -> Known,
) -> Result<BlockHeader, BlockError> {
    let flags = number(fragment, "flags")?;
    if flags & !FLAGS != 0 {
        return Err(BlockError::UnknownFlags(flags));
    }
    let has = |bit: u64| flags & bit != 0;
    let body = match flags & BODY_BITS {
        0 => BodyKind::Raw,
        1 => BodyKind::Stored,
        2 => BodyKind::Zstd,
        _ => BodyKind::ZstdBlock,
    };
    if has(APPENDS_ALL) && has(APPENDS_SOME) {
        return Err(BlockError::Contradiction("all is appended, and some"));
    }
    let appends = has(APPENDS_ALL) || has(APPENDS_SOME);
    let copies = HAS_DIAGONAL.into_iter().any(has);
    let stream = StreamId(number(fragment, "stream")?);
    let domain = if has(HAS_DOMAIN) {
        let domain = DomainId(number(fragment, "domain")?);
        if domain == DomainId::SHARED {
            return Err(BlockError::OutOfBounds("domain"));
        }
        Some(domain)
    } else {
        None
    };
    let uses_history = appends || copies || has(HAS_PREFIX);
    if domain.is_some() && !uses_history {
        return Err(BlockError::Contradiction("a domain that is not used"));
    }
    let domain = domain.or_else(|| uses_history.then_some(DomainId::SHARED));

    let known = known(stream, domain);
    let counts = if has(HAS_PLACES) {
        let counts = fixed(fragment, 1, "counts of bytes")?;
        if counts == 0 {
            return Err(BlockError::OutOfBounds("counts of bytes"));
        }
        counts
    } else {
        0
    };
    let (offset_bytes, position_bytes) = (counts & 0xf, counts >> 4);
    if has(HAS_REPLACES) && offset_bytes != u64::from(WHOLE_BYTES) {
        return Err(BlockError::Contradiction(
            "a replacement whose offset is not whole",
        ));
    }
    let stream_offset = place(fragment, offset_bytes, known.stream_offset, "stream offset")?;
    let append_position = if appends {
        place(
            fragment,
            position_bytes,
            known.append_position,
            "append position",
        )?
    } else if position_bytes != 0 {
        return Err(BlockError::Contradiction("a position without an append"));
    } else {
        0
    };
    let plain_length = length(fragment, "plain length")?;
    let append = if has(APPENDS_SOME) {
        let appended = length(fragment, "append length")?;
        if appended == plain_length {
            return Err(BlockError::OutOfBounds("append range"));
        }
        Some(appended)
    } else {
        has(APPENDS_ALL).then_some(plain_length)
    };
    let append = append.map(|length| Span {
        position: append_position,
        length,
    });
    let prefix = if has(HAS_PREFIX) {
        Some(prefix(fragment, append)?)
    } else {
        None
    };
    let mut diagonals = [None; 2];
    for (diagonal, bit) in diagonals.iter_mut().zip(HAS_DIAGONAL) {
        if has(bit) {
            *diagonal = Some(varint::unzigzag(number(fragment, "diagonal")?));
        }
    }
    let inner_length = match (body.is_compressed(), copies) {
        (true, true) => length(fragment, "inner length")?,
        (true, false) => plain_length,
        (false, _) => 0,
    };
    let replaces = if has(HAS_REPLACES) {
        Some(number(fragment, "replaced number")?)
    } else {
        None
    };
    let checksum = if body == BodyKind::Raw && append.is_none() {
        None
    } else {
        let bytes = checksum_bytes(plain_length);
        Some(fixed(fragment, bytes.into(), "checksum")?)
    };
    Ok(BlockHeader {
        version: BlockVersion::Two,
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

fn prefix(fragment: &mut Bytes, append: Option<Span>) -> Result<Source, BlockError> {
    const BOUNDS: BlockError = BlockError::OutOfBounds("prefix range");
    let code = number(fragment, "prefix position")?;
    let space = if code & 1 == 0 {
        Space::Sender
    } else {
        Space::Receiver
    };
    let bytes = fixed(fragment, 1, "prefix length")?;
    let length = u32::try_from(bytes)
        .ok()
        .and_then(length_of_code)
        .ok_or(BOUNDS)?;
    let position = match append {
        Some(append) if space == Space::Sender => append
            .position
            .checked_sub(code >> 1)
            .and_then(|end| end.checked_sub(length.into()))
            .ok_or(BOUNDS)?,
        _ => code >> 1,
    };
    Ok(Source {
        space,
        position,
        length,
    })
}

const fn uses_history(header: &BlockHeader) -> bool {
    header.append.is_some() || header.prefix.is_some() || {
        let [sender, receiver] = header.diagonals;
        sender.is_some() || receiver.is_some()
    }
}

/// How many low bytes of `value` tell it from all others at or above `known`.
fn bytes_beyond(value: u64, known: u64) -> u8 {
    match value.checked_sub(known) {
        Some(beyond) => beyond
            .checked_ilog2()
            .map_or(0, |log| u8::try_from(log / 8 + 1).unwrap_or(WHOLE_BYTES)),
        None => WHOLE_BYTES,
    }
}

/// The `bytes` low bytes of `value`.
fn low(value: u64, bytes: u8) -> u64 {
    if bytes >= WHOLE_BYTES {
        value
    } else {
        value & !(u64::MAX << (8 * bytes))
    }
}

/// The lowest value at or above `known` with these low bytes; in full, the value itself.
fn place(
    fragment: &mut Bytes,
    bytes: u64,
    known: u64,
    field: &'static str,
) -> Result<u64, BlockError> {
    let count = u8::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= WHOLE_BYTES)
        .ok_or(BlockError::OutOfBounds("counts of bytes"))?;
    let read = fixed(fragment, count.into(), field)?;
    if count == WHOLE_BYTES {
        return Ok(read);
    }
    let value = known - low(known, count) + read;
    if value >= known {
        return Ok(value);
    }
    value
        .checked_add(1 << (8 * count))
        .ok_or(BlockError::OutOfBounds(field))
}

fn fixed(fragment: &mut Bytes, bytes: usize, field: &'static str) -> Result<u64, BlockError> {
    if fragment.remaining() < bytes {
        return Err(BlockError::CutShort(field));
    }
    Ok(fragment.get_uint_le(bytes))
}

fn checksum_bytes(plain_length: u32) -> u8 {
    if has_short_checksum(BlockVersion::Two, plain_length as usize) {
        4
    } else {
        8
    }
}

/// (8 + low three bits) << the others.
fn length_code(length: u32) -> u8 {
    let log = length.checked_ilog2().unwrap_or_default().saturating_sub(3);
    u8::try_from(log << 3 | length >> log & 7).unwrap_or_default()
}

const fn length_of_code(code: u32) -> Option<u32> {
    (8 + (code & 7)).checked_shl(code >> 3)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::block::{PREFIX_MAX, prefix_fit};
    use proptest::prelude::*;

    fn read(bytes: u8, value: u64, known: u64) -> Result<u64, BlockError> {
        let mut out = BytesMut::new();
        out.put_uint_le(low(value, bytes), bytes.into());
        place(&mut out.freeze(), bytes.into(), known, "place")
    }

    #[test]
    fn every_length_of_a_prefix_has_one_code() {
        let lengths: Vec<u32> = (0..=120).filter_map(length_of_code).collect();
        assert_eq!(
            (lengths.first(), lengths.last()),
            (Some(&8), Some(&PREFIX_MAX))
        );
        assert!(lengths.is_sorted_by(|a, b| a < b));
        for (code, length) in (0..).zip(lengths) {
            assert_eq!((length_code(length), prefix_fit(length)), (code, length));
        }
        for length in 8..5000 {
            let fit = prefix_fit(length);
            assert!(
                fit <= length && fit > length - length / 8 - 1,
                "{length}: {fit}"
            );
        }
        assert_eq!(prefix_fit(7), 0);
    }

    #[test]
    fn few_bytes_say_a_place_that_is_near() {
        for (value, known, bytes) in [
            (7, 7, 0),
            (262, 7, 1),
            (263, 7, 2),
            (1 << 30, 5, 4),
            (6, 7, 8),
        ] {
            assert_eq!(bytes_beyond(value, known), bytes, "{value} beyond {known}");
        }
        assert_eq!(read(1, 3, u64::MAX), Err(BlockError::OutOfBounds("place")));
        assert_eq!(
            place(&mut Bytes::new(), 9, 0, "place"),
            Err(BlockError::OutOfBounds("counts of bytes"))
        );
    }

    proptest! {
        /// The sender's bound is older than the receiver's, which is not beyond the place.
        #[test]
        fn a_place_is_read_against_a_newer_bound(sender in 0..1u64 << 62, more in 0..1u64 << 40, beyond in 0..1u64 << 40) {
            let receiver = sender + more;
            let value = receiver + beyond;
            prop_assert_eq!(read(bytes_beyond(value, sender), value, receiver).unwrap(), value);
        }
    }
}
