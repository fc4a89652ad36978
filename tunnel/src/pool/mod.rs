//! Pools and jobs: blocking work off the runtime's threads, in named, bounded sets of threads.
//!
//! A pool is a fixed number of worker loops, started once and kept. A [`Job`] is a plain struct that works in steps. Those who need
//! speed submit it with a sink, which is called exactly once on the worker (and pushes into a [mailbox](crate::wake)); those who need a
//! dialogue keep a [`JobHandle`]. The number of threads does not depend on the number of jobs, streams or links.
//!
//! ```text
//!            submit            a worker is free           Finished
//! (new job) ───────► queued ───────────────────► running ─────────► finished ──► reaped
//!                      ▲  ▲        CheckIn        │ │ │   Stopped,
//!                      │  └───────────────────────┘ │ └─────panic──► stopped ──► reaped
//!                      │ resume                Sync │
//!                      └──────────── syncing ◄──────┘       stop, from any of the first three: stopping, until the job has ended
//! ```

mod handle;
mod job;
mod metrics;
mod queue;
mod run;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};
use tokio_util::sync::PollSemaphore;

pub use handle::{JobHandle, JobInfo, JobToken, Report};
pub use job::{Job, JobName, JobState, Outcome, Scratch, Step, StepContext, Tie};
pub use metrics::{PoolSnapshot, WAIT_BOUNDS_SECONDS, WaitSnapshot};
pub use queue::Priority;
pub use run::{call, run};

use queue::{Admission, Entry, Phase};
use worker::{Presence, Runnable, Shared, SinkTask};

/// How a pool is built.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Its name, in logs and in the metrics' label `pool`.
    pub name: &'static str,
    /// Its workers, each a thread of the runtime's blocking set for as long as the pool lives.
    pub threads: NonZeroUsize,
    /// How many jobs may wait for their first thread; who submits more waits. Bounds memory together with what a job holds.
    pub queue_limit: NonZeroUsize,
    /// How many jobs of [`Priority::Second`] may run at a time. `None`: as many as there are threads.
    pub second_limit: Option<NonZeroUsize>,
    /// Called on each worker's thread before its first job: what the thread is to the system.
    pub thread_start: Option<fn()>,
}

/// A named, bounded set of blocking threads. Clones are the same pool; when the last one is dropped, the pool is destroyed without waiting.
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

impl Pool {
    /// Starts the workers on `runtime`'s blocking threads, whose limit (512 by default) must exceed the sum of all pools' threads.
    ///
    /// The runtime waits for its blocking threads when it is dropped: end the pool by [`Self::destroy`] before, and drop the runtime
    /// with a deadline, for a step that never returns.
    #[must_use]
    pub fn start(runtime: &Handle, config: PoolConfig) -> Self {
        let threads = config.threads.get();
        let shared = Arc::new(Shared::new(
            config.name,
            threads,
            // Above the semaphore's own maximum, a limit is none.
            config
                .queue_limit
                .get()
                .min(tokio::sync::Semaphore::MAX_PERMITS),
            config.second_limit.map_or(threads, NonZeroUsize::get),
        ));
        for _ in 0..threads {
            let presence = Presence::new(shared.clone());
            // Not awaited: a worker reports its leaving through its presence.
            drop(runtime.spawn_blocking(move || {
                if let Some(start) = config.thread_start {
                    start();
                }
                worker::work(presence);
            }));
        }
        Self {
            owner: Arc::new(Owner { shared }),
        }
    }

    /// Submits a job; `sink` is called exactly once with its outcome, on the worker that ran it. Waits while the queue is full.
    ///
    /// The sink must be short and must not block.
    ///
    /// # Errors
    /// Gives job and sink back when the pool takes no more jobs.
    pub async fn submit<J, S>(&self, job: J, priority: Priority, sink: S) -> Result<(), (J, S)>
    where
        J: Job,
        S: FnOnce(Outcome<J::Output>) + Send + 'static,
    {
        match self.slot().await {
            Ok(slot) => {
                slot.submit(job, priority, sink);
                Ok(())
            }
            Err(Closed) => Err((job, sink)),
        }
    }

    /// Submits a job as [`Self::submit`] does, without waiting.
    ///
    /// # Errors
    /// Gives job and sink back when the queue is full or the pool takes no more jobs.
    pub fn try_submit<J, S>(
        &self,
        job: J,
        priority: Priority,
        sink: S,
    ) -> Result<(), Rejected<(J, S)>>
    where
        J: Job,
        S: FnOnce(Outcome<J::Output>) + Send + 'static,
    {
        match self.try_slot() {
            Ok(slot) => {
                slot.submit(job, priority, sink);
                Ok(())
            }
            Err(rejected) => Err(rejected.map(|()| (job, sink))),
        }
    }

    /// Starts a job that its owner talks to. Waits while the queue is full.
    ///
    /// # Errors
    /// Gives the job back when the pool takes no more jobs.
    pub async fn spawn<J: Job>(
        &self,
        job: J,
        priority: Priority,
    ) -> Result<JobHandle<J::Output>, J> {
        match self.slot().await {
            Ok(slot) => Ok(slot.spawn(job, priority)),
            Err(Closed) => Err(job),
        }
    }

    /// Waits for a place in the queue, in the order of asking.
    ///
    /// # Errors
    /// [`Closed`] when the pool takes no more jobs.
    pub async fn slot(&self) -> Result<Slot, Closed> {
        let places = self.shared().places.clone();
        match places.acquire_owned().await {
            Ok(place) => Ok(Slot::new(self.shared(), place)),
            Err(_closed) => Err(Closed),
        }
    }

    /// A place in the queue, if there is one now.
    ///
    /// # Errors
    /// Says whether the queue is full or the pool takes no more jobs.
    pub fn try_slot(&self) -> Result<Slot, Rejected<()>> {
        match self.shared().places.clone().try_acquire_owned() {
            Ok(place) => Ok(Slot::new(self.shared(), place)),
            Err(TryAcquireError::NoPermits) => Err(Rejected::Full(())),
            Err(TryAcquireError::Closed) => Err(Rejected::Closed(())),
        }
    }

    /// For a task that is driven by polls: waits for places one after the other.
    #[must_use]
    pub fn slot_waiter(&self) -> SlotWaiter {
        SlotWaiter {
            places: PollSemaphore::new(self.shared().places.clone()),
            shared: self.shared().clone(),
        }
    }

    /// The jobs that have, or had, an owner and are not reaped, by token.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobInfo> {
        let records = self
            .shared()
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let records: Vec<_> = records.values().cloned().collect();
        records.iter().map(|record| record.info()).collect()
    }

    /// How many workers it was started with.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared().threads
    }

    /// The pool's counters now.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        let shared = self.shared();
        shared.counters.snapshot(shared.name, shared.threads)
    }

    /// Takes no new jobs from now on, and waits for those that were accepted, at most until `deadline` has passed. Returns how many
    /// had not ended by then, among them those that sync with an owner who does not answer.
    pub async fn finish(&self, deadline: Duration) -> usize {
        let shared = self.shared();
        shared.places.close();
        shared.queue.advance(Phase::Finishing);
        wait_for_zero(shared, deadline, Shared::live).await
    }

    /// Takes no new jobs, asks all to stop, and waits until the workers have left, at most until `deadline` has passed.
    ///
    /// Jobs that have not begun end as stopped. After the deadline a job that gives its thread back does not get it again. Returns how
    /// many workers had not left by then: each of them is in a step that does not return.
    pub async fn destroy(&self, deadline: Duration) -> usize {
        let shared = self.shared();
        shared.begin_destroy();
        let left = wait_for_zero(shared, deadline, |shared| shared.queue.workers()).await;
        if left > 0 {
            shared.queue.advance(Phase::Abandoning);
        }
        left
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.shared().name)
            .field("threads", &self.shared().threads)
            .finish_non_exhaustive()
    }
}

/// A place in a pool's queue. It returns to the pool when it is dropped unused.
pub struct Slot {
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
}

impl Slot {
    /// Submits a job; `sink` is called exactly once with its outcome, on the worker that ran it. If the pool has closed since the place
    /// was given, that is here and now, with [`Outcome::Stopped`].
    pub fn submit<J, S>(self, job: J, priority: Priority, sink: S)
    where
        J: Job,
        S: FnOnce(Outcome<J::Output>) + Send + 'static,
    {
        self.enqueue(priority, Box::new(SinkTask::new(job, sink)));
    }

    /// Starts a job that its owner talks to. If the pool has closed since the place was given, the job is stopped already.
    pub fn spawn<J: Job>(self, job: J, priority: Priority) -> JobHandle<J::Output> {
        let (handle, task) = handle::with_handle(&self.shared, job, priority);
        self.enqueue(priority, task);
        handle
    }

    fn new(shared: &Arc<Shared>, place: OwnedSemaphorePermit) -> Self {
        Self {
            shared: shared.clone(),
            place,
        }
    }

    fn enqueue(self, priority: Priority, task: Box<dyn Runnable>) {
        let Self { shared, place } = self;
        let admission = Admission {
            submitted: Instant::now(),
            place,
        };
        shared.submit(Entry {
            priority,
            admission: Some(admission),
            task,
        });
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("pool", &self.shared.name)
            .finish_non_exhaustive()
    }
}

/// Waits for places in a pool's queue, for a task that is driven by polls. See [`Pool::slot_waiter`].
pub struct SlotWaiter {
    shared: Arc<Shared>,
    places: PollSemaphore,
}

impl SlotWaiter {
    /// A place in the queue, or the task of `cx` is woken when there is one. `Ready(None)`: the pool takes no more jobs.
    pub fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let place = ready!(self.places.poll_acquire(cx));
        Poll::Ready(place.map(|place| Slot::new(&self.shared, place)))
    }
}

impl fmt::Debug for SlotWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWaiter")
            .field("pool", &self.shared.name)
            .finish_non_exhaustive()
    }
}

/// The pool takes no more jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool takes no more jobs")]
pub struct Closed;

/// A job was not accepted; what was submitted comes back.
#[derive(Debug, thiserror::Error)]
pub enum Rejected<T> {
    /// As many jobs wait as the pool's queue takes.
    #[error("the pool's queue is full")]
    Full(T),
    /// The pool takes no more jobs.
    #[error("the pool takes no more jobs")]
    Closed(T),
}

impl<T> Rejected<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Rejected<U> {
        match self {
            Self::Full(value) => Rejected::Full(f(value)),
            Self::Closed(value) => Rejected::Closed(f(value)),
        }
    }
}

/// The keys of `[pools]`.
#[derive(Clone, Copy, Debug)]
pub struct PoolsConfig {
    /// Threads that encode and decode. Default: the cores.
    pub codec_threads: NonZeroUsize,
    /// Threads that seal, open and shake hands. Default: the cores.
    pub crypto_threads: NonZeroUsize,
    /// Threads that write, sync and verify histories.
    pub storage_threads: NonZeroUsize,
    /// Threads that resolve names, apart from the others because a name server may take its time.
    pub resolve_threads: NonZeroUsize,
    /// How many jobs may wait in each pool.
    pub queue: NonZeroUsize,
}

/// The pools of an edge.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Encodes and decodes blocks; decoding ([`Priority::First`]) goes before encoding.
    pub codec: Pool,
    /// Seals and opens records; jobs of links ([`Priority::First`]) go before handshakes, of which one runs at a time.
    pub crypto: Pool,
    /// Writes, syncs and verifies histories.
    pub storage: Pool,
    /// Resolves names.
    pub resolve: Pool,
}

impl Pools {
    /// Starts all pools on `runtime`.
    #[must_use]
    pub fn start(runtime: &Handle, config: PoolsConfig) -> Self {
        Self::start_with(runtime, config, None)
    }

    /// The same; `codec_thread_start` is called on each thread of pool `codec` before its first job.
    #[must_use]
    pub fn start_with(
        runtime: &Handle,
        config: PoolsConfig,
        codec_thread_start: Option<fn()>,
    ) -> Self {
        let pool = |name, threads, second_limit| {
            Pool::start(
                runtime,
                PoolConfig {
                    name,
                    threads,
                    queue_limit: config.queue,
                    second_limit,
                    thread_start: codec_thread_start.filter(|_| name == "codec"),
                },
            )
        };
        Self {
            codec: pool("codec", config.codec_threads, None),
            // One handshake at a time: a storm of them costs their senders time, and the links nothing.
            crypto: pool("crypto", config.crypto_threads, Some(NonZeroUsize::MIN)),
            storage: pool("storage", config.storage_threads, None),
            resolve: pool("resolve", config.resolve_threads, None),
        }
    }

    /// The pools in the order in which `status` and metrics list them.
    #[must_use]
    pub fn all(&self) -> [&Pool; 4] {
        [&self.codec, &self.crypto, &self.storage, &self.resolve]
    }

    /// [`Pool::finish`] for all of them at once. Returns how many jobs had not ended by the deadline.
    pub async fn finish(&self, deadline: Duration) -> usize {
        let (codec, crypto, storage, resolve) = tokio::join!(
            self.codec.finish(deadline),
            self.crypto.finish(deadline),
            self.storage.finish(deadline),
            self.resolve.finish(deadline)
        );
        codec + crypto + storage + resolve
    }

    /// [`Pool::destroy`] for all of them at once. Returns how many workers had not left by the deadline.
    pub async fn destroy(&self, deadline: Duration) -> usize {
        let (codec, crypto, storage, resolve) = tokio::join!(
            self.codec.destroy(deadline),
            self.crypto.destroy(deadline),
            self.storage.destroy(deadline),
            self.resolve.destroy(deadline)
        );
        codec + crypto + storage + resolve
    }
}

/// Held by the pool's handles and by nothing of the pool's own, so that its drop means that nobody can use the pool any more.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.begin_destroy();
    }
}

/// Waits until `count` is zero, at most until `deadline` has passed, and returns it.
async fn wait_for_zero(
    shared: &Shared,
    deadline: Duration,
    count: impl Fn(&Shared) -> usize,
) -> usize {
    let zero = async {
        loop {
            // Enabled before the look, so that a change between look and wait is not missed.
            let mut changed = std::pin::pin!(shared.quiet.notified());
            changed.as_mut().enable();
            if count(shared) == 0 {
                return;
            }
            changed.await;
        }
    };
    match tokio::time::timeout(deadline, zero).await {
        Ok(()) => 0,
        Err(_elapsed) => count(shared),
    }
}
