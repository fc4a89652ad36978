//! Puts a run into the documentation: its charts, its figures as JSON, and its tables between two marks of benchmarks.md.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::report::{Machine, Report};
use crate::{charts, tables};

const BEGIN: &str = "<!-- the run: written by `--docs` -->\n";
const END: &str = "<!-- end of the run -->\n";

/// Charts and tables into the directory of the documentation.
///
/// # Errors
/// A file cannot be read or written, or benchmarks.md has no marks.
pub fn write(report: &Report, docs: &Path) -> io::Result<()> {
    let files = charts::write(report, &docs.join("charts"))?;
    let json = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(docs.join("charts/run.json"), json)?;
    let page = docs.join("benchmarks.md");
    let text = std::fs::read_to_string(&page)?;
    let marks = || {
        let (before, rest) = text.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    };
    let (before, after) =
        marks().ok_or_else(|| io::Error::other("benchmarks.md has no marks for the run"))?;
    let mut run = format!("{}\n\n", where_and_when(&report.machine));
    for file in files {
        let _ = writeln!(run, "![{}](charts/{file})", file.trim_end_matches(".svg"));
    }
    for table in tables::of(report) {
        let _ = write!(run, "\n{}", table.markdown());
    }
    std::fs::write(page, format!("{before}{BEGIN}{run}{END}{after}"))
}

/// A sentence on the machine.
pub fn where_and_when(machine: &Machine) -> String {
    let Machine {
        date,
        commit,
        processor,
        cores,
        memory_gib,
        zstd,
        load: [before, after],
    } = machine;
    format!(
        "{date}, commit {commit}: {processor}, {cores} cores, {memory_gib} GiB; zstd {zstd}. Load average before {before}, after {after} (1 is this program's own)."
    )
}
