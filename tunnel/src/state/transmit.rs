//! Frames for a link: control frames first, then numbered ones in the scheduler's order.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use codec::encoder::Encoded;
use codec::frame::{FRAGMENT_MAX, Frame, FrameCodec, StreamId, data_header};
use tokio_util::codec::Encoder;

use super::retention::{Sent, SentBlock, SentWhat};
use super::stream::{Outgoing, SendState};
use super::{LinkId, Tunnel};

/// While several streams are active, a fragment takes no more of the line's time than this.
const FRAGMENT_TIME: Duration = Duration::from_millis(5);

/// No fragment is cut smaller, or headers would cost more than 0.5 %.
const FRAGMENT_MIN_BYTES: u64 = 4 << 10;

/// Fragments while several streams are active on a line whose rate is not known yet.
const FRAGMENT_UNMEASURED_BYTES: u64 = 16 << 10;

/// A stream counts as active for so long after it last sent.
const ACTIVE_FOR: Duration = Duration::from_secs(1);

/// For so long after a stream that sends little has sent, bulk leaves room for it.
pub(super) const LIGHT_FOR: Duration = Duration::from_secs(2);

/// Meanwhile a fragment takes no more of the line's time than this.
const FRAGMENT_TIME_BESIDE_LIGHT: Duration = Duration::from_millis(2);

/// Bodies below this are copied beside their headers: a slice of its own costs more than the copy.
const COPY_BELOW_BYTES: usize = 1 << 10;

/// The two streams that sent last: enough to know whether a stream is alone.
#[derive(Debug)]
pub(super) struct Activity {
    last: (StreamId, Instant),
    before: Option<(StreamId, Instant)>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: (StreamId::TUNNEL, now),
            before: None,
        }
    }

    pub(super) fn touch(&mut self, stream: StreamId, now: Instant) {
        if self.last.0 != stream {
            self.before = Some(self.last).filter(|(other, _)| !other.is_tunnel());
        }
        self.last = (stream, now);
    }

    /// Whether another stream was active within `span`; [`StreamId::TUNNEL`]: whether any was.
    pub(super) fn is_shared(&self, stream: StreamId, span: Duration, now: Instant) -> bool {
        let is_other = |&(other, at): &(StreamId, Instant)| {
            !other.is_tunnel() && other != stream && now.saturating_duration_since(at) < span
        };
        is_other(&self.last) || self.before.as_ref().is_some_and(is_other)
    }
}

/// Gathers frames as slices: small things in one buffer, bodies as they are.
pub(super) struct Sink<'a> {
    out: &'a mut Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Sink<'_> {
    pub(super) fn frame(&mut self, frame: &Frame) -> usize {
        let before = self.small.len();
        let encoded = FrameCodec.encode(frame, &mut self.small);
        debug_assert!(
            encoded.is_ok(),
            "{frame:?} is outside its own bounds: {encoded:?}"
        );
        let bytes = self.small.len() - before;
        self.bytes += bytes;
        bytes
    }

    /// The bytes of `range` of an encoded block, which ends with its body. Returns what they cost.
    pub(super) fn fragment(
        &mut self,
        number: u64,
        header: &Bytes,
        body: &Bytes,
        range: Range<usize>,
    ) -> usize {
        let before = self.bytes;
        let Range { start, end } = range;
        let last = end == header.len() + body.len();
        self.small(&data_header(number, start as u64, last, end - start));
        if start < header.len() {
            self.small(&header.slice(start..end.min(header.len())));
        }
        if end > header.len() {
            self.body(body.slice(start.max(header.len()) - header.len()..end - header.len()));
        }
        self.bytes - before
    }

    fn small(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn body(&mut self, body: Bytes) {
        if body.len() < COPY_BELOW_BYTES {
            self.small(&body);
        } else {
            self.flush();
            self.bytes += body.len();
            self.out.push(body);
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.out.push(self.small.split().freeze());
        }
    }
}

impl Tunnel {
    /// Appends frames for `link` to `out`, whole ones, as slices to be sent one behind the other: what is due of control frames, then numbered
    /// frames until `max_bytes` are reached or nothing is left. Returns their bytes; 0 when there is nothing to send.
    pub fn poll_transmit(
        &mut self,
        link: LinkId,
        max_bytes: usize,
        now: Instant,
        out: &mut Vec<Bytes>,
    ) -> usize {
        if self.is_over {
            return 0;
        }
        let mut sink = Sink {
            out,
            small: BytesMut::new(),
            bytes: 0,
        };
        let Some(index) = self.links.iter().position(|state| state.id == link) else {
            return 0;
        };
        if let Some(state) = self.links.get_mut(index) {
            state.held_until = None;
        }
        // The first link carries all frames but blocks; the others carry blocks, and say that they live.
        let carries = index == 0;
        let has_data = self.has_data_for(index, now);
        let Some(state) = self.links.get_mut(index) else {
            return 0;
        };
        for token in std::mem::take(&mut state.pongs) {
            sink.frame(&Frame::Pong { token });
        }
        let next_ping = state.path.next_token();
        let ping = state.path.take_ping(has_data, now);
        if carries {
            let riding = has_data || ping.is_some() || sink.bytes > 0 || self.has_urgent_control();
            let mut control = Vec::new();
            self.poll_control(riding, next_ping, &mut control);
            for frame in &control {
                sink.frame(frame);
            }
        }
        // Behind what is said without a number: the Pong tells that it was heard, and after a resume the Ping that it was all.
        if let Some(token) = ping {
            sink.frame(&Frame::Ping { token });
        }
        while sink.bytes < max_bytes && self.transmit_next(index, &mut sink, now) {}
        if let Some(number) = self.peer_goaway
            && self.streams.values().all(|stream| stream.open.is_none())
        {
            self.peer_goaway = None;
            self.inbound.finish(number, now);
        }
        sink.flush();
        sink.bytes
    }

    /// Whether there is something for the link besides what is said of it itself and what has no number.
    fn has_data_for(&mut self, index: usize, now: Instant) -> bool {
        let has_again = self
            .links
            .get(index)
            .is_some_and(|state| !state.again.is_empty());
        has_again
            || if index == 0 {
                self.goaway_to_send.is_some() || self.may_transmit(now)
            } else {
                self.may_transmit_block(index, now)
            }
    }

    /// One numbered frame or one fragment for a link: first what goes again. False when nothing can be sent.
    fn transmit_next(&mut self, index: usize, sink: &mut Sink<'_>, now: Instant) -> bool {
        let state = self.links.get(index);
        if state.is_some_and(|state| !state.again.is_empty()) {
            self.transmit_again(index, sink, now)
        } else {
            self.transmit_new(index, sink, now)
        }
    }

    pub(super) fn transmit_new(&mut self, index: usize, sink: &mut Sink<'_>, now: Instant) -> bool {
        if index == 0 {
            self.transmit_one(sink, now)
        } else {
            self.transmit_block(index, sink, now)
        }
    }

    /// What a stream may send before it is the next one's turn, for weight 1.
    pub(super) fn quantum_bytes(&self) -> i64 {
        self.quantum_bytes_on(0)
    }

    /// The same on a further link.
    pub(super) fn quantum_bytes_on(&self, index: usize) -> i64 {
        i64::try_from(self.line_bytes(index, FRAGMENT_TIME)).unwrap_or(i64::MAX)
    }

    /// A fragment of so much of the line's time.
    fn line_bytes(&self, index: usize, time: Duration) -> u64 {
        let path = self.links.get(index).map(|link| &link.path);
        let measured = path.and_then(|path| path.bytes_in(time));
        measured
            .unwrap_or(FRAGMENT_UNMEASURED_BYTES)
            .clamp(FRAGMENT_MIN_BYTES, FRAGMENT_MAX as u64)
    }

    pub(super) fn fragment_bytes(&self, index: usize, id: StreamId, now: Instant) -> usize {
        let bytes = if self.light.is_shared(id, LIGHT_FOR, now) {
            self.line_bytes(index, FRAGMENT_TIME_BESIDE_LIGHT)
        } else if self.activity.is_shared(id, ACTIVE_FOR, now) {
            self.line_bytes(index, FRAGMENT_TIME)
        } else {
            FRAGMENT_MAX as u64
        };
        usize::try_from(bytes).unwrap_or(FRAGMENT_MAX)
    }

    /// One numbered frame or one fragment for the first link. False when nothing can be sent.
    fn transmit_one(&mut self, sink: &mut Sink<'_>, now: Instant) -> bool {
        if self.retention.has_room()
            && let Some(reason) = self.take_goaway()
        {
            self.send_frame(StreamId::TUNNEL, sink, |number| Frame::GoAway {
                number,
                reason,
            });
            return true;
        }
        let Some(id) = self.next_sender() else {
            return false;
        };
        if let Some(until) = self.held_back(id, now) {
            if let Some(link) = self.links.first_mut() {
                link.hold(until, now);
            }
            return false;
        }
        let bytes = self.transmit_for(id, sink, now);
        if let Some(link) = self.links.first_mut() {
            link.pacer.sent(bytes, now);
        }
        let quantum = self.quantum_bytes();
        if let Some(stream) = self.streams.get_mut(&id) {
            let quantum = quantum.saturating_mul(i64::from(stream.weight));
            self.scheduler.sent(&mut stream.turn, bytes, quantum);
        }
        true
    }

    /// The stream whose turn it is and that can send; those that cannot leave the round, or wait for a number in it.
    pub(super) fn next_sender(&mut self) -> Option<StreamId> {
        // An idle stream is met twice before it leaves, one that waits for a number once.
        for _ in 0..2 * self.scheduler.len() {
            let id = self.scheduler.head()?;
            let Some(stream) = self.streams.get_mut(&id) else {
                self.scheduler.forget_head();
                continue;
            };
            if !stream.has_to_send(self.first_link) {
                self.scheduler.idle(&mut stream.turn);
            } else if stream.send.current.is_none() && !self.retention.has_room() {
                self.scheduler.rotate(&mut stream.turn);
            } else {
                return Some(id);
            }
        }
        None
    }

    /// The stream's next frame or fragment; it has one. Returns its bytes.
    fn transmit_for(&mut self, id: StreamId, sink: &mut Sink<'_>, now: Instant) -> usize {
        let has_number = self.retention.has_room();
        let first = self.first_link;
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        if has_number {
            if let Some(open) = stream.open.take() {
                let bytes = self.send_frame(id, sink, |number| {
                    Frame::Open(codec::frame::Open { number, ..*open })
                });
                self.grow_at_open(id, now);
                return bytes;
            }
            if let Some(bound) = stream.opened.take() {
                return self.send_frame(id, sink, |number| {
                    Frame::Opened(codec::frame::Opened {
                        number,
                        stream: id,
                        bound,
                    })
                });
            }
            if let SendState::Resetting(reason) = stream.send.state {
                stream.send.state = SendState::Reset;
                return self.send_frame(id, sink, |number| Frame::Reset {
                    number,
                    stream: id,
                    reason,
                });
            }
            if let Some(reason) = stream.stop.take() {
                return self.send_frame(id, sink, |number| Frame::StopSending {
                    number,
                    stream: id,
                    reason,
                });
            }
        }
        if stream.send.current.is_none() {
            let repeat = stream.send.repeats.pop_front().map(|block| (block, None));
            let ready = repeat.or_else(|| {
                let block = stream.send.take_ready_for(first)?;
                Some((block, Some(first)))
            });
            match ready {
                Some((block, bound)) => {
                    let begun = self.begin_block(id, block, first, bound);
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.send.current = begun;
                    }
                    self.want_encode(id);
                }
                None => {
                    let offset = stream.send.cut_offset;
                    debug_assert!(
                        stream.send.finishes_now(),
                        "a stream with nothing to send has its turn"
                    );
                    stream.send.state = SendState::Finished;
                    return self.send_frame(id, sink, |number| Frame::Finish {
                        number,
                        stream: id,
                        offset,
                    });
                }
            }
        }
        self.activity.touch(id, now);
        if self.scheduler.head_is_urgent() {
            self.light.touch(id, now);
        }
        self.send_fragment(id, sink, now)
    }

    /// Numbers a frame, keeps it and hands it out.
    fn send_frame(
        &mut self,
        id: StreamId,
        sink: &mut Sink<'_>,
        make: impl FnOnce(u64) -> Frame,
    ) -> usize {
        let frame = make(self.retention.next_number());
        let bytes = sink.frame(&frame);
        self.retention.push(Sent {
            stream: id,
            link: self.first_link,
            what: SentWhat::Frame(frame),
        });
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.unacknowledged += 1;
            stream.count_sent(bytes);
        }
        bytes
    }

    /// The block's first fragment is about to go over `link`: it gets its number and its place in the history. `bound`: it was encoded for that link.
    pub(super) fn begin_block(
        &mut self,
        id: StreamId,
        mut block: Box<Encoded>,
        link: LinkId,
        bound: Option<LinkId>,
    ) -> Option<Box<Outgoing>> {
        let stream = self.streams.get(&id)?;
        let pins = self.take_ready(&block, bound, stream.domain);
        let length = block.append_length();
        let domain = block.header().domain;
        // After a GoAway nothing is appended, even if it was planned before.
        let may_append = length > 0 && !self.going_away && !self.peer_going_away;
        // The peer hears of an epoch before the first append in it; over another link that could overtake the word.
        let may_append =
            may_append && (link == self.first_link || !self.outbox.has_doubtful_coverage());
        let position = domain
            .filter(|_| may_append)
            .and_then(|domain| self.domains.held(domain)?.reserve(length));
        self.sent_ends.advance(self.retention.frontier(), |stream| {
            self.streams.contains_key(&stream)
        });
        let mut known = self.sent_ends.of(id, domain);
        let stream = self.streams.get_mut(&id)?;
        let (offset, length) = (block.header().stream_offset, block.header().plain_length);
        if offset < stream.send.begun_to {
            // A later one of the stream went before it over another link: the receiver may know of that one first.
            known.stream_offset = u64::MAX;
        }
        stream.send.begun_to = stream.send.begun_to.max(offset + u64::from(length));
        let (header, body) = block.wire(position, known);
        let to_commit = match (domain, position, block.take_append()) {
            (Some(domain), Some(position), Some(append)) => Some((domain, position, append)),
            _ => None,
        };
        let sent = SentBlock {
            header: header.clone(),
            clear: Box::new(block.header().clone()),
            body: body.clone(),
            plain_bytes: block.header().plain_length,
            domain: pins.domain,
            uses: pins.uses,
            append: block.header().append,
            to_commit,
            is_replacement: block.header().replaces.is_some(),
            complete: false,
        };
        self.memory.retained.take(header.len() + body.len());
        if let (Some(domain), Some(append)) = (sent.domain, sent.append) {
            self.under_way.begin(domain, link, append);
        }
        let number = self.retention.push(Sent {
            stream: id,
            link,
            what: SentWhat::Block(sent),
        });
        self.sent_ends.begin(number, block.header());
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.unacknowledged += 1;
        }
        Some(Box::new(Outgoing {
            number,
            header,
            body,
            sent_bytes: 0,
        }))
    }

    fn send_fragment(&mut self, id: StreamId, sink: &mut Sink<'_>, now: Instant) -> usize {
        let most = self.fragment_bytes(0, id, now);
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        let Some(block) = &mut stream.send.current else {
            return 0;
        };
        let (bytes, is_last) = block.send(most, sink);
        let number = block.number;
        stream.count_sent(bytes);
        if is_last {
            stream.send.current = None;
            self.went_whole(number, now);
        }
        bytes
    }

    /// The block's last fragment was handed to a link.
    pub(super) fn went_whole(&mut self, number: u64, now: Instant) {
        let Some(Sent {
            what: SentWhat::Block(block),
            ..
        }) = self.retention.get_mut(number)
        else {
            return;
        };
        block.complete = true;
        if let Some((domain, position, append)) = block.to_commit.take() {
            if let Some(domain) = self.domains.held(domain) {
                domain.commit(position, &append);
            }
            self.raise_floors(now);
        }
    }
}

impl Outgoing {
    /// The next fragment of at most `most` bytes. Returns what it costs, and whether it is the last.
    pub(super) fn send(&mut self, most: usize, sink: &mut Sink<'_>) -> (usize, bool) {
        let total = self.header.len() + self.body.len();
        let start = self.sent_bytes;
        let end = total.min(start + most);
        let bytes = sink.fragment(self.number, &self.header, &self.body, start..end);
        self.sent_bytes = end;
        (bytes, end == total)
    }
}

impl super::stream::Stream {
    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.wan_sent_bytes += bytes as u64;
        self.counted.series.service.wan.to_wan.add(bytes as u64);
    }

    pub(super) fn count_received(&mut self, bytes: usize) {
        self.wan_received_bytes += bytes as u64;
        self.counted.series.service.wan.from_wan.add(bytes as u64);
    }
}
