//! Every transition of a job's life, and the pool's limits, classes and end.
#![expect(clippy::unwrap_used, reason = "tests")]

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

#[tokio::test]
async fn a_finished_job_delivers_its_output_once_and_is_dropped_before() {
    let pool = pool(1, 4);
    let (held, drops) = drop_count();
    let seen = drops.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = job(move |_| {
        let _held = &held;
        Step::Finished(7)
    });
    let submitted = pool
        .submit(work, Priority::First, move |outcome| {
            sender.send((outcome, seen.load(Ordering::SeqCst))).unwrap();
        })
        .await;
    assert!(submitted.is_ok());
    assert_eq!(receiver.await.unwrap(), (Outcome::Finished(7), 1));
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.finished_total, 1);
    assert_eq!(snapshot.jobs, [0; 6]);
    assert_eq!(snapshot.wait.counts.iter().sum::<u64>(), 1);
}

#[tokio::test]
async fn a_job_may_end_without_a_result() {
    let pool = pool(1, 4);
    let outcome = outcome_of(&pool, job(|_| Step::<()>::Stopped), Priority::First).await;
    assert_eq!(outcome.await.unwrap(), Outcome::Stopped);
    assert_eq!(pool.snapshot().stopped_total, 1);
}

#[tokio::test]
async fn a_sync_without_an_owner_ends_the_job_with_that_output() {
    let pool = pool(1, 4);
    let outcome = outcome_of(&pool, job(|_| Step::Sync(3, Tie::Outlive)), Priority::First).await;
    assert_eq!(outcome.await.unwrap(), Outcome::Finished(3));
}

#[tokio::test]
async fn a_panic_is_counted_and_costs_one_job_and_the_scratch() {
    let pool = pool(1, 4);
    let panicking = job(|cx: &mut StepContext<'_>| -> Step<()> {
        *cx.scratch::<u64>() = 5;
        panic!("as the test wants it");
    });
    let outcome = outcome_of(&pool, panicking, Priority::First).await;
    assert_eq!(outcome.await.unwrap(), Outcome::Panicked);
    let after = job(|cx: &mut StepContext<'_>| Step::Finished(*cx.scratch::<u64>()));
    let outcome = outcome_of(&pool, after, Priority::First).await;
    assert_eq!(outcome.await.unwrap(), Outcome::Finished(0));
    assert_eq!(pool.snapshot().panicked_total, 1);
    assert_eq!(pool.snapshot().jobs, [0; 6]);
}

#[tokio::test]
async fn panics_in_a_sink_and_in_a_jobs_drop_leave_the_worker_at_work() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("as the test wants it");
        }
    }
    let pool = pool(1, 4);
    let bomb = PanicsInDrop;
    let outcome = outcome_of(
        &pool,
        job(move |_| {
            let _bomb = &bomb;
            Step::Finished(1)
        }),
        Priority::First,
    )
    .await;
    assert_eq!(outcome.await.unwrap(), Outcome::Finished(1));
    let submitted = pool
        .submit(job(|_| Step::Finished(2)), Priority::First, |_| {
            panic!("as the test wants it")
        })
        .await;
    assert!(submitted.is_ok());
    let outcome = outcome_of(&pool, job(|_| Step::Finished(3)), Priority::First).await;
    assert_eq!(outcome.await.unwrap(), Outcome::Finished(3));
    assert_eq!(pool.finish(LONG).await, 0);
}

#[tokio::test]
async fn scratch_is_kept_from_job_to_job() {
    let pool = pool(1, 4);
    for expected in 1..=3 {
        let count = job(|cx: &mut StepContext<'_>| {
            let count = cx.scratch::<u32>();
            *count += 1;
            Step::Finished(*count)
        });
        let outcome = outcome_of(&pool, count, Priority::First).await;
        assert_eq!(outcome.await.unwrap(), Outcome::Finished(expected));
    }
}

#[tokio::test]
async fn a_job_that_checks_in_lets_those_who_wait_go_first() {
    let pool = pool(1, 8);
    let order = Arc::new(Mutex::new(Vec::new()));
    let gate = occupy(&pool).await;
    let mut ends = Vec::new();
    for name in ["a", "b"] {
        let order = order.clone();
        let mut steps = 0;
        let work = job(move |_| {
            order.lock().unwrap().push(name);
            steps += 1;
            if steps == 3 {
                Step::Finished(())
            } else {
                Step::CheckIn(Tie::Stream)
            }
        });
        ends.push(outcome_of(&pool, work, Priority::First).await);
    }
    gate.open();
    for end in ends {
        assert_eq!(end.await.unwrap(), Outcome::Finished(()));
    }
    assert_eq!(*order.lock().unwrap(), ["a", "b", "a", "b", "a", "b"]);
}

#[tokio::test]
async fn a_job_goes_from_queued_to_running_to_syncing_and_back_until_it_is_finished() {
    let pool = pool(1, 4);
    let first = occupy(&pool).await;
    let (mut gate, mut wait) = Gate::new();
    let mut steps = 0;
    let work = job(move |_| {
        wait();
        steps += 1;
        match steps {
            1 => Step::Sync("half", Tie::Stream),
            _ => Step::Finished("whole"),
        }
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    assert_eq!(handle.state(), JobState::Queued);
    assert!(!handle.resume(), "only a syncing job is resumed");
    first.open();
    gate.entered().await;
    assert_eq!(handle.state(), JobState::Running);
    assert_eq!(pool.snapshot().jobs_in(JobState::Running), 1);
    assert_eq!(handle.take_output(), None);
    gate.open();
    assert_eq!(handle.report().await, Some(Report::Sync("half")));
    assert_eq!(handle.state(), JobState::Syncing);
    assert_eq!(pool.snapshot().jobs_in(JobState::Syncing), 1);
    assert_eq!(handle.take_output(), None, "output is given out once");
    assert!(handle.resume());
    gate.entered().await;
    gate.open();
    assert_eq!(handle.report().await, Some(Report::Finished("whole")));
    assert_eq!(handle.report().await, None, "the end is reported once");
    assert_eq!(handle.take_output(), None);
    assert!(pool.jobs().is_empty(), "taking the result reaps the job");
    assert_eq!(pool.snapshot().jobs, [0; 6]);
}

#[tokio::test]
async fn a_syncing_job_is_not_resumed_before_its_output_was_taken() {
    let pool = pool(1, 4);
    let mut steps = 0;
    let work = job(move |_| {
        steps += 1;
        if steps == 1 {
            Step::Sync(steps, Tie::Stream)
        } else {
            Step::Finished(steps)
        }
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    until(&pool, JobState::Syncing).await;
    assert!(!handle.resume());
    assert_eq!(handle.take_output(), Some(1));
    assert!(handle.resume());
    until(&pool, JobState::Finished).await;
    assert_eq!(pool.jobs().len(), 1, "a result waits until it is taken");
    assert_eq!(handle.take_output(), Some(2));
    assert!(pool.jobs().is_empty());
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

#[tokio::test]
async fn a_job_stopped_while_queued_ends_without_a_step() {
    let pool = pool(1, 4);
    let gate = occupy(&pool).await;
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = steps.clone();
    let (held, drops) = drop_count();
    let work = job(move |_| {
        let _held = &held;
        counted.fetch_add(1, Ordering::SeqCst);
        Step::Finished(())
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    handle.stop();
    assert_eq!(handle.state(), JobState::Stopping);
    gate.open();
    assert_eq!(handle.report().await, Some(Report::Stopped));
    assert_eq!(steps.load(Ordering::SeqCst), 0);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    handle.stop();
    assert_eq!(handle.state(), JobState::Stopped);
    assert_eq!(pool.snapshot().stopped_total, 1);
}

#[tokio::test]
async fn a_running_job_is_told_to_stop_at_its_next_step() {
    let pool = pool(1, 4);
    let (mut gate, mut wait) = Gate::new();
    let work = job(move |cx: &mut StepContext<'_>| -> Step<()> {
        if cx.stop_requested() {
            return Step::Stopped;
        }
        wait();
        Step::CheckIn(Tie::Outlive)
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    gate.entered().await;
    handle.stop();
    assert_eq!(handle.state(), JobState::Stopping);
    assert_eq!(pool.snapshot().jobs_in(JobState::Stopping), 1);
    gate.open();
    assert_eq!(handle.report().await, Some(Report::Stopped));
    assert_eq!(pool.snapshot().jobs, [0; 6]);
}

#[tokio::test]
async fn a_job_that_finishes_although_it_was_told_to_stop_has_finished() {
    let pool = pool(1, 4);
    let (mut gate, mut wait) = Gate::new();
    let work = job(move |_| {
        wait();
        Step::Finished(9)
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    gate.entered().await;
    handle.stop();
    gate.open();
    assert_eq!(handle.report().await, Some(Report::Finished(9)));
}

#[tokio::test]
async fn a_syncing_job_that_is_stopped_gets_one_more_step_and_its_output_is_dropped() {
    let pool = pool(1, 4);
    let (output, output_drops) = drop_count();
    let mut output = Some(output);
    let mut told = 0;
    let (sender, told_steps) = mpsc::channel();
    let work = job(move |cx: &mut StepContext<'_>| {
        if cx.stop_requested() {
            told += 1;
            sender.send(told).unwrap();
            // What comes after the request is dropped, too, and the job is asked again.
            return match told {
                1 => Step::CheckIn(Tie::Stream),
                _ => Step::Stopped,
            };
        }
        Step::Sync(output.take().unwrap(), Tie::Stream)
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    until(&pool, JobState::Syncing).await;
    handle.stop();
    assert!(matches!(handle.report().await, Some(Report::Stopped)));
    assert_eq!(output_drops.load(Ordering::SeqCst), 1);
    assert_eq!(told_steps.iter().collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_panic_is_reported_to_the_owner() {
    let pool = pool(1, 4);
    let work = job(|_| -> Step<()> { panic!("as the test wants it") });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    assert_eq!(handle.report().await, Some(Report::Panicked));
    assert_eq!(handle.report().await, None);
    assert_eq!(pool.snapshot().panicked_total, 1);
    assert!(pool.jobs().is_empty());
}

#[tokio::test]
async fn all_jobs_may_sync_at_once_and_the_threads_are_free_for_others() {
    const JOBS: usize = 100;
    let pool = pool(2, JOBS);
    let mut handles = Vec::new();
    for n in 0..JOBS {
        let mut synced = false;
        let work = job(move |_| {
            if std::mem::replace(&mut synced, true) {
                Step::Finished(n)
            } else {
                Step::Sync(n, Tie::Stream)
            }
        });
        handles.push(pool.spawn(work, Priority::First).await.unwrap());
    }
    until_holds(|| pool.snapshot().jobs_in(JobState::Syncing) == 100).await;
    let other = outcome_of(&pool, job(|_| Step::Finished("free")), Priority::Second).await;
    assert_eq!(other.await.unwrap(), Outcome::Finished("free"));
    for (n, handle) in handles.iter_mut().enumerate() {
        assert_eq!(handle.report().await, Some(Report::Sync(n)));
        assert!(handle.resume());
    }
    for (n, handle) in handles.iter_mut().enumerate() {
        assert_eq!(handle.report().await, Some(Report::Finished(n)));
    }
    assert_eq!(pool.snapshot().jobs, [0; 6]);
}

#[tokio::test]
async fn a_stream_that_ends_stops_its_running_job_which_reaps_itself() {
    let pool = pool(1, 4);
    let (mut gate, mut wait) = Gate::new();
    let (held, drops) = drop_count();
    let (output, output_drops) = drop_count();
    let mut output = Some(output);
    let work = job(move |cx: &mut StepContext<'_>| {
        let _held = &held;
        if cx.stop_requested() {
            return Step::Finished(output.take().unwrap());
        }
        wait();
        Step::CheckIn(Tie::Stream)
    });
    let handle = pool.spawn(work, Priority::First).await.unwrap();
    gate.entered().await;
    drop(handle);
    let [info] = pool.jobs().try_into().unwrap();
    assert!(info.detached);
    assert_eq!(info.state, JobState::Stopping);
    gate.open();
    until_holds(|| pool.jobs().is_empty()).await;
    assert_eq!(pool.finish(LONG).await, 0);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(output_drops.load(Ordering::SeqCst), 1);
    assert_eq!(pool.snapshot().jobs, [0; 6]);
}

#[tokio::test]
async fn an_outliving_job_goes_on_when_its_stream_ends() {
    let pool = pool(1, 4);
    let (mut gate, mut wait) = Gate::new();
    let mut steps = 0;
    let work = job(move |cx: &mut StepContext<'_>| {
        assert!(!cx.stop_requested());
        wait();
        steps += 1;
        match steps {
            1 => Step::CheckIn(Tie::Outlive),
            // Nobody is there to take it: the job goes on by itself.
            2 => Step::Sync(steps, Tie::Outlive),
            _ => Step::Finished(steps),
        }
    });
    let handle = pool.spawn(work, Priority::First).await.unwrap();
    gate.entered().await;
    gate.open();
    gate.entered().await;
    let token = handle.token();
    drop(handle);
    gate.open();
    gate.entered().await;
    let [info] = pool.jobs().try_into().unwrap();
    assert_eq!(
        (info.token, info.state, info.detached),
        (token, JobState::Running, true)
    );
    assert_eq!(info.name.to_string(), "test for job");
    gate.open();
    until_holds(|| pool.jobs().is_empty()).await;
    assert_eq!(pool.snapshot().finished_total, 1);
}

#[tokio::test]
async fn a_stream_that_ends_while_its_job_syncs_stops_it_or_lets_it_go_on() {
    for (tie, finished, stopped) in [(Tie::Stream, 0, 1), (Tie::Outlive, 1, 0)] {
        let pool = pool(1, 4);
        let mut steps = 0;
        let work = job(move |cx: &mut StepContext<'_>| {
            steps += 1;
            match steps {
                1 => Step::Sync(steps, tie),
                _ if cx.stop_requested() => Step::Stopped,
                _ => Step::Finished(steps),
            }
        });
        let handle = pool.spawn(work, Priority::First).await.unwrap();
        until(&pool, JobState::Syncing).await;
        drop(handle);
        until_holds(|| pool.jobs().is_empty()).await;
        let snapshot = pool.snapshot();
        assert_eq!(
            (snapshot.finished_total, snapshot.stopped_total),
            (finished, stopped)
        );
        assert_eq!(snapshot.jobs, [0; 6]);
    }
}

#[tokio::test]
async fn a_result_that_nobody_takes_is_reaped_with_its_handle() {
    let pool = pool(1, 4);
    let (output, drops) = drop_count();
    let mut output = Some(output);
    let work = job(move |_| Step::Finished(output.take().unwrap()));
    let handle = pool.spawn(work, Priority::First).await.unwrap();
    until(&pool, JobState::Finished).await;
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    drop(handle);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert!(pool.jobs().is_empty());
}

#[tokio::test]
async fn a_full_queue_gives_the_job_back_and_lets_those_who_wait_in_when_a_place_frees() {
    let pool = pool(1, 1);
    let gate = occupy(&pool).await;
    let queued = outcome_of(&pool, job(|_| Step::Finished(1)), Priority::First).await;
    let rejected = pool.try_submit(job(|_| Step::Finished(2)), Priority::First, |_| {});
    assert!(matches!(rejected, Err(Rejected::Full(_))));

    let mut waiter = pool.slot_waiter();
    let (sender, waited) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let mut polled = std::pin::pin!(std::future::poll_fn(|cx| {
        let slot = ready!(waiter.poll_slot(cx)).unwrap();
        let sender = sender.take().unwrap();
        slot.submit(job(|_| Step::Finished(3)), Priority::First, |outcome| {
            drop(sender.send(outcome));
        });
        Poll::Ready(())
    }));
    let pending = std::future::poll_fn(|cx| Poll::Ready(polled.as_mut().poll(cx).is_pending()));
    assert!(pending.await, "the queue is full");
    gate.open();
    polled.await;
    assert_eq!(queued.await.unwrap(), Outcome::Finished(1));
    assert_eq!(waited.await.unwrap(), Outcome::Finished(3));
}

#[tokio::test]
async fn jobs_of_the_first_class_go_before_those_of_the_second() {
    let pool = pool(1, 8);
    let order = Arc::new(Mutex::new(Vec::new()));
    let gate = occupy(&pool).await;
    let mut ends = Vec::new();
    for (name, priority) in [
        ("encode 1", Priority::Second),
        ("decode 1", Priority::First),
        ("encode 2", Priority::Second),
        ("decode 2", Priority::First),
    ] {
        let order = order.clone();
        let work = job(move |_| {
            order.lock().unwrap().push(name);
            Step::Finished(())
        });
        ends.push(outcome_of(&pool, work, priority).await);
    }
    gate.open();
    for end in ends {
        end.await.unwrap();
    }
    assert_eq!(
        *order.lock().unwrap(),
        ["decode 1", "decode 2", "encode 1", "encode 2"]
    );
}

#[tokio::test]
async fn one_handshake_runs_at_a_time_and_links_are_not_held_up_by_those_that_wait() {
    let pool = limited_pool(3, 8, Some(1));
    let (mut first, mut wait_first) = Gate::new();
    let (mut second, mut wait_second) = Gate::new();
    let handshake_1 = job(move |_| {
        wait_first();
        Step::Finished(1)
    });
    let handshake_2 = job(move |_| {
        wait_second();
        Step::Finished(2)
    });
    let end_1 = outcome_of(&pool, handshake_1, Priority::Second).await;
    first.entered().await;
    let end_2 = outcome_of(&pool, handshake_2, Priority::Second).await;
    let link = outcome_of(&pool, job(|_| Step::Finished(3)), Priority::First).await;
    assert_eq!(link.await.unwrap(), Outcome::Finished(3));
    assert!(second.entered.try_recv().is_err());
    assert_eq!(pool.snapshot().jobs_in(JobState::Queued), 1);
    first.open();
    second.entered().await;
    second.open();
    assert_eq!(end_1.await.unwrap(), Outcome::Finished(1));
    assert_eq!(end_2.await.unwrap(), Outcome::Finished(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_both_classes_loses_no_job_and_never_exceeds_the_limit() {
    const SUBMITTERS: usize = 4;
    const EACH: usize = 5_000;
    let pool = limited_pool(4, 16, Some(1));
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|_| {
            let (pool, running, most, ended) =
                (pool.clone(), running.clone(), most.clone(), ended.clone());
            tokio::spawn(async move {
                for n in 0..EACH {
                    let (running, most, ended) = (running.clone(), most.clone(), ended.clone());
                    let priority = if n % 3 == 0 {
                        Priority::Second
                    } else {
                        Priority::First
                    };
                    let work = job(move |_| {
                        if priority == Priority::Second {
                            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            running.fetch_sub(1, Ordering::SeqCst);
                        }
                        Step::Finished(())
                    });
                    let submitted = pool
                        .submit(work, priority, move |_| {
                            ended.fetch_add(1, Ordering::SeqCst);
                        })
                        .await;
                    assert!(submitted.is_ok());
                }
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await.unwrap();
    }
    assert_eq!(pool.finish(LONG).await, 0);
    assert_eq!(ended.load(Ordering::SeqCst), SUBMITTERS * EACH);
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(pool.destroy(LONG).await, 0);
}

#[tokio::test]
async fn finish_refuses_new_jobs_and_lets_the_accepted_ones_end() {
    let pool = pool(1, 4);
    let gate = occupy(&pool).await;
    let queued = outcome_of(&pool, job(|_| Step::Finished(1)), Priority::First).await;
    let spare = pool.slot().await.unwrap();
    assert_eq!(pool.finish(Duration::ZERO).await, 2);
    assert!(matches!(pool.try_slot(), Err(Rejected::Closed(()))));
    assert!(pool.slot().await.is_err());
    assert!(
        pool.submit(job(|_| Step::Finished(2)), Priority::First, |_| {})
            .await
            .is_err()
    );
    let none = std::future::poll_fn(|cx| pool.slot_waiter().poll_slot(cx)).await;
    assert!(none.is_none());
    // A place given before the end is no way in after it.
    let mut late = spare.spawn(job(|_| Step::Finished(3)), Priority::First);
    assert_eq!(late.report().await, Some(Report::Stopped));
    gate.open();
    assert_eq!(pool.finish(LONG).await, 0);
    assert_eq!(queued.await.unwrap(), Outcome::Finished(1));
}

#[tokio::test]
async fn a_syncing_job_may_still_be_resumed_while_the_pool_finishes() {
    let pool = pool(1, 4);
    let mut synced = false;
    let work = job(move |_| {
        if std::mem::replace(&mut synced, true) {
            Step::Finished(2)
        } else {
            Step::Sync(1, Tie::Stream)
        }
    });
    let mut handle = pool.spawn(work, Priority::First).await.unwrap();
    assert_eq!(handle.report().await, Some(Report::Sync(1)));
    assert_eq!(pool.finish(Duration::ZERO).await, 1);
    assert!(handle.resume());
    assert_eq!(handle.report().await, Some(Report::Finished(2)));
    assert_eq!(pool.finish(LONG).await, 0);
}

#[tokio::test]
async fn destroy_ends_queued_running_and_syncing_jobs_and_the_workers_leave() {
    let pool = pool(2, 8);
    let mut synced = pool
        .spawn(
            job(|cx: &mut StepContext<'_>| {
                if cx.stop_requested() {
                    Step::Stopped
                } else {
                    Step::Sync((), Tie::Outlive)
                }
            }),
            Priority::First,
        )
        .await
        .unwrap();
    until(&pool, JobState::Syncing).await;
    let mut gates = Vec::new();
    let mut running = Vec::new();
    for _ in 0..2 {
        let (mut gate, mut wait) = Gate::new();
        let work = job(move |cx: &mut StepContext<'_>| -> Step<()> {
            if cx.stop_requested() {
                return Step::Stopped;
            }
            wait();
            Step::CheckIn(Tie::Outlive)
        });
        running.push(outcome_of(&pool, work, Priority::First).await);
        gate.entered().await;
        gates.push(gate);
    }
    let (held, drops) = drop_count();
    let queued = job(move |_| {
        let _held = &held;
        Step::Finished(())
    });
    let queued = outcome_of(&pool, queued, Priority::First).await;
    let mut queued_too = pool
        .spawn(job(|_| Step::Finished(())), Priority::Second)
        .await
        .unwrap();
    assert_eq!(pool.destroy(Duration::ZERO).await, 2, "both are in a step");
    for gate in &gates {
        gate.open();
    }
    assert_eq!(pool.destroy(LONG).await, 0);
    for end in running {
        assert_eq!(end.await.unwrap(), Outcome::Stopped);
    }
    assert_eq!(queued.await.unwrap(), Outcome::Stopped);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(queued_too.report().await, Some(Report::Stopped));
    assert_eq!(synced.report().await, Some(Report::Stopped));
    assert!(!synced.resume());
    assert_eq!(pool.snapshot().jobs, [0; 6]);
    assert_eq!(pool.finish(LONG).await, 0);
}

#[tokio::test]
async fn a_job_that_ignores_the_request_loses_its_thread_after_the_deadline() {
    let pool = pool(1, 4);
    let (mut gate, mut wait) = Gate::new();
    let mut first = true;
    let work = job(move |_| -> Step<()> {
        if std::mem::take(&mut first) {
            wait();
        }
        Step::CheckIn(Tie::Outlive)
    });
    let end = outcome_of(&pool, work, Priority::First).await;
    gate.entered().await;
    assert_eq!(pool.destroy(Duration::ZERO).await, 1);
    gate.open();
    assert_eq!(end.await.unwrap(), Outcome::Stopped);
    assert_eq!(pool.destroy(LONG).await, 0);
}

#[tokio::test]
async fn the_last_handles_drop_destroys_the_pool() {
    let pool = pool(1, 4);
    let gate = occupy(&pool).await;
    let queued = outcome_of(&pool, job(|_| Step::Finished(1)), Priority::First).await;
    let slot = pool.slot().await.unwrap();
    drop(pool.clone());
    assert!(pool.try_slot().is_ok(), "another handle is left");
    drop(pool);
    gate.open();
    assert_eq!(queued.await.unwrap(), Outcome::Stopped);
    let mut late = slot.spawn(job(|_| Step::Finished(2)), Priority::First);
    assert_eq!(late.report().await, Some(Report::Stopped));
}

#[test]
fn a_job_for_a_runtime_that_has_ended_is_stopped_and_not_forgotten() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let pool = Pool::start(
        &handle,
        PoolConfig {
            name: "test",
            threads: NonZeroUsize::MIN,
            queue_limit: NonZeroUsize::MIN,
            second_limit: None,
        },
    );
    let (sender, receiver) = mpsc::channel();
    let submitted = pool.try_submit(
        job(|_| Step::Finished(1)),
        Priority::First,
        move |outcome| {
            sender.send(outcome).unwrap();
        },
    );
    assert!(submitted.is_ok());
    assert_eq!(receiver.recv().unwrap(), Outcome::Stopped);
}

#[tokio::test]
async fn the_pools_of_an_edge_have_their_names_and_one_handshake_at_a_time() {
    let two = NonZeroUsize::new(2).unwrap();
    let pools = Pools::start(
        &Handle::current(),
        PoolsConfig {
            codec_threads: two,
            crypto_threads: two,
            storage_threads: NonZeroUsize::MIN,
            resolve_threads: NonZeroUsize::MIN,
            queue: two,
        },
    );
    let names = pools.all().map(|pool| pool.snapshot().pool);
    assert_eq!(names, ["codec", "crypto", "storage", "resolve"]);
    let (mut first, mut wait_first) = Gate::new();
    let handshake = job(move |_| {
        wait_first();
        Step::Finished(())
    });
    let end = outcome_of(&pools.crypto, handshake, Priority::Second).await;
    first.entered().await;
    let waiting = outcome_of(&pools.crypto, job(|_| Step::Finished(())), Priority::Second).await;
    let link = outcome_of(&pools.crypto, job(|_| Step::Finished(())), Priority::First).await;
    link.await.unwrap();
    assert_eq!(pools.crypto.snapshot().jobs_in(JobState::Queued), 1);
    first.open();
    end.await.unwrap();
    waiting.await.unwrap();
    assert_eq!(pools.finish(LONG).await, 0);
    assert_eq!(pools.destroy(LONG).await, 0);
}
