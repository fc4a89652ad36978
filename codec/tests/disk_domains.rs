//! Domains on disk: what is left after a restart, what may wait, and what is lost for good.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod core_pair;

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use codec::block::{BlockVersion, Known};
use codec::domain::{Domain, Log, VerifyCursor};
use codec::encoder::EncodeRequest;
use codec::error::DecodeError;
use codec::frame::{DomainId, RefuseReason, StreamId};
use codec::policy::{Habit, Level};
use core_pair::desk::{BLOCK, Desk, MIB, flip, flush};
use core_pair::{End, Flight, agree, config, noise, pieces, place, text, transfer};

#[test]
fn a_second_transfer_after_both_were_opened_again_is_nearly_all_copies() {
    let mut desk = Desk::new(8 * MIB);
    let plain = [noise(3 << 20, 1), text(3 << 20, 2)].concat();
    let [mut a, mut b] = desk.pair(64 * MIB);
    let cold = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(a.domain.is_dirty() && b.domain.is_dirty());
    let pages = a.domain.claim(Log::Own).tail.div_ceil(1 << 16);
    assert!(pages > 48, "{pages}");
    assert_eq!((flush(&a), flush(&b)), (pages, pages));
    assert!(!a.domain.is_dirty() && !b.domain.is_dirty());
    assert!(
        a.domain.stats().unsaved_bytes <= 64 << 10,
        "the page at the tail"
    );
    drop((a, b));

    let [mut a, mut b] = desk.pair(64 * MIB);
    let warm = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(warm < cold / 500, "{warm} of {cold}");
    assert!(a.domain.stats().is_index_loaded);
    flush(&b);
    drop((a, b));

    // The other way: what was a mirror is as good a source, and a new end on one side takes nothing from the other.
    let [mut a, mut b] = desk.pair(64 * MIB);
    let back = transfer(&mut b, &mut a, 1, &plain, BLOCK);
    assert!(back < cold / 500, "{back} of {cold}");
}

#[test]
fn what_was_not_written_is_not_agreed_on() {
    let mut desk = Desk::new(8 * MIB);
    let (one, two) = (noise(1 << 20, 1), noise(1 << 20, 2));
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &one, BLOCK);
    flush(&a);
    flush(&b);
    transfer(&mut a, &mut b, 1, &two, BLOCK);
    flush(&b);
    // The owner forgets the second, its mirror does not.
    drop(a);
    let mut a = desk.end("a", 64 * MIB);
    drop(b.lease.take());
    b = End::of(Arc::clone(&b.domain));
    agree(&a, &b);
    let wire = transfer(&mut a, &mut b, 1, &two, BLOCK);
    assert!(wire > 1 << 20, "{wire}");
    let wire = transfer(&mut a, &mut b, 1, &one, BLOCK);
    assert!(wire < 1 << 12, "{wire}");
    let wire = transfer(&mut a, &mut b, 1, &two, BLOCK);
    assert!(wire < 1 << 12, "{wire}");
}

fn request(end: &End, plain: &Bytes) -> EncodeRequest {
    EncodeRequest {
        version: BlockVersion::Two,
        stream: StreamId(9),
        stream_offset: 0,
        plain: plain.clone(),
        domain: Some((DomainId::SHARED, Arc::clone(&end.domain))),
        may_copy: true,
        may_append: true,
        level: Level::default(),
        hint: None,
        habit: Habit::default(),
        replaces: None,
        avoid: None,
    }
}

#[test]
fn who_may_not_wait_gives_the_work_back() {
    // Nothing stays in the cache.
    let mut desk = Desk::new(0);
    let plain = Bytes::from(noise(BLOCK, 1));
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &plain, BLOCK);
    let resident = a.encoder.try_encode(request(&a, &plain)).unwrap();
    assert_eq!(resident.tally.copied_bytes as usize, BLOCK);
    flush(&a);
    flush(&b);
    let back = a.encoder.try_encode(request(&a, &plain)).unwrap_err();
    assert_eq!(back.plain, plain);
    let mut encoded = a.encoder.encode(*back);
    assert_eq!(encoded.tally.copied_bytes as usize, BLOCK);
    assert_eq!(encoded.continuation, resident.continuation);

    let (header, body) = encoded.wire(None, Known::default());
    let flight = Flight {
        encoded,
        header,
        body,
        plain: plain.clone(),
    };
    let header = b.register(&flight);
    assert_eq!(
        b.decoder
            .try_decode(Some(&b.domain), &header, &pieces(&flight.body)),
        Err(DecodeError::NotResident)
    );
    assert_eq!(b.decode(&header, &flight.body).unwrap().plain, plain);
    let own = flight.encoded.header();
    assert_eq!(
        a.decoder
            .try_rebuild(Some(&a.domain), own, &pieces(&flight.body)),
        Err(DecodeError::NotResident)
    );
    assert!(a.repeat(&flight, 1).is_some());
}

#[test]
fn what_is_in_the_cache_needs_no_waiting() {
    let mut desk = Desk::new(8 * MIB);
    let plain = Bytes::from(noise(BLOCK, 1));
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &plain, BLOCK);
    flush(&a);
    let encoded = a.encoder.try_encode(request(&a, &plain)).unwrap();
    assert_eq!(encoded.tally.copied_bytes as usize, BLOCK);
    assert!(desk.cache.size_bytes() > 2 << 16);
}

#[test]
fn a_damaged_page_is_refused_once_and_then_a_hole() {
    let mut desk = Desk::new(0);
    let plain = noise(8 * BLOCK, 1);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &plain, BLOCK);
    flush(&a);
    flush(&b);
    let block = Bytes::copy_from_slice(&plain[..BLOCK]);
    let segment = &desk.files("b/mirror", "seg")[0];
    flip(segment, 3 * BLOCK);
    let flights: Vec<Flight> = plain
        .chunks(BLOCK)
        .map(|chunk| a.send(1, &Bytes::copy_from_slice(chunk)))
        .collect();
    let mut refused = Vec::new();
    for flight in flights {
        let header = b.register(&flight);
        match b.decode(&header, &flight.body) {
            Ok(decoded) => assert_eq!(decoded.plain, flight.plain),
            Err(DecodeError::Refused { reason, lost }) => {
                refused.push(reason);
                for source in lost {
                    a.lose(Log::Own, source.span());
                    b.lose(Log::Mirror, source.span());
                }
                if let Some(append) = header.append {
                    a.lose(Log::Own, append);
                    b.lose(Log::Mirror, append);
                }
                let repeat = a.repeat(&flight, 7).unwrap();
                let header = b.register(&repeat);
                assert_eq!(b.decode(&header, &repeat.body).unwrap().plain, flight.plain);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refused, [RefuseReason::Unreadable]);
    assert_eq!(b.domain.stats().damaged_pages, 1);
    // The encoder's side finds out for itself, and takes no copy.
    for segment in desk.files("a/own", "seg") {
        flip(&segment, 8 * BLOCK);
    }
    let encoded = a.encoder.encode(request(&a, &block));
    assert!((encoded.tally.copied_bytes as usize) < BLOCK);
    assert_eq!(a.domain.stats().damaged_pages, 1);
}

#[test]
fn verify_finds_what_is_damaged_and_makes_it_holes() {
    let mut desk = Desk::new(8 * MIB);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &noise(8 << 20, 1), BLOCK);
    transfer(&mut b, &mut a, 1, &noise(2 << 20, 2), BLOCK);
    flush(&a);
    let segment = &desk.files("a/own", "seg")[0];
    flip(segment, 10);
    flip(segment, 1 << 20);
    let verify = || {
        let mut cursor = VerifyCursor::default();
        let mut steps = 1u64;
        let mut found = a.domain.verify_step(&mut cursor);
        while !found.is_done {
            found = a.domain.verify_step(&mut cursor);
            steps += 1;
        }
        (found, steps)
    };
    let (found, steps) = verify();
    assert_eq!((found.damaged_pages, steps), (2, found.pages / 64 + 1));
    assert_eq!(found.bytes, found.pages << 16);
    assert!(found.pages >= 128, "{found:?}");
    assert!(a.domain.claim(Log::Own).holes.range_count() >= 2);
    let (again, _) = verify();
    assert_eq!((again.damaged_pages, again.pages), (0, found.pages - 2));
    assert_eq!(a.domain.stats().damaged_pages, 2);
}

#[test]
fn an_index_without_saved_anchors_comes_from_the_pages() {
    let mut desk = Desk::new(8 * MIB);
    let plain = text(5 << 20, 3);
    let [mut a, mut b] = desk.pair(64 * MIB);
    let cold = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    flush(&a);
    flush(&b);
    drop((a, b));
    for file in desk.files("a/own", "idx") {
        fs::remove_file(file).unwrap();
    }
    let [mut a, mut b] = desk.pair(64 * MIB);
    let warm = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(warm < cold / 50, "{warm} of {cold}");
}

#[test]
fn openings_without_traffic_do_not_use_epochs_up() {
    let mut desk = Desk::new(8 * MIB);
    let plain = noise(1 << 20, 1);
    for round in 0..3 {
        let [mut a, mut b] = desk.pair(64 * MIB);
        let wire = transfer(&mut a, &mut b, 1, &plain, BLOCK);
        assert_eq!(wire > 1 << 20, round == 0, "{wire}");
        transfer(&mut a, &mut b, 1, &noise(1000, round + 5), BLOCK);
        flush(&a);
        flush(&b);
    }
    let epochs = |end: &End| end.domain.claim(Log::Own).epochs.len();
    let [mut a, mut b] = desk.pair(64 * MIB);
    let used = epochs(&a);
    transfer(&mut a, &mut b, 1, &noise(1000, 99), BLOCK);
    flush(&a);
    flush(&b);
    drop((a, b));
    for _ in 0..70 {
        let [a, b] = desk.pair(64 * MIB);
        flush(&a);
        flush(&b);
    }
    let [mut a, mut b] = desk.pair(64 * MIB);
    assert!(epochs(&a) <= used + 2, "{} of {used}", epochs(&a));
    let wire = transfer(&mut a, &mut b, 1, &plain, BLOCK);
    assert!(wire < 1 << 13, "{wire}");
}

#[test]
fn what_is_not_understood_is_set_aside_with_a_warning() {
    let mut desk = Desk::new(8 * MIB);
    let [mut a, mut b] = desk.pair(64 * MIB);
    transfer(&mut a, &mut b, 1, &noise(1 << 20, 1), BLOCK);
    flush(&a);
    drop((a, b));
    flip(&desk.dir.path().join("history/a/own/manifest"), 20);
    let place = place(&desk.storage, "a", &desk.cache);
    let (domain, warnings) = Domain::open(config(64 * MIB, 99), place).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the peer of a"), "{warnings:?}");
    assert_eq!(domain.claim(Log::Own).tail, 0);
}
