//! What both programs start before they open a socket: pools, the memory budget, histories and counters.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tunnel::budget::Budget;
use tunnel::environment::Environment;
use tunnel::histories::{Histories, Lean};
use tunnel::metrics::Registry;
use tunnel::pool::{Pools, PoolsConfig};
use tunnel::state::{LevelChoice, Limits};

use crate::config::{self, CodecConfig, HistoryConfig, MemoryConfig};
use crate::os;

/// Threads that resolve names. A name server that does not answer holds one for up to half a minute; eight let others go on.
const RESOLVE_THREADS: usize = 8;
/// Threads for file work; histories on disk are not here yet, so there is little of it.
const STORAGE_THREADS: usize = 2;

/// Sent bytes that stay unacknowledged for so long end a link. Three heartbeats of the default, after which the link is dead anyway.
const LINK_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// What a machine is taken to have that does not say how much memory it has.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

/// Histories in memory take at most one part in so many of the budget; the rest is for streams.
const HISTORY_DIVISOR: u64 = 2;

/// The index takes at most one byte for so many bytes of history.
const HISTORY_BYTES_PER_INDEX_BYTE: u64 = 8;

/// The sections that [`environment`] wants.
#[derive(Clone, Copy, Debug)]
pub struct Resources<'a> {
    /// `[pools]`.
    pub pools: &'a config::PoolsConfig,
    /// `[memory]`.
    pub memory: &'a MemoryConfig,
    /// `[history]`.
    pub history: &'a HistoryConfig,
    /// `[codec]`.
    pub codec: &'a CodecConfig,
}

/// Starts what tunnels share. Within a runtime. Tunnels are not resumed unless the caller sets a window.
pub fn environment(
    name: &str,
    lean: Lean,
    heartbeat: Duration,
    resources: &Resources<'_>,
) -> Environment {
    let Resources {
        pools,
        memory,
        history,
        codec,
    } = resources;
    let split = Split::new(
        memory
            .budget
            .bytes(os::available_memory_bytes().unwrap_or(UNKNOWN_MEMORY_BYTES)),
        history.size.map(config::Size::bytes),
    );
    if let Some(size) = history
        .size
        .filter(|size| size.bytes() > split.history_bytes)
    {
        tracing::warn!(
            wanted_bytes = size.bytes(),
            given_bytes = split.history_bytes,
            "[history] size is more than half of the memory budget; histories are in memory in this version"
        );
    }
    let threads = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let pools_config = PoolsConfig {
        codec_threads: pools.codec_threads,
        crypto_threads: pools.crypto_threads,
        storage_threads: threads(STORAGE_THREADS),
        resolve_threads: threads(RESOLVE_THREADS),
        queue: pools.queue,
    };
    Environment {
        instance: rand::random(),
        name: name.to_owned(),
        pools: Arc::new(Pools::start(&Handle::current(), pools_config)),
        budget: Arc::new(Budget::new(
            usize::try_from(split.streams_bytes).unwrap_or(usize::MAX),
        )),
        histories: Arc::new(Histories::new(split.history_bytes, lean)),
        counters: Arc::new(Registry::new()),
        inline_below_bytes: usize::try_from(pools.inline_below.bytes()).unwrap_or(usize::MAX),
        heartbeat,
        resume_window: Duration::ZERO,
        limits: Limits::default(),
        level: level(codec.level),
        tune: tune_link,
        sample: |socket| os::sample_link(socket),
    }
}

/// How the memory budget is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    history_bytes: u64,
    streams_bytes: u64,
}

impl Split {
    fn new(budget_bytes: u64, history_size_bytes: Option<u64>) -> Self {
        let most = budget_bytes / HISTORY_DIVISOR;
        let history_bytes = history_size_bytes.unwrap_or(most).min(most);
        let index_bytes = history_bytes / HISTORY_BYTES_PER_INDEX_BYTE;
        Self {
            history_bytes,
            streams_bytes: budget_bytes
                .saturating_sub(history_bytes)
                .saturating_sub(index_bytes),
        }
    }
}

fn level(level: config::Level) -> LevelChoice {
    match level {
        config::Level::Auto => LevelChoice::Auto,
        config::Level::Off => LevelChoice::Fixed(codec::policy::Level::Off),
        config::Level::Fixed(level) => LevelChoice::Fixed(codec::policy::Level::Zstd(level.get())),
    }
}

fn tune_link(socket: &TcpStream) {
    if let Err(error) = os::tune_link(socket, LINK_USER_TIMEOUT) {
        tracing::debug!(%error, "a link's socket options were not taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_take_what_is_asked_and_never_more_than_half() {
        let mib = 1 << 20;
        assert_eq!(
            Split::new(1024 * mib, None),
            Split {
                history_bytes: 512 * mib,
                streams_bytes: 448 * mib
            }
        );
        assert_eq!(
            Split::new(1024 * mib, Some(20 << 30)),
            Split {
                history_bytes: 512 * mib,
                streams_bytes: 448 * mib
            }
        );
        assert_eq!(
            Split::new(1024 * mib, Some(8 * mib)),
            Split {
                history_bytes: 8 * mib,
                streams_bytes: 1015 * mib
            }
        );
        assert_eq!(
            Split::new(1024 * mib, Some(0)),
            Split {
                history_bytes: 0,
                streams_bytes: 1024 * mib
            }
        );
    }

    #[test]
    fn automatic_is_the_default_level() {
        assert_eq!(level(config::Level::Auto), LevelChoice::Auto);
        assert_eq!(
            level(config::Level::Off),
            LevelChoice::Fixed(codec::policy::Level::Off)
        );
        assert_eq!(
            "7".parse().map(level),
            Ok(LevelChoice::Fixed(codec::policy::Level::Zstd(7)))
        );
    }
}
