//! The number of the process's threads does not depend on the number of jobs.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroUsize;
use std::time::Duration;

use tunnel::pool::{Job, JobName, Pool, PoolConfig, Priority, Report, Step, StepContext, Tie};

const THREADS: usize = 3;
const JOBS: usize = 20_000;

/// Syncs once, so that all of them are alive at the same time.
#[derive(Debug)]
struct Twice(bool);

impl Job for Twice {
    type Output = ();

    fn name(&self) -> JobName {
        JobName {
            who: "stream".into(),
            why: "count",
        }
    }

    fn step(&mut self, _cx: &mut StepContext<'_>) -> Step<()> {
        if std::mem::replace(&mut self.0, true) {
            Step::Finished(())
        } else {
            Step::Sync((), Tie::Stream)
        }
    }
}

fn threads_of_this_process() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn twenty_thousand_jobs_need_no_more_threads_than_one() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let before = threads_of_this_process();
        let pool = Pool::start(
            runtime.handle(),
            PoolConfig {
                name: "test",
                threads: NonZeroUsize::new(THREADS).unwrap(),
                queue_limit: NonZeroUsize::new(64).unwrap(),
                second_limit: None,
                thread_start: None,
            },
        );
        assert_eq!(threads_of_this_process(), before + THREADS);
        let mut jobs = Vec::new();
        for _ in 0..JOBS {
            jobs.push(pool.spawn(Twice(false), Priority::First).await.unwrap());
        }
        assert_eq!(pool.jobs().len(), JOBS);
        assert_eq!(threads_of_this_process(), before + THREADS);
        for job in &mut jobs {
            assert_eq!(job.report().await, Some(Report::Sync(())));
            assert!(job.resume());
            assert_eq!(job.report().await, Some(Report::Finished(())));
        }
        assert_eq!(threads_of_this_process(), before + THREADS);
        assert_eq!(pool.destroy(Duration::from_secs(60)).await, 0);
    });
}
