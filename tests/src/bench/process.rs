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

/// One that was killed and is not gone by then hangs in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at whether it is gone.
const END_PAUSE: Duration = Duration::from_millis(2);

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
    /// Returns when all of it is gone: whatever one of its processes holds, a port above all, is free then.
    fn drop(&mut self) {
        let tree: Vec<Living> = self.tree().into_iter().filter_map(Living::of).collect();
        signal(&tree, Signal::TERM);
        let begin = Instant::now();
        let mut killed: Option<Instant> = None;
        loop {
            let is_ended = !matches!(self.child.try_wait(), Ok(None));
            let rest: Vec<Living> = tree.iter().copied().filter(Living::lives).collect();
            // A child that has ended and was not waited for does not count as one that lives.
            if is_ended && rest.is_empty() {
                return;
            }
            match killed {
                None if begin.elapsed() > END_TIMEOUT => {
                    signal(&rest, Signal::KILL);
                    killed = Some(Instant::now());
                }
                Some(killed) if killed.elapsed() > KILL_TIMEOUT => {
                    eprintln!("  {} does not end: {rest:?}", self.name);
                    return;
                }
                _ => {}
            }
            std::thread::sleep(END_PAUSE);
        }
    }
}

fn signal(processes: &[Living], signal: Signal) {
    for process in processes {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| process.lives()) {
            // It may have ended.
            let _gone = kill_process(pid, signal);
        }
    }
}

/// A process, told from a later one of the same number.
#[derive(Clone, Copy, Debug)]
struct Living {
    pid: u32,
    begin_ticks: u64,
}

impl Living {
    fn of(pid: u32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        Some(Self {
            pid,
            begin_ticks: stat.begin_ticks,
        })
    }

    fn lives(&self) -> bool {
        Stat::of(self.pid)
            .is_some_and(|stat| stat.begin_ticks == self.begin_ticks && !stat.is_ended)
    }
}

/// What /proc says about a process.
struct Stat {
    parent: u32,
    /// Of all its threads, and of children that have ended.
    cpu_ticks: u64,
    /// When it began, since the machine was started.
    begin_ticks: u64,
    /// It only waits for its parent to hear of it.
    is_ended: bool,
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
            begin_ticks: number(19)?,
            is_ended: matches!(*fields.first()?, "Z" | "X"),
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
            Stat::parse("7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 3 4 20 0 1 0 0").unwrap();
        assert_eq!(stat.parent, 3);
        assert_eq!(stat.cpu_ticks, 37);
        assert_eq!((stat.begin_ticks, stat.is_ended), (0, false));
        let ended = Stat::parse("7 (a) Z 3 7 7 0 -1 4 1 2 3 4 10 20 3 4 20 0 1 0 95 0 0").unwrap();
        assert_eq!((ended.begin_ticks, ended.is_ended), (95, true));
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
        let tree: Vec<Living> = process.tree().into_iter().filter_map(Living::of).collect();
        assert!(process.resident_bytes() > 0);
        assert!(tree.len() == 2 && tree.iter().all(Living::lives));
        drop(process);
        assert!(!tree.iter().any(Living::lives), "{tree:?}");
    }

    #[test]
    fn one_that_does_not_want_to_end_is_gone_with_its_port_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The shell ends at once, what it has started does not.
        command.args(["-c", "sh -c 'trap \"\" TERM; echo deaf; sleep 1000' & wait"]);
        let process = Process::start("sh", command, directory.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !process.said().contains("deaf") || process.tree().len() < 2 {
            assert!(Instant::now() < deadline, "{}", process.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        let tree: Vec<Living> = process.tree().into_iter().filter_map(Living::of).collect();
        drop(process);
        assert!(!tree.iter().any(Living::lives), "{tree:?}");
    }
}
