//! Plain bytes become blocks: which stream's turn it is, how far ahead of the link, and what comes back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::block::BlockHeader;
use codec::encoder::{EncodeRequest, Encoded};
use codec::frame::{DomainId, Reason, StreamId};

use super::domains::Pins;
use super::jobs::{CodecDone, CodecJob, EncodeJob, JobId, JobResult, Purpose, RebuildJob};
use super::stream::Slot;
use super::timers::Timer;
use super::{Event, LinkId, Tunnel};

/// Blocks are encoded ahead for this much of the line's time, or for two more than there are threads, whichever is more.
pub(super) const AHEAD: Duration = Duration::from_millis(100);
/// See [`AHEAD`].
pub(super) const AHEAD_BEYOND_THREADS: usize = 2;

/// Codec work of the tunnel: what is to be done, what is being done, and what is done and not yet sent.
#[derive(Debug, Default)]
pub(super) struct JobBoard {
    next: u64,
    outstanding: HashMap<JobId, Purpose>,
    /// Numbers of blocks to decode.
    pub(super) decode: VecDeque<u64>,
    rebuild: VecDeque<Rebuild>,
    /// Streams that have bytes to cut and nothing ahead of the link: they need not wait until others' blocks have gone.
    first: VecDeque<StreamId>,
    /// Streams that have bytes to cut and blocks ahead of the link.
    more: VecDeque<StreamId>,
    encoding_blocks: usize,
    encoding_plain_bytes: u64,
    ready_blocks: usize,
    ready_encoded_bytes: u64,
    ready_plain_bytes: u64,
    /// Of those that are for a certain link.
    ahead: BTreeMap<LinkId, Ahead>,
}

/// Blocks for one link that are being encoded or wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ahead {
    pub(super) blocks: usize,
    /// Plain ones while they are encoded, then encoded ones.
    pub(super) bytes: u64,
}

/// A refused block that is to be sent again.
#[derive(Debug)]
pub(super) struct Rebuild {
    pub(super) number: u64,
    pub(super) stream: StreamId,
    pub(super) header: Box<BlockHeader>,
    pub(super) body: Bytes,
    pub(super) plain_bytes: u64,
    pub(super) pins: Pins,
}

impl JobBoard {
    /// The id that the next job gets.
    pub(super) fn next_id(&self) -> JobId {
        JobId(self.next)
    }

    /// Encoded bytes that wait for the line.
    pub(super) const fn ready_encoded_bytes(&self) -> u64 {
        self.ready_encoded_bytes
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    pub(super) fn start(&mut self, purpose: Purpose) -> JobId {
        let id = self.next_id();
        self.next += 1;
        self.outstanding.insert(id, purpose);
        id
    }

    pub(super) fn push_rebuild(&mut self, rebuild: Rebuild) {
        self.rebuild.push_back(rebuild);
    }

    /// The tunnel is over; ids stay unique for jobs that are still out.
    pub(super) fn clear(&mut self) {
        *self = Self {
            next: self.next,
            ..Self::default()
        };
    }

    /// What is ahead of `link`.
    pub(super) fn ahead_of(&self, link: LinkId) -> Ahead {
        self.ahead.get(&link).copied().unwrap_or_default()
    }

    fn put_ahead(&mut self, link: LinkId, bytes: u64) {
        let ahead = self.ahead.entry(link).or_default();
        ahead.blocks += 1;
        ahead.bytes += bytes;
    }

    fn take_ahead(&mut self, link: LinkId, bytes: u64) {
        if let Some(ahead) = self.ahead.get_mut(&link) {
            ahead.blocks -= 1;
            ahead.bytes -= bytes;
            if ahead.blocks == 0 {
                self.ahead.remove(&link);
            }
        }
    }

    /// What was for `from` is for `to` from now on.
    pub(super) fn move_ahead(&mut self, from: LinkId, to: LinkId) {
        if let Some(moved) = self.ahead.remove(&from) {
            let ahead = self.ahead.entry(to).or_default();
            ahead.blocks += moved.blocks;
            ahead.bytes += moved.bytes;
        }
        for purpose in self.outstanding.values_mut() {
            if let Purpose::Encode { link, .. } = purpose
                && *link == from
            {
                *link = to;
            }
        }
    }

    /// `link`: the one it is for, if it is for a certain one.
    fn ready(&mut self, block: &Encoded, link: Option<LinkId>) {
        self.ready_blocks += 1;
        self.ready_encoded_bytes += encoded_bytes(block);
        self.ready_plain_bytes += plain_bytes(block);
        if let Some(link) = link {
            self.put_ahead(link, encoded_bytes(block));
        }
    }

    fn unready(&mut self, block: &Encoded, link: Option<LinkId>) {
        self.ready_blocks -= 1;
        self.ready_encoded_bytes -= encoded_bytes(block);
        self.ready_plain_bytes -= plain_bytes(block);
        if let Some(link) = link {
            self.take_ahead(link, encoded_bytes(block));
        }
    }
}

/// What a block is taken to need in memory and of the peer's limit until it is sent.
fn encoded_bytes(block: &Encoded) -> u64 {
    block.encoded_bytes_bound() as u64
}

fn plain_bytes(block: &Encoded) -> u64 {
    u64::from(block.header().plain_length)
}

impl Tunnel {
    /// The next codec job, if there is one worth doing now. Decoding goes first.
    pub fn poll_job(&mut self, now: Instant) -> Option<(JobId, CodecJob)> {
        if self.is_over {
            return None;
        }
        let job = self
            .decode_job()
            .map(CodecJob::Decode)
            .or_else(|| self.rebuild_job().map(CodecJob::Rebuild));
        let job = job.or_else(|| self.encode_job(now).map(CodecJob::Encode))?;
        Some((job.id(), job))
    }

    /// Takes what a job made. Results may come in any order; those of a stream that has ended are dropped.
    pub fn handle_job(&mut self, done: CodecDone, now: Instant) {
        let Some(purpose) = self.jobs.outstanding.remove(&done.id) else {
            return;
        };
        match (purpose, done.result) {
            (Purpose::Decode { number }, JobResult::Decoded { result, body }) => {
                if let Err(violation) = self.decoded(number, result, body, now) {
                    self.violated(violation);
                }
                self.close_gaps();
            }
            (
                Purpose::Encode {
                    stream,
                    plain_bytes,
                    stream_offset,
                    started,
                    domain,
                    link,
                },
                JobResult::Encoded(block),
            ) => {
                self.encode_ended(done.id, plain_bytes, domain, link);
                self.observe(&block, now.saturating_duration_since(started), now);
                self.encoded(done.id, stream, stream_offset, block);
                self.raise_floors(now);
                self.wake_starved();
            }
            (
                Purpose::Rebuild {
                    stream,
                    plain_bytes,
                    pins,
                },
                JobResult::Rebuilt(block),
            ) => {
                self.rebuild_ended(plain_bytes, pins);
                self.rebuilt(stream, block, now);
            }
            (purpose, _) => {
                debug_assert!(false, "the result of another kind of job for {purpose:?}")
            }
        }
    }

    /// A job will not come back: it panicked or was dropped. Its stream is reset.
    pub fn job_lost(&mut self, id: JobId, now: Instant) {
        let Some(purpose) = self.jobs.outstanding.remove(&id) else {
            return;
        };
        match purpose {
            Purpose::Decode { number } => self.decode_lost(number, now),
            Purpose::Encode {
                stream,
                plain_bytes,
                domain,
                link,
                ..
            } => {
                self.encode_ended(id, plain_bytes, domain, link);
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.send.encoding = stream.send.encoding.saturating_sub(1);
                }
                self.fail_sending(stream, Reason::Internal, now);
                self.wake_starved();
            }
            Purpose::Rebuild {
                stream,
                plain_bytes,
                pins,
            } => {
                self.rebuild_ended(plain_bytes, pins);
                self.rebuilt(stream, None, now);
            }
        }
    }

    // ---- cutting ----

    /// The stream has bytes, credit, or room again: it is looked at for the next block.
    pub(super) fn want_encode(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let send = &mut stream.send;
        if send.queued_bytes == 0 || !send.delivers() {
            return;
        }
        if send.pipeline.is_empty() {
            if !std::mem::replace(&mut send.in_encode_first, true) {
                self.jobs.first.push_back(id);
            }
        } else if !send.in_encode_first && !std::mem::replace(&mut send.in_encode_more, true) {
            self.jobs.more.push_back(id);
        }
    }

    /// A held block's time may have come.
    pub(super) fn gap_timer(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.queued_bytes > 0 {
            if now >= stream.send.hold_until() {
                stream.send.gap();
            }
            self.want_encode(id);
        }
    }

    fn encode_job(&mut self, now: Instant) -> Option<EncodeJob> {
        let is_wanted = !self.jobs.first.is_empty() || !self.jobs.more.is_empty();
        if !is_wanted || !self.has_room_for(u64::from(codec::block::BLOCK_PLAIN_MAX)) {
            return None;
        }
        while let Some(id) = self.jobs.first.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.send.in_encode_first = false;
            if !stream.send.pipeline.is_empty() {
                self.want_encode(id);
            } else if let Some(job) = self.cut(id, now) {
                return Some(job);
            }
        }
        while self.may_run_ahead() {
            let id = self.jobs.more.pop_front()?;
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.send.in_encode_more = false;
            if let Some(job) = self.cut(id, now) {
                return Some(job);
            }
        }
        None
    }

    /// Whether a further block stays within what the peer accepts unacknowledged and what the budget gives.
    fn has_room_for(&mut self, plain: u64) -> bool {
        let board = &self.jobs;
        let bound = plain + codec::block::HEADER_MAX_BYTES as u64;
        // A peer that accepts less than one block is taken to accept one.
        let encoded_limit = self.config.peer.unacknowledged_encoded_max_bytes.max(bound);
        let plain_limit = self.config.peer.unacknowledged_plain_max_bytes.max(plain);
        let headers = (board.encoding_blocks * codec::block::HEADER_MAX_BYTES) as u64;
        let encoded = self.retention.encoded_bytes()
            + board.ready_encoded_bytes
            + board.encoding_plain_bytes
            + headers;
        let unacknowledged_plain =
            self.retention.plain_bytes() + board.ready_plain_bytes + board.encoding_plain_bytes;
        if encoded + bound > encoded_limit || unacknowledged_plain + plain > plain_limit {
            return false;
        }
        let wanted = usize::try_from(bound).unwrap_or(usize::MAX);
        // With nothing under way nothing would come back: one block always goes.
        let is_idle = self.memory.retained.used_bytes() == 0 && self.jobs.encoding_blocks == 0;
        is_idle || self.memory.retained.has_free(wanted)
    }

    /// Whether more blocks should be made ahead of the link.
    fn may_run_ahead(&self) -> bool {
        if self.links.len() > 1 {
            return self.has_link_with_room();
        }
        let board = &self.jobs;
        let blocks = board.encoding_blocks + board.ready_blocks;
        if blocks < self.config.codec_threads + AHEAD_BEYOND_THREADS {
            return true;
        }
        let limit = self
            .path()
            .and_then(|path| path.bytes_in(AHEAD))
            .unwrap_or(0);
        board.ready_encoded_bytes + board.encoding_plain_bytes < limit
    }

    /// Cuts the stream's next block, or sees to it that it is looked at again.
    fn cut(&mut self, id: StreamId, now: Instant) -> Option<EncodeJob> {
        let room = self.memory.queued.has_free(1);
        let stream = self.streams.get_mut(&id)?;
        let send = &mut stream.send;
        if let Some(until) = send.cut_waits(room, now) {
            if let Some(until) = until {
                self.timers.set(until, id, Timer::Gap);
            }
            return None;
        }
        let stream_offset = send.cut_offset;
        let plain = send.cut();
        let plain_bytes = plain.len() as u64;
        send.encoding += 1;
        let may_append = !self.going_away && !self.peer_going_away;
        let domain = stream
            .domain
            .and_then(|domain| Some((domain, self.domains.agreed(domain)?.clone())));
        let domain_id = domain.as_ref().map(|(id, _)| *id);
        let is_known = stream.is_known;
        let link = if is_known {
            self.link_for(plain_bytes, now)
        } else {
            self.first_link
        };
        let avoid = domain.as_ref().and_then(|domain| self.avoid(domain, link));
        let purpose = Purpose::Encode {
            stream: id,
            plain_bytes,
            stream_offset,
            started: now,
            domain: domain_id,
            link,
        };
        let job = self.jobs.start(purpose);
        if let Some(domain) = domain_id {
            self.domains.job_started(domain, job);
        }
        self.jobs.encoding_blocks += 1;
        self.jobs.encoding_plain_bytes += plain_bytes;
        self.jobs.put_ahead(link, plain_bytes);
        let send = &mut self.streams.get_mut(&id)?.send;
        send.pipeline.push_back(Slot::Encoding(job, link));
        let request = EncodeRequest {
            version: self.config.blocks,
            stream: id,
            stream_offset,
            plain,
            domain,
            may_copy: true,
            may_append,
            level: self.level.of(plain_bytes),
            hint: send.hint,
            habit: send.habit,
            replaces: None,
            avoid,
        };
        self.want_encode(id);
        self.tell_writable(id);
        Some(EncodeJob { id: job, request })
    }

    // ---- what comes back ----

    fn encode_ended(
        &mut self,
        job: JobId,
        plain_bytes: u64,
        domain: Option<DomainId>,
        link: LinkId,
    ) {
        self.jobs.take_ahead(link, plain_bytes);
        self.jobs.encoding_blocks -= 1;
        self.jobs.encoding_plain_bytes -= plain_bytes;
        self.memory
            .queued
            .give(usize::try_from(plain_bytes).unwrap_or(usize::MAX));
        if let Some(domain) = domain {
            self.domains.job_ended(domain, job);
        }
    }

    fn encoded(&mut self, job: JobId, id: StreamId, stream_offset: u64, block: Box<Encoded>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let send = &mut stream.send;
        send.encoding = send.encoding.saturating_sub(1);
        if stream_offset >= send.hint_offset {
            send.hint = block.continuation;
            send.hint_offset = stream_offset;
            send.habit = block.habit;
            send.learn(block.tally);
        }
        let Some(slot) = send
            .pipeline
            .iter_mut()
            .find(|slot| matches!(slot, Slot::Encoding(waiting, _) if *waiting == job))
        else {
            // The stream was reset meanwhile: what has not begun is dropped.
            return;
        };
        let codec = &stream.counted.series.codec;
        codec.sent.add(block.tally);
        let link = slot.link();
        self.jobs.ready(&block, Some(link));
        self.memory.retained.take(block.encoded_bytes_bound());
        self.domains.pin(Pins {
            domain: stream.domain,
            uses: block.uses,
        });
        *slot = Slot::Ready(block, link);
        self.want_encode(id);
        self.activate_on(link, id);
    }

    /// An encoded block leaves the queue: to be sent, or to be dropped. Returns its pins, which stay.
    pub(super) fn take_ready(
        &mut self,
        block: &Encoded,
        link: Option<LinkId>,
        domain: Option<DomainId>,
    ) -> Pins {
        self.jobs.unready(block, link);
        self.memory.retained.give(block.encoded_bytes_bound());
        Pins {
            domain,
            uses: block.uses,
        }
    }

    /// An encoded block will not be sent.
    pub(super) fn unready(
        &mut self,
        block: &Encoded,
        link: Option<LinkId>,
        domain: Option<DomainId>,
    ) {
        let pins = self.take_ready(block, link, domain);
        self.domains.unpin(pins);
    }

    // ---- sending refused blocks again ----

    fn rebuild_job(&mut self) -> Option<RebuildJob> {
        let plain = self.jobs.rebuild.front()?.plain_bytes;
        if !self.has_room_for(plain) {
            return None;
        }
        let Rebuild {
            number,
            stream,
            header,
            body,
            plain_bytes,
            pins,
        } = self.jobs.rebuild.pop_front()?;
        self.jobs.encoding_blocks += 1;
        self.jobs.encoding_plain_bytes += plain_bytes;
        let domain = pins
            .domain
            .and_then(|domain| self.domains.held(domain))
            .cloned();
        let id = self.jobs.start(Purpose::Rebuild {
            stream,
            plain_bytes,
            pins,
        });
        Some(RebuildJob {
            id,
            number,
            domain,
            header,
            body,
            level: self.level.of(plain_bytes),
        })
    }

    fn rebuild_ended(&mut self, plain_bytes: u64, pins: Pins) {
        self.jobs.encoding_blocks -= 1;
        self.jobs.encoding_plain_bytes -= plain_bytes;
        self.domains.unpin(pins);
    }

    fn rebuilt(&mut self, id: StreamId, block: Option<Box<Encoded>>, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.send.rebuilding -= 1;
        match block {
            Some(block) if stream.send.delivers() => {
                self.jobs.ready(&block, None);
                self.memory.retained.take(block.encoded_bytes_bound());
                stream.send.repeats.push_back(block);
                self.activate(id);
            }
            Some(_) => self.close_if_over(id, now),
            None => {
                self.fail_sending(id, Reason::Damaged, now);
                self.close_if_over(id, now);
            }
        }
    }

    /// The sending direction cannot go on: the peer gets Reset, the relay is told to stop.
    fn fail_sending(&mut self, id: StreamId, reason: Reason, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.delivers() {
            stream.ends_with(crate::metrics::StreamResult::Reset);
            self.events
                .push_back(Event::StopSending { stream: id, reason });
            self.give_up_sending(id, reason);
            self.close_if_over(id, now);
        }
    }
}
