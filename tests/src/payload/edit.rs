//! A next version of some bytes: what an editor, a compiler or a nightly dump would change.

use super::{Kind, Payload, mix};

/// One change falls into each stretch of this many bytes on average.
const STRETCH_BYTES: usize = 128 * 1024;

/// Longest insertion, deletion or replacement, in bytes.
const CHANGE_BYTES: usize = 512;

/// The next version of `bytes`, the same for the same `seed`: in every 128 KiB one run of up to 512 bytes is inserted,
/// deleted or replaced by new bytes, at a place the seed chooses. Short inputs get one change.
#[must_use]
pub fn edited(bytes: &[u8], seed: u64) -> Vec<u8> {
    let kind = if bytes.is_ascii() {
        Kind::Text
    } else {
        Kind::Random
    };
    let fresh = Payload {
        kind,
        seed: seed ^ 0x5bf0_3635,
    };
    let mut next = Vec::with_capacity(bytes.len() + bytes.len() / 256 + 1024);
    for (index, stretch) in bytes.chunks(STRETCH_BYTES).enumerate() {
        let choice = mix(seed, index as u64);
        let place = below(choice >> 20, stretch.len());
        let length = below(choice >> 2, CHANGE_BYTES) + 1;
        let (before, after) = stretch.split_at(place);
        next.extend_from_slice(before);
        let (removed, inserted) = match choice & 3 {
            0 => (0, length),
            1 => (length, 0),
            _ => (length, length),
        };
        next.extend_from_slice(&fresh.bytes((index * CHANGE_BYTES) as u64, inserted));
        next.extend_from_slice(after.get(removed..).unwrap_or_default());
    }
    next
}

fn below(value: u64, bound: usize) -> usize {
    usize::try_from(value % (bound.max(1) as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_small_and_repeatable() {
        for payload in [Payload::text(1), Payload::random(1)] {
            let bytes = payload.bytes(0, 3 << 20);
            let next = edited(&bytes, 42);
            assert_eq!(next, edited(&bytes, 42));
            assert_ne!(next, bytes);
            assert_ne!(next, edited(&bytes, 43));
            assert!(
                next.len().abs_diff(bytes.len()) <= 24 * 512,
                "{}",
                next.len()
            );
        }
    }

    #[test]
    fn most_bytes_survive_an_edit() {
        let bytes = Payload::random(2).bytes(0, 4 << 20);
        let next = edited(&bytes, 1);
        let old: std::collections::HashSet<&[u8]> = bytes.windows(64).step_by(64).collect();
        let kept = next
            .windows(64)
            .filter(|window| old.contains(window))
            .count();
        // 65,536 cells; each of the 32 changes destroys at most nine of them.
        assert!(kept >= 65_536 - 32 * 10, "{kept}");
    }

    #[test]
    fn short_and_empty_inputs_are_edited_too() {
        assert_eq!(edited(b"", 1), b"");
        for length in 1..200 {
            let bytes = Payload::text(8).bytes(0, length);
            assert_ne!(edited(&bytes, 5), bytes, "{length} bytes");
        }
    }
}
