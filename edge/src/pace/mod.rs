//! Rates: what a service or a client may send and receive, in plain bytes, each direction on its own.
//!
//! A rate holds back reading, at this edge from the LAN and from the tunnel, so that backpressure reaches whoever sends; nothing is ever dropped.
//! Streams that share a rate take turns: each may pass a quantum, and the next is granted in the order in which they ask.

mod bucket;
mod stream;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use bucket::Bucket;
pub use stream::{PacedReceive, PacedSend, paced};

use crate::config::Rate;

/// The runtime's clock, which tests stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToWan,
    FromWan,
}

/// One rate, shared by all streams that it is for. Without a rate, as it begins, it costs them one look.
#[derive(Debug, Default)]
pub struct Pace {
    is_limited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rate: Option<Rate>,
    /// Counts changes of the rate: what was reserved under another one is void.
    generation: u64,
    buckets: Option<[Bucket; 2]>,
}

/// What a stream has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reservation {
    generation: u64,
    wait: Duration,
}

impl Pace {
    /// Another rate, or none, from now on, for running streams too.
    pub fn set_rate(&self, rate: Option<Rate>) {
        let mut state = self.lock();
        if state.rate == rate {
            return;
        }
        let now = now();
        *state = State {
            rate,
            generation: state.generation + 1,
            buckets: rate.map(|rate| [Bucket::new(rate, now), Bucket::new(rate, now)]),
        };
        self.is_limited.store(rate.is_some(), Ordering::Relaxed);
    }

    fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// The most that one turn takes; nothing without a rate.
    fn quantum_bytes(&self) -> Option<usize> {
        let state = self.lock();
        let [bucket, _] = state.buckets.as_ref()?;
        Some(bucket.quantum_bytes())
    }

    fn reserve(&self, direction: Direction, bytes: usize, now: Instant) -> Reservation {
        let mut state = self.lock();
        let generation = state.generation;
        let wait = state
            .bucket(direction)
            .map(|bucket| bucket.reserve(bytes, now));
        Reservation {
            generation,
            wait: wait.unwrap_or_default(),
        }
    }

    fn give_back(&self, direction: Direction, bytes: usize, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation
            && let Some(bucket) = state.bucket(direction)
        {
            bucket.give_back(bytes);
        }
    }

    fn generation(&self) -> u64 {
        self.lock().generation
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bucket(&mut self, direction: Direction) -> Option<&mut Bucket> {
        let [to_wan, from_wan] = self.buckets.as_mut()?;
        Some(match direction {
            Direction::ToWan => to_wan,
            Direction::FromWan => from_wan,
        })
    }
}

/// Rates by name, of services or of clients. They outlive reloads, so that running streams follow them.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<String, Arc<Pace>>>);

impl Paces {
    /// That of `name`, which has no rate at first.
    pub fn of(&self, name: &str) -> Arc<Pace> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = all.get(name) {
            return pace.clone();
        }
        all.entry(name.to_owned()).or_default().clone()
    }

    /// Gives each one the rate that `rate_of` says for its name.
    pub fn set_all(&self, rate_of: impl Fn(&str) -> Option<Rate>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, pace) in &*all {
            pace.set_rate(rate_of(name));
        }
    }
}
