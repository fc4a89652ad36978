//! Small pieces of bytes that wait are joined: a piece costs some sixty bytes beside its own, and only its own are charged to the memory budget.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A piece at least this long is not copied any more: what it costs beside its own bytes is a sixteenth of them at most.
pub(crate) const SMALL_BYTES: usize = 1 << 10;

/// A piece that others were joined to grows to this length.
const JOINED_MAX_BYTES: usize = 16 << 10;

/// Whether `next` is to be joined to the piece `before` it.
pub(crate) fn belong_together(before: &Bytes, next: &Bytes) -> bool {
    next.len() < SMALL_BYTES && before.len() < JOINED_MAX_BYTES
}

/// One piece of two. Its memory grows as a vector's does, so that a thousand pieces are not copied a thousand times.
pub(crate) fn join(before: Bytes, next: &Bytes) -> Bytes {
    let mut joined = before
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    joined.extend_from_slice(next);
    joined.freeze()
}

/// Puts `next` behind `pieces`, of which there are as few as can be without copying what is large.
pub(crate) fn push(pieces: &mut VecDeque<Bytes>, next: Bytes) {
    match pieces.pop_back() {
        Some(before) if belong_together(&before, &next) => pieces.push_back(join(before, &next)),
        before => {
            pieces.extend(before);
            pieces.push_back(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &VecDeque<Bytes>) -> Vec<u8> {
        pieces.iter().flatten().copied().collect()
    }

    #[test]
    fn a_million_bytes_one_by_one_are_few_pieces() {
        let mut pieces = VecDeque::new();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
        for byte in &bytes {
            push(&mut pieces, Bytes::copy_from_slice(&[*byte]));
        }
        assert!(pieces.len() <= bytes.len() / JOINED_MAX_BYTES + 1);
        assert_eq!(all(&pieces), bytes);
    }

    #[test]
    fn what_is_large_is_not_copied_and_what_others_hold_stays_as_it_is() {
        let large = Bytes::from(vec![1; SMALL_BYTES]);
        let shared = Bytes::from(vec![2; 10]);
        let (place, other) = (large.as_ptr(), shared.clone());
        let mut pieces = VecDeque::new();
        push(&mut pieces, shared);
        push(&mut pieces, large);
        assert_eq!(pieces.back().map(|piece| piece.as_ptr()), Some(place));
        let mut pieces = VecDeque::from([other.clone()]);
        push(&mut pieces, Bytes::from_static(&[3]));
        assert_eq!(all(&pieces), [&[2; 10][..], &[3]].concat());
        assert_eq!(other, vec![2; 10]);
    }
}
