//! The figures as they move: a sample of the throughput each second, kept for ten minutes, and whoever watches them.
//!
//! One task takes the samples and tells the readers; a reader gets all that is known when it comes, then a tick each second and events as they happen.
//! Whatever is sent is made once for all readers. A reader who does not keep up is dropped, for it can come again and gets all that is known.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{Observed, Status};
use crate::journal::{Event, Journal, Note, Severity, now_ms};

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Ten minutes of samples, 24 bytes each.
const SAMPLES_MAX: usize = 600;

/// Messages that wait for one reader; with one a second and some for events it is several seconds behind then. Messages are shared among
/// readers, so this also bounds how many are kept.
const READER_QUEUE: usize = 16;

/// What is looked at each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Plain bytes both ways since the start.
    pub lan_bytes: u64,
    /// Bytes on the WAN both ways since the start.
    pub wan_bytes: u64,
    /// Checksums that were wrong since the start.
    pub integrity_failures: u64,
    /// Each tunnel's peer and state.
    pub tunnels: Vec<(String, String)>,
}

/// Throughput over about one second: when it ended, in milliseconds since the epoch, and bytes a second on the LAN and on the WAN, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample(pub u64, pub u64, pub u64);

/// All that is known, for a reader who has just come.
#[derive(Serialize)]
struct Snapshot<'a> {
    now_ms: u64,
    status: &'a Status,
    samples: &'a VecDeque<Sample>,
    events: &'a [Event],
}

/// What has changed within a second.
#[derive(Serialize)]
struct Tick<'a> {
    now_ms: u64,
    status: &'a Status,
    sample: Option<Sample>,
}

/// The live figures of one edge.
pub struct Live {
    observed: Arc<dyn Observed>,
    journal: Arc<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    samples: VecDeque<Sample>,
    last: Option<(Instant, Pulse)>,
    /// Since when a peer has a tunnel in a state, in seconds since the epoch.
    since: HashMap<(String, String), u64>,
    readers: Vec<mpsc::Sender<Bytes>>,
    /// Events up to this revision were told to the readers.
    told: u64,
}

impl Live {
    /// Of `observed` and its `journal`.
    pub fn new(observed: Arc<dyn Observed>, journal: Arc<Journal>) -> Self {
        Self {
            observed,
            journal,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples and tells, for ever.
    pub async fn run(&self) {
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(Instant::now(), now_ms()),
                () = self.journal.changed() => self.tell_events(),
            }
        }
    }

    /// The edge's status, with since when its tunnels are as they are.
    pub fn status(&self) -> Status {
        let mut status = self.observed.status();
        let state = self.lock();
        for tunnel in &mut status.tunnels {
            let key = (tunnel.peer.clone(), tunnel.state.clone());
            tunnel.since_unix_seconds = state.since.get(&key).copied();
        }
        status
    }

    /// A new reader: what it gets first is all that is known.
    pub fn join(&self) -> mpsc::Receiver<Bytes> {
        let status = self.status();
        let (sender, receiver) = mpsc::channel(READER_QUEUE);
        let mut state = self.lock();
        // What changed since the readers were told is told to this one with them.
        let (mut events, revision) = self.journal.changed_after(0);
        let (fresh, _) = self.journal.changed_after(state.told);
        if revision != state.told {
            events.retain(|event| !fresh.iter().any(|other| other.id == event.id));
        }
        let snapshot = Snapshot {
            now_ms: now_ms(),
            status: &status,
            samples: &state.samples,
            events: &events,
        };
        // The queue is empty, so it takes it.
        let _ = sender.try_send(message("snapshot", state.told, &snapshot));
        state.readers.push(sender);
        drop(state);
        // For those that were left out.
        self.tell_events();
        receiver
    }

    /// Lets all readers go.
    pub fn end(&self) {
        self.lock().readers.clear();
    }

    fn tick(&self, now: Instant, now_ms: u64) {
        let pulse = self.observed.pulse();
        self.lock().note_states(&pulse, now_ms / 1_000);
        let failures = self.sample(pulse, now, now_ms);
        if failures > 0 {
            self.journal.note(Note {
                severity: Severity::Error,
                kind: "integrity_failure",
                gathers: true,
                text: "checksums were wrong; the bytes were sent again".to_owned(),
                subject: String::new(),
                detail: format!("blocks and pages: {failures}"),
                count: failures,
            });
        }
        self.tell_events();
        if self.lock().readers.is_empty() {
            return;
        }
        let status = self.status();
        let mut state = self.lock();
        let tick = Tick {
            now_ms,
            status: &status,
            sample: state.samples.back().copied(),
        };
        let text = message("tick", state.told, &tick);
        state.tell(&text);
    }

    /// Keeps the throughput since the last pulse; returns how many checksums were wrong since then.
    fn sample(&self, pulse: Pulse, now: Instant, now_ms: u64) -> u64 {
        let mut state = self.lock();
        let Some((then, before)) = state.last.replace((now, pulse.clone())) else {
            return pulse.integrity_failures;
        };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds > 0.0 {
            let rate = |bytes: u64, before: u64| {
                let rate = bytes.saturating_sub(before) as f64 / seconds;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is not negative, and a cast from float saturates"
                )]
                let rate = rate.round() as u64;
                rate
            };
            if state.samples.len() >= SAMPLES_MAX {
                state.samples.pop_front();
            }
            let sample = Sample(
                now_ms,
                rate(pulse.lan_bytes, before.lan_bytes),
                rate(pulse.wan_bytes, before.wan_bytes),
            );
            state.samples.push_back(sample);
        }
        pulse
            .integrity_failures
            .saturating_sub(before.integrity_failures)
    }

    fn tell_events(&self) {
        let mut state = self.lock();
        let (events, revision) = self.journal.changed_after(state.told);
        state.told = revision;
        for event in events {
            let text = message("event", revision, &event);
            state.tell(&text);
        }
    }
}

impl State {
    fn note_states(&mut self, pulse: &Pulse, now_seconds: u64) {
        let before = std::mem::take(&mut self.since);
        for key in &pulse.tunnels {
            let since = before.get(key).copied().unwrap_or(now_seconds);
            self.since.insert(key.clone(), since);
        }
    }

    fn tell(&mut self, text: &Bytes) {
        self.readers
            .retain(|reader| reader.try_send(text.clone()).is_ok());
    }
}

/// A server-sent event. JSON has no line breaks here, so its data is one line.
fn message(event: &str, id: u64, data: &impl Serialize) -> Bytes {
    // What is serialised here has string keys only, so it does not fail.
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    format!("event: {event}\nid: {id}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests;
