//! The room of domains on disk: what lies there, what may wait to, and how it is given back.
#![expect(clippy::unwrap_used, reason = "tests")]

mod core_pair;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use codec::cache::PageCache;
use codec::domain::{Cleared, Log};
use core_pair::desk::{BLOCK, Desk, MIB, flush};
use core_pair::{End, agree, drop_as_agreed, noise, transfer};

#[test]
fn floors_go_by_segments_and_the_capacity_is_what_lies_on_disk() {
    let capacity = 16 * MIB;
    let mut desk = Desk::new(4 * MIB);
    let [mut a, mut b] = desk.pair(capacity);
    for round in 0..64 {
        transfer(&mut a, &mut b, 1, &noise(1 << 20, round), BLOCK);
        flush(&a);
        flush(&b);
        for end in [&a, &b] {
            let stats = end.domain.stats();
            assert!(
                stats.own_bytes + stats.mirror_bytes <= capacity,
                "{stats:?}"
            );
            let log = if stats.own_bytes > 0 {
                Log::Own
            } else {
                Log::Mirror
            };
            assert!(end.domain.claim(log).floor % MIB == 0, "whole segments");
            assert!(stats.disk_bytes <= capacity, "{stats:?}");
        }
    }
    let kept = desk.files("b/mirror", "seg").len();
    assert!((10..=16).contains(&kept), "{kept}");
}

#[test]
fn a_peer_that_ignores_the_quota_fills_the_mirror_no_further_than_its_capacity() {
    let capacity = 8 * MIB;
    let mut desk = Desk::new(4 * MIB);
    let [mut a, mut b] = desk.pair(capacity);
    a.domain.set_capacity(1 << 30, capacity);
    a.domain.set_quota(1 << 30);
    for round in 0..20 {
        for chunk in noise(1 << 20, round).chunks(BLOCK) {
            let flight = a.send(1, &Bytes::copy_from_slice(chunk));
            let header = b.register(&flight);
            assert_eq!(b.decode(&header, &flight.body).unwrap().plain, flight.plain);
        }
        flush(&b);
        assert!(b.domain.stats().mirror_bytes <= capacity);
        assert!(b.domain.stats().disk_bytes <= capacity);
    }
}

#[test]
fn beyond_the_bound_on_what_waits_nothing_is_appended_and_all_goes_on() {
    let mut desk = Desk::new(4 * MIB);
    desk.cache = Arc::new(PageCache::new(4 * MIB).with_unsaved_max(2 * MIB, 64 * MIB));
    let [mut a, mut b] = desk.pair(64 * MIB);
    let pokes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pokes);
    flush(&a);
    a.domain.on_dirty(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let mut not_stored = 0;
    let mut unappended = 0;
    for chunk in noise(4 << 20, 1).chunks(BLOCK) {
        let flight = a.send(1, &Bytes::copy_from_slice(chunk));
        let header = b.register(&flight);
        let decoded = b.decode(&header, &flight.body).unwrap();
        assert_eq!(decoded.plain, flight.plain);
        not_stored += usize::from(!decoded.stored);
        unappended += usize::from(header.append.is_none());
        // The peer writes, we do not.
        flush(&b);
    }
    assert_eq!(not_stored, 0);
    assert!((14..=17).contains(&unappended), "{unappended}");
    assert_eq!(pokes.load(Ordering::Relaxed), 2, "dirty, and pressed");
    assert!(a.domain.is_pressed());
    flush(&a);
    assert!(!a.domain.is_pressed());
    assert!(a.domain.reserve(1000).is_some());

    // The mirror's turn: what it cannot take is not stored.
    for chunk in noise(4 << 20, 2).chunks(BLOCK) {
        let flight = b.send(1, &Bytes::copy_from_slice(chunk));
        let header = a.register(&flight);
        let decoded = a.decode(&header, &flight.body).unwrap();
        assert_eq!(decoded.plain, flight.plain);
        not_stored += usize::from(!decoded.stored);
        flush(&b);
    }
    assert!((14..=18).contains(&not_stored), "{not_stored}");
}

#[test]
fn clearing_is_at_once_where_nobody_uses_the_domain() {
    let mut desk = Desk::new(8 * MIB);
    let plain = noise(3 << 20, 1);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &plain, BLOCK);
    flush(&a);
    drop(a.lease.take());
    assert_eq!(a.domain.clear(), Cleared::Now);
    flush(&a);
    assert_eq!(a.domain.stats().own_bytes, 0);
    assert!(desk.files("a/own", "seg").is_empty());
    drop(b.lease.take());
    let (mut a, mut b) = (
        End::of(Arc::clone(&a.domain)),
        End::of(Arc::clone(&b.domain)),
    );
    agree(&a, &b);
    let wire = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(wire > 3 << 20, "{wire}");
    let wire = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(wire < 1 << 13, "{wire}");
}

#[test]
fn clearing_goes_by_floor_and_quota_while_a_tunnel_uses_the_domain() {
    let mut desk = Desk::new(8 * MIB);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &noise(3 << 20, 1), BLOCK);
    transfer(&mut b, &mut a, 1, &noise(3 << 20, 2), BLOCK);
    flush(&a);
    let offered = a.domain.quota_offer();
    assert_eq!(a.domain.clear(), Cleared::UnderWay);
    drop_as_agreed(&a, &b);
    assert!(a.domain.quota_offer() < 2 << 16);
    b.domain.set_quota(a.domain.quota_offer());
    drop_as_agreed(&b, &a);
    assert_eq!(a.domain.quota_offer(), offered);
    for log in [Log::Own, Log::Mirror] {
        let claim = a.domain.claim(log);
        assert_eq!(claim.floor, claim.tail);
    }
    b.domain.set_quota(offered);
    let wire = transfer(&mut b, &mut a, 1, &noise(3 << 20, 2), BLOCK);
    assert!(wire > 3 << 20);
}

#[test]
fn a_quota_of_nothing_ends_appending_and_drops_nothing() {
    let mut desk = Desk::new(8 * MIB);
    let plain = noise(3 << 20, 1);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &plain, BLOCK);
    a.domain.set_quota(0);
    assert_eq!(a.domain.floor_wanted(), None);
    assert_eq!(a.domain.reserve(1000), None);
    let wire = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(wire < 1 << 13, "{wire}");
}

#[test]
fn room_changes_while_the_domain_is_used() {
    let mut desk = Desk::new(8 * MIB);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &noise(30 << 20, 1), BLOCK);
    flush(&a);
    flush(&b);
    let before = b.domain.quota_offer();
    b.domain.set_capacity(8 * MIB, 8 * MIB);
    assert_eq!(b.domain.quota_offer(), before / 8);
    a.domain.set_quota(b.domain.quota_offer());
    drop_as_agreed(&a, &b);
    flush(&b);
    assert!(b.domain.stats().disk_bytes <= 8 * MIB);
    assert!(
        b.domain.stats().mirror_bytes > MIB,
        "no more than needed is dropped"
    );
}

#[test]
fn what_a_peer_no_longer_has_still_counts_until_it_is_dropped() {
    let capacity = 16 * MIB;
    let mut desk = Desk::new(4 * MIB);
    // The peer loses all each time; our own files stay, and must not grow beyond their room.
    for round in 0..10 {
        let mut a = desk.end("a", capacity);
        let mut b = desk.end(&format!("b-{round}"), capacity);
        agree(&a, &b);
        for part in 0..3 {
            transfer(&mut a, &mut b, 1, &noise(1 << 20, round * 10 + part), BLOCK);
            flush(&a);
        }
        let stats = a.domain.stats();
        assert!(stats.disk_bytes <= capacity, "{round}: {stats:?}");
        assert!(stats.own_bytes <= capacity, "{round}: {stats:?}");
    }
}
