//! Frames: the units on a link, and their bytes (docs/protocol.md, sections 1 and 2).

mod ack;
mod coverage;
mod data;
mod error;
mod framing;
mod hello;
mod ids;
mod kind;
mod open;
mod payload;
mod reason;
mod renewal;

pub use ack::{ACK_NOT_STORED_MAX, ACK_RANGES_MAX, Ack, Lost, NotStored, REFUSE_LOST_MAX, Refuse};
pub use coverage::{
    COVERAGE_EPOCHS_MAX, COVERAGE_HOLES_MAX, Coverage, CoverageFrame, DOMAIN_NAME_MAX_BYTES, Epoch,
    HistorySide,
};
pub use data::{BLOCK_ENCODED_MAX, Data, FRAGMENT_MAX, data_header};
pub use error::{FieldProblem, FrameError};
pub use framing::FrameCodec;
pub use hello::{
    FEATURE_LINKS, FEATURE_SOURCE, FEATURE_UNIX, Hello, HelloStatus, MESSAGE_MAX_BYTES,
    NAME_MAX_BYTES, Secret,
};
pub use ids::{DomainId, Side, StreamId};
pub use kind::{FRAME_PAYLOAD_MAX, FrameKind};
pub use open::{
    HOST_MAX_BYTES, Open, Opened, SERVICE_MAX_BYTES, Target, UNIX_PATH_MAX_BYTES, WEIGHT_MAX,
    is_unix_path,
};
pub use reason::{Reason, RefuseReason};
pub use renewal::{RENEW_REQUEST_MAX_BYTES, RENEWED_CERTIFICATES_MAX, Renewed};

use bytes::Bytes;

pub use crate::block::BLOCK_PLAIN_MAX;

/// What one edge says to the other in one piece.
///
/// Variants with a `number` (directly or inside) are the numbered frames: kept by their sender until acknowledged. The others are
/// control frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A fragment of an encoded block.
    Data(Data),
    /// A new stream and where it shall go.
    Open(Open),
    /// The receiver of an Open has reached its target.
    Opened(Opened),
    /// In-band end of a stream's data.
    Finish {
        /// The frame's number, from 1.
        number: u64,
        /// The stream that ends.
        stream: StreamId,
        /// No bytes at or after this stream offset will come.
        offset: u64,
    },
    /// The sender cannot deliver to its LAN side any more.
    StopSending {
        /// The frame's number, from 1.
        number: u64,
        /// The stream concerned.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// The sender's LAN side failed: bytes not yet delivered may be lost.
    Reset {
        /// The frame's number, from 1.
        number: u64,
        /// The stream concerned.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// The sender opens and accepts no new streams.
    GoAway {
        /// The frame's number, from 1.
        number: u64,
        /// Why.
        reason: Reason,
    },
    /// The first frame in each direction of a link.
    Hello(Hello),
    /// Numbers that were decoded, verified and appended, or acted on.
    Ack(Ack),
    /// A block could not be decoded.
    Refuse(Refuse),
    /// Plain bytes of a stream that the sender of this frame accepts.
    Credit {
        /// The stream; 0 is the tunnel itself, and `offset` then counts Opens.
        stream: StreamId,
        /// Counts up from 1 a stream and direction; an older turn is ignored.
        turn: u64,
        /// The absolute stream offset in bytes up to which data is accepted.
        offset: u64,
    },
    /// The data sender gives back credit.
    Yield {
        /// The stream concerned.
        stream: StreamId,
        /// The turn of the Credit that it answers.
        turn: u64,
        /// What was granted above this absolute stream offset in bytes is given back.
        offset: u64,
    },
    /// What the sender holds of one history.
    Coverage(CoverageFrame),
    /// How much the sender's mirror may hold.
    Quota {
        /// The domain concerned.
        domain: DomainId,
        /// Bytes; 0: append nothing.
        bytes: u64,
    },
    /// The owner will drop its history below a position.
    Floor {
        /// The domain concerned.
        domain: DomainId,
        /// The first position that stays.
        position: u64,
    },
    /// None of the sender's unacknowledged blocks uses bytes below that floor.
    Floored {
        /// The domain concerned.
        domain: DomainId,
        /// The position of the Floor that it answers.
        position: u64,
    },
    /// A request for a new certificate.
    Renew {
        /// DER of a PKCS #10 signing request; 1 to [`RENEW_REQUEST_MAX_BYTES`] bytes.
        request: Bytes,
    },
    /// The answer to Renew.
    Renewed(Renewed),
    /// Asks for a Pong.
    Ping {
        /// Returned by the Pong.
        token: u64,
    },
    /// Answers a Ping.
    Pong {
        /// The Ping's token.
        token: u64,
    },
}

impl Frame {
    /// The frame's type.
    #[must_use]
    pub const fn kind(&self) -> FrameKind {
        match self {
            Self::Data(data) if data.last => FrameKind::DataLast,
            Self::Data(_) => FrameKind::Data,
            Self::Open(_) => FrameKind::Open,
            Self::Opened(_) => FrameKind::Opened,
            Self::Finish { .. } => FrameKind::Finish,
            Self::StopSending { .. } => FrameKind::StopSending,
            Self::Reset { .. } => FrameKind::Reset,
            Self::GoAway { .. } => FrameKind::GoAway,
            Self::Hello(_) => FrameKind::Hello,
            Self::Ack(_) => FrameKind::Ack,
            Self::Refuse(_) => FrameKind::Refuse,
            Self::Credit { .. } => FrameKind::Credit,
            Self::Yield { .. } => FrameKind::Yield,
            Self::Coverage(_) => FrameKind::Coverage,
            Self::Quota { .. } => FrameKind::Quota,
            Self::Floor { .. } => FrameKind::Floor,
            Self::Floored { .. } => FrameKind::Floored,
            Self::Renew { .. } => FrameKind::Renew,
            Self::Renewed(_) => FrameKind::Renewed,
            Self::Ping { .. } => FrameKind::Ping,
            Self::Pong { .. } => FrameKind::Pong,
        }
    }

    /// The number of a numbered frame (for Data the block's); none for a control frame.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        match self {
            Self::Data(Data { number, .. })
            | Self::Open(Open { number, .. })
            | Self::Opened(Opened { number, .. })
            | Self::Finish { number, .. }
            | Self::StopSending { number, .. }
            | Self::Reset { number, .. }
            | Self::GoAway { number, .. } => Some(*number),
            _ => None,
        }
    }
}
