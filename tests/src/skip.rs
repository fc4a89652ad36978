//! Tests that cannot run on this machine say so.

use std::io::Write;

/// Says on stderr that something is skipped, and why. Unlike `eprintln!`, the test harness does not swallow it.
pub fn skip(what: &str, reason: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "SKIPPED: {what}: {reason}");
}
