//! What the demo moves: the files it is given, or real files that every machine with Rust has.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::process::Command;

use super::Options;
use crate::payload::edited;

/// Seconds that the chosen files take on the bare line. They cross it twice directly and about one and a half times
/// through the tunnel, so everything ends within a minute.
const BUDGET_SECONDS: u64 = 10;

/// Bounds of what is chosen, in bytes: a slow line still shows something, a fast one does not fill the memory.
const MIN_BUDGET_BYTES: u64 = 1 << 20;
const MAX_BUDGET_BYTES: u64 = 96 << 20;

/// Given files are held in memory, with their changed version; together they are at most this many bytes.
const MAX_GIVEN_BYTES: u64 = 1 << 30;

/// Files chosen by default.
const CHOSEN_FILES: usize = 3;

/// Chooses the changes of the next version, so that every run makes the same.
const EDIT_SEED: u64 = 2024;

/// What moves.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    pub(super) files: Vec<Sample>,
    /// Files larger than this were cut to it, in bytes.
    pub(super) cut_bytes: Option<u64>,
}

/// A file and its next version.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) original: Bytes,
    pub(super) changed: Bytes,
}

impl Sample {
    fn new(name: String, original: Vec<u8>) -> Self {
        let changed = edited(&original, EDIT_SEED).into();
        Self {
            name,
            original: original.into(),
            changed,
        }
    }

    /// Length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.original.len() as u64
    }
}

/// The given files whole, or up to [`CHOSEN_FILES`] of this machine, each cut to its share of the budget.
pub(super) async fn choose(options: &Options) -> Result<Samples> {
    if options.files().len() > 0 {
        let mut left = MAX_GIVEN_BYTES;
        let files = options
            .files()
            .map(|file| given(file, &mut left))
            .collect::<Result<_>>()?;
        return Ok(Samples {
            files,
            cut_bytes: None,
        });
    }
    let budget = (options.rate().bits_per_second() / 8).saturating_mul(BUDGET_SECONDS);
    let share = budget.clamp(MIN_BUDGET_BYTES, MAX_BUDGET_BYTES) / CHOSEN_FILES as u64;
    let mut files = Vec::new();
    let mut cut_bytes = None;
    for file in candidates().await? {
        // The next one may do; only to find none at all is an error.
        if let Ok((bytes, whole)) = read(&file, share)
            && !bytes.is_empty()
        {
            files.push(Sample::new(name(&file), bytes));
            if !whole {
                cut_bytes = Some(share);
            }
        }
        if files.len() == CHOSEN_FILES {
            break;
        }
    }
    if files.is_empty() {
        bail!("found no file to move: name some with --file PATH");
    }
    Ok(Samples { files, cut_bytes })
}

fn name(file: &Path) -> String {
    file.file_name()
        .unwrap_or(file.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn given(file: &Path, left: &mut u64) -> Result<Sample> {
    let cannot = || format!("cannot read {}", file.display());
    let size = std::fs::metadata(file).with_context(cannot)?.len();
    if size > *left {
        bail!(
            "{} is too large: the files may have {MAX_GIVEN_BYTES} bytes together",
            file.display()
        );
    }
    let (bytes, whole) = read(file, *left).with_context(cannot)?;
    if !whole {
        bail!("{} grows while it is read", file.display());
    }
    *left -= bytes.len() as u64;
    Ok(Sample::new(name(file), bytes))
}

/// The first `limit` bytes of a file, and whether that is all of it.
fn read(file: &Path, limit: u64) -> std::io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    File::open(file)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 <= limit;
    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((bytes, whole))
}

/// This program, the toolchain's standard library and compiler, and what stands beside this program.
async fn candidates() -> Result<Vec<PathBuf>> {
    let executable = std::env::current_exe().context("cannot tell where this executable is")?;
    let mut files = vec![executable.clone()];
    if let Some(sysroot) = sysroot().await {
        let libraries = sysroot.join("lib");
        files.extend(largest(&libraries.join("rustlib"), "libstd-", 3));
        files.extend(largest(&libraries, "librustc_driver", 0));
    }
    let beside = executable.parent().unwrap_or(Path::new("."));
    files.extend(["wanproxy-server", "wanproxy-client"].map(|name| beside.join(name)));
    Ok(files)
}

/// Where the toolchain is; none on a machine without `rustc`.
async fn sysroot() -> Option<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

/// The largest file below `directory` whose name begins with `start`, looking `depth` directories deep.
fn largest(directory: &Path, start: &str, depth: usize) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let found = entries.filter_map(|entry| {
        let path = entry.path();
        if depth > 0 && path.is_dir() {
            largest(&path, start, depth - 1)
        } else {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(start)
                .then_some(path)
        }
    });
    found.max_by_key(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    fn options(args: &[&str]) -> Options {
        Options::try_parse_from(["wanproxy-demo"].iter().chain(args)).unwrap()
    }

    #[tokio::test]
    async fn this_machine_has_files_within_the_budget() {
        let samples = choose(&options(&[])).await.unwrap().files;
        let total: u64 = samples.iter().map(Sample::bytes).sum();
        assert!((MIN_BUDGET_BYTES..=25_000_000).contains(&total), "{total}");
        assert!(
            samples
                .iter()
                .all(|sample| sample.original != sample.changed)
        );
    }

    #[tokio::test]
    async fn given_files_are_taken_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.txt");
        std::fs::write(&file, b"text\n").unwrap();
        let chosen = choose(&options(&["--file", file.to_str().unwrap()]))
            .await
            .unwrap();
        assert_eq!(chosen.cut_bytes, None);
        let samples = chosen.files;
        assert_eq!(samples.len(), 1);
        assert_eq!(
            (samples[0].name.as_str(), &samples[0].original[..]),
            ("report.txt", &b"text\n"[..])
        );
    }

    #[tokio::test]
    async fn a_missing_file_is_named_in_one_line() {
        let error = choose(&options(&["--file", "/nowhere/at-all"]))
            .await
            .unwrap_err();
        let line = format!("{error:#}");
        assert!(
            line.contains("/nowhere/at-all") && !line.contains('\n'),
            "{line}"
        );
    }
}
