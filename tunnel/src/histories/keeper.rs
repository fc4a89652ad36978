//! The keeper: one job in pool `storage` that keeps histories written, and fills their indexes after a start.
//!
//! Domains poke it when something becomes dirty; it writes them together a moment later. A disk that takes nothing is tried again after a second,
//! then less and less often, and soon after what may have made room, with one warning for all that fail meanwhile. Between two pieces of work it checks in, and while there is nothing to do it gives
//! its thread back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use codec::domain::FlushError;
use tokio::sync::Notify;

use super::{Histories, Key};
use crate::pool::{Job, JobHandle, JobName, Pool, Priority, Report, Step, StepContext, Tie, call};

/// What became dirty is on disk about this long after its first byte: what a crash of the program loses.
const FLUSH_DELAY: Duration = Duration::from_millis(200);

/// A history that could not be written is tried again after this time, which doubles with each failure,
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// up to this.
const RETRY_MOST: Duration = Duration::from_secs(30);

/// A keeper that panicked is started anew after this time.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// What waits for the keeper. Whoever brings something queues it, then pokes.
#[derive(Debug, Default)]
pub(super) struct Desk {
    queue: Mutex<Queue>,
    poke: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// When each domain wants to be written.
    dirty: BTreeMap<Key, Instant>,
    /// Those that could not be written when it was last tried, and the time from one try to the next.
    failed: BTreeMap<Key, Duration>,
    /// Domains whose indexes are not filled yet.
    loading: VecDeque<Key>,
    /// The one that is being written.
    writing: Option<Key>,
    /// The program ends: everything is written now, and then no more.
    is_closing: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A domain has something to be written. It says so again when that has become much, and is written at once then.
    pub(super) fn is_dirty(&self, key: &Key) {
        let mut queue = self.lock();
        if !queue.failed.contains_key(key) {
            let now = Instant::now();
            queue
                .dirty
                .entry(key.clone())
                .and_modify(|due| *due = now)
                .or_insert(now + FLUSH_DELAY);
        }
        drop(queue);
        self.poke.notify_one();
    }

    /// Room was made for a domain, or soon will be: if it could not be written it is tried again now, and more often.
    pub(super) fn may_have_room(&self, key: &Key) {
        let mut queue = self.lock();
        if let Some(delay) = queue.failed.get_mut(key) {
            *delay = Duration::ZERO;
            queue.dirty.insert(key.clone(), Instant::now());
        }
        drop(queue);
        self.poke.notify_one();
    }

    /// A domain was opened whose index has to be filled.
    pub(super) fn is_fresh(&self, key: &Key) {
        self.lock().loading.push_back(key.clone());
        self.poke.notify_one();
    }

    /// Whether a domain is being written.
    pub(super) fn is_writing(&self, key: &Key) -> bool {
        self.lock().writing.as_ref() == Some(key)
    }

    fn close(&self) {
        self.lock().is_closing = true;
        self.poke.notify_one();
    }

    /// The next thing to do now.
    fn take(&self, now: Instant) -> Work {
        let mut queue = self.lock();
        let is_closing = queue.is_closing;
        let due = queue
            .dirty
            .iter()
            .filter(|(_, due)| is_closing || **due <= now)
            .min_by_key(|(_, due)| **due)
            .map(|(key, _)| key.clone());
        if let Some(key) = due {
            queue.dirty.remove(&key);
            queue.writing = Some(key.clone());
            return Work::Write(key);
        }
        if is_closing {
            return Work::End;
        }
        queue.loading.pop_front().map_or(Work::Nothing, Work::Load)
    }

    /// When there is something to do again; now if there is.
    fn due(&self) -> Option<Instant> {
        let queue = self.lock();
        if queue.is_closing || !queue.loading.is_empty() {
            return Some(Instant::now());
        }
        queue.dirty.values().min().copied()
    }

    /// A domain was written, or could not be.
    fn wrote(&self, key: &Key, error: Option<FlushError>, now: Instant) {
        let mut queue = self.lock();
        queue.writing = None;
        match error {
            None => {
                let had_failed = queue.failed.remove(key);
                if had_failed.is_some() && queue.failed.is_empty() {
                    tracing::info!("histories are written to disk again");
                }
            }
            Some(error) => {
                let before = queue.failed.get(key).copied().unwrap_or_default();
                let delay = (2 * before).clamp(RETRY_FIRST, RETRY_MOST);
                if queue.failed.is_empty() {
                    tracing::warn!(
                        peer = %key.0, domain = %key.1, %error, retry_seconds_most = RETRY_MOST.as_secs(),
                        "a history cannot be written to disk and takes nothing new until it can; streams go on"
                    );
                } else {
                    tracing::debug!(peer = %key.0, domain = %key.1, %error, "a history cannot be written to disk");
                }
                queue.failed.insert(key.clone(), delay);
                // At the end of the program there is no second try. Another is due at once where room was made meanwhile.
                if !queue.is_closing {
                    queue.dirty.entry(key.clone()).or_insert(now + delay);
                }
            }
        }
    }
}

enum Work {
    Write(Key),
    Load(Key),
    Nothing,
    End,
}

struct Keeper {
    histories: Weak<Histories>,
    desk: Arc<Desk>,
}

impl Job for Keeper {
    type Output = ();

    fn name(&self) -> JobName {
        JobName {
            who: "histories".into(),
            why: "keep",
        }
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Step<()> {
        let Some(histories) = self.histories.upgrade() else {
            return Step::Stopped;
        };
        if cx.stop_requested() {
            return Step::Stopped;
        }
        match self.desk.take(Instant::now()) {
            Work::Write(key) => {
                if let Some(domain) = histories.opened(&key) {
                    let error = domain.flush().error;
                    self.desk.wrote(&key, error, Instant::now());
                }
                Step::CheckIn(Tie::Outlive)
            }
            Work::Load(key) => {
                if let Some(domain) = histories.opened(&key)
                    && domain.load_index_step()
                {
                    self.desk.lock().loading.push_front(key);
                }
                Step::CheckIn(Tie::Outlive)
            }
            Work::Nothing => Step::Sync((), Tie::Outlive),
            Work::End => Step::Finished(()),
        }
    }
}

impl Histories {
    /// Keeps histories on disk written from now on, with a job in `pool`. Within a runtime; those in memory need none.
    pub fn start_keeper(self: &Arc<Self>, pool: &Pool) {
        if self.disk.is_none() {
            return;
        }
        let attending = attend(Arc::downgrade(self), self.desk.clone(), pool.clone());
        let task = tokio::spawn(attending);
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Writes everything once more, and nothing after that. For the end of the program; who has no time drops the future.
    pub async fn close(&self) {
        let task = self
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            self.desk.close();
            let _ = task.await;
        }
    }

    /// Leaves the directory to another program: writes everything once more, for no longer than `patience`, and gives up the lock, in `pool`. What was
    /// not written is sent again some day. Reading goes on, and what comes now is kept in memory.
    pub async fn release(&self, pool: &Pool, patience: Duration) {
        if tokio::time::timeout(patience, self.close()).await.is_err() {
            tracing::warn!(
                "the disk is too slow for the last bytes of histories; they will be sent again"
            );
        }
        let Some(storage) = self.disk.as_ref().map(|disk| disk.storage.clone()) else {
            return;
        };
        let name = JobName {
            who: "histories".into(),
            why: "release",
        };
        call(pool, name, Box::new(move || storage.release())).await;
    }
}

/// The keeper's owner: wakes it when there is something to do, and starts it anew should it panic.
async fn attend(histories: Weak<Histories>, desk: Arc<Desk>, pool: Pool) {
    loop {
        let keeper = Keeper {
            histories: histories.clone(),
            desk: desk.clone(),
        };
        let Ok(handle) = pool.spawn(keeper, Priority::First).await else {
            return;
        };
        if !wake(handle, &desk).await {
            return;
        }
        tokio::time::sleep(RESTART_DELAY).await;
    }
}

/// Wakes the keeper whenever something is due. Returns when it has ended: true if it panicked.
async fn wake(mut handle: JobHandle<()>, desk: &Desk) -> bool {
    loop {
        match handle.report().await {
            Some(Report::Sync(())) => {}
            Some(Report::Panicked) => return true,
            Some(Report::Finished(()) | Report::Stopped) | None => return false,
        }
        loop {
            match desk.due() {
                Some(due) if due <= Instant::now() => break,
                Some(due) => tokio::select! {
                    () = desk.poke.notified() => {}
                    () = tokio::time::sleep_until(due.into()) => {}
                },
                None => desk.poke.notified().await,
            }
        }
        handle.resume();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    /// Tries to write what is due at `now`, on a disk that is full; how long after that it is tried again.
    fn fail(desk: &Desk, now: Instant) -> Duration {
        let Work::Write(key) = desk.take(now) else {
            panic!("nothing is due");
        };
        let error = FlushError {
            doing: "writing pages",
            cause: std::io::ErrorKind::StorageFull.into(),
        };
        desk.wrote(&key, Some(error), now);
        desk.due().expect("it is tried again") - now
    }

    #[test]
    fn a_full_disk_is_tried_less_and_less_often_and_soon_when_there_may_be_room() {
        let desk = Desk::default();
        let key: Key = ("branch".into(), "shared".into());
        desk.is_dirty(&key);
        let mut now = Instant::now() + START;
        let delays = [(); 7].map(|()| {
            let delay = fail(&desk, now);
            now += delay;
            delay.as_secs()
        });
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);

        // What comes meanwhile does not hasten it.
        desk.is_dirty(&key);
        assert_eq!(desk.due(), Some(now));
        assert!(matches!(desk.take(Instant::now()), Work::Nothing));
        desk.may_have_room(&key);
        assert_eq!(fail(&desk, Instant::now()).as_secs(), 1);

        desk.may_have_room(&key);
        assert!(matches!(desk.take(Instant::now()), Work::Write(_)));
        desk.wrote(&key, None, Instant::now());
        assert_eq!(desk.due(), None);
        desk.may_have_room(&key);
        assert_eq!(desk.due(), None, "it was written");
    }
}
