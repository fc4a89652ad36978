//! What a page of a history costs that is not in memory, and what that makes of a transfer: `cargo bench -p codec --bench storage [-- DIRECTORY]`.
//!
//! Files as a log's segments, through the real directory, read as a log reads them: a positioned read of 64 KiB and its checksum. The
//! system's own cache is warm, so this is what the program adds to the disk. Thread time, but for syncs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark's report"
)]

#[path = "../tests/core_pair/mod.rs"]
mod core_pair;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use codec::cache::PageCache;
use codec::domain::Domain;
use codec::storage::{Directory, Open, Storage};
use core_pair::{End, agree, config, mix, noise, place};
use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const PAGE_BYTES: usize = 64 << 10;
const PAGES: u64 = 16;
/// More files than are kept open.
const SEGMENTS: u64 = 400;
const READS: u64 = 20_000;

const TRANSFER_BYTES: usize = 64 << 20;
const BATCH_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 128 << 10;
const REOPENED_BYTES: usize = 512 << 20;

fn main() {
    let outside = tempfile::tempdir().unwrap();
    let root = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with("--"))
        .map_or(outside.path().to_owned(), PathBuf::from)
        .join("history");
    let directory: Arc<dyn Storage> = Arc::new(Directory::open(&root).unwrap());
    directory.create_dir(Path::new("log")).unwrap();
    let page: Vec<u8> = (0..PAGE_BYTES as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_le_bytes()[0])
        .collect();
    let path = |segment: u64| PathBuf::from(format!("log/{segment:010}.seg"));
    let megabytes = (SEGMENTS * PAGES * PAGE_BYTES as u64) as f64 / 1e6;
    let started = thread_seconds();
    for segment in 0..SEGMENTS {
        for number in 0..PAGES {
            let file = directory.open(&path(segment), Open::Write).unwrap();
            file.write_at(&page, number * PAGE_BYTES as u64).unwrap();
        }
    }
    let written = thread_seconds() - started;
    println!("write a page            {:>8.0} MB/s", megabytes / written);
    let started = Instant::now();
    for segment in 0..SEGMENTS {
        let file = directory.open(&path(segment), Open::Write).unwrap();
        file.sync().unwrap();
    }
    let synced = started.elapsed().as_secs_f64();
    println!(
        "sync {megabytes:.0} MB in {SEGMENTS} files {:>8.0} MB/s",
        megabytes / synced
    );
    let read = |name: &str, segment: &dyn Fn(u64) -> u64, number: &dyn Fn(u64) -> u64| {
        let mut sum = 0;
        let started = thread_seconds();
        for n in 0..READS {
            let file = directory.open(&path(segment(n)), Open::Read).unwrap();
            let mut bytes = vec![0; PAGE_BYTES];
            let offset = number(n) * PAGE_BYTES as u64;
            assert_eq!(file.read_at(&mut bytes, offset).unwrap(), PAGE_BYTES);
            sum ^= xxh3_64_with_seed(&bytes, n);
        }
        let seconds = thread_seconds() - started;
        std::hint::black_box(sum);
        println!(
            "{name:<44}{:>8.1} us a page{:>8.0} MB/s",
            seconds / READS as f64 * 1e6,
            READS as f64 * PAGE_BYTES as f64 / 1e6 / seconds
        );
    };
    let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    read(
        "read, one file after another",
        &|n| n / PAGES % SEGMENTS,
        &|n| n % PAGES,
    );
    read(
        "read, scattered, files kept open",
        &|n| scattered(n) % 100,
        &|n| scattered(n + 1) % PAGES,
    );
    read(
        "read, scattered, files opened again",
        &|n| scattered(n) % SEGMENTS,
        &|n| scattered(n + 1) % PAGES,
    );
    transfers(&directory);
    reopening(&directory);
}

/// The same bytes sent again, and sent with a change in every 20 KiB, by where the histories are.
fn transfers(storage: &Arc<dyn Storage>) {
    let plain = noise(TRANSFER_BYTES, 1);
    let mut changed = plain.clone();
    for (number, at) in (0..changed.len()).step_by(20 << 10).enumerate() {
        changed[at] ^= mix(number as u64).to_le_bytes()[0] | 1;
    }
    let room = 4 * TRANSFER_BYTES as u64;
    let on_disk = |name: &str, cache_bytes| {
        let cache = Arc::new(PageCache::new(cache_bytes).with_unsaved_max(64 << 20, 128 << 20));
        [1, 2].map(|end| {
            let dir = format!("{name}-{end}");
            End::on_disk(storage, &dir, config(room, end), &cache)
        })
    };
    for (name, ends) in [
        ("in memory", [1, 2].map(|end| End::new(room, end))),
        ("on disk, in the cache", on_disk("cached", 4 * room)),
        ("on disk, beyond the cache", on_disk("beyond", 8 << 20)),
    ] {
        let [mut a, mut b] = ends;
        agree(&a, &b);
        for (round, plain) in [("cold", &plain), ("warm", &plain), ("changed", &changed)] {
            let (mut encode, mut decode) = (0.0, 0.0);
            for batch in plain.chunks(BATCH_BYTES) {
                let blocks = batch.chunks(BLOCK_BYTES).map(Bytes::copy_from_slice);
                let blocks: Vec<Bytes> = blocks.collect();
                let started = thread_seconds();
                let flights: Vec<_> = blocks.iter().map(|block| a.send(1, block)).collect();
                encode += thread_seconds() - started;
                let headers: Vec<_> = flights.iter().map(|flight| b.register(flight)).collect();
                let started = thread_seconds();
                for (header, flight) in headers.iter().zip(&flights) {
                    assert!(b.decode(header, &flight.body).unwrap().plain == flight.plain);
                }
                decode += thread_seconds() - started;
                for end in [&a, &b] {
                    assert!(end.domain.flush().error.is_none());
                }
            }
            let megabytes = TRANSFER_BYTES as f64 / 1e6;
            println!(
                "{name:<28}{round:<16}{:>8.0} MB/s encode{:>8.0} MB/s decode",
                megabytes / encode,
                megabytes / decode
            );
        }
    }
}

/// How long it takes until a history is there again, and until all of it is found.
fn reopening(storage: &Arc<dyn Storage>) {
    let cache = Arc::new(PageCache::new(64 << 20).with_unsaved_max(64 << 20, 128 << 20));
    let room = 8 * REOPENED_BYTES as u64;
    {
        let ends = [1, 2].map(|end| {
            let dir = format!("reopened-{end}");
            End::on_disk(storage, &dir, config(room, end), &cache)
        });
        let [mut a, b] = ends;
        agree(&a, &b);
        // Compressible, so that its anchors are dense.
        for number in 0..(REOPENED_BYTES / BLOCK_BYTES) as u64 {
            let byte = |at: u64| {
                mix((number << 32) | (at / 8)).to_le_bytes()[0] & 63
                    | (at % 8 * 30).to_le_bytes()[0]
            };
            let words: Bytes = (0..BLOCK_BYTES as u64).map(byte).collect();
            let _flight = a.send(1, &words);
            if number % 64 == 0 {
                assert!(a.domain.flush().error.is_none());
            }
        }
        assert!(a.domain.flush().error.is_none());
    }
    let started = Instant::now();
    let place = place(storage, "reopened-1", &cache);
    let (domain, _) = Domain::open(config(room, 9), place).unwrap();
    let opened = started.elapsed();
    while domain.load_index_step() {}
    let stats = domain.stats();
    println!(
        "open {:.0} MB of history {opened:?}, with its index of {:.1} MB {:?}",
        stats.own_bytes as f64 / 1e6,
        stats.index_bytes as f64 / 1e6,
        started.elapsed()
    );
}

/// Seconds that this thread has been on a processor.
fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
