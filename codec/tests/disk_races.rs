//! What happens to a domain's files while they are written or read, and what one peer's histories may know of another's.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod core_pair;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use codec::cache::PageCache;
use codec::decoder::Decoder;
use codec::domain::{Log, VerifyCursor};
use codec::encoder::Encoder;
use codec::fuzzing::disk::{Faults, MemoryDisk};
use codec::storage::{Open, Storage, StorageFile};
use core_pair::{End, agree, config, drop_as_agreed, noise, text, transfer};

const BLOCK: usize = 128 << 10;

type Hook = Box<dyn Fn() + Send + Sync>;

/// A disk that does something else in the middle of reading or writing a segment.
#[derive(Clone, Default)]
struct Interrupted {
    disk: MemoryDisk,
    hook: Arc<Mutex<Option<Hook>>>,
    /// How often it was called.
    calls: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct InterruptedFile {
    file: Arc<dyn StorageFile>,
    is_segment: bool,
    of: Interrupted,
}

impl Interrupted {
    fn interrupt(&self) {
        // Taken out, so that what it does is not interrupted again.
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            self.calls.fetch_add(1, Ordering::Relaxed);
            hook();
        }
    }

    fn set(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interrupted").field(&self.disk).finish()
    }
}

impl Storage for Interrupted {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(InterruptedFile {
            file,
            is_segment: path.extension().is_some_and(|extension| extension == "seg"),
            of: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

impl StorageFile for InterruptedFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(out, offset);
        if self.is_segment {
            self.of.interrupt();
        }
        read
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Half before, half after.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.file.write_at(first, offset)?;
        if self.is_segment {
            self.of.interrupt();
        }
        self.file.write_at(second, offset + first.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
}

fn pair(storage: &Arc<dyn Storage>, cache_bytes: u64) -> [End; 2] {
    let cache = Arc::new(PageCache::new(cache_bytes).with_unsaved_max(32 << 20, 64 << 20));
    let ends = [("a", 1), ("b", 2)]
        .map(|(name, epoch)| End::on_disk(storage, name, config(64 << 20, epoch), &cache));
    agree(&ends[0], &ends[1]);
    ends
}

fn flush(end: &End) {
    let flush = end.domain.flush();
    assert!(flush.error.is_none(), "{flush:?}");
}

#[test]
fn a_segment_may_be_evicted_while_one_of_its_pages_is_written() {
    let interrupted = Interrupted::default();
    let storage: Arc<dyn Storage> = Arc::new(interrupted.clone());
    let [mut a, mut b] = pair(&storage, 0);
    transfer(&mut a, &mut b, 1, &noise(5 << 20, 1), BLOCK);
    let floor = a.domain.claim(Log::Own).tail - (100 << 10);
    for (end, log) in [(&a, Log::Own), (&b, Log::Mirror)] {
        let domain = Arc::clone(&end.domain);
        interrupted.set(move || domain.drop_below(log, floor));
        flush(end);
        let claim = end.domain.claim(log);
        assert_eq!(claim.floor, floor);
        // What was written of it goes with the next round.
        flush(end);
        assert!(end.domain.stats().disk_bytes < 2 << 20);
    }
    assert_eq!(interrupted.calls.load(Ordering::Relaxed), 2);
    let wire = transfer(&mut a, &mut b, 1, &noise(5 << 20, 1), BLOCK);
    assert!(wire > 4 << 20, "what was evicted is sent again");
    let wire = transfer(&mut a, &mut b, 1, &noise(5 << 20, 1), BLOCK);
    assert!(wire < 1 << 14, "{wire}");
}

#[test]
fn a_segment_may_be_evicted_while_one_of_its_pages_is_read() {
    let interrupted = Interrupted::default();
    let storage: Arc<dyn Storage> = Arc::new(interrupted.clone());
    let [mut a, mut b] = pair(&storage, 0);
    let plain = noise(5 << 20, 1);
    transfer(&mut a, &mut b, 1, &plain, BLOCK);
    flush(&a);
    flush(&b);
    let floor = a.domain.claim(Log::Own).tail;
    let block = Bytes::copy_from_slice(&plain[..BLOCK]);

    // The decoder: the bytes that it has read are still good, or the block is refused.
    let flight = a.send(1, &block);
    let header = b.register(&flight);
    let evicting = Arc::clone(&b.domain);
    interrupted.set(move || {
        evicting.drop_below(Log::Mirror, floor);
        assert!(evicting.flush().error.is_none());
    });
    match b.decode(&header, &flight.body) {
        Ok(decoded) => assert_eq!(decoded.plain, block),
        Err(error) => assert!(error.to_string().contains("Evicted"), "{error}"),
    }
    assert_eq!(b.domain.stats().damaged_pages, 0, "nothing is damaged");

    // The encoder: what it has read of its own is good.
    let evicting = Arc::clone(&a.domain);
    interrupted.set(move || {
        evicting.drop_below(Log::Own, floor);
        assert!(evicting.flush().error.is_none());
    });
    let _encoded = a.encode(1, &block);
    assert_eq!(a.domain.stats().damaged_pages, 0);
    assert_eq!(interrupted.calls.load(Ordering::Relaxed), 2);
    assert_eq!(a.domain.claim(Log::Own).floor, floor);
}

#[test]
fn bytes_that_come_while_a_page_is_written_are_in_the_next_round() {
    let interrupted = Interrupted::default();
    let storage: Arc<dyn Storage> = Arc::new(interrupted.clone());
    let [mut a, mut b] = pair(&storage, 1 << 20);
    let (one, two) = (noise(100_000, 1), noise(100_000, 2));
    transfer(&mut a, &mut b, 1, &one, BLOCK);
    let ends = Arc::new(Mutex::new((a, b)));
    let (more, sender) = (two.clone(), Arc::clone(&ends));
    interrupted.set(move || {
        let (a, b) = &mut *sender.lock().unwrap();
        transfer(a, b, 3, &more, BLOCK);
    });
    let domain = Arc::clone(&ends.lock().unwrap().0.domain);
    assert!(domain.flush().error.is_none());
    assert!(domain.is_dirty(), "the second transfer is not written");
    assert!(domain.flush().error.is_none());
    assert!(!domain.is_dirty());
    flush(&ends.lock().unwrap().1);
    drop((ends, domain));
    let [mut a, mut b] = pair(&storage, 1 << 20);
    let wire = transfer(&mut a, &mut b, 1, &[one, two].concat(), BLOCK);
    assert!(wire < 4000, "{wire}");
}

#[test]
fn a_full_disk_makes_a_history_read_only_until_there_is_room_again() {
    let disk = MemoryDisk::default();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let [mut a, mut b] = pair(&storage, 8 << 20);
    let (one, two) = (noise(1 << 20, 1), noise(1 << 20, 2));
    transfer(&mut a, &mut b, 1, &one, BLOCK);
    flush(&a);
    flush(&b);
    transfer(&mut a, &mut b, 1, &two, BLOCK);
    disk.set_faults(Faults {
        space_bytes: Some(3 << 20),
        ..Faults::default()
    });
    let offered = b.domain.quota_offer();
    let first = b.domain.flush();
    assert!(first.is_turn && first.error.is_some(), "{first:?}");
    let second = b.domain.flush();
    assert!(!second.is_turn && second.error.is_some(), "said once");
    assert!(b.domain.is_dirty() && b.domain.stats().is_read_only);
    assert_eq!(b.domain.quota_offer(), 0);
    // A block that was on its way is not stored; those that follow go without append. All of it is found meanwhile.
    let flight = a.send(1, &Bytes::from(noise(10_000, 3)));
    let header = b.register(&flight);
    let decoded = b.decode(&header, &flight.body).unwrap();
    assert_eq!((decoded.plain, decoded.stored), (flight.plain, false));
    a.lose(Log::Own, header.append.unwrap());
    a.domain.set_quota(0);
    let wire = transfer(
        &mut a,
        &mut b,
        1,
        &[one.clone(), two.clone()].concat(),
        BLOCK,
    );
    assert!(wire < 8000, "{wire}");

    disk.set_faults(Faults::default());
    let third = b.domain.flush();
    assert!(third.is_turn && third.error.is_none(), "{third:?}");
    assert_eq!(b.domain.quota_offer(), offered);
    flush(&a);
    drop((a, b));
    let [mut a, mut b] = pair(&storage, 8 << 20);
    let wire = transfer(&mut a, &mut b, 1, &[one, two].concat(), BLOCK);
    assert!(wire < 8000, "{wire}");
}

#[test]
fn what_a_full_disk_had_is_whole_for_the_next_program() {
    let disk = MemoryDisk::default();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let [mut a, mut b] = pair(&storage, 8 << 20);
    // Its last page has room left, and is written again with more in it.
    let one = noise((1 << 20) + 1000, 1);
    transfer(&mut a, &mut b, 1, &one, BLOCK);
    flush(&a);
    flush(&b);
    transfer(&mut a, &mut b, 1, &noise(1 << 20, 2), BLOCK);
    disk.set_faults(Faults {
        space_bytes: Some(3 << 20),
        ..Faults::default()
    });
    assert!(b.domain.flush().error.is_some());
    drop((a, b));
    disk.set_faults(Faults::default());
    let [mut a, mut b] = pair(&storage, 8 << 20);
    for end in [&a, &b] {
        let mut cursor = VerifyCursor::default();
        while !end.domain.verify_step(&mut cursor).is_done {}
        assert_eq!(end.domain.stats().damaged_pages, 0);
    }
    let wire = transfer(&mut a, &mut b, 1, &one, BLOCK);
    assert!(wire < 4000, "{wire}");
}

/// What a hub says to one client, while another client may send and get whatever it likes.
fn said_to_the_first(with_another: bool) -> Vec<(Bytes, Bytes)> {
    // Everything that the clients could meet in: one disk, one worker, one cache that holds what either has, and not both.
    let storage: Arc<dyn Storage> = Arc::new(MemoryDisk::default());
    let cache = Arc::new(PageCache::new(16 << 20).with_unsaved_max(32 << 20, 256 << 20));
    let hub = ["hub-1", "hub-2"]
        .map(|name| End::on_disk(&storage, name, config(24 << 20, name.as_bytes()[4]), &cache));
    let clients = ["client-1", "client-2"]
        .map(|name| End::on_disk(&storage, name, config(24 << 20, name.as_bytes()[7]), &cache));
    for (hub, client) in hub.iter().zip(&clients) {
        agree(hub, client);
    }
    let [mut first, mut second] = hub;
    let [mut client, mut other] = clients;
    let shared = text(3 << 20, 1);
    let mut said = Vec::new();
    for round in 0..6u64 {
        let stream = round * 2 + 1;
        if with_another {
            for plain in [&shared, &text(2 << 20, round + 40), &noise(5 << 20, round)] {
                transfer(&mut second, &mut other, stream, plain, BLOCK);
                transfer(&mut other, &mut second, stream, plain, BLOCK);
            }
            flush(&second);
            flush(&other);
            // The same threads serve both.
            std::mem::swap(&mut first.encoder, &mut second.encoder);
            std::mem::swap(&mut first.decoder, &mut second.decoder);
        } else {
            (first.encoder, first.decoder) = (Encoder::new(), Decoder::new());
        }
        let mut plain = shared.clone();
        let changed = usize::try_from(round * 100_003 % (1 << 20)).unwrap();
        plain[changed] ^= 1;
        plain.extend(text(300_000, round % 3));
        plain.extend(noise(100_000, round / 2));
        for chunk in plain.chunks(BLOCK) {
            let flight = first.send(stream, &Bytes::copy_from_slice(chunk));
            let header = client.register(&flight);
            let decoded = client.decode(&header, &flight.body).unwrap();
            assert_eq!(decoded.plain, flight.plain);
            said.push((flight.header, flight.body));
            drop_as_agreed(&first, &client);
        }
        transfer(&mut client, &mut first, stream, &plain[..1 << 20], BLOCK);
        flush(&first);
        flush(&client);
    }
    said
}

#[test]
fn what_one_client_gets_does_not_depend_on_what_another_sends() {
    let (alone, beside) = (said_to_the_first(false), said_to_the_first(true));
    assert_eq!(alone.len(), beside.len());
    for (at, (alone, beside)) in alone.iter().zip(&beside).enumerate() {
        assert!(alone == beside, "block {at}");
    }
    let wire: usize = alone
        .iter()
        .map(|(header, body)| header.len() + body.len())
        .sum();
    assert!(
        wire < 6 << 20,
        "and it does depend on what it got itself: {wire}"
    );
}

#[test]
fn pages_in_memory_are_counted_and_given_back() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryDisk::default());
    let cache = Arc::new(PageCache::new(4 << 20).with_unsaved_max(32 << 20, 64 << 20));
    let ends = [("a", 1), ("b", 2)]
        .map(|(name, epoch)| End::on_disk(&storage, name, config(64 << 20, epoch), &cache));
    agree(&ends[0], &ends[1]);
    let [mut a, mut b] = ends;
    transfer(&mut a, &mut b, 1, &noise(6 << 20, 1), BLOCK);
    let waiting: u64 = [&a, &b]
        .map(|end| end.domain.stats().unsaved_bytes)
        .iter()
        .sum();
    assert_eq!(cache.unsaved_bytes(), waiting);
    assert!(waiting >= 12 << 20);
    flush(&a);
    flush(&b);
    assert!(cache.unsaved_bytes() <= 2 << 16);
    // What was only written has an eighth; the rest is for what somebody looks at.
    assert!((3 << 17..=4 << 17).contains(&cache.size_bytes()));
    transfer(&mut a, &mut b, 3, &noise(6 << 20, 1), BLOCK);
    assert!((3 << 20..=4 << 20).contains(&cache.size_bytes()));
    drop((a, b));
    assert_eq!(cache.unsaved_bytes(), 0);
}
