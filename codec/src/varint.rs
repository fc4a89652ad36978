//! Unsigned LEB128 varints in their one canonical form, and the zigzag mapping of signed values.
//!
//! Seven bits a byte, least significant first. A value has exactly one accepted form: the last byte is not zero unless it is the
//! only one, and nothing above 64 bits is accepted.

use bytes::{Buf, BufMut, Bytes};

/// Bytes of the longest varint: ⌈64 / 7⌉.
pub const VARINT_MAX_BYTES: usize = 10;

/// What can be wrong with a varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The bytes end before the varint does; more bytes may complete it.
    #[error("the varint is cut short")]
    Truncated,
    /// The value has a shorter form.
    #[error("the varint is not in its shortest form")]
    NotCanonical,
    /// The value does not fit 64 bits.
    #[error("the varint exceeds 64 bits")]
    Overflow,
}

/// Appends `value` to `out`: 1 to [`VARINT_MAX_BYTES`] bytes.
pub fn put(out: &mut impl BufMut, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// Appends a signed value, zigzag-coded.
pub fn put_signed(out: &mut impl BufMut, value: i64) {
    put(out, zigzag(value));
}

/// How many bytes [`put`] writes for `value`.
#[must_use]
pub fn encoded_bytes(value: u64) -> usize {
    let bits = (u64::BITS - (value | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

/// Reads the varint at the start of `bytes`: its value and how many bytes it takes.
///
/// # Errors
/// [`VarintError::Truncated`] if more bytes are needed; the others if no more bytes can help.
pub fn peek(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(VARINT_MAX_BYTES) {
        if at == VARINT_MAX_BYTES - 1 && byte > 1 {
            return Err(VarintError::Overflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(VarintError::NotCanonical);
            }
            return Ok((value, at + 1));
        }
    }
    Err(VarintError::Truncated)
}

/// Reads a varint and moves `bytes` behind it.
///
/// # Errors
/// As [`peek`]; `bytes` is then unchanged.
pub fn take(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    let (value, used) = peek(bytes)?;
    *bytes = bytes.get(used..).unwrap_or_default();
    Ok(value)
}

/// Reads a varint and advances `bytes` behind it.
///
/// # Errors
/// As [`peek`]; `bytes` is then unchanged.
pub fn take_bytes(bytes: &mut Bytes) -> Result<u64, VarintError> {
    let (value, used) = peek(bytes)?;
    bytes.advance(used);
    Ok(value)
}

/// Reads a zigzag-coded signed value and moves `bytes` behind it.
///
/// # Errors
/// As [`peek`]; `bytes` is then unchanged.
pub fn take_signed(bytes: &mut &[u8]) -> Result<i64, VarintError> {
    take(bytes).map(unzigzag)
}

/// Maps 0, −1, 1, −2, … to 0, 1, 2, 3, …, so that small magnitudes have short varints.
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        let cases: [(u64, &[u8]); 8] = [
            (0, &[0]),
            (1, &[1]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (
                u64::MAX,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(peek(bytes), Ok((value, bytes.len())));
            assert_eq!(encoded_bytes(value), bytes.len());
        }
    }

    #[test]
    fn rejects_other_forms() {
        assert_eq!(peek(&[]), Err(VarintError::Truncated));
        assert_eq!(peek(&[0x80]), Err(VarintError::Truncated));
        assert_eq!(peek(&[0xff; 9]), Err(VarintError::Truncated));
        assert_eq!(peek(&[0x80, 0x00]), Err(VarintError::NotCanonical));
        assert_eq!(peek(&[0xff, 0x80, 0x00]), Err(VarintError::NotCanonical));
        let mut ten = [0xff; 10];
        assert_eq!(peek(&ten), Err(VarintError::Overflow));
        ten[9] = 0x02;
        assert_eq!(peek(&ten), Err(VarintError::Overflow));
        ten[9] = 0x00;
        assert_eq!(peek(&ten), Err(VarintError::NotCanonical));
    }

    #[test]
    fn zigzag_golden() {
        for (value, code) in [
            (0, 0),
            (-1, 1),
            (1, 2),
            (-2, 3),
            (i64::MAX, u64::MAX - 1),
            (i64::MIN, u64::MAX),
        ] {
            assert_eq!(zigzag(value), code);
            assert_eq!(unzigzag(code), value);
        }
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, signed: i64, tail: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), encoded_bytes(value));
            put_signed(&mut out, signed);
            out.extend_from_slice(&tail);
            let mut rest = out.as_slice();
            prop_assert_eq!(take(&mut rest).unwrap(), value);
            prop_assert_eq!(take_signed(&mut rest).unwrap(), signed);
            prop_assert_eq!(rest, tail.as_slice());
        }

        /// Whatever is accepted is what [`put`] would have written.
        #[test]
        fn accepted_means_canonical(bytes: [u8; 11]) {
            if let Ok((value, used)) = peek(&bytes) {
                let mut out = Vec::new();
                put(&mut out, value);
                prop_assert_eq!(out.as_slice(), bytes.get(..used).unwrap());
            }
        }
    }
}
