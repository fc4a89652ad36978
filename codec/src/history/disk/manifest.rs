//! The manifest: what may be believed of a log. It is replaced as a whole, and never says more than was synced before.
//!
//! Layout, integers little-endian: magic (8 bytes), version (u32), then a body of varints and bytes: the log's id (16), side (1),
//! peer and domain (length, bytes), segment bytes, capacity bytes, floor, tail, epochs (count; id, start), ranges held (count; gap to the
//! range before or to the floor, length); last the xxh3-64 of all that stands before it.

use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::{LogIdentity, LogSide, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::block::POSITION_MAX;
use crate::frame::{COVERAGE_EPOCHS_MAX, COVERAGE_HOLES_MAX, Epoch};
use crate::ranges::RangeSet;
use crate::varint;

const MAGIC: [u8; 8] = *b"wanphist";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>();
const CHECKSUM_BYTES: usize = size_of::<u64>();

/// Ranges that a manifest says are held; of a log with more the oldest are left out. A claim has 1,024 holes at most; ranges that are awaited divide
/// a log too while its tunnel runs.
pub(crate) const MANIFEST_RANGES_MAX: usize = 4 * COVERAGE_HOLES_MAX;

/// Bytes of a name in a manifest: far above a domain's 80 and a peer's 64.
pub(crate) const MANIFEST_NAME_MAX_BYTES: usize = 255;

/// Bytes of a manifest: two names, 64 epochs and 4,096 ranges of two varints take at most 86 KiB.
pub(super) const MANIFEST_MAX_BYTES: usize = 128 << 10;

/// What a log is, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogFormat {
    pub id: [u8; 16],
    pub segment_bytes: u64,
}

/// What is believed of a log after it was opened again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Persisted {
    /// The first position that may be held.
    pub floor: u64,
    /// The position behind the last one that was ever taken.
    pub tail: u64,
    /// The openings for writing, oldest first; the newest [`COVERAGE_EPOCHS_MAX`] are kept.
    pub epochs: Vec<Epoch>,
    /// What is held; the newest [`MANIFEST_RANGES_MAX`] ranges are kept.
    pub held: RangeSet,
    /// The room that is reserved for the log, in bytes.
    pub capacity_bytes: u64,
}

/// Why a manifest is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Not a manifest, cut short, too long, or a bit of it is not what was written.
    #[error("its manifest is damaged")]
    Damaged,
    /// Written by another version of the program.
    #[error("its manifest has version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// A good manifest of a log that should stand elsewhere.
    #[error("it is the {side} log of domain {domain} with peer {peer}")]
    Foreign {
        /// Whose bytes it holds.
        side: LogSide,
        /// The peer's name in it.
        peer: String,
        /// The domain's name in it.
        domain: String,
    },
}

pub(super) fn encode(format: LogFormat, identity: &LogIdentity, state: &Persisted) -> BytesMut {
    let mut out = BytesMut::with_capacity(1024);
    out.put_slice(&MAGIC);
    out.put_u32_le(VERSION);
    out.put_slice(&format.id);
    out.put_u8(identity.side as u8);
    for name in [&identity.peer, &identity.domain] {
        varint::put(&mut out, name.len() as u64);
        out.put_slice(name.as_bytes());
    }
    varint::put(&mut out, format.segment_bytes);
    varint::put(&mut out, state.capacity_bytes);
    varint::put(&mut out, state.floor);
    varint::put(&mut out, state.tail);
    let older = state.epochs.len().saturating_sub(COVERAGE_EPOCHS_MAX);
    let epochs = state.epochs.get(older..).unwrap_or_default();
    varint::put(&mut out, epochs.len() as u64);
    for epoch in epochs {
        out.put_slice(&epoch.id);
        varint::put(&mut out, epoch.start);
    }
    let inside = || state.held.within(state.floor..state.tail);
    let count = inside().count();
    let older = count.saturating_sub(MANIFEST_RANGES_MAX);
    varint::put(&mut out, (count - older) as u64);
    let mut end = state.floor;
    for range in inside().skip(older) {
        varint::put(&mut out, range.start - end);
        varint::put(&mut out, range.end - range.start);
        end = range.end;
    }
    let checksum = xxh3_64(&out);
    out.put_u64_le(checksum);
    out
}

/// What a file says, if it is the manifest of this very log.
pub(super) fn decode(
    bytes: &[u8],
    identity: &LogIdentity,
) -> Result<(LogFormat, Persisted), ManifestError> {
    let (found, format, state) = decode_any(bytes)?;
    if found.side != identity.side || found.peer != identity.peer || found.domain != identity.domain
    {
        return Err(ManifestError::Foreign {
            side: found.side,
            peer: found.peer,
            domain: found.domain,
        });
    }
    Ok((format, state))
}

/// What a file says, if it is the manifest of some log.
pub(super) fn decode_any(
    bytes: &[u8],
) -> Result<(LogIdentity, LogFormat, Persisted), ManifestError> {
    let damaged = ManifestError::Damaged;
    let (said, checksum) = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .and_then(|at| bytes.split_at_checked(at))
        .ok_or(damaged.clone())?;
    let (head, body) = said.split_at_checked(HEAD_BYTES).ok_or(damaged.clone())?;
    let (magic, version) = head
        .split_first_chunk::<{ MAGIC.len() }>()
        .ok_or(damaged.clone())?;
    let version = version.first_chunk().ok_or(damaged.clone())?;
    if *magic != MAGIC || checksum != xxh3_64(said).to_le_bytes() {
        return Err(damaged);
    }
    // Every version ends in the checksum, so that damage is not taken for another version.
    match u32::from_le_bytes(*version) {
        VERSION => {}
        other => return Err(ManifestError::Version(other)),
    }
    read_body(body).ok_or(damaged)
}

/// A checksum is no proof of sense: whatever is said must hold together.
fn read_body(mut body: &[u8]) -> Option<(LogIdentity, LogFormat, Persisted)> {
    let body = &mut body;
    let id = array(body)?;
    let side = match array(body)? {
        [0u8] => LogSide::Own,
        [1] => LogSide::Mirror,
        _ => return None,
    };
    let (peer, domain) = (name(body)?, name(body)?);
    let segment_bytes = number(body)?;
    let sensible = segment_bytes.is_power_of_two()
        && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes);
    let capacity_bytes = number(body)?;
    let (floor, tail) = (number(body)?, number(body)?);
    if !sensible || floor > tail || tail > POSITION_MAX {
        return None;
    }
    let count = count(body, COVERAGE_EPOCHS_MAX)?;
    let mut epochs = Vec::with_capacity(count);
    for _ in 0..count {
        epochs.push(Epoch {
            id: array(body)?,
            start: number(body)?,
        });
    }
    let in_order = epochs.is_sorted_by_key(|epoch| epoch.start)
        && epochs
            .last()
            .is_none_or(|epoch| epoch.start <= POSITION_MAX);
    if !in_order {
        return None;
    }
    let held = ranges(body, floor, tail)?;
    let identity = LogIdentity { side, peer, domain };
    let format = LogFormat { id, segment_bytes };
    let state = Persisted {
        floor,
        tail,
        epochs,
        held,
        capacity_bytes,
    };
    body.is_empty().then_some((identity, format, state))
}

fn ranges(body: &mut &[u8], floor: u64, tail: u64) -> Option<RangeSet> {
    let mut held = RangeSet::new();
    let mut end = floor;
    for index in 0..count(body, MANIFEST_RANGES_MAX)? {
        let (gap, length) = (number(body)?, number(body)?);
        // Two ranges that touch are one, so that a set has one form.
        if length == 0 || (gap == 0 && index > 0) {
            return None;
        }
        let start = end.checked_add(gap)?;
        end = start.checked_add(length).filter(|end| *end <= tail)?;
        held.insert(start..end);
    }
    Some(held)
}

fn number(body: &mut &[u8]) -> Option<u64> {
    varint::take(body).ok()
}

fn count(body: &mut &[u8], most: usize) -> Option<usize> {
    usize::try_from(number(body)?)
        .ok()
        .filter(|count| *count <= most)
}

fn array<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(*array)
}

fn name(body: &mut &[u8]) -> Option<String> {
    let length = count(body, MANIFEST_NAME_MAX_BYTES)?;
    let (name, rest) = body.split_at_checked(length)?;
    *body = rest;
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const FORMAT: LogFormat = LogFormat {
        id: [7; 16],
        segment_bytes: SEGMENT_BYTES_MIN,
    };

    fn identity() -> LogIdentity {
        LogIdentity {
            side: LogSide::Mirror,
            peer: "branch".to_owned(),
            domain: "shared".to_owned(),
        }
    }

    fn state() -> impl Strategy<Value = Persisted> {
        let ranges = proptest::collection::vec((0..1u64 << 40, 1..1u64 << 30), 0..50);
        let epochs = proptest::collection::vec((any::<[u8; 16]>(), 0..1u64 << 41), 0..=64);
        (ranges, epochs, 0..1u64 << 20, any::<u64>()).prop_map(
            |(ranges, mut epochs, floor, capacity_bytes)| {
                epochs.sort_by_key(|(_, start)| *start);
                let mut held: RangeSet = ranges
                    .into_iter()
                    .map(|(start, length)| start..start + length)
                    .collect();
                held.remove(0..floor);
                let tail = held.last().map_or(floor, |last| last.end);
                let epochs = epochs.into_iter().map(|(id, start)| Epoch { id, start });
                Persisted {
                    floor,
                    tail,
                    epochs: epochs.collect(),
                    held,
                    capacity_bytes,
                }
            },
        )
    }

    /// A body as somebody might have written it, under a checksum that fits.
    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), body].concat();
        let checksum = xxh3_64(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    /// Whatever is believed holds together.
    fn assert_sane(state: &Persisted) {
        assert!(state.floor <= state.tail && state.tail <= POSITION_MAX);
        assert!(
            state
                .held
                .first()
                .is_none_or(|first| first.start >= state.floor)
        );
        assert!(state.held.last().is_none_or(|last| last.end <= state.tail));
        assert!(state.held.range_count() <= MANIFEST_RANGES_MAX);
        assert!(state.epochs.len() <= COVERAGE_EPOCHS_MAX);
        assert!(state.epochs.is_sorted_by_key(|epoch| epoch.start));
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(state in state()) {
            let bytes = encode(FORMAT, &identity(), &state);
            prop_assert_eq!(decode(&bytes, &identity()).unwrap(), (FORMAT, state));
        }

        #[test]
        fn a_forged_one_is_refused_or_makes_sense(
            state in state(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<proptest::sample::Index>(),
        ) {
            let bytes = encode(FORMAT, &identity(), &state);
            let mut body = bytes[HEAD_BYTES..bytes.len() - CHECKSUM_BYTES].to_vec();
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            for body in [&body[..], &body[..cut.index(body.len())]] {
                if let Ok((_, state)) = decode(&sealed(body), &identity()) {
                    assert_sane(&state);
                }
            }
        }

        #[test]
        fn anything_at_all_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes, &identity()), Err(ManifestError::Damaged));
            if let Ok((_, state)) = decode(&sealed(&bytes), &identity()) {
                assert_sane(&state);
            }
        }
    }

    #[test]
    fn the_largest_fits_and_the_newest_of_too_much_is_kept() {
        let most = POSITION_MAX - 3 * (MANIFEST_RANGES_MAX as u64 + 100);
        let state = Persisted {
            floor: 1,
            tail: POSITION_MAX,
            epochs: (0..100)
                .map(|n| Epoch {
                    id: [n; 16],
                    start: POSITION_MAX - 100 + u64::from(n),
                })
                .collect(),
            held: (0..MANIFEST_RANGES_MAX as u64 + 100)
                .map(|n| most + n * 3..most + n * 3 + 2)
                .collect(),
            capacity_bytes: u64::MAX,
        };
        let identity = LogIdentity {
            side: LogSide::Own,
            peer: "p".repeat(MANIFEST_NAME_MAX_BYTES),
            domain: "d".repeat(MANIFEST_NAME_MAX_BYTES),
        };
        let bytes = encode(FORMAT, &identity, &state);
        assert!(bytes.len() < MANIFEST_MAX_BYTES / 4, "{}", bytes.len());
        let (_, kept) = decode(&bytes, &identity).unwrap();
        assert_sane(&kept);
        assert_eq!(kept.held.range_count(), MANIFEST_RANGES_MAX);
        assert_eq!(kept.held.last(), state.held.last());
        assert_eq!(kept.epochs, state.epochs[100 - COVERAGE_EPOCHS_MAX..]);
        // Varints of ten bytes each would fit as well.
        let worst = MANIFEST_RANGES_MAX * 20 + COVERAGE_EPOCHS_MAX * 26 + 2 * 257 + 100;
        assert!(worst < MANIFEST_MAX_BYTES);
    }
}
