//! `estimate`: what would the tunnel save on these files?
//!
//! All files go through the codec that the tunnel uses, in the order given, with one history that begins empty. There is no peer, no network and no
//! configuration.

mod measure;
mod progress;
mod report;
mod walk;

use std::fs::File;
use std::path::Path;

use edge::cli::Failure;
use edge::config::{Budget, Level};
use edge::os;

pub use self::report::EXPLANATION;

use self::measure::{Measurer, Sums};
use self::progress::Progress;
use self::report::{Report, Row};
use self::walk::{Found, Walk};
use crate::cli::EstimateArgs;

/// The `[memory] budget` of a configuration that says nothing.
const DEFAULT_BUDGET: Budget = Budget::Percent(25);

/// Histories take at most one part in so many of the budget, as in a running edge.
const HISTORY_DIVISOR: u64 = 2;

/// What a machine is taken to have that does not say how much memory it has, as in a running edge.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

/// Reads all files, and prints what the tunnel would make of them. What cannot be read is named on stderr, and the rest is estimated all the same.
///
/// # Errors
/// Something could not be read, there is no file at all, or stdout cannot be written to.
pub fn estimate(args: &EstimateArgs) -> Result<(), Failure> {
    let history_bytes = args
        .history
        .map_or_else(default_history_bytes, |size| size.bytes());
    let mut measurer = Measurer::new(history_bytes, level(args.level));
    let progress = Progress::new(|| expected_bytes(args));
    let mut seen = Seen::default();
    let mut rows = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        let sums = measure(path, &mut measurer, &progress, &mut seen);
        rows.push(Row::new(shown(path), &sums));
        seen.sums.add(&sums);
    }
    progress.end();
    let Seen {
        sums,
        unreadable,
        symlinks,
        special,
    } = seen;
    if sums.files == 0 {
        return Err(Failure::Failed(match unreadable {
            0 => "there is nothing to estimate: no PATH is a file or has one in it".to_owned(),
            _ => "there is nothing to estimate: no file could be read".to_owned(),
        }));
    }
    let report = Report {
        level: args.level.to_string(),
        history_bytes,
        block_bytes: codec::policy::BULK_BLOCK_BYTES,
        paths: rows,
        total: Row::new("total".to_owned(), &sums),
        unreadable,
        symlinks,
        special,
    };
    let text = if args.json {
        report.json()?
    } else {
        report.text()
    };
    edge::cli::print(&text)?;
    match unreadable {
        0 => Ok(()),
        1 => Err(Failure::Failed(
            "1 file or directory could not be read; the figures are without it".to_owned(),
        )),
        count => Err(Failure::Failed(format!(
            "{count} files or directories could not be read; the figures are without them"
        ))),
    }
}

/// What was met under all PATHs.
#[derive(Debug, Default)]
struct Seen {
    sums: Sums,
    unreadable: u64,
    symlinks: u64,
    special: u64,
}

/// Measures all files of one PATH.
fn measure(path: &Path, measurer: &mut Measurer, progress: &Progress, seen: &mut Seen) -> Sums {
    let mut sums = Sums::default();
    progress.begin(&shown(path));
    for found in Walk::new(path) {
        match found {
            Found::File { path, .. } => {
                let read = File::open(&path).and_then(|mut file| {
                    measurer.file(&mut file, &mut sums, |bytes| progress.advance(bytes))
                });
                if let Err(error) = read {
                    seen.unreadable += 1;
                    progress.say(&format!("cannot read {}: {error}", shown(&path)));
                }
            }
            Found::Unreadable { path, error } => {
                seen.unreadable += 1;
                progress.say(&format!("cannot read {}: {error}", shown(&path)));
            }
            Found::Symlink => seen.symlinks += 1,
            Found::Special { path, what } => {
                seen.special += 1;
                progress.say(&format!("skipped {}: it is {what}", shown(&path)));
            }
        }
    }
    sums
}

/// What will be read, in bytes, as far as the directories tell. Errors are named when the files are read.
fn expected_bytes(args: &EstimateArgs) -> u64 {
    args.paths
        .iter()
        .flat_map(|path| Walk::new(path))
        .map(|found| match found {
            Found::File { bytes, .. } => bytes,
            _ => 0,
        })
        .sum()
}

fn default_history_bytes() -> u64 {
    DEFAULT_BUDGET.bytes(os::available_memory_bytes().unwrap_or(UNKNOWN_MEMORY_BYTES))
        / HISTORY_DIVISOR
}

fn level(level: Level) -> codec::policy::Level {
    match level {
        Level::Auto => codec::policy::Level::default(),
        Level::Off => codec::policy::Level::Off,
        Level::Fixed(level) => codec::policy::Level::Zstd(level.get()),
    }
}

/// A path for one line on a terminal: control characters in it are written out.
fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .fold(String::new(), |mut text, character| {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
            text
        })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use edge::config::ClientConfig;

    use super::*;

    #[test]
    fn the_history_is_by_default_that_of_an_edge_whose_configuration_says_nothing() {
        let text = "[tunnel]\nserver = [\"hq.example.com:7443\"]\n";
        let config = ClientConfig::parse(text, Path::new("client.toml")).unwrap();
        assert_eq!(config.memory.budget, DEFAULT_BUDGET);
        assert_eq!(config.history.size, None);
        assert_eq!(config.codec.level, Level::Auto);
    }

    #[test]
    fn levels_are_those_of_an_edge() {
        assert_eq!(level(Level::Auto), codec::policy::Level::default());
        assert_eq!(level(Level::Off), codec::policy::Level::Off);
        assert_eq!(level("7".parse().unwrap()), codec::policy::Level::Zstd(7));
    }

    #[test]
    fn a_path_is_one_line_whatever_is_in_it() {
        assert_eq!(shown(Path::new("a b/ä.txt")), "a b/ä.txt");
        assert_eq!(shown(Path::new("a\nb\u{1b}[2J")), "a\\nb\\u{1b}[2J");
    }
}
