//! What the index finds again.

#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::anchor::{Candidate, Density, Scanner};

/// A key for each number, spread over all bits.
fn key(number: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())
}

fn positions(index: &Index, key: u64) -> Vec<(Log, u64)> {
    let mut hints = Vec::new();
    index.look_up(&[key], &mut hints);
    hints
        .iter()
        .map(|hint| (hint.log, hint.position(1 << 40).unwrap()))
        .collect()
}

/// A tail for `positions` of which the low bits are zero, so positions come out 2^38 below it, or as themselves above.
fn at(position: u64) -> u64 {
    (1 << 40) - (1 << POSITION_BITS) + position
}

#[test]
fn newest_first_and_both_logs() {
    let index = Index::new(1 << 20);
    index.insert(Log::Own, [(key(1), at(10_000))]);
    index.insert(Log::Mirror, [(key(1), at(20_000))]);
    index.insert(Log::Own, [(key(1), at(30_000))]);
    assert_eq!(
        positions(&index, key(1)),
        [
            (Log::Own, at(30_000)),
            (Log::Mirror, at(20_000)),
            (Log::Own, at(10_000))
        ]
    );
    assert_eq!(positions(&index, key(2)), []);
}

#[test]
fn one_long_append_to_a_new_index_is_known_whole() {
    let index = Index::new(1 << 20);
    // A block of 256 KiB.
    index.insert(Log::Own, (1..=2048).map(|n| (key(n), at(n * 128))));
    let known = (1..=2048)
        .filter(|&n| positions(&index, key(n)).contains(&(Log::Own, at(n * 128))))
        .count();
    assert!(known > 1900, "{known} of 2048");
}

#[test]
fn growth_keeps_what_is_known_and_stops_at_capacity() {
    let index = Index::new(1 << 20);
    let small = index.size_bytes();
    index.insert(Log::Own, (1..=20_000).map(|n| (key(n), at(n * 100))));
    for batch in 0..40 {
        index.insert(
            Log::Own,
            (1..=500)
                .map(|n| batch * 500 + n)
                .map(|n| (key(n), at(n * 100))),
        );
    }
    assert!(index.size_bytes() > small);
    let known = (1..=20_000)
        .filter(|&n| positions(&index, key(n)).contains(&(Log::Own, at(n * 100))))
        .count();
    assert!(known > 19_000, "{known} of 20000");
    for batch in 0..4000 {
        index.insert(
            Log::Own,
            (1..=500)
                .map(|n| batch * 500 + n)
                .map(|n| (key(n), at(n * 100))),
        );
    }
    assert_eq!(index.size_bytes(), 1 << 20);
}

#[test]
fn older_anchors_take_what_is_free() {
    let index = Index::new(1 << 20);
    index.insert(Log::Own, [(key(1), at(50_000))]);
    let older = |n: u64| (load_key(save_key(key(n))), at(10_000 + n));
    index.insert_older(Log::Own, &(1..=3000).map(older).collect::<Vec<_>>());
    assert_eq!(
        positions(&index, key(1)),
        [(Log::Own, at(50_000)), (Log::Own, at(10_001))]
    );
    let known = (1..=3000)
        .filter(|&n| positions(&index, key(n)).contains(&(Log::Own, at(10_000 + n))))
        .count();
    assert!(known > 2700, "{known} of 3000: the table grows for them");
    let full = Index::new(0);
    let same_bucket = |n: u64| n << FIRST_BITS;
    full.insert(Log::Own, (1..=8).map(|n| (same_bucket(n), at(n * 10_000))));
    full.insert_older(Log::Own, &[(same_bucket(9), at(5))]);
    assert_eq!(positions(&full, same_bucket(9)), []);
    assert_eq!(
        positions(&full, same_bucket(1)),
        [(Log::Own, at(10_000))],
        "nothing is pushed out"
    );
}

#[test]
fn saved_keys_are_found_under_the_keys_themselves() {
    for number in 0..1000 {
        let (key, saved) = (key(number), load_key(save_key(key(number))));
        assert_eq!(shard_of(key), shard_of(saved));
        assert_eq!(tag(key), tag(saved));
        assert_eq!(
            key & ((1 << SAVED_LOW_BITS) - 1),
            saved & ((1 << SAVED_LOW_BITS) - 1)
        );
    }
}

#[test]
fn a_large_history_is_thinned_to_what_the_index_holds() {
    let index = Index::new(1 << 20);
    index.thin_for(16 << 20);
    let kept = |index: &Index| (0..8000).filter(|&n| index.keeps(key(n))).count();
    assert_eq!(kept(&index), 8000, "an entry for every anchor");
    index.thin_for(100 << 20);
    assert!((900..1100).contains(&kept(&index)), "{}", kept(&index));
    index.insert(Log::Own, (1..=8000).map(|n| (key(n), at(n * 100))));
    for n in 1..=8000 {
        let found = positions(&index, key(n)).contains(&(Log::Own, at(n * 100)));
        assert!(index.keeps(key(n)) || !found, "{n}");
        assert_eq!(index.keeps(key(n)), index.keeps(load_key(save_key(key(n)))));
    }
    index.thin_for(u64::MAX);
    assert!((0..8000).any(|n| index.keeps(key(n))), "never nothing");
    index.thin_for(1);
    assert_eq!(kept(&index), 8000);
}

#[test]
fn anchors_of_noise_are_not_thinned() {
    let bytes: Vec<u8> = (0..1 << 20)
        .scan(1u64, |state, _| {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            Some((*state >> 56) as u8)
        })
        .collect();
    let mut candidates = Vec::new();
    Scanner::default().scan(&bytes, 0..bytes.len(), Density::Dense, &mut candidates);
    let index = Index::new(0);
    index.thin_for(u64::MAX);
    let kept = |candidate: &&Candidate| index.keeps(candidate.key(&bytes).unwrap());
    let (sparse, dense): (Vec<_>, Vec<_>) = candidates.iter().partition(|of| of.sparse);
    assert!(sparse.len() > 150, "{}", sparse.len());
    assert_eq!(sparse.iter().copied().filter(kept).count(), sparse.len());
    let dense_kept = dense.iter().copied().filter(kept).count();
    assert!((1..dense.len() / 16).contains(&dense_kept), "{dense_kept}");
}

#[test]
fn a_period_does_not_flood() {
    let index = Index::new(1 << 16);
    index.insert(Log::Own, [(key(7), at(500))]);
    index.insert(
        Log::Own,
        (0..10_000).map(|n| (key(7), at(100_000 + 16 * n))),
    );
    let found = positions(&index, key(7));
    assert!(found.len() <= SAME_TAG_MAX);
    assert_eq!(found.first(), Some(&(Log::Own, at(100_000 + 16 * 9_999))));
}

#[test]
fn a_repeated_key_leaves_room_for_others() {
    let index = Index::new(0);
    index.insert(Log::Own, [(key(3), at(77))]);
    index.insert(
        Log::Own,
        (0..100).map(|n| (key(3) ^ 1 << 20, at(10_000 * n + 10_000))),
    );
    assert_eq!(positions(&index, key(3)), [(Log::Own, at(77))]);
}

#[test]
fn positions_follow_the_tail() {
    let hint = Hint {
        key: 0,
        log: Log::Own,
        low: 5000,
    };
    assert_eq!(hint.position(5000), Some(5000));
    assert_eq!(hint.position(4999), None);
    assert_eq!(hint.position((1 << 38) + 4999), Some(5000));
    assert_eq!(hint.position((1 << 38) + 5000), Some((1 << 38) + 5000));
}
