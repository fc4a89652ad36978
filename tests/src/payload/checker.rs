//! Compares bytes as they arrive with what they must be.

use bytes::Bytes;

use super::Payload;

/// Bytes generated at a time to compare with: small enough for the first-level cache.
const SCRATCH_BYTES: usize = 16 * 1024;

/// Bytes shown of each side when something differs.
const SHOWN_BYTES: usize = 16;

/// Fed with the chunks of a transfer in order; names the first wrong offset.
#[derive(Debug)]
pub struct Checker {
    expected: Expected,
    offset: u64,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Expected {
    Generated { payload: Payload, length: u64 },
    Given(Bytes),
}

/// Where a transfer went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The byte at `offset` is the first wrong one; a few bytes of both sides follow it.
    Different {
        /// Offset in bytes of the first wrong byte.
        offset: u64,
        /// What should stand there.
        expected: Vec<u8>,
        /// What does.
        found: Vec<u8>,
    },
    /// More bytes came than there are; `length` is the expected length in bytes.
    TooLong {
        /// Expected length in bytes.
        length: u64,
    },
    /// The transfer ended early.
    TooShort {
        /// Bytes that came.
        received: u64,
        /// Expected length in bytes.
        length: u64,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Different {
                offset,
                expected,
                found,
            } => {
                write!(
                    f,
                    "wrong byte at offset {offset}: expected {expected:02x?}, found {found:02x?}"
                )
            }
            Self::TooLong { length } => write!(f, "more than the expected {length} bytes came"),
            Self::TooShort { received, length } => {
                write!(f, "ended after {received} of {length} bytes")
            }
        }
    }
}

impl std::error::Error for Mismatch {}

impl Checker {
    /// Expects the first `length` bytes of `payload`.
    #[must_use]
    pub fn new(payload: Payload, length: u64) -> Self {
        Self {
            expected: Expected::Generated { payload, length },
            offset: 0,
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Expects exactly `bytes`.
    #[must_use]
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self {
            expected: Expected::Given(bytes),
            offset: 0,
            scratch: Vec::new(),
        }
    }

    /// Expects the rest from `offset` (bytes) on, for a transfer that does not start at the beginning.
    #[must_use]
    pub fn starting_at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Offset in bytes up to which all was right.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Checks the next bytes of the transfer.
    ///
    /// # Errors
    /// [`Mismatch::Different`] or [`Mismatch::TooLong`].
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Mismatch> {
        let length = self.length();
        let left = usize::try_from(length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let inside = &chunk[..chunk.len().min(left)];
        match &self.expected {
            Expected::Generated { payload, .. } => {
                for part in inside.chunks(SCRATCH_BYTES) {
                    let scratch = &mut self.scratch[..part.len()];
                    payload.fill(self.offset, scratch);
                    same(self.offset, scratch, part)?;
                    self.offset += part.len() as u64;
                }
            }
            Expected::Given(bytes) => {
                let start = usize::try_from(self.offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                same(self.offset, &bytes[start..start + inside.len()], inside)?;
                self.offset += inside.len() as u64;
            }
        }
        if inside.len() < chunk.len() {
            Err(Mismatch::TooLong { length })
        } else {
            Ok(())
        }
    }

    /// Call at the end of the transfer.
    ///
    /// # Errors
    /// [`Mismatch::TooShort`] when bytes are missing.
    pub fn finish(&self) -> Result<(), Mismatch> {
        let length = self.length();
        if self.offset == length {
            Ok(())
        } else {
            Err(Mismatch::TooShort {
                received: self.offset,
                length,
            })
        }
    }

    fn length(&self) -> u64 {
        match &self.expected {
            Expected::Generated { length, .. } => *length,
            Expected::Given(bytes) => bytes.len() as u64,
        }
    }
}

/// One wide comparison; only a difference is looked at byte by byte.
fn same(offset: u64, expected: &[u8], found: &[u8]) -> Result<(), Mismatch> {
    if expected == found {
        return Ok(());
    }
    let first = expected
        .iter()
        .zip(found)
        .position(|(a, b)| a != b)
        .unwrap_or(expected.len().min(found.len()));
    let shown = |bytes: &[u8]| {
        bytes
            .iter()
            .skip(first)
            .take(SHOWN_BYTES)
            .copied()
            .collect()
    };
    Err(Mismatch::Different {
        offset: offset + first as u64,
        expected: shown(expected),
        found: shown(found),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn accepts_the_right_bytes_in_any_chunks() {
        let payload = Payload::text(5);
        let bytes = payload.bytes(0, 100_000);
        for size in [1, 7, 4096, 50_000, 100_000] {
            let mut generated = Checker::new(payload, 100_000);
            let mut given = Checker::of_bytes(Bytes::from(bytes.clone()));
            for chunk in bytes.chunks(size) {
                generated.feed(chunk).unwrap();
                given.feed(chunk).unwrap();
            }
            generated.finish().unwrap();
            given.finish().unwrap();
        }
    }

    #[test]
    fn names_the_first_wrong_offset() {
        let payload = Payload::random(5);
        let right = payload.bytes(0, 60_000);
        for wrong in [0_usize, 1, 16_383, 16_384, 59_999] {
            let mut bytes = right.clone();
            bytes[wrong] ^= 1;
            for mut checker in [
                Checker::new(payload, 60_000),
                Checker::of_bytes(right.clone().into()),
            ] {
                let error = bytes
                    .chunks(10_000)
                    .find_map(|chunk| checker.feed(chunk).err())
                    .unwrap();
                assert!(
                    matches!(error, Mismatch::Different { offset, .. } if offset == wrong as u64),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn notices_a_wrong_length() {
        let payload = Payload::random(9);
        let bytes = payload.bytes(0, 101);
        let mut checker = Checker::new(payload, 100);
        assert_eq!(checker.feed(&bytes), Err(Mismatch::TooLong { length: 100 }));
        let mut checker = Checker::new(payload, 102);
        checker.feed(&bytes).unwrap();
        assert_eq!(
            checker.finish(),
            Err(Mismatch::TooShort {
                received: 101,
                length: 102
            })
        );
    }

    #[test]
    fn starts_in_the_middle() {
        let payload = Payload::random(9);
        let mut checker = Checker::new(payload, 100).starting_at(40);
        checker.feed(&payload.bytes(40, 60)).unwrap();
        checker.finish().unwrap();
    }
}
