//! A single-step job awaited by a task.

use tokio::sync::oneshot;

use super::{Job, Outcome, Pool, Priority};

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
