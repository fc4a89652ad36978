//! Reading and writing a payload's fields, with errors that name the frame's type and the field.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{FieldProblem, FrameError, FrameKind};
use crate::block::POSITION_MAX;
use crate::varint::{self, VarintError};

/// A payload that is read from its front. Every method's `field` names the field in errors.
pub(super) struct PayloadReader {
    kind: FrameKind,
    rest: Bytes,
}

impl PayloadReader {
    pub(super) const fn new(kind: FrameKind, payload: Bytes) -> Self {
        Self {
            kind,
            rest: payload,
        }
    }

    pub(super) const fn error(&self, field: &'static str, problem: FieldProblem) -> FrameError {
        FrameError::Field {
            kind: self.kind,
            field,
            problem,
        }
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, FrameError> {
        varint::take_bytes(&mut self.rest).map_err(|error| match error {
            VarintError::Truncated => self.error(field, FieldProblem::CutShort),
            VarintError::NotCanonical | VarintError::Overflow => {
                self.error(field, FieldProblem::Varint)
            }
        })
    }

    /// A varint of at least 1: a frame's number, a stream, a turn.
    pub(super) fn positive(&mut self, field: &'static str) -> Result<u64, FrameError> {
        match self.varint(field)? {
            0 => Err(self.error(field, FieldProblem::OutOfBounds)),
            value => Ok(value),
        }
    }

    /// A varint that counts or measures, at most `max`.
    pub(super) fn count(&mut self, field: &'static str, max: usize) -> Result<usize, FrameError> {
        let value = self.varint(field)?;
        usize::try_from(value)
            .ok()
            .filter(|&value| value <= max)
            .ok_or(self.error(field, FieldProblem::OutOfBounds))
    }

    /// A position in a log, at most [`POSITION_MAX`].
    pub(super) fn position(&mut self, field: &'static str) -> Result<u64, FrameError> {
        match self.varint(field)? {
            value if value <= POSITION_MAX => Ok(value),
            _ => Err(self.error(field, FieldProblem::OutOfBounds)),
        }
    }

    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, FrameError> {
        self.rest
            .try_get_u8()
            .map_err(|_| self.error(field, FieldProblem::CutShort))
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FrameError> {
        let mut array = [0; N];
        self.rest
            .try_copy_to_slice(&mut array)
            .map_err(|_| self.error(field, FieldProblem::CutShort))?;
        Ok(array)
    }

    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        length: usize,
    ) -> Result<Bytes, FrameError> {
        if length > self.rest.len() {
            return Err(self.error(field, FieldProblem::CutShort));
        }
        Ok(self.rest.split_to(length))
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// All that is left, as UTF-8 of at most `max` bytes.
    pub(super) fn rest_text(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<String, FrameError> {
        let bytes = self.rest();
        if bytes.len() > max {
            return Err(self.error(field, FieldProblem::OutOfBounds));
        }
        std::str::from_utf8(&bytes)
            .map(str::to_owned)
            .map_err(|_| self.error(field, FieldProblem::Text))
    }

    /// The next tag and a reader of its value; none at the end.
    pub(super) fn tagged(&mut self) -> Result<Option<(u64, Self)>, FrameError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint("tag")?;
        let length = self.count("tagged length", self.kind.payload_max())?;
        let value = self.bytes("tagged value", length)?;
        Ok(Some((tag, Self::new(self.kind, value))))
    }

    /// The end of the payload (or of a tag's value).
    pub(super) fn finish(self) -> Result<(), FrameError> {
        match self.rest.len() {
            0 => Ok(()),
            extra_bytes => Err(FrameError::LeftOver {
                kind: self.kind,
                extra_bytes,
            }),
        }
    }
}

/// Puts `value` in `slot`, which must be empty: a known tag occurs once.
pub(super) fn set_once<T>(
    slot: &mut Option<T>,
    value: T,
    kind: FrameKind,
    field: &'static str,
) -> Result<(), FrameError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FrameError::Field {
            kind,
            field,
            problem: FieldProblem::Repeated,
        }),
    }
}

/// Writes tag, length and value.
pub(super) fn put_tagged(out: &mut BytesMut, tag: u64, value: &[u8]) {
    varint::put(out, tag);
    varint::put(out, value.len() as u64);
    out.put_slice(value);
}

/// Writes a tag whose value is one varint.
pub(super) fn put_tagged_varint(out: &mut BytesMut, tag: u64, value: u64) {
    varint::put(out, tag);
    varint::put(out, varint::encoded_bytes(value) as u64);
    varint::put(out, value);
}

/// An error unless `holds`: the shared form of what both reading and writing check.
pub(super) const fn require(
    holds: bool,
    kind: FrameKind,
    field: &'static str,
    problem: FieldProblem,
) -> Result<(), FrameError> {
    if holds {
        Ok(())
    } else {
        Err(FrameError::Field {
            kind,
            field,
            problem,
        })
    }
}
