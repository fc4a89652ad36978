//! Domains on disk: what is left after a restart, what may wait, and what is lost for good.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod core_pair;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use codec::cache::PageCache;
use codec::domain::{Cleared, Domain, Log, VerifyCursor};
use codec::encoder::EncodeRequest;
use codec::error::DecodeError;
use codec::frame::{DomainId, RefuseReason, StreamId};
use codec::policy::{Habit, Level};
use codec::storage::{Directory, Storage};
use core_pair::{End, Flight, agree, config, drop_as_agreed, noise, pieces, place, text, transfer};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 128 << 10;

/// A directory with both ends of a domain in it.
struct Desk {
    // Before the directory is removed, its lock goes.
    storage: Arc<dyn Storage>,
    cache: Arc<PageCache>,
    openings: u8,
    dir: tempfile::TempDir,
}

impl Desk {
    fn new(cache_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(&dir.path().join("history")).unwrap();
        Self {
            storage: Arc::new(storage),
            cache: Arc::new(PageCache::new(cache_bytes).with_unsaved_max(32 * MIB, 64 * MIB)),
            openings: 0,
            dir,
        }
    }

    fn end(&mut self, name: &str, capacity_bytes: u64) -> End {
        self.openings += 1;
        let config = config(capacity_bytes, self.openings);
        End::on_disk(&self.storage, name, config, &self.cache)
    }

    fn pair(&mut self, capacity_bytes: u64) -> [End; 2] {
        let ends = ["a", "b"].map(|name| self.end(name, capacity_bytes));
        agree(&ends[0], &ends[1]);
        ends
    }

    fn files(&self, of: &str, extension: &str) -> Vec<std::path::PathBuf> {
        let dir = self.dir.path().join("history").join(of);
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        files
    }
}

fn flush(end: &End) -> u64 {
    let flush = end.domain.flush();
    assert!(flush.error.is_none(), "{:?}", flush.error);
    flush.pages
}

/// Changes the bit that is so many bytes before the end.
fn flip(path: &Path, before_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - before_end;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

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

    let (header, body) = encoded.wire(None);
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

#[test]
fn what_a_peer_no_longer_has_still_counts_until_it_is_dropped() {
    let capacity = 16 * MIB;
    let mut desk = Desk::new(4 * MIB);
    // The peer loses all each time; our own files stay, and must not grow beyond their room.
    for round in 0..6 {
        let mut a = desk.end("a", capacity);
        let mut b = desk.end(&format!("b-{round}"), capacity);
        agree(&a, &b);
        for part in 0..6 {
            transfer(&mut a, &mut b, 1, &noise(1 << 20, round * 10 + part), BLOCK);
            flush(&a);
        }
        let stats = a.domain.stats();
        assert!(stats.disk_bytes <= capacity, "{round}: {stats:?}");
        assert!(stats.own_bytes <= capacity, "{round}: {stats:?}");
    }
}
