//! Verification: every page of every history on disk is read and checked, by a job that outlives whoever asked for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use codec::domain::{Domain, Verified, VerifyCursor};

use super::{Histories, Key};
use crate::pool::{
    Job, JobName, JobState, JobToken, Pool, Priority, Report, Step, StepContext, Tie,
};

/// Verifications that are remembered, the running one included, so that whoever has a token finds out how it ended.
const REMEMBERED_MAX: usize = 8;

/// The verifications of this start of the program, newest last.
#[derive(Debug, Default)]
pub(super) struct Verifications(Mutex<VecDeque<Arc<Running>>>);

#[derive(Debug)]
struct Running {
    token: JobToken,
    progress: Arc<Progress>,
    ended: Mutex<Option<JobState>>,
}

/// How far a verification has come; read while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    damaged_pages: AtomicU64,
}

/// A verification, as `status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// Names it.
    pub token: JobToken,
    /// Where it stands; `None` while it runs, when the pool knows.
    pub ended: Option<JobState>,
    /// What it has found so far.
    pub found: Checked,
}

/// What was checked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Bytes to be checked.
    pub total_bytes: u64,
    /// Bytes checked.
    pub done_bytes: u64,
    /// Pages that could not be read or failed their checksum, and are forgotten.
    pub damaged_pages: u64,
}

impl Progress {
    fn get(&self) -> Checked {
        Checked {
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            damaged_pages: self.damaged_pages.load(Ordering::Relaxed),
        }
    }
}

impl Histories {
    /// Starts a verification as a job of `pool`, or names the one that runs.
    ///
    /// # Errors
    /// There is nothing on disk, or the pool has stopped.
    pub async fn verify(self: &Arc<Self>, pool: &Pool) -> Result<JobToken, &'static str> {
        if self.disk.is_none() {
            return Err("the histories are in memory, so there is nothing to verify");
        }
        let stopped = "this program is being stopped";
        let slot = pool.slot().await.map_err(|_| stopped)?;
        let mut all = self.verifications.lock();
        if let Some(running) = all.iter().find(|one| one.ended().is_none()) {
            return Ok(running.token);
        }
        let progress = Arc::new(Progress::default());
        let job = Verify {
            histories: Arc::downgrade(self),
            work: Work::new(progress.clone()),
        };
        let mut handle = slot.spawn(job, Priority::Second);
        let running = Arc::new(Running {
            token: handle.token(),
            progress,
            ended: Mutex::default(),
        });
        let token = running.token;
        if all.len() >= REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back(running.clone());
        drop(all);
        tracing::info!(%token, "verifying histories");
        // Not awaited: it ends with the job, whose end it notes.
        drop(tokio::spawn(async move {
            let state = match handle.report().await {
                Some(Report::Finished(())) => JobState::Finished,
                _ => JobState::Stopped,
            };
            let Checked {
                done_bytes,
                damaged_pages,
                ..
            } = running.progress.get();
            tracing::info!(%token, state = state.label(), done_bytes, damaged_pages, "histories verified");
            *running.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        }));
        Ok(token)
    }

    /// Verifies on the calling thread, for a program that is not running; `tell` hears of the progress.
    pub fn verify_now(&self, mut tell: impl FnMut(Checked)) -> Checked {
        let mut work = Work::new(Arc::default());
        while work.step(self) {
            tell(work.progress.get());
        }
        work.progress.get()
    }

    /// The verifications of this start of the program, oldest first.
    pub fn verifications(&self) -> Vec<Verification> {
        let all = self.verifications.lock();
        all.iter()
            .map(|one| Verification {
                token: one.token,
                ended: one.ended(),
                found: one.progress.get(),
            })
            .collect()
    }
}

impl Verifications {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn ended(&self) -> Option<JobState> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Verify {
    histories: Weak<Histories>,
    work: Work,
}

impl Job for Verify {
    type Output = ();

    fn name(&self) -> JobName {
        JobName {
            who: "histories".into(),
            why: "verify",
        }
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Step<()> {
        match self.histories.upgrade() {
            Some(histories) if !cx.stop_requested() => {
                if self.work.step(&histories) {
                    Step::CheckIn(Tie::Outlive)
                } else {
                    Step::Finished(())
                }
            }
            _ => Step::Stopped,
        }
    }
}

/// What is left to be verified.
struct Work {
    /// Domains that come next; `None` before the first step.
    queue: Option<VecDeque<Key>>,
    present: Option<(Arc<Domain>, VerifyCursor, Verified)>,
    progress: Arc<Progress>,
}

impl Work {
    fn new(progress: Arc<Progress>) -> Self {
        Self {
            queue: None,
            present: None,
            progress,
        }
    }

    /// Checks a little more. False when all is done.
    fn step(&mut self, histories: &Histories) -> bool {
        let progress = &self.progress;
        let queue = self.queue.get_or_insert_with(|| {
            let keys = histories.on_disk();
            let total = keys.iter().map(|key| histories.disk_bytes(key)).sum();
            progress.total_bytes.store(total, Ordering::Relaxed);
            keys.into()
        });
        if let Some((domain, cursor, before)) = &mut self.present {
            let verified = domain.verify_step(cursor);
            let Progress {
                done_bytes,
                damaged_pages,
                ..
            } = &*self.progress;
            done_bytes.fetch_add(verified.bytes - before.bytes, Ordering::Relaxed);
            let damaged = verified.damaged_pages - before.damaged_pages;
            damaged_pages.fetch_add(damaged, Ordering::Relaxed);
            *before = verified;
            if verified.is_done {
                self.present = None;
            }
            return true;
        }
        match queue.pop_front() {
            Some(key) => {
                self.present = histories
                    .open_now(&key)
                    .map(|domain| (domain, VerifyCursor::default(), Verified::default()));
                true
            }
            None => false,
        }
    }
}
