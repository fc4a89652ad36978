//! The log's lines as events: whatever the programs warn of, and what they tell at `info` about tunnels, configuration and histories. Lines about
//! single streams are left out. The level of the log does not matter here.

use std::fmt::{Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

use super::{Journal, Note, Severity};

/// Lines that programs may want to tell apart: how each begins, its kind, and its severity where that is not the level's.
const KNOWN: [(&str, &str, Option<Severity>); 18] = [
    ("tunnel up", "tunnel_up", Some(Severity::Good)),
    ("tunnel resumed", "tunnel_resumed", Some(Severity::Good)),
    ("the line is lost", "line_lost", None),
    ("tunnel down", "tunnel_ended", None),
    ("the tunnel takes no new streams", "tunnel_draining", None),
    ("no tunnel", "no_tunnel", None),
    ("the tunnel is not resumed", "not_resumed", None),
    ("link refused", "link_refused", None),
    ("stream refused by policy", "stream_refused", None),
    ("stream reset: the new policy", "stream_refused", None),
    ("the configuration was read anew", "reload", None),
    ("the configuration stays as it was", "reload_failed", None),
    ("changed; takes effect at the next", "reload_waits", None),
    ("draining", "draining", None),
    ("drained", "drained", None),
    ("a history cannot be written", "history_read_only", None),
    (
        "histories are written to disk again",
        "history_written",
        Some(Severity::Good),
    ),
    ("the certificate was renewed", "certificate_renewed", None),
];

/// Kinds whose order tells a story: each stays an event of its own.
const STORY: [&str; 10] = [
    "tunnel_up",
    "tunnel_resumed",
    "line_lost",
    "tunnel_ended",
    "tunnel_draining",
    "reload",
    "reload_failed",
    "draining",
    "drained",
    "history_written",
];

/// Fields that say whose a line is, the first that is there.
const SUBJECTS: [&str; 4] = ["peer", "client", "service", "what"];

/// Fields that explain themselves.
const WITHOUT_NAME: [&str; 4] = ["cause", "error", "why", "reason"];

/// Notes lines of the log in a journal.
pub(crate) struct Listen(pub(crate) Arc<Journal>);

/// Which lines a [`Listen`] hears.
pub(crate) fn heard() -> Targets {
    Targets::new()
        .with_default(LevelFilter::OFF)
        .with_targets(crate::log::OWN_CRATES.map(|name| (name, LevelFilter::INFO)))
        // A line for each stream.
        .with_target("edge::log", LevelFilter::WARN)
        .with_target("wanproxy_client::listener", LevelFilter::WARN)
        .with_target("wanproxy_server::reverse", LevelFilter::WARN)
        .with_target("edge::reach", LevelFilter::WARN)
}

impl<S: Subscriber> Layer<S> for Listen {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.note(line.note(*event.metadata().level()));
    }
}

/// The fields of one line.
#[derive(Default)]
struct Line {
    message: String,
    subject: Option<(usize, String)>,
    detail: String,
    held_back: u64,
}

impl Line {
    fn note(self, level: Level) -> Note {
        let known = KNOWN
            .iter()
            .find(|(start, _, _)| self.message.starts_with(start));
        let kind = known.map_or("log", |(_, kind, _)| *kind);
        let of_level = match level {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            _ => Severity::Info,
        };
        Note {
            severity: known
                .and_then(|(_, _, severity)| *severity)
                .unwrap_or(of_level),
            kind,
            gathers: !STORY.contains(&kind),
            text: self.message,
            subject: self.subject.map(|(_, subject)| subject).unwrap_or_default(),
            detail: self.detail,
            count: self.held_back.saturating_add(1),
        }
    }

    fn take(&mut self, name: &str, value: String) {
        if name == "message" {
            self.message = value;
        } else if let Some(rank) = SUBJECTS.iter().position(|subject| *subject == name) {
            match &self.subject {
                Some((known, _)) if *known <= rank => self.add(name, &value),
                _ => {
                    if let Some((known, before)) = self.subject.replace((rank, value)) {
                        let name = SUBJECTS.get(known).copied().unwrap_or_default();
                        self.add(name, &before);
                    }
                }
            }
        } else {
            self.add(name, &value);
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.detail.is_empty() {
            self.detail.push_str(" · ");
        }
        // Writing to a string does not fail.
        let _ = if WITHOUT_NAME.contains(&name) {
            self.detail.write_str(value)
        } else {
            write!(self.detail, "{}: {value}", name.replace('_', " "))
        };
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "held_back" {
            self.held_back = value;
        } else {
            self.take(field.name(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::journal::Event;

    fn events_of(log: impl FnOnce()) -> Vec<Event> {
        let journal = Arc::new(Journal::default());
        let listen = Listen(journal.clone()).with_filter(heard());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(listen), log);
        journal.changed_after(0).0
    }

    #[test]
    fn lines_become_events_with_their_subject_first() {
        let events = events_of(|| {
            tracing::info!(peer = "hq", server = %"hq:7443", "tunnel up");
            tracing::warn!(
                service = "files",
                client = "branch-1",
                reason = "denied",
                held_back = 4_u64,
                "stream refused by policy"
            );
            tracing::debug!("not heard");
            tracing::info!(target: "edge::log::stream", "a stream's line is not heard");
            tracing::warn!(target: "rustls", "a library is not heard");
            tracing::error!(error = "no such file", "the configuration stays as it was");
        });
        let seen: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    &*event.kind,
                    event.severity,
                    &*event.subject,
                    &*event.detail,
                    event.count,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("tunnel_up", Severity::Good, "hq", "server: hq:7443", 1),
                (
                    "stream_refused",
                    Severity::Warning,
                    "branch-1",
                    "service: files · denied",
                    5
                ),
                ("reload_failed", Severity::Error, "", "no such file", 1),
            ]
        );
    }
}
