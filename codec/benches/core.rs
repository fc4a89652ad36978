//! Speed and ratio of encoder and decoder on real sources and on random bytes: `cargo bench -p codec --bench core [-- PATH...]`.
//!
//! Plain bytes over thread time, single-threaded unless said. PATHs are files or directories to use instead of the sources of cargo's registry.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark's report"
)]
#![allow(clippy::indexing_slicing, reason = "shared with the tests")]

#[path = "../tests/core_pair/mod.rs"]
mod core_pair;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use codec::block::BlockHeader;
use codec::domain::Log;
use core_pair::{End, Flight, agree, drop_as_agreed, mix, noise};

/// Bytes taken of each corpus.
const CORPUS_BYTES: usize = 96 << 20;
/// Of each side; a transfer and its changed version fit.
const HISTORY_BYTES: usize = 3 * CORPUS_BYTES;
const BLOCK_BYTES: usize = 128 << 10;
const BATCH_BLOCKS: usize = 32;

fn main() {
    let paths: Vec<PathBuf> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .map(PathBuf::from)
        .collect();
    let mut sources = Vec::new();
    if paths.is_empty() {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        collect(&home.unwrap().join("registry/src"), &mut sources);
    } else {
        paths.iter().for_each(|path| collect(path, &mut sources));
    }
    sources.truncate(CORPUS_BYTES);
    println!(
        "{:<34}{:>9}{:>12}{:>11}{:>11}",
        "", "MB", "ratio", "encode", "decode"
    );
    let changed = edit(&sources);
    let random = noise(CORPUS_BYTES, 3);
    let filler = noise(HISTORY_BYTES, 4);
    for (state, filler) in [("fresh", &[][..]), ("full", &filler)] {
        println!("{state} history of {} MB", HISTORY_BYTES / 1_000_000);
        run(&[
            ("filler", filler),
            ("sources cold", &sources),
            ("sources warm", &sources),
            ("sources changed", &changed),
        ]);
        run(&[
            ("filler", filler),
            ("random cold", &random),
            ("random warm", &random),
        ]);
    }
    for threads in [1, 2] {
        side_by_side("sources cold", &sources, threads);
        side_by_side("random cold", &random, threads);
    }
    for length in [16, 100, 1000, 10_000] {
        messages(&sources, length);
    }
}

/// One transfer after another through one pair; encode and decode are timed apart.
fn run(rounds: &[(&str, &[u8])]) {
    let (mut a, mut b) = (
        End::new(HISTORY_BYTES as u64, 1),
        End::new(HISTORY_BYTES as u64, 2),
    );
    agree(&a, &b);
    for (stream, (round, plain)) in rounds.iter().enumerate() {
        let (mut encode, mut decode, mut wire) = (0.0, 0.0, 0);
        // In batches, so that memory is used again as in a tunnel and the clock is seldom read.
        for batch in plain.chunks(BATCH_BLOCKS * BLOCK_BYTES) {
            let blocks: Vec<Bytes> = batch
                .chunks(BLOCK_BYTES)
                .map(Bytes::copy_from_slice)
                .collect();
            let started = thread_seconds();
            let flights: Vec<Flight> = blocks
                .iter()
                .map(|block| a.send(stream as u64 * 2 + 1, block))
                .collect();
            encode += thread_seconds() - started;
            let headers: Vec<BlockHeader> =
                flights.iter().map(|flight| b.register(flight)).collect();
            let started = thread_seconds();
            let decoded: Vec<Bytes> = headers
                .iter()
                .zip(&flights)
                .map(|(header, flight)| {
                    b.decoder
                        .decode(Some(&b.domain), header, std::slice::from_ref(&flight.body))
                        .unwrap()
                        .plain
                })
                .collect();
            decode += thread_seconds() - started;
            assert_eq!(decoded, blocks);
            drop_as_agreed(&a, &b);
            wire += flights
                .iter()
                .map(|flight| flight.header.len() + flight.body.len())
                .sum::<usize>();
        }
        if *round == "filler" {
            continue;
        }
        let megabytes = plain.len() as f64 / 1e6;
        println!(
            "{:<34}{megabytes:>9.1}{:>12.4}{:>11.0}{:>11.0}",
            round,
            plain.len() as f64 / wire as f64,
            megabytes / encode,
            megabytes / decode
        );
    }
    let stats = a.domain.stats();
    println!(
        "{:<34}history {:.1} MB, index {:.1} MB, {} hits of {} look-ups",
        "",
        stats.own_bytes as f64 / 1e6,
        stats.index_bytes as f64 / 1e6,
        stats.hits,
        stats.lookups
    );
    assert_eq!(
        b.domain.claim(Log::Mirror).tail,
        a.domain.claim(Log::Own).tail
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
    nanoseconds.map_or_else(
        || START.elapsed().as_secs_f64(),
        |nanoseconds| nanoseconds / 1e9,
    )
}

/// Several workers on one domain, each with a stream of its own.
fn side_by_side(name: &str, corpus: &[u8], threads: usize) {
    let (a, b) = (End::new(1 << 30, 1), End::new(1 << 30, 2));
    agree(&a, &b);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (thread, part) in corpus.chunks(corpus.len().div_ceil(threads)).enumerate() {
            let mut end = End::sharing(Arc::clone(&a.domain));
            scope.spawn(move || {
                part.chunks(BLOCK_BYTES).for_each(|block| {
                    drop(end.send(thread as u64 * 2 + 1, &Bytes::copy_from_slice(block)))
                })
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{:<34}{:>9.1}{:>12}{:>11.0}",
        format!("{name}, {threads} threads"),
        corpus.len() as f64 / 1e6,
        "",
        corpus.len() as f64 / 1e6 / seconds
    );
}

/// Short messages of one stream.
fn messages(corpus: &[u8], length: usize) {
    let (mut a, mut b) = (End::new(1 << 28, 1), End::new(1 << 28, 2));
    agree(&a, &b);
    let blocks: Vec<Bytes> = corpus
        .chunks(length)
        .take(20_000)
        .map(Bytes::copy_from_slice)
        .collect();
    let started = thread_seconds();
    let flights: Vec<Flight> = blocks.iter().map(|block| a.send(1, block)).collect();
    let encode = thread_seconds() - started;
    let headers: Vec<BlockHeader> = flights.iter().map(|flight| b.register(flight)).collect();
    let started = thread_seconds();
    headers
        .iter()
        .zip(&flights)
        .for_each(|(header, flight)| drop(b.decode(header, &flight.body).unwrap()));
    let decode = thread_seconds() - started;
    let (plain, wire): (usize, usize) = flights.iter().fold((0, 0), |sum, flight| {
        (
            sum.0 + flight.plain.len(),
            sum.1 + flight.header.len() + flight.body.len(),
        )
    });
    let each = |seconds: f64| seconds * 1e6 / flights.len() as f64;
    println!(
        "{:<34}{:>9}{:>12.3}{:>8.2} µs{:>8.2} µs",
        format!("messages of {length} bytes"),
        "",
        plain as f64 / wire as f64,
        each(encode),
        each(decode)
    );
}

/// Files below `path`, one after another, up to the corpus's size, in the order of their names.
fn collect(path: &Path, out: &mut Vec<u8>) {
    if out.len() >= CORPUS_BYTES {
        return;
    }
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = path
            .read_dir()
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        entries.sort();
        entries.iter().for_each(|entry| collect(entry, out));
    } else if let Ok(bytes) = std::fs::read(path) {
        out.extend_from_slice(&bytes);
    }
}

/// A next version: every 20 KiB or so, some bytes are changed, inserted or deleted.
fn edit(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut at = 0;
    while !rest.is_empty() {
        let random = mix(at);
        let (kept, after) = rest.split_at(rest.len().min(4096 + (random % 32_768) as usize));
        out.extend_from_slice(kept);
        out.extend_from_slice(format!("changed {random:x}\n").as_bytes());
        rest = after
            .get((random >> 20) as usize % 60..)
            .unwrap_or_default();
        at += 1;
    }
    out
}
