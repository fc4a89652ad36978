//! The queue between those who submit jobs and the workers: two classes, a limit on the second, and the pool's phase.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::worker::Runnable;

/// The class of a job within its pool. Jobs of the first class always go before those of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Decode in `codec`, jobs of links in `crypto`; the only class in the other pools.
    First,
    /// Encode in `codec`, handshakes in `crypto`.
    Second,
}

/// How far the end of a pool has come. It only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Jobs are accepted.
    Open,
    /// No new jobs; those that were accepted go to their end.
    Finishing,
    /// Everybody is asked to stop, and workers leave when the queue is empty.
    Destroying,
    /// The deadline has passed: a job that gives its thread back does not get it again.
    Abandoning,
}

/// The phase, readable without the queue's lock.
#[derive(Debug)]
pub(super) struct PhaseCell(AtomicU8);

impl PhaseCell {
    pub(super) fn get(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Open,
            1 => Phase::Finishing,
            2 => Phase::Destroying,
            _ => Phase::Abandoning,
        }
    }
}

/// A job in the queue.
pub(super) struct Entry {
    pub(super) priority: Priority,
    /// Present until the job has got a thread for the first time.
    pub(super) admission: Option<Admission>,
    pub(super) task: Box<dyn Runnable>,
}

/// What a job holds until it starts: its place under the queue limit, and when it came.
pub(super) struct Admission {
    pub(super) submitted: Instant,
    pub(super) place: OwnedSemaphorePermit,
}

/// Two classes of jobs and the workers that wait for them.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    phase: PhaseCell,
    second_limit: usize,
}

struct State {
    first: VecDeque<Entry>,
    second: VecDeque<Entry>,
    /// Jobs of the second class that have a thread.
    second_running: usize,
    /// Workers in the condition variable's wait, and those of them whom a notification is on its way to.
    sleeping: usize,
    notified: usize,
    /// Workers that have not left.
    workers: usize,
}

impl Queue {
    /// A queue for `workers` workers, of whom at most `second_limit` run jobs of the second class at a time.
    pub(super) fn new(workers: usize, second_limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                first: VecDeque::new(),
                second: VecDeque::new(),
                second_running: 0,
                sleeping: 0,
                notified: 0,
                workers,
            }),
            changed: Condvar::new(),
            phase: PhaseCell(AtomicU8::new(0)),
            second_limit,
        }
    }

    pub(super) fn phase(&self) -> &PhaseCell {
        &self.phase
    }

    /// Adds a job at the end of its class. Gives it back when the pool takes no new jobs, or when no worker is left to run it.
    pub(super) fn push(&self, entry: Entry) -> Result<(), Entry> {
        let mut state = self.lock();
        let refused = entry.admission.is_some() && self.phase.get() != Phase::Open;
        if refused || state.workers == 0 {
            return Err(entry);
        }
        match entry.priority {
            Priority::First => state.first.push_back(entry),
            Priority::Second => state.second.push_back(entry),
        }
        self.call_a_worker(state);
        Ok(())
    }

    /// Ends the job of class `previous` on the calling worker and waits for its next one. `None`: the worker shall leave.
    pub(super) fn next(&self, previous: Option<Priority>) -> Option<Entry> {
        let mut state = self.lock();
        if previous == Some(Priority::Second) {
            state.second_running -= 1;
        }
        loop {
            if let Some(entry) = self.take(&mut state) {
                // The end of a limited job may have made another one eligible while this worker took a job of the first class.
                self.call_a_worker(state);
                return Some(entry);
            }
            if self.phase.get() >= Phase::Destroying
                && state.first.is_empty()
                && state.second.is_empty()
            {
                // Others may sleep because the second class was at its limit; for them, too, nothing is left to come.
                self.changed.notify_all();
                return None;
            }
            state.sleeping += 1;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
            state.notified = state.notified.saturating_sub(1);
        }
    }

    /// Moves the phase forward to at least `phase` and lets every worker look at it.
    pub(super) fn advance(&self, phase: Phase) {
        let mut state = self.lock();
        // Under the lock, so that a push sees the phase of its own moment.
        self.phase.0.fetch_max(phase as u8, Ordering::SeqCst);
        state.notified = state.sleeping;
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a worker off the count. After the last one, returns what nobody will run any more.
    pub(super) fn leave(&self) -> Vec<Entry> {
        let mut state = self.lock();
        state.workers -= 1;
        if state.workers > 0 {
            return Vec::new();
        }
        let mut left: Vec<_> = state.first.drain(..).collect();
        left.extend(state.second.drain(..));
        left
    }

    /// How many workers have not left.
    pub(super) fn workers(&self) -> usize {
        self.lock().workers
    }

    fn take(&self, state: &mut State) -> Option<Entry> {
        if let Some(entry) = state.first.pop_front() {
            return Some(entry);
        }
        if state.second_running < self.second_limit {
            let entry = state.second.pop_front()?;
            state.second_running += 1;
            return Some(entry);
        }
        None
    }

    /// Notifies one sleeping worker if there is a job for it that no notification is on its way for.
    fn call_a_worker(&self, mut state: MutexGuard<'_, State>) {
        let room = self.second_limit - state.second_running;
        let eligible = state.first.len() + state.second.len().min(room);
        // A notification is a system call; more of them than sleepers or jobs would be wasted.
        if state.notified < eligible.min(state.sleeping) {
            state.notified += 1;
            drop(state);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
