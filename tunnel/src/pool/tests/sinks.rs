//! Jobs that report to a sink.

use super::*;

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
