//! Bytes that are a function of a seed and their offset.
//!
//! Any range can be made or checked without the bytes before it, on either end of a connection, so that a failing
//! comparison names the first wrong offset instead of "the hashes differ".

mod checker;
mod echo;
mod edit;

pub use checker::{Checker, Mismatch};
pub use echo::there_and_back;
pub use edit::edited;

/// Bytes made from one evaluation of the generator: everything is computed in words of this many bytes.
const WORD_BYTES: u64 = 8;

/// What the bytes look like to a compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing compresses these bytes.
    Random,
    /// Lines of 64 bytes made of words: zstd makes them about four times smaller, and no two lines are alike.
    Text,
}

/// An endless run of bytes: byte `offset` depends only on the kind, the seed and `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    kind: Kind,
    seed: u64,
}

impl Payload {
    /// Incompressible bytes.
    #[must_use]
    pub const fn random(seed: u64) -> Self {
        Self {
            kind: Kind::Random,
            seed,
        }
    }

    /// Compressible bytes.
    #[must_use]
    pub const fn text(seed: u64) -> Self {
        Self {
            kind: Kind::Text,
            seed,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on. Offsets wrap at 2^64.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) {
        match self.kind {
            Kind::Random => fill_words(offset, buffer, |index| mix(self.seed, index).to_le_bytes()),
            Kind::Text => fill_words(offset, buffer, |index| text_word(self.seed, index)),
        }
    }

    /// The `length` bytes (in bytes) from `offset` on, in a buffer of their own.
    #[must_use]
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        self.fill(offset, &mut buffer);
        buffer
    }
}

/// Fills `buffer` from words; `word` gives the eight bytes at eight times its index.
fn fill_words(offset: u64, buffer: &mut [u8], word: impl Fn(u64) -> [u8; 8]) {
    let mut index = offset / WORD_BYTES;
    let skip = usize::try_from(offset % WORD_BYTES).unwrap_or(0);
    let mut rest = buffer;
    if skip != 0 {
        let first = word(index);
        let tail = first.get(skip..).unwrap_or_default();
        let count = tail.len().min(rest.len());
        let (head, after) = rest.split_at_mut(count);
        head.copy_from_slice(&tail[..count]);
        rest = after;
        index = index.wrapping_add(1);
    }
    let mut chunks = rest.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word(index));
        index = index.wrapping_add(1);
    }
    let last = chunks.into_remainder();
    let count = last.len();
    last.copy_from_slice(&word(index)[..count]);
}

/// splitmix64's finaliser over a sequence that the seed chooses.
fn mix(seed: u64, index: u64) -> u64 {
    let mut value = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Words of a text line: eight make 64 bytes, the last of them ends the line.
const WORDS_PER_LINE: u64 = 8;

/// Stems and endings of the words; 16 of each give 256 words, so that a word of eight bytes carries one byte of
/// information.
const STEMS: [&[u8; 4]; 16] = [
    b"bran", b"serv", b"link", b"hist", b"copy", b"lite", b"cred", b"fram", b"tunn", b"mirr",
    b"anch", b"pool", b"segm", b"stre", b"quot", b"hash",
];
const ENDINGS: [&[u8; 4]; 16] = [
    b"ed  ", b"ing ", b"er, ", b"s   ", b"ch  ", b"ory ", b"ion ", b"al  ", b"ful ", b"less",
    b"ly. ", b"est ", b"ment", b"ness", b"or; ", b"y   ",
];

fn text_word(seed: u64, index: u64) -> [u8; 8] {
    let choice = mix(seed, index);
    let stem = STEMS[usize::try_from(choice >> 60).unwrap_or(0)];
    let ending = ENDINGS[usize::try_from((choice >> 56) & 15).unwrap_or(0)];
    let mut word = [0; 8];
    word[..4].copy_from_slice(stem);
    word[4..].copy_from_slice(ending);
    if index % WORDS_PER_LINE == WORDS_PER_LINE - 1 {
        word[7] = b'\n';
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_depends_only_on_its_offset() {
        for payload in [Payload::random(7), Payload::text(7)] {
            let whole = payload.bytes(0, 4096);
            for offset in [0_usize, 1, 5, 7, 8, 9, 63, 64, 1000] {
                for length in [0_usize, 1, 3, 7, 8, 9, 17, 500] {
                    let part = payload.bytes(offset as u64, length);
                    assert_eq!(
                        part,
                        whole[offset..offset + length],
                        "{payload:?} at {offset}, {length} bytes"
                    );
                }
            }
        }
    }

    #[test]
    fn seeds_and_kinds_give_different_bytes() {
        let all = [
            Payload::random(1),
            Payload::random(2),
            Payload::text(1),
            Payload::text(2),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.bytes(0, 64), b.bytes(0, 64), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn text_is_lines_and_repeats_no_line() {
        let text = Payload::text(3).bytes(0, 64 * 10_000);
        assert!(text.is_ascii());
        let lines: std::collections::HashSet<&[u8]> =
            text.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 10_000);
        assert!(lines.iter().all(|line| line.len() == 64));
    }

    #[test]
    fn random_bytes_are_evenly_spread() {
        let bytes = Payload::random(11).bytes(0, 1 << 20);
        let mut counts = [0_u32; 256];
        for byte in &bytes {
            counts[usize::from(*byte)] += 1;
        }
        // 4,096 expected of each; a deviation of 512 is eight standard deviations.
        assert!(
            counts.iter().all(|count| count.abs_diff(4096) < 512),
            "{counts:?}"
        );
    }
}
