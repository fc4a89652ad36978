//! Jobs with an owner: the record that a job and its handle share, and the transitions of a job's life.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::job::{Job, JobName, JobState, Scratch, Step, StepContext, Tie};
use super::metrics::End;
use super::queue::{Phase, Priority};
use super::worker::{Runnable, Shared, drop_quietly};

/// Names a job within its pool for as long as the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobToken(pub u64);

impl fmt::Display for JobToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What `status` shows of a job that has, or had, an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Which one.
    pub token: JobToken,
    /// For whom, and why.
    pub name: JobName,
    /// Where it stands.
    pub state: JobState,
    /// Its owner is gone: it stops at its next step unless it outlives its stream, and reaps itself.
    pub detached: bool,
}

/// What a job has for its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Report<O> {
    /// Output of a job that now waits for [`JobHandle::resume`] or [`JobHandle::stop`].
    Sync(O),
    /// The result of a job that is done.
    Finished(O),
    /// The job ended without a result.
    Stopped,
    /// The job panicked.
    Panicked,
}

/// The owner's end of a job. Dropping it detaches the job: it is asked to stop unless it outlives its stream, and reaps itself.
pub struct JobHandle<O: Send + 'static> {
    record: Arc<Record<O>>,
    shared: Arc<Shared>,
}

impl<O: Send + 'static> JobHandle<O> {
    /// The job's token: how `status` names it.
    #[must_use]
    pub fn token(&self) -> JobToken {
        self.record.token
    }

    /// Where the job stands.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.record.lock().state
    }

    /// Takes the output that waits, of a sync or of the end. Each output is given out once.
    pub fn take_output(&mut self) -> Option<O> {
        let mut slot = self.record.lock();
        let output = slot.output.take();
        if output.is_some() && slot.state == JobState::Finished {
            self.record.reap(slot, &self.shared);
        }
        output
    }

    /// Lets a syncing job go on. Returns false, and does nothing, unless the job is syncing and its output was taken.
    pub fn resume(&mut self) -> bool {
        let mut slot = self.record.lock();
        if slot.state != JobState::Syncing || slot.output.is_some() {
            return false;
        }
        let Some(task) = slot.parked.take() else {
            return false;
        };
        self.record.pass(&mut slot, &self.shared, JobState::Queued);
        drop(slot);
        self.shared.requeue(self.record.priority, task);
        true
    }

    /// Asks the job to stop. One that waits for its first thread ends without a step; one that syncs loses the output that was not
    /// taken and gets another step, in which it sees the request. No effect on a job that has ended.
    pub fn stop(&mut self) {
        self.record.request_stop(&self.shared);
    }

    /// Takes the next report, or registers the task of `cx` to be woken for it.
    ///
    /// `Ready(None)` means that the end has been reported already. After [`Report::Sync`] it is pending until the job was told how to
    /// go on and has something again.
    pub fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Option<Report<O>>> {
        let mut slot = self.record.lock();
        if slot.reaped {
            return Poll::Ready(None);
        }
        let report = match slot.state {
            JobState::Syncing => slot.output.take().map(Report::Sync),
            JobState::Finished => slot.output.take().map(Report::Finished),
            JobState::Stopped if slot.panicked => Some(Report::Panicked),
            JobState::Stopped => Some(Report::Stopped),
            JobState::Queued | JobState::Running | JobState::Stopping => None,
        };
        match report {
            Some(report) => {
                if slot.state.has_ended() {
                    self.record.reap(slot, &self.shared);
                }
                Poll::Ready(Some(report))
            }
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for the next report. See [`Self::poll_report`].
    pub async fn report(&mut self) -> Option<Report<O>> {
        poll_fn(|cx| self.poll_report(cx)).await
    }
}

impl<O: Send + 'static> Drop for JobHandle<O> {
    fn drop(&mut self) {
        self.record.detach(&self.shared);
    }
}

impl<O: Send + 'static> fmt::Debug for JobHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("token", &self.record.token)
            .field("name", &self.record.name)
            .finish_non_exhaustive()
    }
}

/// A record whatever its job's output is: for the pool's list and for its end.
pub(super) trait RecordView: Send + Sync {
    fn info(&self) -> JobInfo;
    fn request_stop(&self, shared: &Shared);
}

/// What a job and its handle share.
pub(super) struct Record<O> {
    token: JobToken,
    name: JobName,
    priority: Priority,
    /// Set once, read by steps without the lock.
    stop: AtomicBool,
    slot: Mutex<Slot<O>>,
}

struct Slot<O> {
    state: JobState,
    output: Option<O>,
    /// The job itself while it is syncing.
    parked: Option<Box<dyn Runnable>>,
    panicked: bool,
    tie: Tie,
    detached: bool,
    reaped: bool,
    waker: Option<Waker>,
}

/// A job that reports to a record.
struct HandleTask<J: Job> {
    job: J,
    record: Arc<Record<J::Output>>,
    started: bool,
}

/// Makes the record of `job`, its handle and the task to be submitted.
pub(super) fn with_handle<J: Job>(
    shared: &Arc<Shared>,
    job: J,
    priority: Priority,
) -> (JobHandle<J::Output>, Box<dyn Runnable>) {
    let record = Arc::new(Record {
        token: JobToken(shared.next_token.fetch_add(1, Ordering::Relaxed)),
        name: job.name(),
        priority,
        stop: AtomicBool::new(false),
        slot: Mutex::new(Slot {
            state: JobState::Queued,
            output: None,
            parked: None,
            panicked: false,
            tie: Tie::Stream,
            detached: false,
            reaped: false,
            waker: None,
        }),
    });
    shared
        .records
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(record.token.0, record.clone());
    let handle = JobHandle {
        record: record.clone(),
        shared: shared.clone(),
    };
    let task = HandleTask {
        job,
        record,
        started: false,
    };
    (handle, Box::new(task))
}

impl<O: Send + 'static> Record<O> {
    fn lock(&self) -> MutexGuard<'_, Slot<O>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, slot: &mut Slot<O>, shared: &Shared, to: JobState) {
        shared.counters.pass(slot.state, to);
        slot.state = to;
    }

    /// The stop request, with the lock held. Returns a task to queue again, and an output to drop, both after the lock.
    #[must_use]
    fn stop_locked(
        &self,
        slot: &mut Slot<O>,
        shared: &Shared,
    ) -> (Option<Box<dyn Runnable>>, Option<O>) {
        if slot.state.has_ended() {
            return (None, None);
        }
        self.stop.store(true, Ordering::Release);
        self.pass(slot, shared, JobState::Stopping);
        (slot.parked.take(), slot.output.take())
    }

    /// The owner goes.
    fn detach(&self, shared: &Shared) {
        let mut slot = self.lock();
        slot.detached = true;
        let waker = slot.waker.take();
        if slot.state.has_ended() {
            let output = slot.output.take();
            self.reap(slot, shared);
            drop((output, waker));
            return;
        }
        let (parked, output) = match slot.tie {
            Tie::Stream => self.stop_locked(&mut slot, shared),
            Tie::Outlive if slot.state == JobState::Syncing => {
                self.pass(&mut slot, shared, JobState::Queued);
                (slot.parked.take(), slot.output.take())
            }
            Tie::Outlive => (None, None),
        };
        drop(slot);
        drop((output, waker));
        if let Some(task) = parked {
            shared.requeue(self.priority, task);
        }
    }

    /// Takes an ended job off the pool's books. Once: by its owner's taking, its owner's going, or, detached, by its own end.
    fn reap(&self, mut slot: MutexGuard<'_, Slot<O>>, shared: &Shared) {
        if slot.reaped {
            return;
        }
        slot.reaped = true;
        shared.counters.leave(slot.state);
        drop(slot);
        shared
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.token.0);
    }

    /// The job has ended; it was dropped already.
    fn end(&self, shared: &Shared, end: End, output: Option<O>) {
        shared.counters.ended(end);
        let mut slot = self.lock();
        let state = match end {
            End::Finished => JobState::Finished,
            End::Stopped | End::Panicked => JobState::Stopped,
        };
        self.pass(&mut slot, shared, state);
        slot.panicked = end == End::Panicked;
        if slot.detached {
            self.reap(slot, shared);
            drop(output);
        } else {
            slot.output = output;
            let waker = slot.waker.take();
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        shared.ended();
    }
}

impl<O: Send + 'static> RecordView for Record<O> {
    fn info(&self) -> JobInfo {
        let slot = self.lock();
        JobInfo {
            token: self.token,
            name: self.name.clone(),
            state: slot.state,
            detached: slot.detached,
        }
    }

    fn request_stop(&self, shared: &Shared) {
        let (parked, output) = {
            let mut slot = self.lock();
            self.stop_locked(&mut slot, shared)
        };
        drop(output);
        if let Some(task) = parked {
            shared.requeue(self.priority, task);
        }
    }
}

impl<J: Job> HandleTask<J> {
    fn end(self, shared: &Shared, end: End, output: Option<J::Output>) {
        let Self { job, record, .. } = self;
        drop_quietly(job);
        record.end(shared, end, output);
    }

    /// Between two steps: back to the queue, or on the way to the end where the job's owner has gone without it.
    fn check_in(self: Box<Self>, shared: &Shared, tie: Tie) -> Option<Box<dyn Runnable>> {
        let mut slot = self.record.lock();
        slot.tie = tie;
        let left_alone = slot.detached && tie == Tie::Stream;
        if left_alone {
            // A job that is running has nothing parked and no output that waits.
            let _nothing = self.record.stop_locked(&mut slot, shared);
        } else if slot.state == JobState::Running {
            self.record.pass(&mut slot, shared, JobState::Queued);
        }
        drop(slot);
        Some(self)
    }

    fn sync(
        self: Box<Self>,
        shared: &Shared,
        output: J::Output,
        tie: Tie,
    ) -> Option<Box<dyn Runnable>> {
        let record = self.record.clone();
        let mut slot = record.lock();
        if slot.detached || slot.state != JobState::Running {
            drop(slot);
            // Nobody is left to take it, or it came after the request to stop.
            drop(output);
            return self.check_in(shared, tie);
        }
        slot.tie = tie;
        slot.output = Some(output);
        slot.parked = Some(self);
        record.pass(&mut slot, shared, JobState::Syncing);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        // `begin_destroy` sets the phase and then goes through the records. It found this one before the job was parked in it, or it
        // comes after; either way one of the two sees the other.
        if shared.queue.phase().get() >= Phase::Destroying {
            record.request_stop(shared);
        }
        None
    }
}

impl<J: Job> Runnable for HandleTask<J> {
    fn run(
        mut self: Box<Self>,
        shared: &Shared,
        scratch: &mut Scratch,
    ) -> Option<Box<dyn Runnable>> {
        {
            let mut slot = self.record.lock();
            if slot.state == JobState::Queued {
                self.record.pass(&mut slot, shared, JobState::Running);
            } else if !self.started {
                // Asked to stop before it began: there is nothing for it to wind up.
                drop(slot);
                self.end(shared, End::Stopped, None);
                return None;
            }
        }
        self.started = true;
        let step = {
            let mut cx =
                StepContext::on_worker(scratch, Some(&self.record.stop), shared.queue.phase());
            shared.guarded(&mut self.job, &mut cx)
        };
        match step {
            Some(Step::CheckIn(tie)) => return self.check_in(shared, tie),
            Some(Step::Sync(output, tie)) => return self.sync(shared, output, tie),
            Some(Step::Finished(output)) => self.end(shared, End::Finished, Some(output)),
            Some(Step::Stopped) => self.end(shared, End::Stopped, None),
            None => {
                // What the panic interrupted may have left half a state behind.
                *scratch = Scratch::default();
                self.end(shared, End::Panicked, None);
            }
        }
        None
    }

    fn abandon(self: Box<Self>, shared: &Shared) {
        self.end(shared, End::Stopped, None);
    }
}
