//! The demo's command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use edge::config::{Rate, ValueError, duration_between};

use crate::line::LineConfig;

/// Longest delay of the emulated line: a satellite and back many times over.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Moves real files over an emulated line, directly and through wanproxy, and shows what it saves.
///
/// Nothing needs to be configured and no special rights are needed: identities are made in a temporary directory, and a
/// real server edge and a real client edge run as processes of their own. The emulated line delays and paces the bytes;
/// it shows neither loss nor congestion control, so its seconds are no benchmark of a real line.
#[derive(Clone, Debug, Parser)]
#[command(name = "wanproxy-demo", version)]
pub struct Options {
    /// Rate of the emulated line, in each direction
    #[arg(long, default_value = "20Mbit/s", value_name = "RATE")]
    rate: Rate,
    /// Delay of the emulated line, each way
    #[arg(long, default_value = "40ms", value_name = "TIME", value_parser = parse_delay)]
    delay: Duration,
    /// Files to move, instead of this program and parts of the Rust toolchain
    #[arg(long, value_name = "PATH", num_args = 1..)]
    file: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Leave everything running at the end, with the addresses printed, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

impl Options {
    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) const fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) fn line(&self) -> LineConfig {
        LineConfig::shaped(self.rate.bits_per_second(), self.delay)
    }

    pub(super) fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.file.iter().map(PathBuf::as_path)
    }

    pub(super) const fn json(&self) -> bool {
        self.json
    }

    pub(super) const fn keep(&self) -> bool {
        self.keep
    }
}

fn parse_delay(text: &str) -> Result<Duration, ValueError> {
    duration_between(text, Duration::ZERO, MAX_DELAY)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_has_the_documented_defaults() {
        Options::command().debug_assert();
        let options = Options::try_parse_from(["wanproxy-demo"]).unwrap();
        assert_eq!(options.rate().bits_per_second(), 20_000_000);
        assert_eq!(options.delay(), Duration::from_millis(40));
        assert_eq!(options.line().queue_bytes, 200_000);
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            ["--rate", "fast"],
            ["--rate", "0Mbit/s"],
            ["--delay", "soon"],
            ["--delay", "1h"],
        ] {
            assert!(
                Options::try_parse_from(["wanproxy-demo"].iter().chain(&wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }
}
