//! `[pools]` and `[memory]`: what an edge may take of its machine.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use super::document::{Keys, Section};
use super::error::{ConfigError, ValueError};
use super::units::Size;

/// `[pools]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolsConfig {
    /// Threads that encode and decode; the number of cores when not given.
    pub codec_threads: NonZeroUsize,
    /// Threads that seal, open and shake hands; the number of cores when not given.
    pub crypto_threads: NonZeroUsize,
    /// Jobs that a pool's queue holds before producers wait.
    pub queue: NonZeroUsize,
    /// Blocks of fewer plain bytes are encoded on the spot; 0 sends every block to a pool.
    pub inline_below: Size,
}

/// `[memory]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// What all buffers, histories in memory and indexes may take together.
    pub budget: Budget,
}

/// `budget`: a size, or a share of the machine's memory or of the control group's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// 1 to 90 percent.
    Percent(u8),
    /// At least [`MIN_BUDGET_BYTES`].
    Bytes(Size),
}

/// The least budget in bytes: a quarter of it still holds a few windows of 256 KiB and one block in each direction.
pub const MIN_BUDGET_BYTES: u64 = 16 << 20;

impl Budget {
    /// The budget in bytes on a machine or in a group with that much memory; never under [`MIN_BUDGET_BYTES`].
    pub fn bytes(self, memory_bytes: u64) -> u64 {
        match self {
            Self::Percent(percent) => (memory_bytes / 100)
                .saturating_mul(u64::from(percent))
                .max(MIN_BUDGET_BYTES),
            Self::Bytes(size) => size.bytes(),
        }
    }
}

impl FromStr for Budget {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse::<u8>() {
                Ok(percent @ 1..=90) => Ok(Self::Percent(percent)),
                _ => Err(ValueError::wrong(format!(
                    "\"{text}\" is out of range; write \"1%\" to \"90%\" or a size like \"1GiB\""
                ))),
            };
        }
        let size: Size = text.parse()?;
        if size.bytes() < MIN_BUDGET_BYTES {
            return Err(ValueError::wrong(format!(
                "\"{text}\" is too little; {} is the least",
                Size::from_bytes(MIN_BUDGET_BYTES)
            )));
        }
        Ok(Self::Bytes(size))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(formatter, "{percent}% of the memory"),
            Self::Bytes(size) => write!(formatter, "{size}"),
        }
    }
}

const POOLS: Keys = Keys {
    offered: &["codec_threads", "crypto_threads", "queue", "inline_below"],
    later: &[],
};
const MEMORY: Keys = Keys {
    offered: &["budget"],
    later: &[],
};

/// Threads of one pool; beyond it a slip is likelier than a machine.
const MAX_POOL_THREADS: u64 = 1_024;
/// Queue entries of one pool; each may hold a block of 256 KiB.
const MAX_POOL_QUEUE: u64 = 65_536;
/// The queue of a pool when none is given.
const DEFAULT_POOL_QUEUE: usize = 256;
/// Plain bytes below which a block is encoded on the spot when nothing else is given (DESIGN, section 2).
const DEFAULT_INLINE_BELOW_BYTES: u64 = 16 << 10;
/// The share of memory when nothing else is given.
const DEFAULT_BUDGET_PERCENT: u8 = 25;

pub(crate) fn pools(top: &Section<'_>) -> Result<PoolsConfig, ConfigError> {
    let section = top.section("pools", &POOLS)?;
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let number = |key: &str, most: u64| -> Result<Option<NonZeroUsize>, ConfigError> {
        let number = section
            .as_ref()
            .map_or(Ok(None), |s| s.integer(key, 1..=most))?;
        Ok(number
            .and_then(|n| usize::try_from(n).ok())
            .and_then(NonZeroUsize::new))
    };
    Ok(PoolsConfig {
        codec_threads: number("codec_threads", MAX_POOL_THREADS)?.unwrap_or(cores),
        crypto_threads: number("crypto_threads", MAX_POOL_THREADS)?.unwrap_or(cores),
        queue: number("queue", MAX_POOL_QUEUE)?
            .or(NonZeroUsize::new(DEFAULT_POOL_QUEUE))
            .unwrap_or(NonZeroUsize::MIN),
        inline_below: section
            .as_ref()
            .map_or(Ok(None), |s| {
                s.parse_string_or_integer("inline_below", str::parse)
            })?
            .unwrap_or(Size::from_bytes(DEFAULT_INLINE_BELOW_BYTES)),
    })
}

pub(crate) fn memory(top: &Section<'_>) -> Result<MemoryConfig, ConfigError> {
    let budget = top
        .section("memory", &MEMORY)?
        .map_or(Ok(None), |s| s.parse("budget", str::parse))?;
    Ok(MemoryConfig {
        budget: budget.unwrap_or(Budget::Percent(DEFAULT_BUDGET_PERCENT)),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn budgets_are_shares_or_sizes() {
        assert_eq!(
            "25%".parse::<Budget>().unwrap().bytes(8 << 30),
            (8u64 << 30) / 100 * 25
        );
        assert_eq!(
            "25%".parse::<Budget>().unwrap().bytes(1 << 20),
            MIN_BUDGET_BYTES
        );
        assert_eq!("1GiB".parse::<Budget>().unwrap().bytes(0), 1 << 30);
        for text in ["0%", "91%", "%", "-1%", "15MiB", "a lot"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }
}
