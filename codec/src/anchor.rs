//! Anchors: positions picked by content, by which earlier bytes are found again.
//!
//! A gear hash in 32 bits, `h = (h << 1) + GEAR[byte]`, forgets a byte after 32 steps, so that whether a position is an anchor depends
//! on exactly the [`WINDOW_BYTES`] bytes before it and on nothing else: not on where a block began, nor on how many lanes scanned it.
//!
//! What does not compress has sparse anchors only, and passes at the rate of a fast line: there a window qualifies by its last byte, which
//! a vectorised search finds, and by its key. All byte values are about equally frequent in what does not compress.

use std::ops::Range;

use crate::index::NEVER_THINNED;

/// Bytes that decide about an anchor and that its key names: the gear hash is 32 bits wide and shifts one out a byte.
pub const WINDOW_BYTES: usize = 32;

/// Top bits of the hash that are zero at an anchor: 1 position in 128. Denser finds more in changed data and costs index memory
/// (CODEC-STUDY: 64 / 128 / 256 bytes give 178 / 135 / 101 times on a second version).
pub const DENSE_BITS: u32 = 7;

/// The same for raw blocks of noise, 1 in 4 KiB: what did not compress is found again whole or not at all. Eight of these bits are [`SPARSE_MARK`], the others of the key.
pub const SPARSE_BITS: u32 = 12;

/// The last byte of the windows of sparse anchors. It is in no text (UTF-8 does not know it) and nothing is filled with it.
const SPARSE_MARK: u8 = 0xf5;

/// Bits of a key that are zero at a sparse anchor. None that an index looks at: it would fill an eighth of itself.
const SPARSE_KEY_MASK: u64 = ((1 << (SPARSE_BITS - u8::BITS)) - 1) << 36;

/// An anchor closer than this behind the last accepted one is dropped: repetitive bytes would otherwise yield one a byte.
pub const MIN_GAP_BYTES: u32 = 16;

/// Ranges shorter than this are scanned in one lane, since four would spend more on their 31 bytes of warm-up each than they gain.
const LANES_MIN_BYTES: usize = 1024;

const DENSE_LIMIT: u32 = 1 << (u32::BITS - DENSE_BITS);

/// How dense the anchors of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Density {
    /// 1 in 2^[`DENSE_BITS`] positions.
    Dense,
    /// 1 in 2^[`SPARSE_BITS`] positions, which are among the dense ones.
    Sparse,
}

impl Density {
    /// That of a block that went raw and looks like noise, and that of any other: text goes raw too where nothing is compressed.
    #[must_use]
    pub const fn of(is_noise: bool) -> Self {
        if is_noise { Self::Sparse } else { Self::Dense }
    }
}

/// A position whose window qualifies, before the gap rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Offset just behind the window, in bytes of the scanned buffer.
    pub end: u32,
    /// Whether it qualifies at [`Density::Sparse`] too.
    pub sparse: bool,
}

/// Applies the gap rule to ascending candidates; keeps what it needs between calls for one buffer.
#[derive(Debug, Clone, Copy)]
pub struct Selector {
    density: Density,
    next: u32,
}

impl Selector {
    /// A selector that has accepted nothing yet.
    #[must_use]
    pub const fn new(density: Density) -> Self {
        Self { density, next: 0 }
    }

    /// What it accepts.
    #[must_use]
    pub const fn density(&self) -> Density {
        self.density
    }

    /// Whether `candidate` is an anchor.
    pub fn accepts(&mut self, candidate: Candidate) -> bool {
        let accepted =
            candidate.end >= self.next && (candidate.sparse || self.density == Density::Dense);
        if accepted {
            self.next = candidate.end.saturating_add(MIN_GAP_BYTES);
        }
        accepted
    }
}

impl Candidate {
    /// The key of its window in `bytes`; see [`key`]. Where only sparse candidates are anchors, as in raw blocks, an index that keeps a part of the anchors
    /// would keep next to none: their keys lack the bits by which it picks, so it keeps them all.
    #[must_use]
    pub fn key(self, bytes: &[u8]) -> Option<u64> {
        let key = key(bytes, self.end as usize)?;
        Some(if self.sparse {
            key & NEVER_THINNED
        } else {
            key
        })
    }
}

/// The key of the window that ends at `end` in `bytes`: a 64-bit hash of its 32 bytes, a hint only. `None` if the window is not inside.
#[must_use]
pub fn key(bytes: &[u8], end: usize) -> Option<u64> {
    let window: &[u8; WINDOW_BYTES] = bytes
        .get(end.checked_sub(WINDOW_BYTES)?..end)?
        .try_into()
        .ok()?;
    let [a, b, c, d] = words(window);
    // Two full-width products, folded: every input bit reaches every output bit, at about a tenth of the price of a general hash.
    let high = fold(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xc2b2_ae3d_27d4_eb4f);
    let low = fold(c ^ 0x1656_67b1_9e37_79f9, d ^ 0x27d4_eb2f_1656_67c5);
    Some(fold(
        high ^ 0xa076_1d64_78bd_642f,
        low.rotate_left(29) ^ 0xe703_7ed1_a0b4_28db,
    ))
}

/// Finds candidates; keeps the lanes' memory between calls.
#[derive(Debug, Default)]
pub struct Scanner {
    later_lanes: [Vec<Candidate>; LANES - 1],
}

impl Scanner {
    /// Appends the candidates whose windows end in `range` (that is, behind a byte of it) and lie inside `bytes`, ascending: all of them, or the sparse ones.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        range: Range<usize>,
        density: Density,
        out: &mut Vec<Candidate>,
    ) {
        let before = out.len();
        if density == Density::Dense {
            self.scan_dense(bytes, range.clone(), out);
        }
        scan_sparse(bytes, range, |end| {
            let found = out.get(before..).unwrap_or_default();
            let at = found.partition_point(|candidate| candidate.end < end);
            let candidate = Candidate { end, sparse: true };
            match out.get_mut(before + at) {
                Some(same) if same.end == end => *same = candidate,
                _ => out.insert(before + at, candidate),
            }
        });
    }

    /// Four lanes over quarters of the range overlap their table look-ups (study: 2.1 against 1.3 GB/s); each is warmed with the 31
    /// bytes before it, so the result is that of one lane.
    fn scan_dense(&mut self, bytes: &[u8], range: Range<usize>, out: &mut Vec<Candidate>) {
        let start = range.start.max(WINDOW_BYTES - 1);
        let Some(span) = bytes.get(start..range.end) else {
            return;
        };
        if span.len() < LANES_MIN_BYTES {
            scan_lane(bytes, start..range.end, out);
            return;
        }
        let lane_bytes = span.len() / LANES;
        let Some((one, rest)) = span.split_at_checked(lane_bytes) else {
            return;
        };
        let Some((two, rest)) = rest.split_at_checked(lane_bytes) else {
            return;
        };
        let Some((three, four)) = rest.split_at_checked(lane_bytes) else {
            return;
        };
        let starts = [
            start,
            start + lane_bytes,
            start + 2 * lane_bytes,
            start + 3 * lane_bytes,
        ];
        let [mut a, mut b, mut c, mut d] = starts.map(|start| warm(bytes, start));
        let [second, third, fourth] = &mut self.later_lanes;
        let lanes = one.iter().zip(two).zip(three).zip(four);
        for (at, (((&byte_a, &byte_b), &byte_c), &byte_d)) in lanes.enumerate() {
            a = step(a, byte_a);
            b = step(b, byte_b);
            c = step(c, byte_c);
            d = step(d, byte_d);
            if a.min(b).min(c.min(d)) < DENSE_LIMIT {
                push(a, starts[0] + at, out);
                push(b, starts[1] + at, second);
                push(c, starts[2] + at, third);
                push(d, starts[3] + at, fourth);
            }
        }
        for lane in &mut self.later_lanes {
            out.append(lane);
        }
        // What the division left over.
        scan_lane(bytes, start + LANES * lane_bytes..range.end, out);
    }
}

const LANES: usize = 4;

fn scan_lane(bytes: &[u8], range: Range<usize>, out: &mut Vec<Candidate>) {
    let mut hash = warm(bytes, range.start);
    for (at, &byte) in bytes.iter().enumerate().take(range.end).skip(range.start) {
        hash = step(hash, byte);
        push(hash, at, out);
    }
}

/// The hash after the 31 bytes before `start`: the next step completes a window.
fn warm(bytes: &[u8], start: usize) -> u32 {
    let before = bytes
        .get(start.saturating_sub(WINDOW_BYTES - 1)..start)
        .unwrap_or_default();
    before.iter().fold(0, |hash, &byte| step(hash, byte))
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256 entries")]
fn step(hash: u32, byte: u8) -> u32 {
    (hash << 1).wrapping_add(GEAR[byte as usize])
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a block has at most 2^18 bytes, a page 2^16"
)]
fn push(hash: u32, at: usize, out: &mut Vec<Candidate>) {
    if hash < DENSE_LIMIT {
        out.push(Candidate {
            end: at as u32 + 1,
            sparse: false,
        });
    }
}

/// Calls `found` with the offsets behind the windows that end in `range` and qualify as sparse anchors, ascending.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a block has at most 2^18 bytes, a page 2^16"
)]
fn scan_sparse(bytes: &[u8], range: Range<usize>, mut found: impl FnMut(u32)) {
    let start = range.start.max(WINDOW_BYTES - 1);
    let span = bytes.get(start..range.end).unwrap_or_default();
    for at in memchr::memchr_iter(SPARSE_MARK, span) {
        let end = start + at + 1;
        if key(bytes, end).is_some_and(|key| key & SPARSE_KEY_MASK == 0) {
            found(end as u32);
        }
    }
}

fn words(window: &[u8; WINDOW_BYTES]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(window.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of the product are wanted"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

static GEAR: [u32; 256] = gear();

#[expect(
    clippy::indexing_slicing,
    reason = "a table of 256 entries made at compile time"
)]
const fn gear() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = (splitmix(byte as u64) >> 32) as u32;
        // In a run of one byte the hash settles at −value: no such run may be all anchors (zeros are common, and zstd has them anyway).
        if value.wrapping_neg() < DENSE_LIMIT {
            value ^= 1 << 31;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

/// Steele, Lea, Flood 2014: 64 well-mixed bits for each number.
const fn splitmix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    /// Bytes that depend on their offset alone.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        (0..length as u64)
            .map(|at| splitmix(at ^ seed.rotate_left(32)).to_le_bytes()[0])
            .collect()
    }

    /// Every window on its own.
    fn naive(bytes: &[u8], range: Range<usize>) -> Vec<Candidate> {
        range
            .filter_map(|at| {
                let window = bytes.get((at + 1).checked_sub(WINDOW_BYTES)?..=at)?;
                let hash = window.iter().fold(0, |hash, &byte| step(hash, byte));
                let sparse =
                    bytes[at] == SPARSE_MARK && key(bytes, at + 1).unwrap() & SPARSE_KEY_MASK == 0;
                (sparse || hash < DENSE_LIMIT).then(|| Candidate {
                    end: u32::try_from(at + 1).unwrap(),
                    sparse,
                })
            })
            .collect()
    }

    fn scanned(bytes: &[u8], range: Range<usize>, density: Density) -> Vec<Candidate> {
        let mut found = Vec::new();
        Scanner::default().scan(bytes, range, density, &mut found);
        found
    }

    #[test]
    fn golden() {
        let bytes = noise(8192, 1);
        let found = scanned(&bytes, 0..bytes.len(), Density::Dense);
        let mut select = Selector::new(Density::Dense);
        let ends: Vec<u32> = found
            .iter()
            .filter(|c| select.accepts(**c))
            .map(|c| c.end)
            .take(8)
            .collect();
        assert_eq!(ends, GOLDEN_ENDS);
        assert_eq!(
            [key(&bytes, 218), key(&[0; 32], 32)],
            [Some(GOLDEN_KEY), Some(GOLDEN_KEY_OF_ZEROS)]
        );
    }

    const GOLDEN_ENDS: [u32; 8] = [218, 239, 379, 397, 792, 1265, 1366, 1384];
    const GOLDEN_KEY: u64 = 2_328_007_597_571_956_039;
    const GOLDEN_KEY_OF_ZEROS: u64 = 2_748_456_433_598_028_880;

    #[test]
    fn density_is_as_said() {
        let bytes = noise(1 << 18, 2);
        let found = scanned(&bytes, 0..bytes.len(), Density::Dense);
        let sparse = found.iter().filter(|c| c.sparse).count();
        assert!(
            (1900..2350).contains(&found.len()),
            "{} candidates in 256 KiB, 2112 expected",
            found.len()
        );
        assert!(
            (35..95).contains(&sparse),
            "{sparse} sparse candidates in 256 KiB, 64 expected"
        );
    }

    #[test]
    fn a_run_of_one_byte_has_no_anchor() {
        for byte in 0..=255u8 {
            let found = scanned(&[byte; 4096], 0..4096, Density::Dense);
            assert!(found.is_empty(), "byte {byte}");
        }
    }

    #[test]
    fn key_needs_a_whole_window() {
        assert_eq!(key(&[1; 31], 31), None);
        assert_eq!(key(&[1; 40], 31), None);
        assert_eq!(key(&[1; 40], 41), None);
        assert!(key(&[1; 40], 40).is_some());
    }

    proptest! {
        #[test]
        fn lanes_do_not_matter(length in 0usize..6000, seed: u64, from in 0usize..3000) {
            let mut bytes = noise(length, seed);
            // Some windows qualify in both ways, next to each other, and not.
            bytes.iter_mut().skip(from).step_by(7).for_each(|byte| *byte = SPARSE_MARK);
            let range = from.min(length)..length;
            let all = naive(&bytes, range.clone());
            prop_assert_eq!(&scanned(&bytes, range.clone(), Density::Dense), &all);
            let sparse: Vec<_> = all.into_iter().filter(|c| c.sparse).collect();
            prop_assert_eq!(scanned(&bytes, range, Density::Sparse), sparse);
        }

        #[test]
        fn only_the_window_counts(prefix in 0usize..200, seed: u64) {
            let tail = noise(3000, seed);
            let found = scanned(&tail, 0..tail.len(), Density::Dense);
            let shifted = [noise(prefix, !seed), tail].concat();
            let again = scanned(&shifted, prefix + WINDOW_BYTES - 1..shifted.len(), Density::Dense);
            let back: Vec<_> = again.iter().map(|c| Candidate { end: c.end - u32::try_from(prefix).unwrap(), ..*c }).collect();
            prop_assert_eq!(found, back);
        }
    }
}
