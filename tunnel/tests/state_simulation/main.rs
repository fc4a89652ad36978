//! Many small worlds, each made by a number: several links that come, go and fall silent, crashes, slow readers, tiny windows and budgets, histories that
//! overflow, damaged blocks, jobs that are lost. Whatever happens: bytes are exact or the stream is reset, what is held stays within bounds and comes
//! back, and nothing stalls.
//!
//! `SIMULATION_SEEDS` says how many worlds are tried, `SIMULATION_FIRST` from which number on. A number whose world fails is printed and added to
//! `seeds.txt`; what stands there is tried first, for ever.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../state_support/mod.rs"]
mod state_support;
mod world;

use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Worlds in an ordinary run.
const SEEDS: u64 = 10_000;

/// After so many failures there is enough to think about.
const FAILURES_MAX: usize = 5;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn kept_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state_simulation/seeds.txt")
}

/// Numbers of worlds that failed once.
fn kept() -> Vec<u64> {
    let text = fs::read_to_string(kept_file()).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().unwrap())
        .collect()
}

fn what_went_wrong(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without words");
    text.chars().take(600).collect()
}

#[test]
fn whatever_happens_bytes_are_exact_and_nothing_stalls() {
    let kept = kept();
    let first = number("SIMULATION_FIRST", 0);
    let fresh = first..first + number("SIMULATION_SEEDS", SEEDS);
    let seeds: Vec<u64> = kept.iter().copied().chain(fresh).collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.lock().unwrap().len() >= FAILURES_MAX {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world::run(seed))) {
                failed
                    .lock()
                    .unwrap()
                    .push((seed, what_went_wrong(&*panic)));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    if failed.is_empty() {
        return;
    }
    let mut report = String::new();
    let mut lines = fs::read_to_string(kept_file()).unwrap();
    for (seed, why) in &failed {
        writeln!(report, "world {seed}: {why}").unwrap();
        if !kept.contains(seed) {
            writeln!(lines, "{seed}").unwrap();
        }
    }
    // Where the sources cannot be written, the report has the numbers, too.
    let _ = fs::write(kept_file(), lines);
    panic!(
        "{} of {} worlds failed:\n{report}",
        failed.len(),
        seeds.len()
    );
}
