//! The queue limit, the classes and the limit on the second.

use super::*;

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
