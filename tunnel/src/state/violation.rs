//! What a peer can do wrong. Each ends the tunnel, and says who did what.

use codec::block::BlockError;
use codec::frame::{DomainId, FrameKind, StreamId};

/// Something that no correct peer does.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// Hello is the first frame of a link and only that.
    #[error("the peer sent {0:?} where it has no place")]
    Misplaced(FrameKind),
    /// A number far above the lowest unfinished one.
    #[error("the peer used number {number}, more than the window above {lowest}")]
    NumberBeyondWindow {
        /// Its number.
        number: u64,
        /// The lowest number not finished here.
        lowest: u64,
    },
    /// One number for a block and for another frame.
    #[error("the peer used number {0} twice")]
    NumberReused(u64),
    /// A fragment that does not follow the ones before it.
    #[error("the peer left a gap before offset {offset} of block {number}")]
    FragmentGap {
        /// The block.
        number: u64,
        /// Where the fragment began.
        offset: u64,
    },
    /// A block longer or shorter than its header says.
    #[error("the peer sent block {0} with another length than its header says")]
    BlockLength(u64),
    /// More unacknowledged bytes than were announced in Hello.
    #[error("the peer sent more unacknowledged bytes than it was allowed")]
    UnacknowledgedBeyondLimit,
    /// A clear header that contradicts the protocol.
    #[error("the peer sent a bad block header: {0}")]
    Header(#[from] BlockError),
    /// The codec found something that no correct peer sends.
    #[error("the peer sent a bad block: {0}")]
    Codec(#[from] codec::error::Violation),
    /// A stream id of the wrong parity, or of the tunnel itself.
    #[error("the peer used stream {0}, which is not its to use like that")]
    ForeignStream(StreamId),
    /// Open for an id that was used before.
    #[error("the peer opened stream {0} again")]
    StreamReused(StreamId),
    /// More Opens than granted.
    #[error("the peer opened stream {0} without credit for it")]
    OpenBeyondCredit(StreamId),
    /// A frame for a stream that was never opened.
    #[error("the peer sent {kind:?} for stream {stream}, which was never opened")]
    UnknownStream {
        /// The frame's type.
        kind: FrameKind,
        /// Its stream.
        stream: StreamId,
    },
    /// Too many Resets for streams that were never opened.
    #[error("the peer reset too many streams before it opened them")]
    TooManyTombstones,
    /// Opened for a stream that is open or that the peer opened itself.
    #[error("the peer answered stream {0} twice")]
    OpenedTwice(StreamId),
    /// Bytes beyond credit.
    #[error("the peer sent stream {stream} up to offset {end}, with credit up to {granted}")]
    BeyondCredit {
        /// The stream.
        stream: StreamId,
        /// Behind the block's last byte.
        end: u64,
        /// What was granted.
        granted: u64,
    },
    /// The same stream bytes twice.
    #[error("the peer sent bytes of stream {stream} at offset {offset} twice")]
    DataRepeated {
        /// The stream.
        stream: StreamId,
        /// Where the block begins.
        offset: u64,
    },
    /// More small pieces behind gaps than blocks can be missing.
    #[error("the peer left too many gaps in its streams")]
    TooScattered,
    /// Bytes behind Finish, a Finish before bytes, or two Finishes that differ.
    #[error("the peer contradicted its Finish of stream {0}")]
    FinishContradicted(StreamId),
    /// A replacement for something that was not refused.
    #[error("the peer sent a replacement of block {0}, which was not refused")]
    ReplacementUnasked(u64),
    /// A replacement was refused, here or there.
    #[error("the replacement of block {0} could not be decoded either")]
    ReplacementRefused(u64),
    /// More refused blocks wait for replacements than can be.
    #[error("the peer let too many refused blocks wait")]
    TooManyRefused,
    /// Acknowledges what was not sent (whole).
    #[error("the peer acknowledged number {0}, which was not sent")]
    AckOfUnsent(u64),
    /// Refuses what is no block, or was not sent (whole).
    #[error("the peer refused number {0}, which is no block that was sent")]
    RefuseOfUnsent(u64),
    /// Credit below what was sent, or above every offset.
    #[error("the peer took back credit of stream {0}")]
    CreditTakenBack(StreamId),
    /// A Yield below what was sent or above what was granted.
    #[error("the peer yielded credit of stream {0} that it does not have")]
    YieldOutOfBounds(StreamId),
    /// A block for a domain whose histories this tunnel does not hold.
    #[error("the peer used domain {0}, which this tunnel does not hold")]
    DomainNotHeld(DomainId),
    /// Coverage for more domains than a tunnel may have.
    #[error("the peer offered too many domains")]
    TooManyDomains,
}
