//! Numbers that arrive: which are finished, which blocks are under way, what is to be acknowledged or refused.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::block::{BlockHeader, BodyKind, inner_max_bytes};
use codec::frame::{
    ACK_NOT_STORED_MAX, ACK_RANGES_MAX, Ack, DomainId, Frame, NotStored, Refuse, StreamId,
};
use codec::ranges::RangeSet;

use super::Violation;
use super::parked::Parked;
use super::retention::NUMBER_WINDOW;

/// An Ack that nothing rides with goes alone after this time.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// An Ack goes at once after so many bytes.
const ACK_EVERY_BYTES: u64 = 256 << 10;

/// Refused blocks that wait for a replacement. A sender has at most a window of numbers under way; a quarter of it refused at once
/// (overload by tiny blocks) is still no attack.
pub(super) const REFUSED_MAX: usize = 16_384;

/// Ranges that wait to be reported as not stored. What a peer that does not read misses of them it learns by a Refuse.
const NOT_STORED_MAX: usize = 4_096;

/// Refusals that are repeated with one Ack.
const REPEATS_PER_ACK: usize = 16;

/// How far an arriving block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlockState {
    /// Fragments are missing.
    Assembling,
    /// Waits for a job, or is in one.
    Decoding,
    /// Waits for bytes of another block; see [`Inbound::parked`].
    Parked,
}

/// A block of which at least one fragment has arrived.
#[derive(Debug)]
pub(super) struct InBlock {
    pub(super) header: BlockHeader,
    /// The fragments without the clear header; taken out while a job has them.
    pub(super) body: Vec<Bytes>,
    pub(super) header_bytes: u64,
    /// Encoded bytes so far, the header included.
    pub(super) received_bytes: u64,
    pub(super) state: BlockState,
    /// How often it has waited for a range.
    pub(super) waits: u32,
}

impl InBlock {
    /// What the whole encoded block may have.
    pub(super) fn encoded_max_bytes(&self) -> u64 {
        let body = match self.header.body {
            BodyKind::Raw => u64::from(self.header.plain_length),
            BodyKind::Stored | BodyKind::Zstd | BodyKind::ZstdBlock => {
                inner_max_bytes(self.header.plain_length)
            }
        };
        self.header_bytes + body
    }

    /// A raw body's length is known before it is whole.
    pub(super) fn is_complete_length(&self) -> bool {
        self.header.body != BodyKind::Raw || self.received_bytes == self.encoded_max_bytes()
    }
}

/// A refused block of a live stream; its replacement is awaited.
#[derive(Debug)]
struct RefusedBlock {
    refuse: Refuse,
    stream: StreamId,
    stream_offset: u64,
    plain_length: u32,
}

/// What a number is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NumberState {
    New,
    UnderWay,
    Finished,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    finished: RangeSet,
    to_acknowledge: RangeSet,
    not_stored: VecDeque<NotStored>,
    pub(super) blocks: HashMap<u64, InBlock>,
    /// Of all blocks under way.
    encoded_bytes: u64,
    plain_bytes: u64,
    refused: BTreeMap<u64, RefusedBlock>,
    refuses_to_send: VecDeque<Refuse>,
    repeated_up_to: u64,
    /// The next Refuses are all that wait for a replacement.
    repeat_all: bool,
    ack_due: Option<Instant>,
    ack_now: bool,
    unacknowledged_bytes: u64,
    /// Registered append ranges whose blocks are not decoded.
    unfilled: BTreeMap<DomainId, RangeSet>,
    pub(super) parked: Parked,
    /// Blocks whose append range skipped positions that blocks of lower numbers may still fill, and where it begins.
    gaps: BTreeMap<u64, (DomainId, u64)>,
}

impl Inbound {
    /// What is known of `number`.
    pub(super) fn number(&self, number: u64) -> Result<NumberState, Violation> {
        let lowest = self.frontier();
        if number > lowest.saturating_add(NUMBER_WINDOW) {
            return Err(Violation::NumberBeyondWindow { number, lowest });
        }
        Ok(if self.finished.contains(number) || number == 0 {
            NumberState::Finished
        } else if self.blocks.contains_key(&number) {
            NumberState::UnderWay
        } else {
            NumberState::New
        })
    }

    /// The lowest number that is not finished.
    pub(super) fn frontier(&self) -> u64 {
        self.finished.lowest_gap(1)
    }

    /// Whether all lower numbers are finished.
    pub(super) fn is_next(&self, number: u64) -> bool {
        number <= self.frontier()
    }

    /// The block `number` skipped positions below `position`, which lower numbers may still fill.
    pub(super) fn note_gap(&mut self, number: u64, domain: DomainId, position: u64) {
        self.gaps.insert(number, (domain, position));
    }

    /// A gap that no number can fill any more: in which domain, and where it ends.
    pub(super) fn pop_gap(&mut self) -> Option<(DomainId, u64)> {
        let frontier = self.frontier();
        let gap = self.gaps.first_entry()?;
        (*gap.key() <= frontier).then(|| gap.remove())
    }

    /// `number` was acted on.
    pub(super) fn finish(&mut self, number: u64, now: Instant) {
        self.finished.insert_value(number);
        self.to_acknowledge.insert_value(number);
        self.ack_due.get_or_insert(now + ACK_DELAY);
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.unacknowledged_bytes += bytes as u64;
        self.ack_now |= self.unacknowledged_bytes >= ACK_EVERY_BYTES;
    }

    /// A block's first fragment was accepted.
    pub(super) fn begin_block(&mut self, number: u64, block: InBlock) {
        if let (Some(domain), Some(append)) = (block.header.domain, block.header.append) {
            self.unfilled
                .entry(domain)
                .or_default()
                .insert(append.range());
        }
        self.encoded_bytes += block.received_bytes;
        self.plain_bytes += u64::from(block.header.plain_length);
        self.blocks.insert(number, block);
    }

    /// A further fragment's bytes were accepted.
    pub(super) fn grow_block(&mut self, bytes: u64) {
        self.encoded_bytes += bytes;
    }

    /// Encoded and plain bytes of blocks under way.
    pub(super) fn under_way_bytes(&self) -> (u64, u64) {
        (self.encoded_bytes, self.plain_bytes)
    }

    /// A block is decoded, or never will be.
    pub(super) fn end_block(&mut self, number: u64) -> Option<InBlock> {
        let block = self.blocks.remove(&number)?;
        self.encoded_bytes -= block.received_bytes;
        self.plain_bytes -= u64::from(block.header.plain_length);
        if let (Some(domain), Some(append)) = (block.header.domain, block.header.append)
            && let Some(unfilled) = self.unfilled.get_mut(&domain)
        {
            unfilled.remove(append.range());
        }
        Some(block)
    }

    /// The lowest position of this range that some block under way will fill.
    pub(super) fn first_unfilled(&self, domain: DomainId, range: &Range<u64>) -> Option<u64> {
        let unfilled = self.unfilled.get(&domain)?;
        unfilled.within(range.clone()).next().map(|part| part.start)
    }

    pub(super) fn not_stored(&mut self, range: NotStored) {
        if self.not_stored.len() >= NOT_STORED_MAX {
            self.not_stored.pop_front();
        }
        self.not_stored.push_back(range);
    }

    // ---- refusing ----

    /// Refuses a block: once, or until it is replaced if its stream still wants it.
    pub(super) fn refuse(
        &mut self,
        refuse: Refuse,
        block: &InBlock,
        wanted: bool,
    ) -> Result<(), Violation> {
        if self.refuses_to_send.len() >= REFUSED_MAX {
            return Err(Violation::TooManyRefused);
        }
        self.finished.insert_value(refuse.number);
        self.refuses_to_send.push_back(refuse.clone());
        if wanted {
            if self.refused.len() >= REFUSED_MAX {
                return Err(Violation::TooManyRefused);
            }
            let header = &block.header;
            let refused = RefusedBlock {
                stream: header.stream,
                stream_offset: header.stream_offset,
                plain_length: header.plain_length,
                refuse,
            };
            self.refused.insert(refused.refuse.number, refused);
        }
        Ok(())
    }

    /// Whether `header` replaces what was refused under the number that it names.
    pub(super) fn is_replacement(&self, header: &BlockHeader) -> bool {
        let refused = header.replaces.and_then(|number| self.refused.get(&number));
        refused.is_some_and(|refused| {
            (refused.stream, refused.stream_offset, refused.plain_length)
                == (header.stream, header.stream_offset, header.plain_length)
        })
    }

    pub(super) fn replaced(&mut self, number: u64) {
        self.refused.remove(&number);
    }

    /// The stream wants nothing any more.
    pub(super) fn forget_refused(&mut self, stream: StreamId) {
        self.refused.retain(|_, refused| refused.stream != stream);
    }

    // ---- acknowledging ----

    /// Whether everything that was acted on has been acknowledged.
    pub(super) fn owes_nothing(&self) -> bool {
        self.to_acknowledge.is_empty() && self.refuses_to_send.is_empty()
    }

    pub(super) fn ack_deadline(&self) -> Option<Instant> {
        if self.ack_now { None } else { self.ack_due }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.ack_now |= self.ack_due.is_some_and(|due| due <= now);
    }

    /// The peer may not have heard what was said last: all that is finished is acknowledged again, and what waits for a replacement is refused again.
    /// What of the finished was refused and is not wanted any more is acknowledged like the rest, for nothing of it is to come again; ranges that
    /// were lost with it are learnt by a Refuse of what refers to them.
    pub(super) fn report_again(&mut self) {
        let refused: RangeSet = self
            .refused
            .keys()
            .map(|number| *number..number + 1)
            .collect();
        let mut report = self.finished.clone();
        report.remove_all(&refused);
        self.to_acknowledge.insert_all(&report);
        self.ack_now |= !self.to_acknowledge.is_empty();
        self.repeat_all = !self.refused.is_empty();
    }

    /// The Acks and Refuses to send now: those that are due, or all if they can ride with something.
    pub(super) fn poll_acknowledgements(&mut self, riding: bool, out: &mut Vec<Frame>) {
        out.extend(self.refuses_to_send.drain(..).map(Frame::Refuse));
        if std::mem::take(&mut self.repeat_all) {
            let refused = self.refused.values();
            out.extend(refused.map(|refused| Frame::Refuse(refused.refuse.clone())));
        }
        if self.to_acknowledge.is_empty() || !(riding || self.ack_now) {
            return;
        }
        self.repeat_refuses(out);
        while !self.to_acknowledge.is_empty() {
            let numbers: RangeSet = self
                .to_acknowledge
                .iter()
                .rev()
                .take(ACK_RANGES_MAX)
                .collect();
            self.to_acknowledge.remove_all(&numbers);
            loop {
                let count = self.not_stored.len().min(ACK_NOT_STORED_MAX);
                let not_stored = self.not_stored.drain(..count).collect();
                out.push(Frame::Ack(Ack {
                    numbers: numbers.clone(),
                    not_stored,
                }));
                if self.not_stored.is_empty() {
                    break;
                }
            }
        }
        self.ack_due = None;
        self.ack_now = false;
        self.unacknowledged_bytes = 0;
    }

    /// Some of those that wait, each time others.
    fn repeat_refuses(&mut self, out: &mut Vec<Frame>) {
        let mut next: Vec<&RefusedBlock> = self
            .refused
            .range(self.repeated_up_to..)
            .take(REPEATS_PER_ACK)
            .map(|(_, refused)| refused)
            .collect();
        if next.is_empty() {
            next = self.refused.values().take(REPEATS_PER_ACK).collect();
        }
        self.repeated_up_to = next.last().map_or(0, |refused| refused.refuse.number + 1);
        out.extend(
            next.into_iter()
                .map(|refused| Frame::Refuse(refused.refuse.clone())),
        );
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn numbers_far_ahead_are_refused() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        assert_eq!(inbound.number(1 + NUMBER_WINDOW), Ok(NumberState::New));
        let beyond = Violation::NumberBeyondWindow {
            number: 2 + NUMBER_WINDOW,
            lowest: 1,
        };
        assert_eq!(inbound.number(2 + NUMBER_WINDOW), Err(beyond));
        inbound.finish(1, now);
        assert_eq!(inbound.number(2 + NUMBER_WINDOW), Ok(NumberState::New));
        assert_eq!(inbound.number(1), Ok(NumberState::Finished));
    }

    #[test]
    fn acks_ride_along_or_go_when_due() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        let mut out = Vec::new();
        inbound.finish(1, now);
        inbound.finish(3, now);
        inbound.poll_acknowledgements(false, &mut out);
        assert_eq!(out, []);
        assert_eq!(inbound.ack_deadline(), Some(now + ACK_DELAY));
        inbound.handle_timeout(now + ACK_DELAY);
        assert_eq!(inbound.ack_deadline(), None);
        inbound.poll_acknowledgements(false, &mut out);
        let numbers = [1..2, 3..4].into_iter().collect();
        assert_eq!(
            out,
            [Frame::Ack(Ack {
                numbers,
                not_stored: Vec::new()
            })]
        );
        inbound.finish(2, now);
        inbound.received(256 << 10);
        out.clear();
        inbound.poll_acknowledgements(false, &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn many_ranges_take_several_acks() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        for number in 0..600 {
            inbound.finish(2 * number + 1, now);
        }
        for position in 0..100 {
            let span = codec::block::Span {
                position,
                length: 1,
            };
            inbound.not_stored(NotStored {
                domain: DomainId::SHARED,
                span,
            });
        }
        let mut out = Vec::new();
        inbound.poll_acknowledgements(true, &mut out);
        let (mut numbers, mut not_stored) = (RangeSet::new(), 0);
        for frame in out {
            let Frame::Ack(ack) = frame else {
                unreachable!("only Acks are due")
            };
            assert!(
                ack.numbers.range_count() <= ACK_RANGES_MAX
                    && ack.not_stored.len() <= ACK_NOT_STORED_MAX
            );
            numbers.insert_all(&ack.numbers);
            not_stored += ack.not_stored.len();
        }
        assert_eq!((numbers.range_count(), not_stored), (600, 100));
    }

    #[test]
    fn refusals_are_repeated_until_replaced() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        let header = BlockHeader {
            version: codec::block::BlockVersion::One,
            stream: StreamId(1),
            stream_offset: 5,
            plain_length: 4,
            body: BodyKind::Raw,
            domain: None,
            append: None,
            prefix: None,
            diagonals: [None, None],
            inner_length: 0,
            replaces: None,
            checksum: None,
        };
        let block = InBlock {
            waits: 0,
            header: header.clone(),
            body: Vec::new(),
            header_bytes: 5,
            received_bytes: 9,
            state: BlockState::Decoding,
        };
        let refuse = Refuse {
            number: 7,
            reason: codec::frame::RefuseReason::Damaged,
            lost: Vec::new(),
        };
        inbound.refuse(refuse.clone(), &block, true).unwrap();
        let mut out = Vec::new();
        inbound.poll_acknowledgements(false, &mut out);
        assert_eq!(
            out,
            [Frame::Refuse(refuse.clone())],
            "the first one goes at once"
        );
        out.clear();
        inbound.finish(8, now);
        inbound.poll_acknowledgements(true, &mut out);
        assert_eq!(out.first(), Some(&Frame::Refuse(refuse)));
        let replacement = BlockHeader {
            replaces: Some(7),
            ..header.clone()
        };
        assert!(inbound.is_replacement(&replacement));
        assert!(!inbound.is_replacement(&BlockHeader {
            stream_offset: 6,
            ..replacement
        }));
        inbound.replaced(7);
        out.clear();
        inbound.finish(9, now);
        inbound.poll_acknowledgements(true, &mut out);
        assert_eq!(out.len(), 1);
    }
}
