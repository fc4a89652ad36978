//! Blocks arrive: fragments are joined, append ranges registered in order, bodies decoded in any order, plain bytes delivered in the stream's.

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use codec::block::{BlockHeader, HEADER_MAX_BYTES, Source, Space};
use codec::decoder::Decoded;
use codec::domain::Log;
use codec::encoder::Tally;
use codec::error::DecodeError;
use codec::frame::{
    Data, DomainId, FrameKind, Lost, NotStored, REFUSE_LOST_MAX, Refuse, RefuseReason, data_header,
};

use super::inbound::{BlockState, InBlock, NumberState, REFUSED_MAX};
use super::jobs::{DecodeJob, Purpose};
use super::retention::NUMBER_WINDOW;
use super::stream::RecvState;
use super::{Tunnel, Violation};
use crate::pieces::{belong_together, join};

/// Encoded bytes of blocks that wait for ranges that others fill; a block beyond is refused.
const PARKED_MAX_BYTES: usize = 4 << 20;

/// A block is decoded anew after each wait; one that copies from so many places that others still fill is refused. A correct peer's copies are of few
/// blocks that are under way.
const WAITS_MAX: u32 = 64;

/// Small pieces that wait behind gaps. Behind each gap of a correct peer a block is missing, which is under way or was refused.
#[expect(clippy::cast_possible_truncation, reason = "65,536")]
const SCATTERED_MAX: usize = NUMBER_WINDOW as usize + REFUSED_MAX;

impl Tunnel {
    /// A fragment of a block.
    pub(super) fn handle_data(&mut self, data: Data, now: Instant) -> Result<(), Violation> {
        let Data {
            number,
            offset,
            last,
            bytes,
        } = data;
        match self.inbound.number(number)? {
            NumberState::Finished => return Ok(()),
            NumberState::New => self.begin_incoming(number, offset, bytes, now)?,
            NumberState::UnderWay => self.continue_incoming(number, offset, bytes)?,
        }
        if last {
            self.complete(number, now)?;
        }
        Ok(())
    }

    fn begin_incoming(
        &mut self,
        number: u64,
        offset: u64,
        bytes: Bytes,
        now: Instant,
    ) -> Result<(), Violation> {
        if offset != 0 {
            return Err(Violation::FragmentGap { number, offset });
        }
        let received = bytes.len();
        let frame_bytes = data_header(number, offset, false, received.max(1)).len() + received;
        let mut body = bytes;
        self.received_ends
            .advance(self.inbound.frontier(), |stream| {
                self.streams.contains_key(&stream)
            });
        let known = |stream, domain| self.received_ends.of(stream, domain);
        let header = BlockHeader::decode(&mut body, self.config.blocks, known)?;
        let header_bytes = (received - body.len()) as u64;
        let (id, plain) = (header.stream, u64::from(header.plain_length));
        self.check_known(FrameKind::Data, id)?;
        let end = header
            .stream_offset
            .checked_add(plain)
            .ok_or(Violation::BeyondCredit {
                stream: id,
                end: u64::MAX,
                granted: 0,
            })?;
        if let Some(domain) = header.domain
            && self.domains.held(domain).is_none()
        {
            return Err(Violation::DomainNotHeld(domain));
        }
        let block = InBlock {
            header_bytes,
            received_bytes: received as u64,
            body: Vec::from_iter(Some(body).filter(|body| !body.is_empty())),
            state: BlockState::Assembling,
            waits: 0,
            header,
        };
        self.check_room(&block, plain)?;
        if block.received_bytes > block.encoded_max_bytes() {
            return Err(Violation::BlockLength(number));
        }
        let is_replacement = self.inbound.is_replacement(&block.header);
        let mut is_small = false;
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.recv.state == RecvState::Open
        {
            let recv = &mut stream.recv;
            let granted = recv.window.granted();
            if end > granted {
                return Err(Violation::BeyondCredit {
                    stream: id,
                    end,
                    granted,
                });
            }
            if recv.finish.is_some_and(|finish| end > finish) {
                return Err(Violation::FinishContradicted(id));
            }
            if let Some(replaced) = block.header.replaces
                && !is_replacement
            {
                return Err(Violation::ReplacementUnasked(replaced));
            }
            if !recv.order.announce(block.header.stream_offset, plain) {
                return Err(Violation::DataRepeated {
                    stream: id,
                    offset: block.header.stream_offset,
                });
            }
            // Bytes say that the stream uses what it has: what it could not be offered before, or gave back, may be had now.
            is_small = recv.window.is_small();
            stream.count_received(frame_bytes);
        }
        if let (Some(append), Some(domain)) = (block.header.append, block.header.domain)
            && let Some(held) = self.domains.held(domain)
        {
            // What it skips, blocks may fill that are still under way on another link.
            if self.inbound.is_next(number) {
                held.register(append)?;
            } else if held.register_ahead(append)? {
                self.inbound.note_gap(number, domain, append.position);
            }
        }
        if let Some(replaced) = block.header.replaces.filter(|_| is_replacement) {
            self.inbound.replaced(replaced);
        }
        self.received_ends.begin(number, &block.header);
        self.inbound.begin_block(number, block);
        self.inbound.received(received);
        if is_small {
            self.grow_at_open(id, now);
        }
        Ok(())
    }

    fn continue_incoming(
        &mut self,
        number: u64,
        offset: u64,
        mut bytes: Bytes,
    ) -> Result<(), Violation> {
        let Some(block) = self.inbound.blocks.get_mut(&number) else {
            return Ok(());
        };
        if block.state != BlockState::Assembling {
            return Ok(());
        }
        let Some(known) = block.received_bytes.checked_sub(offset) else {
            return Err(Violation::FragmentGap { number, offset });
        };
        // Cut anew for another link, a fragment may repeat what came before.
        let known = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let bytes = bytes.split_off(known);
        let more = bytes.len() as u64;
        if block.received_bytes + more > block.encoded_max_bytes() {
            return Err(Violation::BlockLength(number));
        }
        let id = block.header.stream;
        if more > 0 {
            block.received_bytes += more;
            match block.body.last_mut() {
                Some(last) if belong_together(last, &bytes) => {
                    *last = join(std::mem::take(last), &bytes);
                }
                _ => block.body.push(bytes),
            }
        }
        self.inbound.grow_block(more);
        let (encoded, _) = self.inbound.under_way_bytes();
        if encoded > self.encoded_limit_bytes() {
            return Err(Violation::UnacknowledgedBeyondLimit);
        }
        let length = usize::try_from(more).unwrap_or(0);
        self.inbound.received(length);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.count_received(data_header(number, offset, false, length.max(1)).len() + length);
        }
        Ok(())
    }

    /// A peer that was told less than one block may still send one.
    fn encoded_limit_bytes(&self) -> u64 {
        let one = codec::frame::BLOCK_ENCODED_MAX + HEADER_MAX_BYTES as u64;
        self.config.local.unacknowledged_encoded_max_bytes.max(one)
    }

    fn check_room(&self, block: &InBlock, plain: u64) -> Result<(), Violation> {
        let (encoded, under_way) = self.inbound.under_way_bytes();
        let plain_limit = self
            .config
            .local
            .unacknowledged_plain_max_bytes
            .max(u64::from(codec::block::BLOCK_PLAIN_MAX));
        if encoded + block.received_bytes > self.encoded_limit_bytes()
            || under_way + plain > plain_limit
        {
            return Err(Violation::UnacknowledgedBeyondLimit);
        }
        Ok(())
    }

    /// A block's last fragment has come.
    fn complete(&mut self, number: u64, now: Instant) -> Result<(), Violation> {
        let Some(block) = self
            .inbound
            .blocks
            .get_mut(&number)
            .filter(|block| block.state == BlockState::Assembling)
        else {
            return Ok(());
        };
        if !block.is_complete_length() {
            return Err(Violation::BlockLength(number));
        }
        block.state = BlockState::Decoding;
        let wanted = self
            .streams
            .get(&block.header.stream)
            .is_some_and(|stream| stream.recv.state == RecvState::Open);
        if !wanted && block.header.append.is_none() {
            // Nobody wants its bytes, and no history does.
            self.inbound.end_block(number);
            self.inbound.finish(number, now);
            return Ok(());
        }
        self.jobs.decode.push_back(number);
        Ok(())
    }

    pub(super) fn decode_job(&mut self) -> Option<DecodeJob> {
        loop {
            let number = self.jobs.decode.pop_front()?;
            let Some(block) = self.inbound.blocks.get_mut(&number) else {
                continue;
            };
            let domain = block
                .header
                .domain
                .and_then(|domain| self.domains.held(domain))
                .cloned();
            let header = block.header.clone();
            let body = std::mem::take(&mut block.body);
            let id = self.jobs.start(Purpose::Decode { number });
            return Some(DecodeJob {
                id,
                domain,
                header,
                body,
            });
        }
    }

    /// A decode job came back.
    pub(super) fn decoded(
        &mut self,
        number: u64,
        result: Result<Decoded, DecodeError>,
        body: Vec<Bytes>,
        now: Instant,
    ) -> Result<(), Violation> {
        match result {
            Ok(Decoded {
                plain,
                stored,
                tally,
            }) => {
                self.count_received(number, tally);
                self.accept_block(number, plain, stored, now);
                if self.scattered.count() > SCATTERED_MAX {
                    return Err(Violation::TooScattered);
                }
                Ok(())
            }
            Err(DecodeError::Waits { log, span }) => {
                self.park(number, log, &span.range(), body, now)
            }
            Err(DecodeError::NotResident) => {
                // Whoever runs jobs runs those that wait on a thread that may: this one came back too early, and is done again.
                if let Some(block) = self.inbound.blocks.get_mut(&number) {
                    block.body = body;
                    self.jobs.decode.push_back(number);
                }
                Ok(())
            }
            Err(DecodeError::Refused { reason, lost }) => {
                self.refuse_block(number, reason, &lost, now)
            }
            Err(DecodeError::Violation(violation)) => Err(violation.into()),
        }
    }

    fn count_received(&self, number: u64, tally: Tally) {
        let stream = self.inbound.blocks.get(&number).map(|b| b.header.stream);
        if let Some(stream) = stream.and_then(|stream| self.streams.get(&stream)) {
            stream.counted.series.codec.received.add(tally);
        }
    }

    /// A decode job panicked: its stream ends here, and its append range is not stored.
    pub(super) fn decode_lost(&mut self, number: u64, now: Instant) {
        let Some(block) = self.inbound.blocks.get(&number) else {
            return;
        };
        let (stream, reason) = (block.header.stream, codec::frame::Reason::Internal);
        if let Some(of) = self.streams.get(&stream)
            && of.recv.state == RecvState::Open
        {
            self.events
                .push_back(super::Event::Reset { stream, reason });
            self.stop_sending(stream, reason, now);
        }
        self.accept_block(number, Bytes::new(), false, now);
    }

    fn accept_block(&mut self, number: u64, plain: Bytes, stored: bool, now: Instant) {
        let Some(block) = self.inbound.end_block(number) else {
            return;
        };
        let header = block.header;
        if let (Some(domain), Some(append)) = (header.domain, header.append) {
            if !stored {
                self.inbound.not_stored(NotStored {
                    domain,
                    span: append,
                });
                self.lose(domain, Log::Mirror, &append.range());
            }
            self.unpark(domain, &append.range());
        }
        self.inbound.finish(number, now);
        if let Some(stream) = self.streams.get_mut(&header.stream)
            && stream.recv.state == RecvState::Open
        {
            stream.recv.order.insert(header.stream_offset, plain);
            self.deliver(header.stream, now);
        }
    }

    /// Gaps in histories that nothing under way can fill any more are holes.
    pub(super) fn close_gaps(&mut self) {
        while let Some((domain, end)) = self.inbound.pop_gap() {
            if let Some(domain) = self.domains.held(domain) {
                domain.close_gaps(end);
            }
        }
    }

    fn lose(&self, domain: DomainId, log: Log, range: &Range<u64>) {
        if let Some(domain) = self.domains.held(domain) {
            domain.lose(log, range.start, range.end - range.start);
        }
    }

    // ---- waiting for other blocks ----

    fn park(
        &mut self,
        number: u64,
        log: Log,
        range: &Range<u64>,
        body: Vec<Bytes>,
        now: Instant,
    ) -> Result<(), Violation> {
        if log == Log::Own {
            // It knows what it has decoded, and that was handed to a link whole.
            let position = range.start;
            return Err(codec::error::Violation::NeverSent { position }.into());
        }
        let Some(block) = self.inbound.blocks.get_mut(&number) else {
            return Ok(());
        };
        block.body = body;
        let domain = block.header.domain;
        let bytes = usize::try_from(block.received_bytes).unwrap_or(usize::MAX);
        let awaited = domain.and_then(|domain| {
            let position = self.inbound.first_unfilled(domain, range)?;
            Some((domain, position))
        });
        let Some((domain, position)) = awaited else {
            // Filled, or given up, while the job was on its way back.
            self.jobs.decode.push_back(number);
            return Ok(());
        };
        let block = self.inbound.blocks.get_mut(&number);
        let waits = block.map_or(0, |block| {
            block.waits += 1;
            block.waits
        });
        let fits = waits <= WAITS_MAX
            && self.memory.parked.used_bytes().saturating_add(bytes) <= PARKED_MAX_BYTES;
        if !fits || !self.memory.parked.try_take(bytes) {
            return self.refuse_block(number, RefuseReason::Overload, &[], now);
        }
        if let Some(block) = self.inbound.blocks.get_mut(&number) {
            block.state = BlockState::Parked;
            self.inbound.parked.insert(domain, position, number);
        }
        Ok(())
    }

    /// A range was filled or given up: whoever waits for it tries again.
    fn unpark(&mut self, domain: DomainId, range: &Range<u64>) {
        for number in self.inbound.parked.take(domain, range) {
            let Some(block) = self.inbound.blocks.get_mut(&number) else {
                continue;
            };
            block.state = BlockState::Decoding;
            let bytes = usize::try_from(block.received_bytes).unwrap_or(usize::MAX);
            self.memory.parked.give(bytes);
            self.jobs.decode.push_back(number);
        }
    }

    // ---- refusing ----

    /// Gives a block up: it must come again, whole and without references.
    fn refuse_block(
        &mut self,
        number: u64,
        reason: RefuseReason,
        lost: &[Source],
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(block) = self.inbound.end_block(number) else {
            return Ok(());
        };
        if block.header.replaces.is_some() {
            return Err(Violation::ReplacementRefused(number));
        }
        self.registry.count_refused(reason);
        let mut report = Vec::new();
        if let Some(domain) = block.header.domain {
            for source in lost {
                let log = match source.space {
                    Space::Sender => Log::Mirror,
                    Space::Receiver => Log::Own,
                };
                self.lose(domain, log, &source.span().range());
            }
            report.extend(lost.iter().take(REFUSE_LOST_MAX).map(|source| Lost {
                domain,
                source: *source,
            }));
            if let Some(append) = block.header.append {
                self.lose(domain, Log::Mirror, &append.range());
                self.unpark(domain, &append.range());
            }
        }
        let header = &block.header;
        let mut wanted = false;
        if let Some(stream) = self.streams.get_mut(&header.stream)
            && stream.recv.state == RecvState::Open
        {
            wanted = true;
            stream
                .recv
                .order
                .withdraw(header.stream_offset, u64::from(header.plain_length));
        }
        self.inbound.refuse(
            Refuse {
                number,
                reason,
                lost: report,
            },
            &block,
            wanted,
        )?;
        self.close_if_over(header.stream, now);
        Ok(())
    }
}
