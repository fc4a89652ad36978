//! What both programs start before they open a socket: pools, the memory budget, histories and counters.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tunnel::budget::Budget;
use tunnel::environment::{Environment, VERSIONS};
use tunnel::histories::{Lean, QuotaOf};
use tunnel::metrics::Registry;
use tunnel::pool::{Pools, PoolsConfig};
use tunnel::state::{LevelChoice, Limits};

use super::histories;
use crate::config::{self, CodecConfig, HistoryConfig, MemoryConfig};
use crate::os;

/// Threads that resolve names. A name server that does not answer holds one for up to half a minute; eight let others go on.
const RESOLVE_THREADS: usize = 8;
/// Threads for file work: the keeper of histories has one most of the time, and certificates and new histories must not wait for its disk.
const STORAGE_THREADS: usize = 2;

/// Sent bytes that stay unacknowledged for so long end a link. Three heartbeats of the default, after which the link is dead anyway.
const LINK_USER_TIMEOUT: Duration = Duration::from_secs(15);

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

/// Starts what tunnels share. `quota_of` is what the configuration gives to peers as history. Tunnels are not resumed unless the caller sets a
/// window.
pub async fn environment(
    name: &str,
    lean: Lean,
    heartbeat: Duration,
    resources: &Resources<'_>,
    quota_of: QuotaOf,
) -> Environment {
    let Resources {
        pools,
        memory,
        history,
        codec,
    } = resources;
    let threads = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let pools_config = PoolsConfig {
        codec_threads: pools.codec_threads,
        crypto_threads: pools.crypto_threads,
        storage_threads: threads(STORAGE_THREADS),
        resolve_threads: threads(RESOLVE_THREADS),
        queue: pools.queue,
    };
    let started = Arc::new(Pools::start_with(
        &Handle::current(),
        pools_config,
        Some(os::be_batch_work),
    ));
    let (histories, streams_bytes) =
        histories::open(lean, history, memory, quota_of, &started).await;
    Environment {
        versions: VERSIONS,
        instance: rand::random(),
        name: name.to_owned(),
        pools: started,
        budget: Arc::new(Budget::new(
            usize::try_from(streams_bytes).unwrap_or(usize::MAX),
        )),
        histories,
        counters: Arc::new(Registry::new()),
        inline_below_bytes: usize::try_from(pools.inline_below.bytes()).unwrap_or(usize::MAX),
        heartbeat,
        resume_window: Duration::ZERO,
        limits: Limits::default(),
        level: level(codec.level),
        tune: tune_link,
        prepare: Arc::new(|_, _| {}),
        sample: |socket| os::sample_link(socket),
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
