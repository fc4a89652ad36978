//! The line is lost, and found again.
//!
//! A tunnel without a link is *detached*: its streams, its histories and what it has sent and nobody has acknowledged stay as they are, for as
//! long as the resume window lasts. The next link carries on. Numbers go again in their order, blocks whole and in fresh fragments, so that every
//! block still follows all that it refers to; the receiver drops what it has. Frames without a number are made anew from what they say. First of
//! all each side reports what it has, so that little goes twice.

use std::collections::VecDeque;
use std::time::Instant;

use codec::frame::{Frame, StreamId};

use super::credit::Urgency;
use super::retention::{Sent, SentBlock, SentWhat};
use super::stream::{Outgoing, RecvState};
use super::transmit::Sink;
use super::{LinkId, Tunnel};

/// No link is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detached {
    /// The tunnel is over if none is by then.
    pub(super) until: Instant,
}

/// Numbers that go again, the lowest first, before anything new.
#[derive(Debug, Default)]
pub(super) struct Again {
    numbers: VecDeque<u64>,
    /// Bytes of the first one, a block that once was out whole, that are out again.
    sent_bytes: usize,
    /// The peer has not yet reported what of them it has.
    awaits_report: bool,
}

impl Again {
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The peer has said something behind its report.
    pub(super) fn is_reported(&mut self) {
        self.awaits_report = false;
    }

    /// These go, too, behind what goes already.
    pub(super) fn extend(&mut self, numbers: Vec<u64>) {
        self.numbers.extend(numbers);
    }

    fn next(&mut self) {
        self.numbers.pop_front();
        self.sent_bytes = 0;
    }
}

impl Tunnel {
    /// Whether the tunnel waits for a link that carries on.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached.is_some()
    }

    /// The last link is lost.
    pub(super) fn detach(&mut self, now: Instant) {
        let is_resumable =
            !self.config.resume_window.is_zero() && !self.going_away && !self.peer_going_away;
        match now.checked_add(self.config.resume_window) {
            Some(until) if is_resumable => self.detached = Some(Detached { until }),
            _ => self.close(now),
        }
    }

    /// The first link after all were lost: it carries the tunnel from now on, and the peer reports on it first what it has.
    pub(super) fn carry_on(&mut self, link: LinkId, now: Instant) {
        self.detached = None;
        let before = std::mem::replace(&mut self.first_link, link);
        if before != link {
            // What has begun goes again whole.
            for stream in self.streams.values_mut() {
                stream.send.current = None;
            }
            self.move_link(before, 0);
        }
        if let Some(state) = self.links.first_mut() {
            state.again.awaits_report = true;
        }
        self.speak_again(now);
    }

    /// Another link is the first from now on: what was said without a number on the one before it may not have been heard.
    pub(super) fn speak_again(&mut self, now: Instant) {
        for (_, sent) in self.retention.kept() {
            if let SentWhat::Frame(Frame::Open(_)) = sent.what
                && let Some(stream) = self.streams.get_mut(&sent.stream)
            {
                stream.open_again = true;
            }
        }
        // In a fixed order: what tests see shall not depend on a hash.
        let mut ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.carry_stream_on(id);
        }
        self.opens.repeat_grant();
        self.outbox.repeat(StreamId::TUNNEL);
        self.outbox.repeat_doubtful();
        self.inbound.report_again();
        self.domains.ask_again();
        self.raise_floors(now);
    }

    fn carry_stream_on(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.allowance.has_yielded() {
            stream.send.yields_again = true;
            self.outbox.repeat_yield(id);
        }
        let recv = &mut stream.recv;
        if recv.state == RecvState::Open && recv.finish.is_none() {
            recv.credit_again = true;
            // Where the peer may not know the stream, its Open goes first.
            if !stream.open_again && recv.credit_listed != Urgency::Now {
                recv.credit_listed = Urgency::Now;
                self.outbox.repeat(id);
            }
        }
    }

    /// The peer knows the stream again, or will when it reads on: credit may follow.
    pub(super) fn open_is_known(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !std::mem::take(&mut stream.open_again) {
            return;
        }
        if stream.recv.credit_again && stream.recv.credit_listed != Urgency::Now {
            stream.recv.credit_listed = Urgency::Now;
            self.outbox.repeat(id);
        } else {
            self.list_credit(id, now);
        }
    }

    /// One frame or one fragment of what goes again over a link. False when nothing can go now: what is new waits behind it.
    pub(super) fn transmit_again(
        &mut self,
        index: usize,
        sink: &mut Sink<'_>,
        now: Instant,
    ) -> bool {
        while let Some(state) = self.links.get_mut(index) {
            let again = &mut state.again;
            if again.awaits_report {
                return false;
            }
            let Some(&number) = again.numbers.front() else {
                break;
            };
            // What was acknowledged meanwhile needs not go.
            let Some(Sent { stream, what, .. }) = self.retention.get(number) else {
                again.next();
                continue;
            };
            let id = *stream;
            match what {
                SentWhat::Frame(frame) => {
                    let bytes = sink.frame(frame);
                    again.next();
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.count_sent(bytes);
                    }
                    self.open_is_known(id, now);
                }
                SentWhat::Block(SentBlock { header, body, .. }) => {
                    let mut block = Outgoing {
                        number,
                        header: header.clone(),
                        body: body.clone(),
                        sent_bytes: again.sent_bytes,
                    };
                    let most = self.fragment_bytes(index, id, now);
                    let (bytes, is_last) = block.send(most, sink);
                    if let Some(state) = self.links.get_mut(index) {
                        state.again.sent_bytes = block.sent_bytes;
                        if is_last {
                            state.again.next();
                        }
                    }
                    if is_last {
                        self.went_whole(number, now);
                    }
                    self.activity.touch(id, now);
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.count_sent(bytes);
                    }
                }
            }
            return true;
        }
        // All of it was acknowledged meanwhile.
        self.transmit_new(index, sink, now)
    }
}
