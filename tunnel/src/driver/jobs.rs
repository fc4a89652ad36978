//! Codec jobs: on the spot, or in pool `codec` and back by mail.

use std::cell::RefCell;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Driver, Mail};
use crate::pool::{Job, JobName, Priority, Step, StepContext};
use crate::state::{CodecDone, CodecJob, CodecScratch};

/// Small blocks are encoded on the spot even while jobs are outstanding when they are this much below `inline_below`:
/// a keystroke does not queue behind another stream's bulk.
const ALWAYS_INLINE_DIVISOR: usize = 4;

/// Codec jobs that may be outstanding a tunnel beyond the pool's threads: keeps workers fed while results travel back.
const JOBS_BEYOND_THREADS: usize = 4;
thread_local! {
    /// Compression contexts for what is done on the spot: one set a runtime worker, not one a tunnel.
    static SCRATCH: RefCell<CodecScratch> = RefCell::default();
}

/// The job comes back if it would have to wait for a disk.
fn run_inline(job: CodecJob) -> Result<CodecDone, Box<CodecJob>> {
    SCRATCH.with_borrow_mut(|scratch| job.try_run(scratch))
}

/// A codec job on its way through pool `codec`.
struct PooledCodecJob(Option<CodecJob>);

impl Job for PooledCodecJob {
    type Output = CodecDone;

    fn name(&self) -> JobName {
        match &self.0 {
            Some(job) if job.is_decode() => JobName {
                who: "stream".into(),
                why: "decode",
            },
            _ => JobName {
                who: "stream".into(),
                why: "encode",
            },
        }
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Step<Self::Output> {
        match self.0.take() {
            Some(job) => Step::Finished(job.run(cx.scratch::<CodecScratch>())),
            None => Step::Stopped,
        }
    }
}

impl Driver {
    pub(super) fn run_jobs(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let jobs_max = self.pools.codec.threads() + JOBS_BEYOND_THREADS;
        while self.jobs_out < jobs_max {
            let held = self.job_held.take();
            // One that has asked for a place in the pool takes it, or the place would stay reserved and empty.
            let asked = held.is_some();
            let Some((id, mut job)) = held.or_else(|| self.tunnel.poll_job(now)) else {
                break;
            };
            let plain_bytes = job.plain_len_hint();
            let small = plain_bytes <= self.inline_below_bytes;
            let tiny = plain_bytes <= self.inline_below_bytes / ALWAYS_INLINE_DIVISOR;
            if !asked && (tiny || (small && self.jobs_out == 0)) {
                match run_inline(job) {
                    Ok(done) => {
                        self.tunnel.handle_job(done, now);
                        moved = true;
                        continue;
                    }
                    Err(waits) => job = *waits,
                }
            }
            let slot = match self.codec_slots.poll_slot(cx) {
                Poll::Ready(Some(slot)) => slot,
                // The pool is closed: this program is ending, and the streams with it.
                Poll::Ready(None) => {
                    self.tunnel.job_lost(id, now);
                    continue;
                }
                Poll::Pending => {
                    self.job_held = Some((id, job));
                    break;
                }
            };
            let priority = if job.is_decode() {
                Priority::First
            } else {
                Priority::Second
            };
            let mail = self.sender.clone();
            slot.submit(PooledCodecJob(Some(job)), priority, move |outcome| {
                let _ = mail.send(Mail::Codec(id, outcome));
            });
            self.jobs_out += 1;
            moved = true;
        }
        moved
    }
}
