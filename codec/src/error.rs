//! What can be wrong between two edges, as the codec sees it.

use crate::block::{BlockError, Source, Span};
use crate::domain::Log;
use crate::frame::RefuseReason;

/// Something that no correct peer does. It ends the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A header or operations that contradict the protocol.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A source at or above the tail of its history.
    #[error("reference to position {position} of a history that was never sent to this peer")]
    NeverSent {
        /// The first such position.
        position: u64,
    },
    /// An append range that starts below the tail, is empty, or ends beyond all positions.
    #[error(
        "append range of {length} bytes at position {position} overlaps what was registered before or is out of bounds"
    )]
    Registration {
        /// Start of the range.
        position: u64,
        /// Its length in bytes.
        length: u32,
    },
    /// A block that needs a domain's histories, where the domain is unknown or held by another tunnel.
    #[error("block needs a domain that this tunnel does not hold")]
    NoDomain,
    /// A body that has another length than the header says, or is not a zstd frame.
    #[error("block body of stream offset {stream_offset} cannot be decoded")]
    Body {
        /// Where in its stream the block stands.
        stream_offset: u64,
    },
}

/// Why a block cannot be decoded, now or for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A source was registered and its bytes are not there yet: decode again once they may be.
    #[error("waits for {} bytes at position {} of {log:?}", span.length, span.position)]
    Waits {
        /// The log that is waited for.
        log: Log,
        /// The source concerned.
        span: Span,
    },
    /// Pages have to be read from disk, and the caller must not wait: decode it on another thread.
    #[error("its sources have to be read from disk")]
    NotResident,
    /// The block must be refused; spaces are those of the block.
    #[error("refused ({reason:?}), {} ranges lost", lost.len())]
    Refused {
        /// What to tell its sender.
        reason: RefuseReason,
        /// Ranges that both sides must give up.
        lost: Vec<Source>,
    },
    /// The tunnel must end.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl From<BlockError> for DecodeError {
    fn from(error: BlockError) -> Self {
        Self::Violation(Violation::Block(error))
    }
}
