//! Logs: text or JSON on standard error, one line an event.

mod stream;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::time::UtcTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

pub use stream::{Ended, StreamLine};

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::journal::{Journal, Listen, heard};

/// The crates whose events follow the configured level; libraries are heard from `warn` on.
pub(crate) const OWN_CRATES: [&str; 5] = [
    "codec",
    "tunnel",
    "edge",
    "wanproxy_client",
    "wanproxy_server",
];

/// The running log, whose level a reload may change.
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    journal: Arc<Journal>,
}

impl Log {
    /// Starts logging and makes panics lines of the log. Once per process; a second time has no effect.
    pub fn start(config: &LogConfig) -> Self {
        let (filter, handle) = reload::Layer::new(targets(config.level));
        let journal = Arc::new(Journal::default());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_timer(UtcTime::rfc_3339());
        let lines = match config.format {
            LogFormat::Text => {
                let colors =
                    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                lines.with_ansi(colors).boxed()
            }
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .boxed(),
        };
        // It fails only where a log is running already, as in tests.
        let _ = tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(Listen(journal.clone()).with_filter(heard()))
            .try_init();
        std::panic::set_hook(Box::new(log_panic));
        Self {
            filter: handle,
            journal,
        }
    }

    /// What has happened lately, whatever the level.
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.clone()
    }

    /// Changes the level.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only where this log was never started.
        let _ = self.filter.reload(targets(level));
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(OWN_CRATES.map(|name| (name, level)))
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(
        message_text = message.unwrap_or("no message"),
        place,
        thread = thread.name().unwrap_or("unnamed"),
        "panic"
    );
}

/// Lets one event of a kind through in each period, and says how many it has held back.
#[derive(Debug)]
pub struct Throttle<K> {
    period: Duration,
    seen: Mutex<HashMap<K, Seen>>,
}

#[derive(Debug)]
struct Seen {
    last: Instant,
    held_back: u64,
}

/// Kinds that a [`Throttle`] remembers. When it is full the oldest is forgotten, which costs a line too many.
const KINDS_MAX: usize = 1_024;

impl<K: Hash + Eq + Clone> Throttle<K> {
    /// One event of a kind in each `period`.
    pub fn new(period: Duration) -> Self {
        Self {
            period,
            seen: Mutex::default(),
        }
    }

    /// May this event be logged? If so: how many of its kind were not, since the last that was.
    pub fn admit(&self, kind: &K, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get_mut(kind) {
            if now.saturating_duration_since(known.last) < self.period {
                known.held_back += 1;
                return None;
            }
            known.last = now;
            return Some(std::mem::take(&mut known.held_back));
        }
        if seen.len() >= KINDS_MAX {
            let oldest = seen
                .iter()
                .min_by_key(|(_, known)| known.last)
                .map(|(kind, _)| kind.clone());
            oldest.and_then(|kind| seen.remove(&kind));
        }
        seen.insert(
            kind.clone(),
            Seen {
                last: now,
                held_back: 0,
            },
        );
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_heard_from_warn_on_and_never_above_the_level() {
        let info = targets(LogLevel::Info);
        assert!(info.would_enable("tunnel::driver", &Level::INFO));
        assert!(!info.would_enable("tunnel::driver", &Level::DEBUG));
        assert!(info.would_enable("rustls::server", &Level::WARN));
        assert!(!info.would_enable("rustls::server", &Level::INFO));
        let error = targets(LogLevel::Error);
        assert!(!error.would_enable("edge", &Level::WARN));
        assert!(!error.would_enable("rustls", &Level::WARN));
        assert!(targets(LogLevel::Trace).would_enable("wanproxy_server::run", &Level::TRACE));
    }

    #[test]
    fn one_event_of_a_kind_in_each_period() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.admit(&"a", at(0)), Some(0));
        assert_eq!(throttle.admit(&"b", at(0)), Some(0));
        assert_eq!(throttle.admit(&"a", at(1)), None);
        assert_eq!(throttle.admit(&"a", at(59)), None);
        assert_eq!(throttle.admit(&"a", at(60)), Some(2));
        assert_eq!(throttle.admit(&"a", at(61)), None);
    }

    #[test]
    fn the_kinds_remembered_are_bounded() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let start = Instant::now();
        for kind in 0..KINDS_MAX + 10 {
            let now = start + Duration::from_millis(u64::try_from(kind).unwrap_or(0));
            assert_eq!(throttle.admit(&kind, now), Some(0));
        }
        let held = throttle
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        assert_eq!(held, KINDS_MAX);
    }
}
