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
        } = self;
        format!(
            "{date}, commit {commit} ({profile} build): {processor}, {cores} cores, Linux {kernel}; medians of {repeat}; {}; very many streams are {crowd_streams}. Other programs took {:.0} % of the \
             processor time while a pair was measured, at most {:.0} %.",
            peers.join(", "),
            usual * 100.0,
            most * 100.0,
        )
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

/// How busy the machine is with other things, from one moment on.
#[derive(Debug)]
pub(super) struct Watch {
    begin: Instant,
    busy_ticks: u64,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self {
            begin: Instant::now(),
            busy_ticks: busy_ticks(),
        }
    }

    /// The part of all cores' time that went elsewhere, when `known_seconds` of processor time went where they should.
    pub(super) fn others(&self, known_seconds: f64) -> f64 {
        let ticks = busy_ticks().saturating_sub(self.busy_ticks);
        let busy_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let all_seconds = self.begin.elapsed().as_secs_f64() * cores as f64;
        ((busy_seconds - known_seconds) / all_seconds).clamp(0.0, 1.0)
    }
}

/// Processor time of this very process, in seconds.
pub(super) fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What all cores have worked since the machine was started, without interrupts: those are nobody's, and many are ours.
fn busy_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let numbers = first.split_whitespace().skip(1).take(3);
    numbers
        .filter_map(|number| number.parse::<u64>().ok())
        .sum()
}
