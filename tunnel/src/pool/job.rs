//! What a job is: a plain struct with a name, that does its work in steps on a worker's thread.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::queue::{Phase, PhaseCell};

/// A piece of blocking work.
///
/// A job never waits for a socket, a timer or another job inside a step: it gives the thread back instead. It is dropped exactly once,
/// before its last result is delivered, so whatever it holds (permits, pages) is free by the time its owner hears of the end.
pub trait Job: Send + 'static {
    /// What the job hands over: moved to its owner, never copied.
    type Output: Send + 'static;

    /// For whom it works, and why. Asked once where a handle is kept, and otherwise only when it panicked.
    fn name(&self) -> JobName;

    /// Does the next piece of work, for at most about 100 ms, and says how to go on.
    fn step(&mut self, cx: &mut StepContext<'_>) -> Step<Self::Output>;
}

/// How a job's step ended.
#[derive(Debug)]
pub enum Step<O> {
    /// There is more to do: run me again after those who wait, and tell me then whether I should stop.
    CheckIn(Tie),
    /// Here is output. The thread is given back until the owner has taken it and said continue or stop.
    ///
    /// A job that was submitted with a sink has no owner to say so: for it this is the same as [`Step::Finished`].
    Sync(O, Tie),
    /// The work is done, and this is its result.
    Finished(O),
    /// The job ends without a result, as it was asked to, or because nothing is left to do it for.
    Stopped,
}

/// Whether a job ends with the stream that it works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// When the owner is gone, the job is asked to stop.
    Stream,
    /// Outlive: do not stop me with my stream. Without an owner its output is dropped and it goes on; it ends by itself or with the pool.
    Outlive,
}

/// For whom a job works, and why: what logs and `status` call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName {
    /// The stream, link or peer.
    pub who: Cow<'static, str>,
    /// The work, as a word: `encode`, `seal`, `verify`.
    pub why: &'static str,
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.why, self.who)
    }
}

/// How a job that was submitted with a sink ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<O> {
    /// It finished with this result.
    Finished(O),
    /// It ended without a result: by its own decision, or because the pool was destroyed before it ran.
    Stopped,
    /// A step panicked. The panic is logged and counted; the worker goes on.
    Panicked,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for a thread.
    Queued,
    /// A thread runs a step of it.
    Running,
    /// It waits, without a thread, until its output was taken and its owner has said how to go on.
    Syncing,
    /// It was asked to stop and has not ended yet.
    Stopping,
    /// It ended with a result, which waits until it is taken.
    Finished,
    /// It ended without a result.
    Stopped,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Syncing,
        Self::Stopping,
        Self::Finished,
        Self::Stopped,
    ];

    /// The value of the metric's label `state`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Syncing => "syncing",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the job can make no further step.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Stopped)
    }
}

/// What a step may use of the thread that runs it.
pub struct StepContext<'a> {
    scratch: &'a mut Scratch,
    stop: Option<&'a AtomicBool>,
    phase: Option<&'a PhaseCell>,
}

impl<'a> StepContext<'a> {
    /// The context for a step that a task runs on the spot, without a pool. Nobody can ask such a step to stop.
    pub fn inline(scratch: &'a mut Scratch) -> Self {
        Self {
            scratch,
            stop: None,
            phase: None,
        }
    }

    pub(super) fn on_worker(
        scratch: &'a mut Scratch,
        stop: Option<&'a AtomicBool>,
        phase: &'a PhaseCell,
    ) -> Self {
        Self {
            scratch,
            stop,
            phase: Some(phase),
        }
    }

    /// Whether the job should return [`Step::Stopped`] soon. Long steps look at it themselves, others at their start.
    #[must_use]
    pub fn stop_requested(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Acquire))
            || self
                .phase
                .is_some_and(|phase| phase.get() >= Phase::Destroying)
    }

    /// The worker's own value of type `S`, made at first use and kept for later jobs: compression contexts, buffers.
    ///
    /// Its contents are whatever the previous job left. After a panic on the worker it is made anew.
    pub fn scratch<S: Default + Send + 'static>(&mut self) -> &mut S {
        self.scratch.get()
    }
}

impl fmt::Debug for StepContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("stop_requested", &self.stop_requested())
            .finish_non_exhaustive()
    }
}

/// The values that a worker keeps from one job to the next, one of each type.
#[derive(Default)]
pub struct Scratch {
    // A worker meets a handful of types at most, so a list is quicker than a map.
    values: Vec<(TypeId, Box<dyn Any + Send>)>,
}

impl Scratch {
    /// The value of type `S`, made by its `Default` at first use.
    pub fn get<S: Default + Send + 'static>(&mut self) -> &mut S {
        let wanted = TypeId::of::<S>();
        let at = self
            .values
            .iter()
            .position(|(kind, _)| *kind == wanted)
            .unwrap_or_else(|| {
                self.values.push((wanted, Box::new(S::default())));
                self.values.len() - 1
            });
        match self.values[at].1.downcast_mut() {
            Some(value) => value,
            None => unreachable!("a scratch value stands under its own type"),
        }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("values", &self.values.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_keeps_one_value_a_type() {
        let mut scratch = Scratch::default();
        let mut cx = StepContext::inline(&mut scratch);
        cx.scratch::<Vec<u8>>().push(1);
        *cx.scratch::<u64>() = 7;
        cx.scratch::<Vec<u8>>().push(2);
        assert_eq!(*cx.scratch::<Vec<u8>>(), [1, 2]);
        assert_eq!(*cx.scratch::<u64>(), 7);
        assert!(!cx.stop_requested());
    }

    #[test]
    fn a_name_reads_as_work_and_owner() {
        let name = JobName {
            who: "stream 5".into(),
            why: "encode",
        };
        assert_eq!(name.to_string(), "encode for stream 5");
    }
}
