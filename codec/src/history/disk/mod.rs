//! One log on disk: segments of pages with their checksums, saved anchors, and the manifest that says what may be believed.
//!
//! See docs/history.md for the files and for why positioned reads. Everything that is read back is taken for hostile: lengths are bounded, pages
//! and batches are checked, and what does not check is missing and nothing worse.

mod anchors;
mod log;
mod manifest;
mod opening;
mod segment;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

pub(crate) use anchors::{AnchorsError, SavedAnchor};
pub(crate) use log::DiskLog;
pub(crate) use manifest::{ManifestError, Persisted};
pub(crate) use opening::{MANIFEST, Opened, look};

const PAGE: usize = 1 << 16;

/// The smallest segment: what a small history gives back at a time.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// The largest segment: few files, and a floor still frees a small part of a large history.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Segments that a log's room is divided into, where that makes them neither too small nor too large.
const SEGMENTS_OF_A_LOG: u64 = 16;

/// Bytes of the segments of a new log that has room for `capacity_bytes`.
pub(crate) fn segment_bytes_for(capacity_bytes: u64) -> u64 {
    let wanted = (capacity_bytes / SEGMENTS_OF_A_LOG).max(1);
    (1 << wanted.ilog2()).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
}

/// Whose bytes a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogSide {
    /// What this edge has sent.
    Own = 0,
    /// What the peer has sent.
    Mirror = 1,
}

impl fmt::Display for LogSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Mirror => "mirror",
        })
    }
}

/// Which log this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogIdentity {
    /// Own or mirror.
    pub side: LogSide,
    /// The peer's name, at most 255 bytes.
    pub peer: String,
    /// The domain's name, at most 255 bytes.
    pub domain: String,
}

/// Why a page cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It was never written, or is gone.
    #[error("the page is not on disk")]
    Missing,
    /// What is there is not what was written.
    #[error("the page is damaged")]
    Damaged,
    /// The system does not give it.
    #[error(transparent)]
    Io(#[from] io::Error),
}
