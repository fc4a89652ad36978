//! Where and when a run took place, and what else the machine did.

use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// The machine, as far as figures depend on it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) commit: String,
    /// How our own programs were built: figures are those of "release" only.
    #[serde(default)]
    pub(super) profile: String,
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// Repetitions that are whole.
    pub(super) repeat: u32,
    /// Names and versions of the peers.
    pub(super) peers: Vec<String>,
    /// Streams of the largest crowd.
    pub(super) crowd_streams: usize,
    /// The part of the processor time that neither the programs under test nor the load took, while each pair was measured: the middle and the most.
    pub(super) others: [f64; 2],
    /// The part that the host of a virtual machine kept to itself while it was wanted here, likewise.
    #[serde(default)]
    pub(super) stolen: [f64; 2],
}

impl Machine {
    pub(super) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo").lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Self {
            date: date.split('T').next().unwrap_or_default().to_owned(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
            processor: processor.unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            ..Self::default()
        }
    }

    /// One line.
    pub(super) fn text(&self) -> String {
        let Self {
            date,
            commit,
            profile,
            processor,
            cores,
            kernel,
            repeat,
            peers,
            crowd_streams,
            others: [usual, most],
            stolen: [stolen_usual, stolen_most],
        } = self;
        let mut text = format!(
            "{date}, commit {commit} ({profile} build): {processor}, {cores} cores, Linux {kernel}; medians of {repeat}; {}; very many streams are {crowd_streams}. Other programs took {:.0} % of the \
             processor time while a pair was measured, at most {:.0} %.",
            peers.join(", "),
            usual * 100.0,
            most * 100.0,
        );
        if *stolen_most > 0.0 {
            text += &format!(
                " The host of this virtual machine took {:.0} %, at most {:.0} %.",
                stolen_usual * 100.0,
                stolen_most * 100.0
            );
        }
        text
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(commit + if changed { " with changes" } else { "" })
}

/// What becomes of the machine's processor time, from one moment on.
#[derive(Debug)]
pub(super) struct Watch {
    begin: Instant,
    ticks: Ticks,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self {
            begin: Instant::now(),
            ticks: Ticks::now(),
        }
    }

    /// The part of all cores' time that went elsewhere, when `known_seconds` of processor time went where they should.
    pub(super) fn others(&self, known_seconds: f64) -> f64 {
        self.part(|ticks| ticks.busy, known_seconds)
    }

    /// The part of all cores' time that the host did not give.
    pub(super) fn stolen(&self) -> f64 {
        self.part(|ticks| ticks.stolen, 0.0)
    }

    fn part(&self, of: impl Fn(&Ticks) -> u64, known_seconds: f64) -> f64 {
        let ticks = of(&Ticks::now()).saturating_sub(of(&self.ticks));
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let all_seconds = self.begin.elapsed().as_secs_f64() * cores as f64;
        ((seconds - known_seconds) / all_seconds).clamp(0.0, 1.0)
    }
}

/// Processor time of this very process, in seconds.
pub(super) fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Of all cores since the machine was started.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ticks {
    /// Worked, without interrupts: those are nobody's, and many are ours.
    busy: u64,
    stolen: u64,
}

impl Ticks {
    fn now() -> Self {
        Self::of(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// As proc_stat(5) has it: user, nice, system, idle, iowait, irq, softirq, steal.
    fn of(stat: &str) -> Self {
        let first = stat.lines().next().unwrap_or_default();
        let numbers: Vec<u64> = first
            .split_whitespace()
            .skip(1)
            .filter_map(|number| number.parse().ok())
            .collect();
        Self {
            busy: numbers.iter().take(3).sum(),
            stolen: numbers.get(7).copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_by_their_places() {
        let ticks = Ticks::of("cpu  10 20 30 400 5 6 7 80 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
        assert_eq!(
            ticks,
            Ticks {
                busy: 60,
                stolen: 80
            }
        );
        assert_eq!(Ticks::of(""), Ticks::default());
    }
}
