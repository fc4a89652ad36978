//! Deadlines of streams: many, mostly moved before they come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use codec::frame::StreamId;

/// What to look at when the time has come. A timer that fires too early only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Bytes are held for a full block.
    Gap,
    /// A stream may have been idle long enough to give credit back.
    Idle,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, StreamId, Timer)>>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, stream: StreamId, timer: Timer) {
        self.heap.push(Reverse((at, stream, timer)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(StreamId, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.heap
            .pop()
            .map(|Reverse((_, stream, timer))| (stream, timer))
    }
}
