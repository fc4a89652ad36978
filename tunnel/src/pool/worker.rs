//! The worker loop, what all workers of a pool share, and the task that reports to a sink.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::handle::RecordView;
use super::job::{Job, JobName, JobState, Outcome, Scratch, Step, StepContext};
use super::metrics::{Counters, End};
use super::queue::{Entry, Phase, Priority, Queue};

/// A job as the queue and the workers see it.
pub(super) trait Runnable: Send {
    /// Runs one step. Returns the task if it shall be queued again.
    fn run(self: Box<Self>, shared: &Shared, scratch: &mut Scratch) -> Option<Box<dyn Runnable>>;

    /// Ends the job without another step. It stood in the queue.
    fn abandon(self: Box<Self>, shared: &Shared);
}

/// What the pool's handles, its workers and its jobs' records share.
pub(super) struct Shared {
    pub(super) name: &'static str,
    pub(super) threads: usize,
    pub(super) queue: Queue,
    /// The places of the queue limit: one is held by each job from its submission until it gets its first thread.
    pub(super) places: Arc<Semaphore>,
    pub(super) counters: Counters,
    /// Records of jobs that have a handle, or have outlived it, by token. What ended stays here until it is reaped: the done queue.
    pub(super) records: Mutex<BTreeMap<u64, Arc<dyn RecordView>>>,
    pub(super) next_token: AtomicU64,
    /// Notified when `live` falls to zero, and when a worker leaves.
    pub(super) quiet: Notify,
    /// Jobs that were accepted and have not delivered their end.
    live: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        name: &'static str,
        threads: usize,
        queue_limit: usize,
        second_limit: usize,
    ) -> Self {
        Self {
            name,
            threads,
            queue: Queue::new(threads, second_limit),
            places: Arc::new(Semaphore::new(queue_limit)),
            counters: Counters::default(),
            records: Mutex::new(BTreeMap::new()),
            next_token: AtomicU64::new(1),
            quiet: Notify::new(),
            live: AtomicUsize::new(0),
        }
    }

    /// Puts a new job in the queue, or ends it at once where the pool has closed meanwhile.
    pub(super) fn submit(&self, entry: Entry) {
        self.live.fetch_add(1, Ordering::SeqCst);
        self.counters.enter(JobState::Queued);
        if let Err(refused) = self.queue.push(entry) {
            refused.task.abandon(self);
        }
    }

    /// Puts a job that has given its thread back in the queue again.
    pub(super) fn requeue(&self, priority: Priority, task: Box<dyn Runnable>) {
        let entry = Entry {
            priority,
            admission: None,
            task,
        };
        if let Err(refused) = self.queue.push(entry) {
            refused.task.abandon(self);
        }
    }

    /// Counts a job that has delivered its end. The last thing that happens for a job.
    pub(super) fn ended(&self) {
        if self.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.quiet.notify_waiters();
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Asks every job to stop and lets the workers leave when the queue is empty.
    pub(super) fn begin_destroy(&self) {
        self.places.close();
        self.queue.advance(Phase::Destroying);
        let records: Vec<_> = self
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        // Jobs with a sink look at the phase; those with a record may be parked, and are queued again to hear of it.
        for record in records {
            record.request_stop(self);
        }
    }

    /// Runs `step` of a job, and turns a panic in it into a count and a log line.
    pub(super) fn guarded<J: Job>(
        &self,
        job: &mut J,
        cx: &mut StepContext<'_>,
    ) -> Option<Step<J::Output>> {
        match catch_unwind(AssertUnwindSafe(|| job.step(cx))) {
            Ok(step) => Some(step),
            Err(panic) => {
                let name =
                    catch_unwind(AssertUnwindSafe(|| job.name())).unwrap_or_else(|_| JobName {
                        who: "unknown".into(),
                        why: "unknown",
                    });
                tracing::error!(
                    pool = self.name,
                    who = %name.who,
                    why = name.why,
                    panic = panic_message(&*panic),
                    "a job panicked"
                );
                None
            }
        }
    }
}

/// The life of one worker: takes jobs until the pool is destroyed.
pub(super) fn work(presence: Presence) {
    let shared = &*presence.shared;
    let mut scratch = Scratch::default();
    let mut previous = None;
    while let Some(entry) = shared.queue.next(previous) {
        previous = Some(entry.priority);
        let Entry {
            priority,
            admission,
            task,
        } = entry;
        let is_new = admission.is_some();
        if let Some(admission) = admission {
            shared.counters.waited(admission.submitted.elapsed());
            drop(admission.place);
        }
        let phase = shared.queue.phase().get();
        if phase == Phase::Abandoning || (phase == Phase::Destroying && is_new) {
            task.abandon(shared);
            continue;
        }
        // Steps catch their own panics; this is for what a job's owner gave us besides: wakers and outputs that panic when dropped.
        match catch_unwind(AssertUnwindSafe(|| task.run(shared, &mut scratch))) {
            Ok(Some(task)) => shared.requeue(priority, task),
            Ok(None) => {}
            Err(panic) => tracing::error!(
                pool = shared.name,
                panic = panic_message(&*panic),
                "the end of a job panicked"
            ),
        }
    }
}

/// A worker's being there. Moved into the worker's closure, so that a runtime that drops the closure unrun counts as the worker leaving.
pub(super) struct Presence {
    shared: Arc<Shared>,
}

impl Presence {
    /// One for each of the workers that the queue was built for.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        for entry in self.shared.queue.leave() {
            entry.task.abandon(&self.shared);
        }
        self.shared.quiet.notify_waiters();
    }
}

/// A job that reports its end to a sink.
pub(super) struct SinkTask<J, S> {
    job: J,
    sink: S,
}

impl<J: Job, S: FnOnce(Outcome<J::Output>) + Send> SinkTask<J, S> {
    pub(super) fn new(job: J, sink: S) -> Self {
        Self { job, sink }
    }

    fn end(self, shared: &Shared, outcome: Outcome<J::Output>, from: JobState) {
        let Self { job, sink } = self;
        shared.counters.leave(from);
        shared.counters.ended(match outcome {
            Outcome::Finished(_) => End::Finished,
            Outcome::Stopped => End::Stopped,
            Outcome::Panicked => End::Panicked,
        });
        drop_quietly(job);
        let delivered = catch_unwind(AssertUnwindSafe(|| sink(outcome)));
        if let Err(panic) = delivered {
            tracing::error!(
                pool = shared.name,
                panic = panic_message(&*panic),
                "a sink panicked"
            );
        }
        shared.ended();
    }
}

impl<J: Job, S: FnOnce(Outcome<J::Output>) + Send + 'static> Runnable for SinkTask<J, S> {
    fn run(
        mut self: Box<Self>,
        shared: &Shared,
        scratch: &mut Scratch,
    ) -> Option<Box<dyn Runnable>> {
        shared.counters.pass(JobState::Queued, JobState::Running);
        let step = {
            let mut cx = StepContext::on_worker(scratch, None, shared.queue.phase());
            shared.guarded(&mut self.job, &mut cx)
        };
        let outcome = match step {
            Some(Step::CheckIn(_)) => {
                shared.counters.pass(JobState::Running, JobState::Queued);
                return Some(self);
            }
            Some(Step::Sync(output, _) | Step::Finished(output)) => Outcome::Finished(output),
            Some(Step::Stopped) => Outcome::Stopped,
            None => {
                // What the panic interrupted may have left half a state behind.
                *scratch = Scratch::default();
                Outcome::Panicked
            }
        };
        self.end(shared, outcome, JobState::Running);
        None
    }

    fn abandon(self: Box<Self>, shared: &Shared) {
        self.end(shared, Outcome::Stopped, JobState::Queued);
    }
}

/// Drops a job. A panic in its drop must not keep its owner from hearing of its end.
pub(super) fn drop_quietly<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(panic = panic_message(&*panic), "the drop of a job panicked");
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
