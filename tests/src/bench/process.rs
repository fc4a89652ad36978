//! A program under test: started with its output in a file, watched through /proc together with the processes it starts, ended with them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of its output that an error shows.
const SHOWN_BYTES: usize = 800;

/// A running program.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`; what it prints goes to a file in `directory`.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        directory: &Path,
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, log, child })
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}): {}", self.name, self.said());
        }
        Ok(())
    }

    /// The end of what it printed, on one line.
    pub(super) fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(SHOWN_BYTES);
        let end = String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned();
        end.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Processor time of it and all its processes so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.tree()
            .into_iter()
            .filter_map(Stat::of)
            .map(|stat| stat.cpu_ticks)
            .sum::<u64>() as f64
            / rustix::param::clock_ticks_per_second() as f64
    }

    /// Resident memory of it and all its processes, in bytes.
    pub(super) fn resident_bytes(&self) -> u64 {
        let pages = |pid: u32| -> Option<u64> {
            let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            text.split(' ').nth(1)?.parse().ok()
        };
        let pages: u64 = self.tree().into_iter().filter_map(pages).sum();
        pages * rustix::param::page_size() as u64
    }

    /// Itself and what descends from it.
    fn tree(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(pid) = pid
                && let Some(stat) = Stat::of(pid)
            {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = tree.get(next) {
            tree.extend(children.remove(pid).unwrap_or_default());
            next += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let tree = self.tree();
        signal(&tree, Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                signal(&tree, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // What it started and left behind; its own number is free by now.
        signal(tree.get(1..).unwrap_or_default(), Signal::KILL);
    }
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // It may have ended.
            let _gone = kill_process(pid, signal);
        }
    }
}

/// What /proc says about a process.
struct Stat {
    parent: u32,
    /// Of all its threads, and of children that have ended.
    cpu_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let cpu_ticks = [11, 12, 13, 14]
            .into_iter()
            .map(number)
            .sum::<Option<u64>>()?;
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            cpu_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_confuse() {
        let stat =
            Stat::parse("7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 3 4 20 0 1 0").unwrap();
        assert_eq!(stat.parent, 3);
        assert_eq!(stat.cpu_ticks, 37);
    }

    #[test]
    fn children_are_counted_and_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo started; wait"]);
        let process = Process::start("sh", command, directory.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while process.tree().len() < 2 {
            assert!(Instant::now() < deadline, "{}", process.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        let tree = process.tree();
        assert!(process.resident_bytes() > 0);
        drop(process);
        // An orphan that was killed is gone or waits for its new parent.
        let alive = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| !text.contains(") Z "))
        };
        while tree.iter().any(alive) {
            assert!(Instant::now() < deadline, "{tree:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
