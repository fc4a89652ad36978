//! Puts a run into the documentation: figures as JSON, charts, and tables between two marks of the page.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::Report;
use super::sheet::Medium;
use super::{chart, goals, table};

/// The page.
const PAGE: &str = "benchmarks-tunnel.md";

const BEGIN: &str = "<!-- the run: written by wanproxy-bench --docs -->\n";
const END: &str = "<!-- end of the run -->\n";

pub(super) fn write(report: &Report, directory: &Path) -> Result<()> {
    let charts = directory.join("charts");
    std::fs::create_dir_all(&charts)
        .with_context(|| format!("cannot make {}", charts.display()))?;
    std::fs::write(
        charts.join("tunnel.json"),
        serde_json::to_string_pretty(report)? + "\n",
    )?;
    let mut run = String::new();
    for (file, text) in chart::all(report) {
        std::fs::write(charts.join(&file), text)?;
        let _ = writeln!(run, "![{}](charts/{file})", file.trim_end_matches(".svg"));
    }
    if !run.is_empty() {
        run.push('\n');
    }
    run += &table::all(report, Medium::Page);
    run += &goals::all(report, Medium::Page);
    let page = directory.join(PAGE);
    let text = std::fs::read_to_string(&page)
        .with_context(|| format!("cannot read {}", page.display()))?;
    let replaced = replace(&text, &run)
        .with_context(|| format!("{} has no marks for a run", page.display()))?;
    std::fs::write(page, replaced)?;
    Ok(())
}

fn replace(text: &str, run: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{run}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("above\n{BEGIN}old\n{END}below\n");
        let wanted = format!("above\n{BEGIN}new\n{END}below\n");
        assert_eq!(replace(&page, "new\n"), Some(wanted));
        assert_eq!(replace("no marks", "new\n"), None);
    }
}
