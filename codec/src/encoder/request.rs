//! What the encoder is asked.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::finder::PLACES;
use crate::block::BlockVersion;
use crate::domain::{Domain, Log};
use crate::frame::{DomainId, StreamId};
use crate::policy::{Habit, Level};
use crate::ranges::RangeSet;

/// One block to encode.
#[derive(Debug, Clone)]
pub struct EncodeRequest {
    /// How it is to be written.
    pub version: BlockVersion,
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
    /// What of the own history is under way on other links, and may arrive after this block.
    pub avoid: Option<Arc<Avoid>>,
}

/// Positions of the own history that a block may not refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Avoid {
    /// These.
    pub ranges: RangeSet,
    /// And all from here on.
    pub from: u64,
}

impl Avoid {
    /// The part of `range` around `position` that may be referred to.
    pub(crate) fn around(&self, position: u64, range: &Range<u64>) -> Option<Range<u64>> {
        let range = range.start..range.end.min(self.from);
        let mut free = self.ranges.gaps(range);
        free.find(|free| free.contains(&position))
    }
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
    /// Where other places that copies came from go on.
    pub(super) places: [Option<(Log, u64)>; PLACES],
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
