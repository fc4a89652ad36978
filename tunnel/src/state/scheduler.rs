//! Which stream sends next: deficit round robin, streams that send little first.
//!
//! As in FQ-CoDel (RFC 8290): a stream that becomes active enters a list of fresh streams, which goes before the others until it has used
//! up one quantum. So a stream that sends little never waits behind bulk, and one that sends much gains nothing by it. Streams that sent
//! little of late have a list of their own before that: it goes even when bulk is held back.

use std::collections::VecDeque;

use codec::frame::StreamId;

/// A stream's place in the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    list: List,
    /// Bytes that it may still send before it is another's turn.
    deficit_bytes: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    Urgent,
    Fresh,
    Old,
}

impl Turn {
    /// Whether the stream is in the round.
    pub(super) fn is_listed(&self) -> bool {
        self.list != List::None
    }

    pub(super) const fn new() -> Self {
        Self {
            list: List::None,
            deficit_bytes: 0,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    urgent: VecDeque<StreamId>,
    fresh: VecDeque<StreamId>,
    old: VecDeque<StreamId>,
}

impl Scheduler {
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.fresh.len() + self.old.len()
    }

    /// The stream has something to send; `is_urgent`: it sent little of late.
    pub(super) fn activate(
        &mut self,
        stream: StreamId,
        turn: &mut Turn,
        quantum_bytes: i64,
        is_urgent: bool,
    ) {
        if turn.list != List::None {
            return;
        }
        let (list, queue) = if is_urgent {
            (List::Urgent, &mut self.urgent)
        } else {
            (List::Fresh, &mut self.fresh)
        };
        *turn = Turn {
            list,
            deficit_bytes: quantum_bytes,
        };
        queue.push_back(stream);
    }

    /// The stream whose turn it is.
    pub(super) fn head(&self) -> Option<StreamId> {
        let queues = [&self.urgent, &self.fresh, &self.old];
        queues.into_iter().find_map(VecDeque::front).copied()
    }

    /// Whether the head is a stream that sent little of late.
    pub(super) fn head_is_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    fn pop_head(&mut self) -> Option<StreamId> {
        let queues = [&mut self.urgent, &mut self.fresh, &mut self.old];
        queues.into_iter().find_map(VecDeque::pop_front)
    }

    /// The head does not exist any more.
    pub(super) fn forget_head(&mut self) {
        self.pop_head();
    }

    /// The head sent `bytes`; it stays until its deficit is used up.
    pub(super) fn sent(&mut self, turn: &mut Turn, bytes: usize, quantum_bytes: i64) {
        turn.deficit_bytes = turn.deficit_bytes.saturating_sub_unsigned(bytes as u64);
        if turn.deficit_bytes <= 0 {
            // A fragment that was larger than the quantum is forgiven: nobody else wanted the line when it was cut.
            turn.deficit_bytes = turn
                .deficit_bytes
                .saturating_add(quantum_bytes)
                .clamp(1, quantum_bytes.max(1));
            self.rotate(turn);
        }
    }

    /// The head cannot send now though it has something: the next one's turn.
    pub(super) fn rotate(&mut self, turn: &mut Turn) {
        if let Some(stream) = self.pop_head() {
            self.old.push_back(stream);
            turn.list = List::Old;
        }
    }

    /// The head has nothing to send. A fresh one goes once through the old list first, or it could come back before all others.
    pub(super) fn idle(&mut self, turn: &mut Turn) {
        if turn.list == List::Fresh {
            self.rotate(turn);
        } else {
            // An urgent one may come back as such only while it sends little.
            self.pop_head();
            turn.list = List::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUANTUM: i64 = 1000;

    #[test]
    fn a_stream_that_sends_little_goes_first() {
        let mut round = Scheduler::default();
        let (mut bulk, mut small) = (Turn::new(), Turn::new());
        round.activate(StreamId(1), &mut bulk, QUANTUM, false);
        round.sent(&mut bulk, 1500, QUANTUM);
        assert_eq!(round.head(), Some(StreamId(1)));
        round.activate(StreamId(3), &mut small, QUANTUM, false);
        assert_eq!(round.head(), Some(StreamId(3)));
        round.sent(&mut small, 10, QUANTUM);
        round.idle(&mut small);
        assert_eq!(round.head(), Some(StreamId(1)));
        round.rotate(&mut bulk);
        assert_eq!(
            round.head(),
            Some(StreamId(3)),
            "an idle one leaves only after a round"
        );
        round.idle(&mut small);
        assert_eq!((round.head(), round.len()), (Some(StreamId(1)), 1));
    }

    #[test]
    fn an_urgent_stream_goes_before_fresh_ones_until_it_has_sent_its_quantum() {
        let mut round = Scheduler::default();
        let (mut fresh, mut urgent) = (Turn::new(), Turn::new());
        round.activate(StreamId(1), &mut fresh, QUANTUM, false);
        round.activate(StreamId(3), &mut urgent, QUANTUM, true);
        assert_eq!(
            (round.head(), round.head_is_urgent()),
            (Some(StreamId(3)), true)
        );
        round.sent(&mut urgent, 10, QUANTUM);
        round.idle(&mut urgent);
        assert_eq!(
            (round.head(), round.head_is_urgent()),
            (Some(StreamId(1)), false)
        );
        round.activate(StreamId(3), &mut urgent, QUANTUM, true);
        round.sent(&mut urgent, 1000, QUANTUM);
        assert_eq!((round.head(), round.len()), (Some(StreamId(1)), 2));
        assert!(!round.head_is_urgent());
    }

    #[test]
    fn shares_follow_weights() {
        let mut round = Scheduler::default();
        let mut turns = [
            (StreamId(1), Turn::new(), 1, 0),
            (StreamId(3), Turn::new(), 3, 0),
        ];
        for (stream, turn, weight, _) in &mut turns {
            round.activate(*stream, turn, QUANTUM * *weight, false);
        }
        for _ in 0..4000 {
            let head = round.head();
            for (stream, turn, weight, sent) in &mut turns {
                if head == Some(*stream) {
                    *sent += 700;
                    round.sent(turn, 700, QUANTUM * *weight);
                }
            }
        }
        let [(.., one), (.., three)] = turns;
        let ratio = f64::from(three) / f64::from(one);
        assert!((2.9..3.1).contains(&ratio), "{ratio}");
    }
}
