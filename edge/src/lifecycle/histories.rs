//! Where a program's histories live and how much they take, from its configuration.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tunnel::histories::{
    Histories, HistoriesConfig, Home, Lean, OpenDirectory, OpenError, QuotaOf,
};
use tunnel::pool::{JobName, Pools, call};

use super::PREDECESSOR_GONE_WITHIN;
use crate::config::{self, DEFAULT_HISTORY_BYTES, HistoryConfig, MemoryConfig};
use crate::metrics::Sources;
use crate::os;

/// Pause between two tries for the lock of a directory.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What a machine is taken to have that does not say how much memory it has.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

/// Histories take at most one part in so many of the memory budget; the rest is for streams.
const HISTORY_DIVISOR: u64 = 2;

/// The index takes at most one byte for so many bytes of history.
const HISTORY_BYTES_PER_INDEX_BYTE: u64 = 8;

/// Of the memory for histories on disk the index takes one part in so many at most; the rest caches pages.
const INDEX_DIVISOR: u64 = 2;

/// Of the memory for histories, one part in so many is for small histories of peers that come when all room is reserved.
const SMALL_DIVISOR: u64 = 16;

/// Histories take at most one part in so many of what a disk has free, unless a size is given.
const FREE_DIVISOR: u64 = 2;

/// How much memory goes where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// For everything but histories.
    pub(super) streams_bytes: u64,
    /// What all histories may take where they live.
    size_bytes: u64,
    small_bytes: u64,
    index_bytes: u64,
    cache_bytes: u64,
}

impl Split {
    /// With histories in memory.
    fn in_memory(budget_bytes: u64, size_bytes: Option<u64>) -> Self {
        let most = budget_bytes / HISTORY_DIVISOR;
        let all = size_bytes.unwrap_or(most).min(most);
        let small_bytes = all / SMALL_DIVISOR;
        let index_bytes = all / HISTORY_BYTES_PER_INDEX_BYTE;
        Self {
            streams_bytes: budget_bytes.saturating_sub(all + index_bytes),
            size_bytes: all - small_bytes,
            small_bytes,
            index_bytes,
            cache_bytes: 0,
        }
    }

    /// With histories on disk.
    fn on_disk(budget_bytes: u64, size_bytes: u64) -> Self {
        let all = budget_bytes / HISTORY_DIVISOR;
        let small_bytes = all / SMALL_DIVISOR;
        let index_bytes = (size_bytes / HISTORY_BYTES_PER_INDEX_BYTE).min(all / INDEX_DIVISOR);
        Self {
            streams_bytes: budget_bytes - all,
            size_bytes,
            small_bytes,
            index_bytes,
            // What is not written yet comes on top of the cache, half as much again at most.
            cache_bytes: (all - small_bytes - index_bytes) / 3 * 2,
        }
    }
}

/// The memory budget in bytes.
pub fn budget_bytes(memory: &MemoryConfig) -> u64 {
    memory
        .budget
        .bytes(os::available_memory_bytes().unwrap_or(UNKNOWN_MEMORY_BYTES))
}

/// The size of histories in `directory`, which hold `held_bytes` already: what the configuration says, or what may be taken without asking.
pub fn size_on_disk(history: &HistoryConfig, directory: &Path, held_bytes: u64) -> u64 {
    let default = || match os::free_disk_bytes(directory) {
        // What they take already counts as free, or they would shrink from start to start.
        Ok(free) => DEFAULT_HISTORY_BYTES.min(free.saturating_add(held_bytes) / FREE_DIVISOR),
        Err(_) => DEFAULT_HISTORY_BYTES,
    };
    history.size.map_or_else(default, config::Size::bytes)
}

/// Opens the histories of a program that starts. A directory that cannot be used is no reason not to carry connections: then they live in
/// memory, with a warning. Returns what is left of the memory budget, too.
pub(super) async fn open(
    lean: Lean,
    history: &HistoryConfig,
    memory: &MemoryConfig,
    quota_of: QuotaOf,
    pools: &Pools,
) -> (Arc<Histories>, u64) {
    let history = history.clone();
    let budget = budget_bytes(memory);
    let name = JobName {
        who: "histories".into(),
        why: "open",
    };
    let work = move || {
        let (home, split) = home(&history, budget);
        let histories = Histories::new(HistoriesConfig {
            lean,
            size_bytes: split.size_bytes,
            small_bytes: split.small_bytes,
            index_bytes: split.index_bytes,
            cache_bytes: split.cache_bytes,
            quota_of,
            home,
        });
        (histories, split.streams_bytes)
    };
    let (histories, streams_bytes) = match call(&pools.storage, name, Box::new(work)).await {
        Some(opened) => opened,
        None => unreachable!("the pool was started a moment ago"),
    };
    let histories = Arc::new(histories);
    histories.start_keeper(&pools.storage);
    (histories, streams_bytes)
}

fn home(history: &HistoryConfig, budget_bytes: u64) -> (Home, Split) {
    let size = history.size.map(config::Size::bytes);
    let Some(directory) = &history.directory else {
        let split = Split::in_memory(budget_bytes, size);
        if let Some(size) = size.filter(|size| *size > budget_bytes / HISTORY_DIVISOR) {
            tracing::warn!(
                wanted_bytes = size,
                given_bytes = budget_bytes / HISTORY_DIVISOR,
                "[history] size is more than half of the memory budget, and without a directory histories are in memory"
            );
        }
        return (Home::Memory { excuse: None }, split);
    };
    match open_patiently(directory) {
        Ok(opened) => {
            let size = size_on_disk(history, directory, opened.held_bytes());
            (Home::Disk(opened), Split::on_disk(budget_bytes, size))
        }
        Err(error) => {
            let advice = match &error {
                OpenError::InUse { .. } => "end that one and start this one anew",
                _ => "see to it and start anew",
            };
            tracing::warn!(%error, advice, "histories are in memory until the next start, and forgotten then");
            let excuse = Some(error.to_string());
            (
                Home::Memory { excuse },
                Split::in_memory(budget_bytes, size),
            )
        }
    }
}

/// Opens the directory; where another program has it, that may be one that was killed a moment ago.
fn open_patiently(directory: &Path) -> Result<OpenDirectory, OpenError> {
    let until = Instant::now() + PREDECESSOR_GONE_WITHIN;
    loop {
        match OpenDirectory::open(directory) {
            Err(OpenError::InUse { .. }) if Instant::now() < until => thread::sleep(LOCK_PAUSE),
            result => return result,
        }
    }
}

/// Takes over another `[history] size` and other quotas while the program runs; in the background, for it is file work.
pub fn resize_histories(
    sources: &Sources,
    history: &HistoryConfig,
    memory: &MemoryConfig,
    quota_of: QuotaOf,
) {
    let (histories, pools) = (sources.histories.clone(), sources.pools.clone());
    let (history, budget) = (history.clone(), budget_bytes(memory));
    // Not awaited: a disk that does not answer must not hold up the reload, or the end.
    drop(tokio::spawn(async move {
        let held_bytes = histories.stats().disk_bytes;
        let directory = histories.directory().map(Path::to_owned);
        let size = move || match &directory {
            Some(directory) => size_on_disk(&history, directory, held_bytes),
            None => Split::in_memory(budget, history.size.map(config::Size::bytes)).size_bytes,
        };
        let name = JobName {
            who: "histories".into(),
            why: "measure",
        };
        if let Some(size_bytes) = call(&pools.storage, name, Box::new(size)).await {
            histories.resize(&pools.storage, size_bytes, quota_of).await;
        }
    }));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn histories_in_memory_take_what_is_asked_and_never_more_than_half() {
        let whole = |split: Split| {
            assert_eq!(
                split.streams_bytes + split.size_bytes + split.small_bytes + split.index_bytes,
                1024 * MIB
            );
            (split.size_bytes + split.small_bytes, split.streams_bytes)
        };
        let half = (512 * MIB, 448 * MIB);
        assert_eq!(whole(Split::in_memory(1024 * MIB, None)), half);
        assert_eq!(whole(Split::in_memory(1024 * MIB, Some(20 << 30))), half);
        assert_eq!(
            whole(Split::in_memory(1024 * MIB, Some(8 * MIB))),
            (8 * MIB, 1015 * MIB)
        );
        assert_eq!(
            whole(Split::in_memory(1024 * MIB, Some(0))),
            (0, 1024 * MIB)
        );
    }

    #[test]
    fn histories_on_disk_take_half_of_the_memory_for_index_and_cache_whatever_their_size() {
        for size in [0, 64 * MIB, 10 << 30, 1 << 50] {
            let split = Split::on_disk(1024 * MIB, size);
            let pages = split.cache_bytes + split.cache_bytes / 2;
            let memory = split.small_bytes + split.index_bytes + pages;
            assert_eq!((split.size_bytes, split.streams_bytes), (size, 512 * MIB));
            assert!(memory <= 512 * MIB && memory > 511 * MIB, "{split:?}");
            assert!(split.cache_bytes >= 140 * MIB, "{split:?}");
        }
        assert_eq!(
            Split::on_disk(1024 * MIB, 64 * MIB).index_bytes,
            8 * MIB,
            "a small history is indexed in full"
        );
    }

    #[test]
    fn a_directory_is_waited_for_that_a_dying_program_holds() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("history");
        let held = OpenDirectory::open(&path).unwrap();
        let dying = thread::spawn(move || {
            thread::sleep(PREDECESSOR_GONE_WITHIN / 10);
            drop(held);
        });
        // On a busy machine it may take longer to die than is waited for. Then that was waited for in full.
        let opened = (0..10).find_map(|_| {
            let begun = Instant::now();
            let opened = open_patiently(&path).ok();
            assert!(opened.is_some() || begun.elapsed() >= PREDECESSOR_GONE_WITHIN);
            opened
        });
        assert!(opened.is_some());
        dying.join().unwrap();
    }

    #[test]
    fn without_a_size_a_disk_is_not_filled() {
        let history = |text: &str| {
            let text = format!("[tunnel]\nserver = [\"hq:1\"]\n[history]\n{text}");
            config::ClientConfig::parse(&text, Path::new("/tmp/client.toml")).map(|c| c.history)
        };
        let Ok(default) = history("directory = \"x\"") else {
            unreachable!("a configuration")
        };
        let size = size_on_disk(&default, Path::new("/"), 0);
        assert!(size <= DEFAULT_HISTORY_BYTES);
        let free = os::free_disk_bytes(Path::new("/")).unwrap_or(0);
        assert!(size <= free.max(1), "{size} of {free}");
        let Ok(given) = history("directory = \"x\"\nsize = \"3GiB\"") else {
            unreachable!("a configuration")
        };
        assert_eq!(size_on_disk(&given, Path::new("/"), 0), 3 << 30);
    }
}
