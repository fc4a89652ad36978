//! The codec beside what else one could use, on real bytes: `cargo bench -p codec --bench compare -- --corpora DIR`, where `codec/benches/corpora.sh DIR` has put some.
//!
//! Every block and every peer's output is decoded and compared. What a run finds is in docs/benchmarks.md. Figures mean something beside others of the same run.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark's report"
)]
#![allow(clippy::indexing_slicing, reason = "shared with the tests")]

mod bulk;
mod charts;
mod chunk_store;
mod clock;
#[path = "../../tests/core_pair/mod.rs"]
mod core_pair;
mod corpus;
mod docs;
mod generate;
mod goals;
mod histories;
mod machine;
mod messages;
mod report;
mod scanner;
mod tables;
mod threads;
mod zstd_peers;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use corpus::Corpus;
use report::{Figure, NotRun, Report, Suite};

/// Measures the codec beside zstd, a store of chunks and memcpy.
#[derive(Parser)]
struct Options {
    /// Packages that corpora.sh fetched
    #[arg(long, value_name = "DIR")]
    corpora: Option<PathBuf>,
    /// One file, or the last and the next version of one, instead of all corpora
    #[arg(long, value_name = "FILE", num_args = 1..=2)]
    files: Vec<PathBuf>,
    /// Suites to run
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    only: Vec<Suite>,
    /// Corpora to measure on
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    corpus: Vec<String>,
    /// Leaves out blocks of 16, 64 and 256 KiB, and zstd with a long window: what no goal is judged by
    #[arg(long)]
    short: bool,
    /// Leaves the peers out
    #[arg(long)]
    no_peers: bool,
    /// Writes all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs nothing: takes the figures of an earlier --json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "corpus", "corpora"])]
    from: Option<PathBuf>,
    /// Writes charts and tables into the documentation there
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Said by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// That of the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` runs benchmarks too, without a word.
        println!("a benchmark: cargo bench -p codec --bench compare -- --help");
        return;
    }
    let report = match &options.from {
        Some(file) => serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(),
        None => run(&options),
    };
    println!("{}\n", docs::where_and_when(&report.machine));
    for table in tables::of(&report) {
        println!("{}", table.text());
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    }
    if let Some(docs) = &options.docs {
        docs::write(&report, docs).unwrap();
    }
}

/// All suites that are wanted; what is not is said to be not run.
fn run(options: &Options) -> Report {
    let mut report = Report {
        machine: machine::here(),
        ..Report::default()
    };
    let wanted = |suite: &Suite| options.only.is_empty() || options.only.contains(suite);
    for suite in Suite::value_variants() {
        if !wanted(suite) {
            report
                .not_run
                .push(NotRun::new(&format!("{suite:?}").to_lowercase(), "--only"));
        }
    }
    if options.short {
        let what = "blocks of 16, 64 and 256 KiB, zstd-3 long";
        report.not_run.push(NotRun::new(what, "--short"));
    }
    let names = if options.files.is_empty() {
        corpus::NAMES.map(|(name, _)| name).to_vec()
    } else {
        vec![corpus::FILES]
    };
    for name in names {
        if !options.corpus.is_empty() && !options.corpus.iter().any(|wanted| wanted == name) {
            report.not_run.push(NotRun::new(name, "--corpus"));
            continue;
        }
        match corpus::load(name, options.corpora.as_deref(), &options.files) {
            Ok(corpus) => {
                for suite in Suite::value_variants().iter().filter(|suite| wanted(suite)) {
                    on(&corpus, *suite, options, &mut report);
                }
            }
            Err(not_run) => report.not_run.push(not_run),
        }
    }
    if wanted(&Suite::Messages) {
        eprintln!("messages of a session");
        report.figures.extend(messages::of_a_session());
    }
    report.machine.load[1] = machine::load();
    report
}

/// One suite on one corpus, if it is one of the suite's.
fn on(corpus: &Corpus, suite: Suite, options: &Options, report: &mut Report) {
    let of_these = |names: &[&str]| names.contains(&corpus.name);
    let figures: &mut Vec<Figure> = &mut report.figures;
    eprintln!("{}: {suite:?}", corpus.name);
    match suite {
        Suite::Bulk => {
            figures.extend(bulk::ours(corpus, bulk::AS_CUT));
            for block_bytes in bulk::BLOCK_BYTES {
                if options.short && !bulk::SHORT_RUN_BLOCK_BYTES.contains(&block_bytes) {
                    continue;
                }
                figures.extend(bulk::ours(corpus, block_bytes));
            }
            if options.no_peers {
                report.not_run.push(NotRun::new(
                    &format!("the peers on {}", corpus.name),
                    "--no-peers",
                ));
            } else {
                figures.extend(bulk::peers(corpus, options.short));
            }
        }
        Suite::Threads if of_these(&["django-patch", "sql", "random", corpus::FILES]) => {
            let cores = machine::cores();
            if cores == 1 {
                report
                    .not_run
                    .push(NotRun::new("more threads than one", "there is one core"));
            }
            // Two, because the goal is about two, and all.
            let mut counts = vec![1, 2, cores];
            counts.retain(|count| *count <= cores);
            counts.dedup();
            for threads in counts {
                figures.extend(threads::ours(corpus, threads));
                figures.push(threads::zstd(corpus, threads));
            }
        }
        Suite::Messages if of_these(&["django-patch", corpus::FILES]) => {
            figures.extend(messages::of_lengths(corpus))
        }
        Suite::Histories if of_these(&["django-patch", "office", corpus::FILES]) => {
            for (size, full) in histories::HISTORIES {
                match histories::ours(corpus, size, full) {
                    Ok(measured) => figures.extend(measured),
                    Err(not_run) => report.not_run.push(not_run),
                }
            }
        }
        Suite::Scanner if of_these(&["office", "sql", "random", corpus::FILES]) => {
            figures.extend(scanner::of(corpus))
        }
        Suite::Threads | Suite::Messages | Suite::Histories | Suite::Scanner => (),
    }
}
