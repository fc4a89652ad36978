//! What can be wrong with an encoded block.

use crate::varint::VarintError;

/// A header or operations that no correct sender writes. Each ends the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The header is not whole in the first fragment, or the operations end inside one.
    #[error("bad block: {0} is cut short")]
    CutShort(&'static str),
    /// A varint has another form than the canonical one, or more than 64 bits.
    #[error("bad block: {0} is not a canonical varint")]
    Varint(&'static str),
    /// A value is outside its bounds.
    #[error("bad block: {0} is out of bounds")]
    OutOfBounds(&'static str),
    /// The flags name something that this version does not know.
    #[error("bad block: unknown flags {0:#x}")]
    UnknownFlags(u64),
    /// A part is there that excludes another, or its condition is not met.
    #[error("bad block: {0}")]
    Contradiction(&'static str),
    /// The lengths do not add up to what the header says.
    #[error("bad block: {0} do not add up")]
    Sum(&'static str),
}

impl BlockError {
    pub(super) const fn varint(field: &'static str, error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::CutShort(field),
            VarintError::NotCanonical | VarintError::Overflow => Self::Varint(field),
        }
    }
}
