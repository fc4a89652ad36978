//! What can be wrong with a frame.

use super::FrameKind;
use crate::varint::VarintError;

/// A frame that cannot be read, or must not be written. Each ends the link, under the name `bad frame`.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// No frame has this type.
    #[error("bad frame: unknown type {0:#04x}")]
    UnknownType(u8),
    /// The length is no canonical varint.
    #[error("bad frame: {kind}: length: {problem}")]
    Length {
        /// The frame's type.
        kind: FrameKind,
        /// What is wrong with it.
        problem: VarintError,
    },
    /// The payload is longer than its type allows.
    #[error("bad frame: {kind}: {length_bytes} bytes, at most {max_bytes} are allowed")]
    TooLong {
        /// The frame's type.
        kind: FrameKind,
        /// The announced length of the payload in bytes.
        length_bytes: u64,
        /// The bound in bytes.
        max_bytes: usize,
    },
    /// One field is wrong.
    #[error("bad frame: {kind}: {field}: {problem}")]
    Field {
        /// The frame's type.
        kind: FrameKind,
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        problem: FieldProblem,
    },
    /// The payload goes on after its last field.
    #[error("bad frame: {kind}: {extra_bytes} bytes left over")]
    LeftOver {
        /// The frame's type.
        kind: FrameKind,
        /// How many bytes.
        extra_bytes: usize,
    },
    /// The link ended inside a frame.
    #[error("bad frame: the link ended {held_bytes} bytes into a frame")]
    CutShort {
        /// How many bytes of the frame had come.
        held_bytes: usize,
    },
    /// Reading or writing the link failed.
    #[error("link: {0}")]
    Io(#[from] std::io::Error),
}

/// What is wrong with a field of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// The payload ends before the field does.
    #[error("cut short")]
    CutShort,
    /// The varint has another form than the canonical one, or more than 64 bits.
    #[error("not a canonical varint")]
    Varint,
    /// The value is outside its bounds.
    #[error("out of bounds")]
    OutOfBounds,
    /// The text is not in the characters allowed.
    #[error("not valid text")]
    Text,
    /// A tag occurs twice, or two tags exclude each other.
    #[error("given twice")]
    Repeated,
    /// The field must be there.
    #[error("missing")]
    Missing,
}
