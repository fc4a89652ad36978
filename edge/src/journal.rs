//! What has happened lately, for people who look: a bounded ring of events. It is filled from the log's own lines, at whatever level
//! those are written, and from counters that the dashboard watches.

mod listen;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) use listen::{Listen, heard};

/// Events that are kept. Somebody who looks once a day at an edge that is well sees all of them; each is below 2 KiB.
const EVENTS_MAX: usize = 200;

/// Events of one kind about one subject within this time are one event that is counted, so that neither a scanner nor a storm of refusals
/// washes away the rest.
const GATHER_WITHIN_MS: u64 = 60_000;

/// Bytes of an event's subject and of its detail. Both may come from a peer.
const TEXT_MAX_BYTES: usize = 400;

/// How much an event is somebody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What was wrong is right again.
    Good,
    /// Good to know.
    Info,
    /// Somebody should look when there is time.
    Warning,
    /// Somebody should look.
    Error,
}

/// One thing that happened, once or several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Names it; later events have higher ones.
    pub id: u64,
    /// When it happened, the last time, in milliseconds since the epoch.
    pub time_ms: u64,
    /// When it happened first.
    pub first_ms: u64,
    /// How often.
    pub count: u64,
    /// How much it matters.
    pub severity: Severity,
    /// A word for programs, like `tunnel_up`.
    pub kind: String,
    /// What happened, for people.
    pub text: String,
    /// Whose it is: a peer, a client or a service. May be empty.
    pub subject: String,
    /// The rest of what is known. May be empty.
    pub detail: String,
}

/// Something to be noted.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) severity: Severity,
    pub(crate) kind: &'static str,
    /// May it be counted with an earlier one like it? Not where the order tells a story, as with tunnels that come and go.
    pub(crate) gathers: bool,
    pub(crate) text: String,
    pub(crate) subject: String,
    pub(crate) detail: String,
    pub(crate) count: u64,
}

/// The ring of events.
#[derive(Debug, Default)]
pub struct Journal {
    ring: Mutex<Ring>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    /// Counts every change; the highest one of an event says when it changed last.
    revision: u64,
    last_id: u64,
    events: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    revision: u64,
    event: Event,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something that happens now.
    pub(crate) fn note(&self, note: Note) {
        self.note_at(note, now_ms());
    }

    fn note_at(&self, note: Note, now_ms: u64) {
        let text = shortened(note.text);
        let subject = shortened(note.subject);
        let detail = shortened(note.detail);
        let mut ring = self.lock();
        ring.revision += 1;
        let revision = ring.revision;
        let like = |kept: &Kept| {
            let event = &kept.event;
            event.kind == note.kind
                && event.text == text
                && event.subject == subject
                // A clock that was set back begins another minute.
                && now_ms.abs_diff(event.first_ms) < GATHER_WITHIN_MS
        };
        let known = if note.gathers {
            ring.events.iter_mut().rev().find(|kept| like(kept))
        } else {
            None
        };
        if let Some(kept) = known {
            kept.revision = revision;
            kept.event.time_ms = now_ms;
            kept.event.count = kept.event.count.saturating_add(note.count);
            kept.event.detail = detail;
        } else {
            ring.last_id += 1;
            let event = Event {
                id: ring.last_id,
                time_ms: now_ms,
                first_ms: now_ms,
                count: note.count,
                severity: note.severity,
                kind: note.kind.to_owned(),
                text,
                subject,
                detail,
            };
            if ring.events.len() >= EVENTS_MAX {
                ring.events.pop_front();
            }
            ring.events.push_back(Kept { revision, event });
        }
        drop(ring);
        self.changed.notify_one();
    }

    /// Resolves when something was noted since it resolved last. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Events that changed after revision `after`, the oldest first, and the present revision.
    pub(crate) fn changed_after(&self, after: u64) -> (Vec<Event>, u64) {
        let ring = self.lock();
        let changed = ring.events.iter().filter(|kept| kept.revision > after);
        (
            changed.map(|kept| kept.event.clone()).collect(),
            ring.revision,
        )
    }
}

/// Without what moves a terminal's cursor, and no longer than is kept.
fn shortened(text: String) -> String {
    let mut text = if text.chars().any(char::is_control) {
        text.replace(char::is_control, " ")
    } else {
        text
    };
    if text.len() > TEXT_MAX_BYTES {
        let end = (0..=TEXT_MAX_BYTES)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: &'static str, subject: &str, gathers: bool) -> Note {
        Note {
            severity: Severity::Info,
            kind,
            gathers,
            text: kind.to_owned(),
            subject: subject.to_owned(),
            detail: String::new(),
            count: 1,
        }
    }

    fn ids_and_counts(journal: &Journal, after: u64) -> Vec<(u64, u64)> {
        let (events, _) = journal.changed_after(after);
        events.iter().map(|event| (event.id, event.count)).collect()
    }

    #[test]
    fn a_storm_is_one_event_a_minute_and_subject() {
        let journal = Journal::default();
        for second in 0..90 {
            journal.note_at(note("refused", "a", true), second * 1_000);
        }
        journal.note_at(note("refused", "b", true), 90_000);
        assert_eq!(ids_and_counts(&journal, 0), [(1, 60), (2, 30), (3, 1)]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_gather_all_that_comes_after() {
        let journal = Journal::default();
        let year_ms = 365 * 86_400_000;
        for now_ms in [2 * year_ms, 2 * year_ms + 1, year_ms, year_ms + 90_000] {
            journal.note_at(note("refused", "a", true), now_ms);
        }
        assert_eq!(ids_and_counts(&journal, 0), [(1, 2), (2, 1), (3, 1)]);
    }

    #[test]
    fn what_tells_a_story_keeps_its_order() {
        let journal = Journal::default();
        for kind in ["up", "down", "up", "down"] {
            journal.note_at(note(kind, "hq", false), 1);
        }
        assert_eq!(journal.changed_after(0).0.len(), 4);
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let journal = Journal::default();
        journal.note_at(note("a", "", true), 1);
        journal.note_at(note("b", "", true), 2);
        let (_, revision) = journal.changed_after(0);
        assert_eq!(ids_and_counts(&journal, revision), []);
        journal.note_at(note("a", "", true), 3);
        assert_eq!(ids_and_counts(&journal, revision), [(1, 2)]);
    }

    #[test]
    fn the_ring_and_each_text_are_bounded() {
        let journal = Journal::default();
        for _ in 0..EVENTS_MAX + 7 {
            let mut note = note("x", "", false);
            note.subject = "ä\n\u{1b}".repeat(TEXT_MAX_BYTES);
            journal.note_at(note, 1);
        }
        let (events, _) = journal.changed_after(0);
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!(events.first().map(|event| event.id), Some(8));
        for event in events {
            assert!(event.subject.len() <= TEXT_MAX_BYTES + '…'.len_utf8());
            assert!(!event.subject.contains(char::is_control));
        }
    }
}
