//! What the kernel knows about this process, for the `process_*` metrics.

use std::fs;

/// Figures about this process, named as Prometheus names them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessStats {
    /// User and system time used, in seconds.
    pub cpu_seconds: f64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The limit on open descriptors, `None` when there is none.
    pub max_fds: Option<u64>,
    /// Resident memory in bytes.
    pub resident_memory_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_memory_bytes: u64,
    /// When the process started, in seconds since the epoch.
    pub start_time_seconds: f64,
    /// OS threads.
    pub threads: u64,
}

/// Reads the figures; `None` where the system has no `/proc`.
pub fn process_stats() -> Option<ProcessStats> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let stat = Stat::parse(&stat)?;
    let boot_seconds: u64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    // One entry is the directory that is being read.
    let open_fds = u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count())
        .ok()?
        .saturating_sub(1);
    let ticks_per_second = exact(rustix::param::clock_ticks_per_second());
    let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
    Some(ProcessStats {
        cpu_seconds: exact(stat.user_ticks.saturating_add(stat.system_ticks)) / ticks_per_second,
        open_fds,
        max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        resident_memory_bytes: stat.resident_pages.saturating_mul(page_bytes),
        virtual_memory_bytes: stat.virtual_bytes,
        start_time_seconds: exact(boot_seconds) + exact(stat.start_ticks) / ticks_per_second,
        threads: stat.threads,
    })
}

/// Resident memory alone, which costs one small read; `None` where the system has no `/proc`.
pub fn resident_memory_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page_bytes)
}

fn exact(number: u64) -> f64 {
    number as f64
}

/// The fields of proc_pid_stat(5) that are wanted here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may itself hold blanks and parentheses; after the last
        // one comes field 3.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Self {
            user_ticks: field(14)?,
            system_ticks: field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 11 12 0 0 20 0 5 0 9000 4096000 250 18446744073709551615 1 1\n";
        let stat = Stat {
            user_ticks: 11,
            system_ticks: 12,
            threads: 5,
            start_ticks: 9000,
            virtual_bytes: 4_096_000,
            resident_pages: 250,
        };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_plausible_figures() {
        let stats = process_stats().unwrap();
        assert!(stats.open_fds >= 3);
        assert!(stats.threads >= 1);
        assert!(stats.resident_memory_bytes > 100_000);
        assert!(stats.virtual_memory_bytes >= stats.resident_memory_bytes);
        // After 2020 and before 2100.
        assert!((1.6e9..4.1e9).contains(&stats.start_time_seconds));
    }
}
