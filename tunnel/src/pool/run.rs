//! A single-step job awaited by a task.

use tokio::sync::oneshot;

use super::{Job, JobName, Outcome, Pool, Priority, Step, StepContext};

/// Runs `job` in `pool` and waits for its result; waits for a place first while the queue is full. `None` when the pool takes no more
/// jobs, or the job was stopped or panicked. Dropping the future does not stop a job that has begun; its result is dropped.
pub async fn run<J: Job>(pool: &Pool, job: J, priority: Priority) -> Option<J::Output> {
    let (answer, answered) = oneshot::channel();
    let sink = move |outcome| {
        let _ = answer.send(outcome);
    };
    pool.submit(job, priority, sink).await.ok()?;
    match answered.await {
        Ok(Outcome::Finished(output)) => Some(output),
        Ok(Outcome::Stopped | Outcome::Panicked) | Err(_) => None,
    }
}

/// A closure as a job of one step.
struct Call<T> {
    name: JobName,
    work: Option<Box<dyn FnOnce() -> T + Send>>,
}

impl<T: Send + 'static> Job for Call<T> {
    type Output = T;

    fn name(&self) -> JobName {
        self.name.clone()
    }

    fn step(&mut self, _cx: &mut StepContext<'_>) -> Step<T> {
        self.work
            .take()
            .map_or(Step::Stopped, |work| Step::Finished(work()))
    }
}

/// Runs `work` as one step of a job of `pool` and waits for what it returns. See [`run`].
pub async fn call<T: Send + 'static>(
    pool: &Pool,
    name: JobName,
    work: Box<dyn FnOnce() -> T + Send>,
) -> Option<T> {
    let job = Call {
        name,
        work: Some(work),
    };
    run(pool, job, Priority::First).await
}
