//! The benchmark's command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use super::metric::Measure;
use super::place::LineKind;
use super::rival::Rival;

/// Compares a pair of edges with other tunnels, each as a pair of real programs, under the same loads in the same run.
///
/// Lines other than loopback are emulated between two network namespaces and need root. A peer that is not installed is "not run" (on Debian:
/// stunnel4 openssh-server haproxy kcptun spiped). Figures of two runs, or of a machine that does other work meanwhile, are not to be compared.
#[derive(Clone, Debug, Parser)]
#[command(name = "wanproxy-bench", version)]
pub struct Options {
    /// Only these: names of lines, peers and measures (a wrong one lists them); what is not named of a kind is all of it
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Times that everything is measured; the median counts
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
    /// End within about so many minutes: loads shrink until one repetition of everything fits, further ones follow while there is time, and
    /// what does not fit is "not run"
    #[arg(long, value_name = "NUMBER", conflicts_with = "quick", value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: Option<u32>,
    /// Small loads, once: shows that the benchmark works, and nothing about speed
    #[arg(long)]
    quick: bool,
    /// Also settings of our own edges, on loopback: pools and none, fewer and more threads
    #[arg(long)]
    sweep: bool,
    /// A file or directory of software to move, instead of this machine's libraries
    #[arg(long, value_name = "PATH")]
    software: Vec<PathBuf>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing: show the figures of this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "quick"])]
    from: Option<PathBuf>,
    /// Write the tables into benchmarks-tunnel.md in this directory, and charts and figures beside it
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
}

impl Options {
    pub(super) const fn repeat(&self) -> u32 {
        if self.quick { 1 } else { self.repeat }
    }

    pub(super) fn time(&self) -> Option<Duration> {
        self.minutes
            .map(|minutes| Duration::from_secs(u64::from(minutes) * 60))
    }

    pub(super) const fn quick(&self) -> bool {
        self.quick
    }

    pub(super) fn software(&self) -> &[PathBuf] {
        &self.software
    }

    pub(super) fn json(&self) -> Option<&Path> {
        self.json.as_deref()
    }

    pub(super) fn from(&self) -> Option<&Path> {
        self.from.as_deref()
    }

    pub(super) fn docs(&self) -> Option<&Path> {
        self.docs.as_deref()
    }

    pub(super) fn lines(&self) -> Vec<LineKind> {
        self.chosen(&LineKind::ALL, LineKind::name)
    }

    pub(super) fn rivals(&self) -> Vec<Rival> {
        let sweep = Rival::SWEEP.into_iter().filter(|_| self.sweep);
        let all: Vec<Rival> = Rival::ALL.into_iter().chain(sweep).collect();
        self.chosen(&all, Rival::name)
    }

    pub(super) fn measures(&self) -> Vec<Measure> {
        self.chosen(&Measure::ALL, Measure::name)
    }

    /// Whether all words of `--only` name something.
    ///
    /// # Errors
    /// Names one that does not, and all that would.
    pub(super) fn check(&self) -> Result<()> {
        let lines = LineKind::ALL.iter().map(|line| line.name());
        let rivals = Rival::ALL
            .iter()
            .chain(&Rival::SWEEP)
            .map(|rival| rival.name());
        let measures = Measure::ALL.iter().map(|measure| measure.name());
        let names: Vec<_> = lines.chain(rivals).chain(measures).collect();
        match self
            .only
            .iter()
            .find(|word| !names.contains(&word.as_str()))
        {
            Some(word) => bail!("--only {word}: that is none of {}", names.join(", ")),
            None => Ok(()),
        }
    }

    fn chosen<T: Copy>(&self, all: &[T], name: impl Fn(T) -> &'static str) -> Vec<T> {
        let named = |one: &T| self.only.iter().any(|word| word == name(*one));
        if all.iter().any(named) {
            all.iter().copied().filter(named).collect()
        } else {
            all.to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn only_names_what_is_run_of_each_kind() {
        Options::command().debug_assert();
        let all = Options::try_parse_from(["wanproxy-bench"]).unwrap();
        assert_eq!(all.lines().len(), LineKind::ALL.len());
        assert_eq!(all.rivals().len(), Rival::ALL.len());
        let words = [
            "wanproxy-bench",
            "--only",
            "loopback",
            "stunnel",
            "wanproxy",
            "nonsense",
        ];
        let some = Options::try_parse_from(words).unwrap();
        assert_eq!(some.lines(), [LineKind::Loopback]);
        assert_eq!(some.rivals(), [Rival::Wanproxy, Rival::Stunnel]);
        assert_eq!(some.measures(), Measure::ALL);
        let said = some.check().unwrap_err().to_string();
        assert!(said.starts_with("--only nonsense: that is none of loopback, "));
        assert!(said.contains("ssh-C") && said.ends_with("random, cold, warm"));
        all.check().unwrap();
    }
}
