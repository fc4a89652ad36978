//! How far it is, on stderr: a bar on a terminal, nothing elsewhere; and single lines that do not tear the bar.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// The bar, and the way to say something beside it.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `expected_bytes` is asked only where a bar is shown.
    pub(super) fn new(expected_bytes: impl FnOnce() -> u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::new(expected_bytes());
        let template = "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// What is read from now on.
    pub(super) fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// So many bytes more are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// A line of its own.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| {
            // Nobody is left to tell when stderr is closed.
            let _ok = writeln!(std::io::stderr(), "wanproxy-client: {line}");
        });
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
