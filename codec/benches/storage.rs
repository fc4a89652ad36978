//! What a page of a history costs that is not in memory: `cargo bench -p codec --bench storage [-- DIRECTORY]`.
//!
//! Files as a log's segments, through the real directory, read as a log reads them: a positioned read of 64 KiB and its checksum. The
//! system's own cache is warm, so this is what the program adds to the disk. Thread time, but for syncs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark's report"
)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use codec::storage::{Directory, Open, Storage};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const PAGE_BYTES: usize = 64 << 10;
const PAGES: u64 = 16;
/// More files than are kept open.
const SEGMENTS: u64 = 400;
const READS: u64 = 20_000;

fn main() {
    let outside = tempfile::tempdir().unwrap();
    let root = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with("--"))
        .map_or(outside.path().to_owned(), PathBuf::from)
        .join("history");
    let directory = Directory::open(&root).unwrap();
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
}

/// Seconds that this thread has been on a processor; where the system does not say, seconds.
fn thread_seconds() -> f64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat
        .split(' ')
        .next()
        .and_then(|first| first.parse::<f64>().ok());
    nanoseconds.map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}
