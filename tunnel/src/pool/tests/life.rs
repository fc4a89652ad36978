//! Jobs with an owner: every transition.

use super::*;

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
