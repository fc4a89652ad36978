//! Every transition of a job's life, and the pool's limits, classes and end.
#![expect(clippy::unwrap_used, reason = "tests")]

mod end;
mod life;
mod limits;
mod sinks;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

/// Never reached where the pool does what it should; it only keeps a failing test from hanging.
const LONG: Duration = Duration::from_secs(60);

/// A job whose steps are a closure.
struct Scripted<F> {
    name: &'static str,
    step: F,
}

impl<F> fmt::Debug for Scripted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<O: Send + 'static, F> Job for Scripted<F>
where
    F: FnMut(&mut StepContext<'_>) -> Step<O> + Send + 'static,
{
    type Output = O;

    fn name(&self) -> JobName {
        JobName {
            who: self.name.into(),
            why: "test",
        }
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Step<O> {
        (self.step)(cx)
    }
}

fn job<O: Send + 'static, F>(step: F) -> Scripted<F>
where
    F: FnMut(&mut StepContext<'_>) -> Step<O> + Send + 'static,
{
    Scripted { name: "job", step }
}

fn pool(threads: usize, queue: usize) -> Pool {
    limited_pool(threads, queue, None)
}

fn limited_pool(threads: usize, queue: usize, second_limit: Option<usize>) -> Pool {
    Pool::start(
        &Handle::current(),
        PoolConfig {
            name: "test",
            threads: NonZeroUsize::new(threads).unwrap(),
            queue_limit: NonZeroUsize::new(queue).unwrap(),
            second_limit: second_limit.and_then(NonZeroUsize::new),
            thread_start: None,
        },
    )
}

/// Submits `job` and returns where its outcome arrives.
async fn outcome_of<J: Job>(
    pool: &Pool,
    job: J,
    priority: Priority,
) -> tokio::sync::oneshot::Receiver<Outcome<J::Output>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let submitted = pool
        .submit(job, priority, move |outcome| drop(sender.send(outcome)))
        .await;
    assert!(submitted.is_ok());
    receiver
}

/// Holds a worker until told to let it go.
struct Gate {
    entered: tokio::sync::mpsc::UnboundedReceiver<()>,
    open: mpsc::Sender<()>,
}

impl Gate {
    /// A gate, and what a step calls to wait in it.
    fn new() -> (Self, impl FnMut() + Send + 'static) {
        let (enter, entered) = tokio::sync::mpsc::unbounded_channel();
        let (open, opened) = mpsc::channel();
        let wait = move || {
            let _sent = enter.send(());
            let _opened = opened.recv();
        };
        (Self { entered, open }, wait)
    }

    async fn entered(&mut self) {
        self.entered.recv().await.unwrap();
    }

    fn open(&self) {
        self.open.send(()).unwrap();
    }
}

/// Occupies one worker of the pool, and returns once it does.
async fn occupy(pool: &Pool) -> Gate {
    let (mut gate, mut wait) = Gate::new();
    drop(
        outcome_of(
            pool,
            job(move |_| {
                wait();
                Step::Finished(())
            }),
            Priority::First,
        )
        .await,
    );
    gate.entered().await;
    gate
}

/// Counts how often it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn drop_count() -> (Dropped, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    (Dropped(count.clone()), count)
}

/// Waits, by asking again and again, until some job of the pool stands in `state`.
async fn until(pool: &Pool, state: JobState) {
    until_holds(|| pool.jobs().iter().any(|job| job.state == state)).await;
}

async fn until_holds(holds: impl Fn() -> bool) {
    let turn = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, turn).await.unwrap();
}
