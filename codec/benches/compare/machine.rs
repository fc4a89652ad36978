//! Where a run takes place.

use std::process::Command;
use std::time::SystemTime;

use crate::report::Machine;

/// What is known now; the second load is filled in at the end.
pub fn here() -> Machine {
    let processor = std::fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(':')?
                    .1
                    .trim()
                    .to_owned(),
            )
        });
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Machine {
        date: date.split('T').next().unwrap_or_default().to_owned(),
        commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        processor: processor.unwrap_or_else(|| "unknown".to_owned()),
        cores: cores(),
        memory_gib: memory("MemTotal").map_or(0, |bytes| bytes.div_ceil(1 << 30)),
        zstd: zstd_safe::version_string().to_owned(),
        load: [load(), String::new()],
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The load average of the last minute.
pub fn load() -> String {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = loads.split(' ').next().filter(|first| !first.is_empty());
    first.unwrap_or("unknown").to_owned()
}

/// A line of the system's memory figures, in bytes.
pub fn memory(line: &str) -> Option<u64> {
    let figures = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = figures
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    let kibibytes: u64 = kibibytes.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes << 10)
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = !git(&["status", "--porcelain"])?.is_empty();
    Some(commit + if changed { " with changes" } else { "" })
}
