//! What the encoder is asked.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Domain, Log};
use crate::frame::{DomainId, StreamId};
use crate::policy::{Habit, Level};

/// One block to encode.
#[derive(Debug, Clone)]
pub struct EncodeRequest {
    /// Its stream.
    pub stream: StreamId,
    /// Where in the stream the bytes begin.
    pub stream_offset: u64,
    /// 1 to [`crate::block::BLOCK_PLAIN_MAX`] bytes.
    pub plain: Bytes,
    /// The domain, unless the stream has none.
    pub domain: Option<(DomainId, Arc<Domain>)>,
    /// Whether copies may be made.
    pub may_copy: bool,
    /// Whether the block may be appended.
    pub may_append: bool,
    /// How hard to compress.
    pub level: Level,
    /// From the stream's last encoded block.
    pub hint: Option<Continuation>,
    /// From the stream's last encoded block.
    pub habit: Habit,
    /// The refused block that this one replaces; it then neither copies nor appends.
    pub replaces: Option<u64>,
}

/// Where the source of a stream's last copy goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuation {
    pub(super) log: Log,
    /// The position that would hold the byte at `stream_offset`.
    pub(super) position: u64,
    pub(super) stream_offset: u64,
    /// Bytes copied without a break up to there.
    pub(super) run_bytes: u64,
}

impl Continuation {
    /// The same diagonal at another stream offset, for blocks that are encoded side by side.
    pub(super) fn at(self, stream_offset: u64) -> Option<Self> {
        if stream_offset == self.stream_offset {
            return Some(self);
        }
        let ahead = stream_offset.checked_sub(self.stream_offset)?;
        Some(Self {
            position: self.position.checked_add(ahead)?,
            stream_offset,
            run_bytes: 0,
            ..self
        })
    }
}
