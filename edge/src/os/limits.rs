//! What the system lets this process have: descriptors and memory.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open descriptors to the hard one; 20,000 streams need 20,000 descriptors and the usual soft limit is
/// 1,024. Returns the limit now in force, `None` when there is none.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit on open descriptors stays as it is");
            limit.current
        }
    }
}

/// The memory this process may count on, in bytes: the machine's RAM or the cgroup's limit, whichever is lower. `None` where the
/// system does not say.
pub fn available_memory_bytes() -> Option<u64> {
    let ram = read("/proc/meminfo").and_then(|text| meminfo_total_bytes(&text));
    let cgroup = read("/proc/self/cgroup").and_then(|text| cgroup_limit_bytes(&text, read));
    match (ram, cgroup) {
        (Some(ram), Some(cgroup)) => Some(ram.min(cgroup)),
        (one, other) => one.or(other),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `MemTotal:       16384256 kB`, see proc_meminfo(5).
fn meminfo_total_bytes(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The lowest limit from this process's cgroup up to the root, in version 2 (`memory.max`) and version 1
/// (`memory.limit_in_bytes`). Inside a container the path may name a group that is not visible; then the visible root counts.
fn cgroup_limit_bytes<P: FnMut(String) -> Option<String>>(
    membership: &str,
    mut read: P,
) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            one if one.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = path.trim_end_matches('/');
        loop {
            let limit = read(format!("{root}{group}/{file}"))
                .and_then(|text| text.trim().parse::<u64>().ok());
            if let Some(limit) = limit {
                lowest = Some(lowest.map_or(limit, |before| before.min(limit)));
            }
            match group.rsplit_once('/') {
                Some((parent, _)) => group = parent,
                None => break,
            }
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        assert_eq!(
            meminfo_total_bytes("MemFree: 1 kB\nMemTotal:       16384 kB\n"),
            Some(16_777_216)
        );
        assert_eq!(meminfo_total_bytes("MemTotal: lots\n"), None);
        assert_eq!(meminfo_total_bytes(""), None);
    }

    #[test]
    fn the_lowest_limit_of_all_groups_above_counts() {
        let files = |path: String| match path.as_str() {
            "/sys/fs/cgroup/a/b/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/a/memory.max" => Some("1048576\n".to_owned()),
            "/sys/fs/cgroup/memory.max" => Some("2097152\n".to_owned()),
            _ => None,
        };
        assert_eq!(cgroup_limit_bytes("0::/a/b\n", files), Some(1_048_576));
        assert_eq!(cgroup_limit_bytes("0::/\n", files), Some(2_097_152));
        assert_eq!(cgroup_limit_bytes("0::/a/b\n", |_| None), None);
    }

    #[test]
    fn version_one_groups_are_read_too() {
        let files = |path: String| {
            (path == "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes")
                .then(|| "4096\n".to_owned())
        };
        assert_eq!(
            cgroup_limit_bytes("5:cpu:/x\n4:hugetlb,memory:/docker/x\nbroken\n", files),
            Some(4096)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_how_much_it_has() {
        assert!(available_memory_bytes().unwrap() > 16 * 1024 * 1024);
    }

    #[test]
    fn the_descriptor_limit_is_as_high_as_it_may_be() {
        assert_eq!(
            raise_descriptor_limit(),
            getrlimit(Resource::Nofile).maximum
        );
    }
}
