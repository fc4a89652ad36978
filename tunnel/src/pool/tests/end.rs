//! Finish, destroy, and the ends that nobody ordered.

use super::*;

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
            thread_start: None,
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
async fn workers_that_could_only_wait_for_the_limited_class_leave_with_the_others() {
    let pool = limited_pool(3, 4, Some(1));
    let (mut gate, mut wait) = Gate::new();
    let handshake = job(move |_| {
        wait();
        Step::Finished(1)
    });
    let running = outcome_of(&pool, handshake, Priority::Second).await;
    gate.entered().await;
    let waiting = outcome_of(&pool, job(|_| Step::Finished(2)), Priority::Second).await;
    assert_eq!(pool.destroy(Duration::ZERO).await, 3);
    gate.open();
    assert_eq!(running.await.unwrap(), Outcome::Finished(1));
    assert_eq!(waiting.await.unwrap(), Outcome::Stopped);
    // Not by another call of destroy, which would wake them.
    until_holds(|| pool.shared().queue.workers() == 0).await;
}
