//! What is going on, on stderr: a moving bar on a terminal, a line a transfer elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::report::megabytes;

/// Shows the transfers one after the other.
#[derive(Debug)]
pub(super) struct Progress {
    on_terminal: bool,
}

/// One transfer being shown.
#[derive(Debug)]
pub(super) struct Shown {
    bar: ProgressBar,
    on_terminal: bool,
    label: String,
    bytes: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// A line of its own.
    pub(super) fn say(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Begins to show the transfer of `bytes` bytes.
    pub(super) fn begin(&self, file: &str, way: &str, bytes: u64) -> Shown {
        let bar = if self.on_terminal {
            ProgressBar::new(bytes)
        } else {
            ProgressBar::hidden()
        };
        let template = "{prefix:17} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(way.to_owned());
        bar.set_message(file.to_owned());
        Shown {
            bar,
            on_terminal: self.on_terminal,
            label: format!("{way:17} {file}"),
            bytes,
        }
    }
}

impl Shown {
    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub(super) fn end(self, took: Duration) {
        if self.on_terminal {
            self.bar.finish_and_clear();
        }
        eprintln!(
            "{}: {} in {:.2} s",
            self.label,
            megabytes(self.bytes),
            took.as_secs_f64()
        );
    }
}
