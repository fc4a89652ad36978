//! What zstd is shown before a block: bytes of a history that the block likely resembles.
//!
//! There are two such regions. A block of which much was found lies along a diagonal, and its literals are what changed there. Of any other block the stream's
//! own newest bytes say most; for short messages they are nearly all the context there is. Any covered range may be a prefix, so blocks stay
//! independent of each other.

use std::ops::Range;

use super::finder::Match;
use super::{length_of, space_of};
use crate::block::{PREFIX_MAX, Source, prefix_fit};
use crate::domain::{Domain, Log};
use crate::frame::StreamId;
use crate::history::reader::Reader;
use crate::policy::{MESSAGE_BYTES, REAPPEND_BYTES};

/// Bytes of the region around a copy: what a block of usual size corresponds to. More crowds zstd's table at low levels and costs
/// more than it gives (second version of some sources: 64 KiB around the copy 13.3, this 15.1, 256 KiB 14.1).
const AROUND_MAX_BYTES: u64 = 131_072;
const _: () = assert!(AROUND_MAX_BYTES <= PREFIX_MAX as u64);

/// The same for short blocks: loading it costs about what compressing it does.
const AROUND_MIN_BYTES: u64 = 16_384;

/// Bytes of the stream's own tail for a long block: twice that gives 1 % more.
const TAIL_MAX_BYTES: u64 = 65_536;

/// The same for a short message: twice that gives 1 % more and costs 6 µs.
const TAIL_MIN_BYTES: u64 = 12_288;

/// The tail grows with the block, so that loading it never costs much more than compressing the block.
const TAIL_TIMES: u64 = 2;

/// Copies all shorter than this, of less than this part of a long block, are not worth their operations.
const SNATCH_BYTES: usize = 256;
const SNATCHES_PART: usize = 4;

fn copied_bytes(matches: &[Match]) -> usize {
    matches.iter().map(|copy| copy.end - copy.start).sum()
}

/// Whether half of a block are copies.
fn is_mostly_copies(plain_bytes: usize, matches: &[Match]) -> bool {
    2 * copied_bytes(matches) >= plain_bytes
}

/// Whether a third of what is copied lies about as `largest` does: the block goes along one source, and not through many places.
fn agree_with(largest: &Match, matches: &[Match]) -> bool {
    let (mut near_bytes, mut all_bytes) = (0, 0);
    for copy in matches {
        let bytes = copy.end - copy.start;
        all_bytes += bytes;
        let here = copy.position + largest.start as u64;
        let there = largest.position + copy.start as u64;
        if copy.log == largest.log && here.abs_diff(there) < AROUND_MAX_BYTES / 4 {
            near_bytes += bytes;
        }
    }
    3 * near_bytes >= all_bytes
}

/// A stretch of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    log: Log,
    range: Range<u64>,
}

impl Region {
    /// What a block of `plain_bytes` of `stream`, in which `matches` were found, most likely resembles.
    ///
    /// Even a few short copies name the region of a long block: in the next build of a binary they are often all that is equal to the byte (18.5 times with
    /// what is around any of them, 11.2 with what is around copies of 512 bytes and the tail otherwise).
    pub fn choose(
        domain: &Domain,
        stream: StreamId,
        plain_bytes: usize,
        matches: &[Match],
    ) -> Option<Self> {
        let largest = matches.iter().max_by_key(|copy| copy.end - copy.start);
        let around = || Self::around(domain, largest?, plain_bytes);
        let recent = || Self::recent(domain, stream, plain_bytes);
        let around_first = if plain_bytes > MESSAGE_BYTES {
            largest.is_some_and(|largest| agree_with(largest, matches))
        } else {
            is_mostly_copies(plain_bytes, matches)
        };
        if around_first {
            around().or_else(recent)
        } else {
            recent().or_else(around)
        }
    }

    /// Whether a block does without its copies: with this prefix zstd writes what is repeated in fewer bytes than operations need. So it is with messages, and
    /// with long blocks of which little was found and that in snatches, as in records of a log (JSON logs, cold: 2 % fewer bytes).
    pub fn replaces(&self, plain_bytes: usize, matches: &[Match]) -> bool {
        let will_append_all = |copy: &Match| copy.run_bytes() < REAPPEND_BYTES;
        if matches.is_empty() || !matches.iter().all(will_append_all) {
            return false;
        }
        if plain_bytes <= MESSAGE_BYTES {
            return !is_mostly_copies(plain_bytes, matches)
                || matches.iter().all(|copy| self.holds(copy));
        }
        copied_bytes(matches) * SNATCHES_PART < plain_bytes
            && matches
                .iter()
                .all(|copy| copy.end - copy.start < SNATCH_BYTES)
    }

    /// What the whole block corresponds to on the diagonal of a copy.
    fn around(domain: &Domain, copy: &Match, plain_bytes: usize) -> Option<Self> {
        let plain_bytes = plain_bytes as u64;
        let half = plain_bytes.clamp(AROUND_MIN_BYTES, AROUND_MAX_BYTES) / 2;
        let start = copy.position.saturating_sub(copy.start as u64);
        let middle = start + plain_bytes / 2;
        // In a block that is longer than the region, the copy may lie outside of it.
        let near = middle.clamp(copy.position, copy.next_position() - 1);
        let middle = if middle.abs_diff(near) < half {
            middle
        } else {
            near
        };
        Self::covered(
            domain,
            copy.log,
            middle.saturating_sub(half)..middle + half,
            near,
        )
    }

    /// The newest bytes of the stream, or of what it answers; for a short message of a new stream those of another's messages.
    fn recent(domain: &Domain, stream: StreamId, plain_bytes: usize) -> Option<Self> {
        let bytes = (plain_bytes as u64)
            .saturating_mul(TAIL_TIMES)
            .clamp(TAIL_MIN_BYTES, TAIL_MAX_BYTES);
        let short = |log| {
            domain
                .recent(log)
                .short()
                .filter(|_| plain_bytes <= MESSAGE_BYTES)
        };
        let ends = [
            (Log::Own, domain.recent(Log::Own).of(stream)),
            (Log::Own, short(Log::Own)),
            (Log::Mirror, domain.recent(Log::Mirror).of(stream)),
        ];
        ends.into_iter().find_map(|(log, end)| {
            let end = end?;
            let last = end.checked_sub(1)?;
            Self::covered(domain, log, end.saturating_sub(bytes)..end, last)
        })
    }

    /// The part of `wanted` around `near` that may be read.
    fn covered(domain: &Domain, log: Log, wanted: Range<u64>, near: u64) -> Option<Self> {
        let from = wanted.start.max(domain.copies_from(log));
        let mut range = domain
            .read(log)
            .covered_around(near, &(from..wanted.end.max(from)))?;
        // Of a length that version 2 can say; what goes is what is farther from `near`.
        let length = u32::try_from(range.end - range.start).unwrap_or(PREFIX_MAX);
        let surplus = u64::from(length - prefix_fit(length));
        if near - range.start > range.end - near {
            range.start += surplus;
        } else {
            range.end -= surplus;
        }
        Some(Self { log, range })
    }

    fn holds(&self, copy: &Match) -> bool {
        copy.log == self.log
            && self.range.start <= copy.position
            && copy.next_position() <= self.range.end
    }

    /// Reads it into `input`, which is cleared before; `None` if it was evicted in this moment.
    pub fn read(&self, reader: &mut Reader<'_>, input: &mut Vec<u8>) -> Option<Source> {
        input.clear();
        let mut at = self.range.start;
        while at < self.range.end {
            // What was evicted in this moment ends the prefix.
            let Some(seen) = reader.from(self.log, at) else {
                break;
            };
            let wanted = usize::try_from(self.range.end - at)
                .unwrap_or(usize::MAX)
                .min(seen.len());
            input.extend_from_slice(seen.get(..wanted).unwrap_or_default());
            at += wanted as u64;
        }
        // What was cut short has another length, too.
        let length = Some(prefix_fit(length_of(input.len()))).filter(|length| *length > 0)?;
        input.truncate(length as usize);
        Some(Source {
            space: space_of(self.log),
            position: self.range.start,
            length,
        })
    }
}
