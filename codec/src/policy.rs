//! What the encoder decides, and the figures that it decides by.

use crate::block::{BLOCK_PLAIN_MAX, BlockVersion};

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Not at all; copies are still made.
    Off,
    /// zstd's level, 1 to 19.
    Zstd(u8),
}

impl Default for Level {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl Level {
    /// zstd's level `level`, brought into 1 to 19.
    #[must_use]
    pub const fn zstd(level: u8) -> Self {
        match level {
            0 => Self::Zstd(1),
            20.. => Self::Zstd(19),
            _ => Self::Zstd(level),
        }
    }
}

/// A stream in bulk closes a block at this size: the prefix of a longer one would not reach over all of it (next build of a binary: 18.4 times, 10.0 with
/// blocks of 256 KiB), and a shorter one's header and frame weigh more.
pub const BULK_BLOCK_BYTES: u64 = 128 << 10;

/// The same where nearly everything is copies: a block then is hardly more than its header (warm: 7,700 times, 3,850 with 128 KiB).
pub(crate) const COPIED_BLOCK_BYTES: u64 = BLOCK_PLAIN_MAX as u64;

/// Plain bytes of a block of which less than one is sent as it is, or as literals, that count as nearly everything.
pub(crate) const NEARLY_ALL: u64 = 64;

/// What a stream has shown so far; travels from block to block, in no particular order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habit {
    /// Blocks in a row that did not shrink and looked like noise.
    noisy_blocks: u8,
    /// Blocks in a row that did not shrink and were too short to look like anything.
    stubborn_messages: u8,
}

impl Habit {
    /// Whether a block of `plain_bytes` may go raw without compressing it first to see: `noisy` is how it looks, where that can be told.
    pub(crate) const fn trusts_the_look(self, plain_bytes: usize, noisy: bool) -> bool {
        if plain_bytes < SAMPLE_BYTES {
            self.stubborn_messages >= STUBBORN_MESSAGES
                && !self.stubborn_messages.is_multiple_of(STUBBORN_PROBE)
        } else {
            noisy
                && self.noisy_blocks >= NOISY_BLOCKS
                && !self.noisy_blocks.is_multiple_of(NOISY_PROBE)
        }
    }

    /// Whether only sparse anchors are looked up.
    pub(crate) const fn scans_sparsely(self) -> bool {
        self.noisy_blocks >= NOISY_BLOCKS
    }

    /// After a block of `plain_bytes` that looked `noisy` or not, and shrank or did not.
    pub(crate) const fn after(self, plain_bytes: usize, noisy: bool, shrank: bool) -> Self {
        if plain_bytes < SAMPLE_BYTES {
            let count = counted(self.stubborn_messages, !shrank, STUBBORN_PROBE);
            Self {
                stubborn_messages: count,
                noisy_blocks: if shrank { 0 } else { self.noisy_blocks },
            }
        } else {
            Self {
                noisy_blocks: counted(self.noisy_blocks, noisy && !shrank, NOISY_PROBE),
                stubborn_messages: 0,
            }
        }
    }
}

/// One more in a row, or none. A full count starts over where the next probe is due.
const fn counted(count: u8, goes_on: bool, probe: u8) -> u8 {
    match count.checked_add(1) {
        _ if !goes_on => 0,
        Some(count) => count,
        None => probe,
    }
}

/// Noisy blocks after which a stream is taken to be random or encrypted.
const NOISY_BLOCKS: u8 = 2;

/// Of such a stream one block in so many is compressed all the same. What becomes compressible and looks it is found at once.
const NOISY_PROBE: u8 = 32;

/// Messages that did not shrink after which a stream is taken to be encrypted by its ends.
const STUBBORN_MESSAGES: u8 = 8;

/// Of such a stream one message in so many is compressed all the same: with its prefix that takes about 10 µs.
const STUBBORN_PROBE: u8 = 16;

/// A block of at most so many bytes is a message: its stream's newest bytes say more of it than copies do that are few. Not 4,096: that is what programs
/// write at a time that copy files (next build of a binary in such blocks: 8.1 times, 3.8 as messages).
pub(crate) const MESSAGE_BYTES: usize = 4095;

/// Copies shorter than this, in bytes, are not made: 32 finds more and fragments more (study: 135, 143 and 156 times for 32, 48, 64 on one corpus).
pub(crate) const MATCH_MIN_BYTES: usize = 48;

/// A copy whose run is shorter than this, in bytes, is appended again, lest repeats fragment (study: warm ratio 35 without, 2,898 with 4 KiB).
pub(crate) const REAPPEND_BYTES: u64 = 4096;

/// Blocks of fewer plain bytes are not appended: no copy could be made of them.
pub(crate) const APPEND_MIN_BYTES: usize = 32;

/// Inner parts of fewer bytes are not compressed: a zstd frame costs about 10 bytes and 5 µs.
pub(crate) const COMPRESS_MIN_BYTES: usize = 64;

/// The same with a prefix to refer to.
pub(crate) const PREFIXED_MIN_BYTES: usize = 32;

/// What naming a prefix costs in a header, in bytes.
pub(crate) const fn prefix_named_bytes(version: BlockVersion) -> usize {
    match version {
        BlockVersion::One => 8,
        BlockVersion::Two => 3,
    }
}

/// A compressed block must be smaller by this fraction, or the receiver decompresses for nothing: 1/64.
pub(crate) const GAIN_FRACTION: usize = 64;

/// Bytes looked at to tell noise: 16 stretches of 256.
const SAMPLE_BYTES: usize = 4096;
const SAMPLE_STRETCH_BYTES: usize = 256;

/// Whether `plain` looks like noise: in a sample, its 256 byte values are about equally frequent. Too short a block never does.
///
/// The test is on the sum of squared counts: noise of n bytes has n + n²/256 with a deviation of n/11; what compresses by its
/// byte frequencies by 4 % exceeds that by n²/256/20.
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256 entries")]
pub(crate) fn looks_like_noise(plain: &[u8]) -> bool {
    if plain.len() < SAMPLE_BYTES {
        return false;
    }
    let stretches = SAMPLE_BYTES / SAMPLE_STRETCH_BYTES;
    let mut counts = [0u32; 256];
    for stretch in plain.chunks_exact(plain.len() / stretches).take(stretches) {
        for &byte in stretch.iter().take(SAMPLE_STRETCH_BYTES) {
            counts[byte as usize] += 1;
        }
    }
    let squares: u64 = counts
        .iter()
        .map(|&count| u64::from(count) * u64::from(count))
        .sum();
    let samples = SAMPLE_BYTES as u64;
    squares < samples + samples * samples / 256 / 20 * 21
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        (0..length.div_ceil(8) as u64)
            .flat_map(|at| xxh3_64(&(at ^ seed << 32).to_le_bytes()).to_le_bytes())
            .take(length)
            .collect()
    }

    #[test]
    fn noise_is_told_from_text() {
        for seed in 0..200 {
            assert!(looks_like_noise(&noise(65_536, seed)), "seed {seed}");
        }
        let text: Vec<u8> = include_bytes!("policy.rs")
            .iter()
            .copied()
            .cycle()
            .take(65_536)
            .collect();
        assert!(!looks_like_noise(&text));
        let hex: Vec<u8> = noise(65_536, 1)
            .iter()
            .map(|byte| b"0123456789abcdef"[usize::from(byte & 15)])
            .collect();
        assert!(!looks_like_noise(&hex));
        assert!(
            !looks_like_noise(&noise(SAMPLE_BYTES - 1, 1)),
            "too short to tell"
        );
    }

    #[test]
    fn half_noise_is_not_noise() {
        let mut half = noise(32_768, 3);
        half.resize(65_536, 0);
        assert!(!looks_like_noise(&half));
    }

    #[test]
    fn a_habit_is_taken_slowly_and_lost_at_once() {
        let mut habit = Habit::default();
        let mut trusted = 0;
        for _ in 0..1000 {
            trusted += u32::from(habit.trusts_the_look(65_536, true));
            habit = habit.after(65_536, true, false);
        }
        assert!((900..1000).contains(&trusted), "{trusted} of 1000");
        assert!(habit.scans_sparsely() && !habit.trusts_the_look(65_536, false));
        assert_eq!(habit.after(65_536, true, true), Habit::default());
        assert_eq!(habit.after(65_536, false, false), Habit::default());
    }

    #[test]
    fn messages_that_never_shrink_are_seldom_tried() {
        let mut habit = Habit::default();
        let mut trusted = 0;
        for _ in 0..1000 {
            trusted += u32::from(habit.trusts_the_look(300, false));
            habit = habit.after(300, false, false);
        }
        assert!((880..1000).contains(&trusted), "{trusted} of 1000");
        assert!(
            !habit.trusts_the_look(65_536, true),
            "long ones are looked at"
        );
        assert_eq!(habit.after(300, false, true), Habit::default());
    }
}
