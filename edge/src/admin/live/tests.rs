//! What the dashboard is told, and when.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::{HistoryAccess, TunnelStatus};
use super::*;
use crate::metrics::Family;

#[derive(Default)]
struct Fake(Mutex<Pulse>);

impl Observed for Fake {
    fn status(&self) -> Status {
        let tunnels = self.0.lock().unwrap().tunnels.clone();
        Status {
            tunnels: tunnels
                .into_iter()
                .map(|(peer, state)| TunnelStatus {
                    peer,
                    state,
                    ..TunnelStatus::default()
                })
                .collect(),
            ..Status::default()
        }
    }

    fn pulse(&self) -> Pulse {
        self.0.lock().unwrap().clone()
    }

    fn metrics(&self) -> Vec<Family> {
        Vec::new()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn history(&self) -> HistoryAccess {
        panic!("not asked for here")
    }
}

fn live() -> (Arc<Fake>, Live) {
    let fake = Arc::new(Fake::default());
    let live = Live::new(fake.clone(), Arc::default());
    (fake, live)
}

fn told(reader: &mut mpsc::Receiver<Bytes>) -> Vec<(String, serde_json::Value)> {
    let mut messages = Vec::new();
    while let Ok(message) = reader.try_recv() {
        let text = String::from_utf8(message.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let data = lines[2].strip_prefix("data: ").unwrap();
        messages.push((lines[0].to_owned(), serde_json::from_str(data).unwrap()));
    }
    messages
}

#[test]
fn samples_are_rates_and_bounded() {
    let (fake, live) = live();
    let start = Instant::now();
    for second in 0..700 {
        *fake.0.lock().unwrap() = Pulse {
            lan_bytes: second * 3_000,
            wan_bytes: second * 20,
            ..Pulse::default()
        };
        live.tick(start + Duration::from_secs(second * 2), second * 2_000);
    }
    let state = live.lock();
    assert_eq!(state.samples.len(), SAMPLES_MAX);
    assert_eq!(state.samples.back(), Some(&Sample(1_398_000, 1_500, 10)));
    assert_eq!(state.samples.front(), Some(&Sample(200_000, 1_500, 10)));
}

#[test]
fn a_state_has_a_beginning() {
    let (fake, live) = live();
    let set = |state: &str| {
        fake.0.lock().unwrap().tunnels = vec![("hq".to_owned(), state.to_owned())];
    };
    let start = Instant::now();
    let since = || live.status().tunnels[0].since_unix_seconds;
    set("up");
    assert_eq!(since(), None);
    for second in 100..103 {
        live.tick(start, second * 1_000);
    }
    assert_eq!(since(), Some(100));
    set("detached");
    live.tick(start, 200_000);
    live.tick(start, 201_000);
    assert_eq!(since(), Some(200));
    set("up");
    live.tick(start, 300_000);
    assert_eq!(since(), Some(300));
}

#[test]
fn a_reader_gets_what_is_known_and_then_what_changes() {
    let (fake, live) = live();
    let note = |kind| {
        live.journal.note(Note {
            severity: Severity::Info,
            kind,
            gathers: true,
            text: kind.to_owned(),
            subject: "<script>".to_owned(),
            detail: String::new(),
            count: 1,
        });
    };
    let start = Instant::now();
    live.tick(start, 1_000);
    fake.0.lock().unwrap().lan_bytes = 7;
    live.tick(start + Duration::from_secs(1), 2_000);
    note("a");
    live.tell_events();
    note("b");
    // The second is not told yet when the reader comes, and told once.
    let mut reader = live.join();
    live.tell_events();
    note("a");
    fake.0.lock().unwrap().integrity_failures = 2;
    live.tick(start + Duration::from_secs(2), 3_000);
    let messages = told(&mut reader);
    let names: Vec<&str> = messages.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "event: snapshot",
            "event: event",
            "event: event",
            "event: event",
            "event: tick"
        ]
    );
    let data = |index: usize| &messages[index].1;
    assert_eq!(data(0)["samples"], serde_json::json!([[2_000, 7, 0]]));
    assert_eq!(data(0)["events"][0]["kind"], "a");
    assert_eq!(data(0)["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(data(1)["kind"], "b");
    assert_eq!(
        (&data(2)["kind"], &data(2)["count"]),
        (&"a".into(), &2.into())
    );
    assert_eq!(data(3)["kind"], "integrity_failure");
    assert_eq!(data(3)["count"], 2);
    assert_eq!(data(4)["sample"], serde_json::json!([3_000, 0, 0]));
}

#[test]
fn a_reader_that_does_not_keep_up_is_dropped() {
    let (_fake, live) = live();
    let mut slow = live.join();
    let gone = live.join();
    drop(gone);
    for second in 0..u64::try_from(READER_QUEUE).unwrap() + 5 {
        live.tick(Instant::now(), second * 1_000);
    }
    assert!(live.lock().readers.is_empty());
    assert_eq!(told(&mut slow).len(), READER_QUEUE);
    assert_eq!(
        slow.try_recv(),
        Err(mpsc::error::TryRecvError::Disconnected)
    );
}
