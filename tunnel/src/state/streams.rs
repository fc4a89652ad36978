//! What the driver asks of a stream: open, accept, write, end, and take.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use codec::frame::{Open, Reason, StreamId};

use super::stream::{NewStream, RecvState, SendState, Slot, Stream};
use super::{Event, OpenError, OpenSpec, StreamSummary, Tunnel};
use crate::budget::STREAM_RESERVE_BYTES;
use crate::metrics::{CountedStream, StreamResult};

/// A stream that may queue this much needs no word when it may queue more.
const WRITABLE_ENOUGH_BYTES: u64 = 128 << 10;

impl Tunnel {
    /// Opens a stream. Bytes may be written at once; [`Event::Opened`] or [`Event::Reset`] tells whether the target was reached.
    ///
    /// # Errors
    /// See [`OpenError`]; after `Limit`, [`Event::OpensAvailable`] comes.
    pub fn open(&mut self, spec: OpenSpec, now: Instant) -> Result<StreamId, OpenError> {
        if self.is_over {
            return Err(OpenError::TunnelLost);
        }
        let Some(id) = self
            .next_own
            .filter(|_| !self.going_away && !self.peer_going_away)
        else {
            return Err(OpenError::GoingAway);
        };
        if spec.needed_features() & !self.config.peer_features != 0 {
            return Err(OpenError::NotUnderstood);
        }
        if !self.opens.is_allowed() {
            self.opens.is_wanted = true;
            return Err(OpenError::Limit);
        }
        let share = self.memory.identity.admit().ok_or(OpenError::Memory)?;
        self.next_own = id.next();
        self.opens.made += 1;
        let OpenSpec {
            domain,
            target,
            service,
            weight,
            source,
        } = spec;
        let counted = CountedStream::new(self.series(&service));
        let new = NewStream {
            domain,
            weight: weight.get().into(),
            opened_here: true,
            local_window_bytes: self.config.local.initial_window_bytes,
            peer_window_bytes: self.config.peer.initial_window_bytes,
            counted,
            share: Some(share),
            scattered: self.scattered.clone(),
        };
        let mut stream = Box::new(Stream::new(new, now));
        // The number is given when it is sent.
        stream.open = Some(Box::new(Open {
            number: 0,
            stream: id,
            domain,
            target,
            service,
            source,
            weight,
        }));
        self.streams.insert(id, stream);
        self.activate(id);
        Ok(id)
    }

    /// The target of an incoming stream is connected; `bound` is the local address towards it.
    pub fn accept(&mut self, id: StreamId, bound: Option<SocketAddr>, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.opened_here || stream.is_answered {
            return;
        }
        stream.is_answered = true;
        if stream.send.is_open() {
            stream.opened = Some(bound);
        }
        self.activate(id);
        self.deliver(id, now);
    }

    /// The target of an incoming stream cannot be had.
    pub fn refuse(&mut self, id: StreamId, reason: Reason, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.opened_here || stream.is_answered {
            return;
        }
        stream.is_answered = true;
        stream.ends_with(StreamResult::Refused);
        self.reset(id, reason, now);
        self.stop_sending(id, reason, now);
    }

    /// How many bytes [`write`](Self::write) takes now, within the peer's credit and the memory budget. When it was small,
    /// [`Event::Writable`] tells that it has grown.
    pub fn send_capacity(&mut self, id: StreamId) -> usize {
        let capacity = self.capacity_bytes(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        stream.send.capacity_said = capacity;
        if capacity < stream.send.room_bytes().min(WRITABLE_ENOUGH_BYTES)
            && !std::mem::replace(&mut stream.send.is_starved, true)
        {
            self.starved.push_back(id);
        }
        usize::try_from(capacity).unwrap_or(usize::MAX)
    }

    fn capacity_bytes(&mut self, id: StreamId) -> u64 {
        let Some(stream) = self.streams.get(&id) else {
            return 0;
        };
        if !stream.send.is_open() {
            return 0;
        }
        let room = stream.send.room_bytes();
        // The reserve is the stream's own, whatever others have queued.
        let reserve = (STREAM_RESERVE_BYTES as u64).saturating_sub(stream.send.queued_bytes);
        let free = self
            .memory
            .queued
            .free_bytes(usize::try_from(room).unwrap_or(usize::MAX)) as u64;
        room.min(free.max(reserve))
    }

    /// Bytes from the LAN side. They are taken even beyond `send_capacity`, and then wait for credit here.
    pub fn write(&mut self, id: StreamId, data: Bytes, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.send.is_open() || data.is_empty() {
            return;
        }
        stream
            .counted
            .series
            .service
            .lan
            .to_wan
            .add(data.len() as u64);
        stream.counted.series.peer.lan.to_wan.add(data.len() as u64);
        self.memory.queued.take(data.len());
        stream.send.push(data, now);
        self.watch_idle(id, now);
        self.want_encode(id);
    }

    /// The relay waits for LAN bytes and may queue what comes: from now on a pause counts as a gap.
    pub fn relay_waiting(&mut self, id: StreamId, now: Instant) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.send.is_open()
        {
            stream.send.waiting_since.get_or_insert(now);
            if stream.send.queued_bytes > 0 {
                self.want_encode(id);
            }
        }
    }

    /// The LAN side has said EOF.
    pub fn finish(&mut self, id: StreamId, _now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.is_open() {
            stream.send.state = SendState::Finishing;
            self.want_encode(id);
            self.activate(id);
        }
    }

    /// The LAN side's reading failed: what is not yet on its way is dropped.
    pub fn reset(&mut self, id: StreamId, reason: Reason, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !matches!(stream.send.state, SendState::Open | SendState::Finishing) {
            return;
        }
        if stream.open.take().is_some() {
            // The peer has never heard of it.
            stream.send.state = SendState::Reset;
            stream.recv.state = RecvState::Over;
            self.opens.made -= 1;
            if std::mem::take(&mut self.opens.is_wanted) {
                // Its place is free, and no Credit of the peer will tell.
                self.events.push_back(Event::OpensAvailable);
            }
            self.release_unsent(id);
            self.release_received(id);
        } else {
            self.give_up_sending(id, reason);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ends_with(StreamResult::Reset);
        }
        self.close_if_over(id, now);
    }

    /// The LAN side takes no more bytes: what comes is dropped.
    pub fn stop_sending(&mut self, id: StreamId, reason: Reason, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match stream.recv.state {
            RecvState::Discarding | RecvState::Over => return,
            RecvState::Finished => stream.recv.state = RecvState::Over,
            // With Finish here, nothing is left to be stopped.
            RecvState::Open if stream.recv.finish.is_some() => stream.recv.state = RecvState::Over,
            RecvState::Open => {
                stream.recv.state = RecvState::Discarding;
                stream.stop = Some(reason);
            }
        }
        stream.ends_with(StreamResult::Reset);
        self.release_received(id);
        self.activate(id);
        self.close_if_over(id, now);
    }

    /// `bytes` given out by [`Event::Data`] were delivered to the LAN side: the peer may send as many more.
    pub fn consumed(&mut self, id: StreamId, bytes: u64, now: Instant) {
        let round_trip = self.round_trip();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let recv = &mut stream.recv;
        let bytes = bytes.min(recv.order.given() - recv.window.consumed_bytes());
        if bytes == 0 || !matches!(recv.state, RecvState::Open | RecvState::Finished) {
            return;
        }
        let more = recv.window.consume(bytes, round_trip, now);
        stream.send.was_answered = true;
        stream.counted.series.service.lan.from_wan.add(bytes);
        stream.counted.series.peer.lan.from_wan.add(bytes);
        if stream.recv.state == RecvState::Finished {
            self.finish_if_consumed(id, now);
            return;
        }
        if more > 0 && stream.recv.finish.is_none() {
            stream.try_grow(more);
        }
        self.list_credit(id, now);
    }

    // ---- shared by what the driver and the peer do ----

    /// The stream has something to send, or may have.
    pub(super) fn activate(&mut self, id: StreamId) {
        let quantum = self.quantum_bytes();
        let first = self.first_link;
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.has_to_send(first)
        {
            let quantum = quantum.saturating_mul(i64::from(stream.weight));
            let is_urgent = stream.send.recent.is_light();
            self.scheduler
                .activate(id, &mut stream.turn, quantum, is_urgent);
        }
    }

    /// Drops what has not begun and resets the sending direction.
    pub(super) fn give_up_sending(&mut self, id: StreamId, reason: Reason) {
        self.release_unsent(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.give_up(reason);
            stream.opened = None;
            self.activate(id);
        }
    }

    /// Gives back what the stream's queue and unsent blocks hold.
    fn release_unsent(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        self.memory
            .queued
            .give(usize::try_from(stream.send.queued_bytes).unwrap_or(usize::MAX));
        stream.send.queue.clear();
        stream.send.queued_bytes = 0;
        let domain = stream.domain;
        let ready = stream
            .send
            .pipeline
            .drain(..)
            .filter_map(|slot| match slot {
                Slot::Ready(block, link) => Some((block, Some(link))),
                Slot::Encoding(..) => None,
            });
        let repeats = stream.send.repeats.drain(..).map(|block| (block, None));
        let dropped: Vec<_> = ready.chain(repeats).collect();
        for (block, link) in dropped {
            self.unready(&block, link, domain);
        }
        self.wake_starved();
    }

    /// Nothing is delivered any more: gives back what the receiving direction holds.
    pub(super) fn release_received(&mut self, id: StreamId) {
        self.inbound.forget_refused(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.recv.order.clear();
            let freed = stream.recv.window.close();
            stream.release_growth(freed);
        }
    }

    /// Gives out what is in order.
    pub(super) fn deliver(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let waits_for_accept = !stream.opened_here && !stream.is_answered;
        if stream.recv.state != RecvState::Open || waits_for_accept {
            return;
        }
        while let Some(data) = stream.recv.order.pop() {
            self.events.push_back(Event::Data { stream: id, data });
        }
        if stream.recv.finish == Some(stream.recv.order.given()) {
            stream.recv.state = RecvState::Finished;
            self.events.push_back(Event::Finished { stream: id });
            self.finish_if_consumed(id, now);
        }
    }

    /// Streams whose bytes were all given out, and all acknowledged where they went the other way, miss nothing when the tunnel ends:
    /// what the LAN side has not yet taken is with its relay.
    pub(crate) fn close_delivered(&mut self, now: Instant) {
        let delivered: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.recv.state == RecvState::Finished)
            .map(|(id, _)| *id)
            .collect();
        for id in delivered {
            self.consumed(id, u64::MAX, now);
        }
    }

    fn finish_if_consumed(&mut self, id: StreamId, now: Instant) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.recv.finish == Some(stream.recv.window.consumed_bytes())
        {
            stream.recv.state = RecvState::Over;
            self.release_received(id);
            self.close_if_over(id, now);
        }
    }

    /// Ends the stream once both directions are over and acknowledged.
    pub(super) fn close_if_over(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.is_closed()) else {
            return;
        };
        let summary = StreamSummary {
            service: stream.counted.series.name.clone(),
            opened_here: stream.opened_here,
            result: match stream.counted.result {
                StreamResult::TunnelLost => StreamResult::Completed,
                result => result,
            },
            lan_to_wan_bytes: stream.send.written(),
            lan_from_wan_bytes: stream.recv.window.consumed_bytes(),
            wan_to_wan_bytes: stream.wan_sent_bytes,
            wan_from_wan_bytes: stream.wan_received_bytes,
            duration: now.saturating_duration_since(stream.opened_at),
        };
        let reached = stream.recv.window.reached_bytes();
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        self.sent_ends.forget(id);
        self.received_ends.forget(id);
        stream.counted.result = summary.result;
        if stream.recv.window.consumed_bytes() > self.config.local.initial_window_bytes {
            // What recent streams reached, the latest weighing most.
            self.window_recent_bytes = self.window_recent_bytes.midpoint(reached);
        }
        if !stream.opened_here {
            self.peer_stream_closed(now);
        }
        self.memory.queued.trim();
        self.memory.retained.trim();
        self.events.push_back(Event::Closed {
            stream: id,
            summary,
        });
    }

    /// Tells the driver if the stream may queue more than it was told.
    pub(super) fn tell_writable(&mut self, id: StreamId) {
        let capacity = self.capacity_bytes(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let said = stream.send.capacity_said;
        if said < WRITABLE_ENOUGH_BYTES && capacity > said && capacity / 2 >= said {
            stream.send.capacity_said = capacity;
            self.events.push_back(Event::Writable { stream: id });
        }
    }

    /// Memory was given back: tells those that wait for it, in order, while there is some.
    pub(super) fn wake_starved(&mut self) {
        for _ in 0..self.starved.len() {
            if !self.memory.queued.has_free(STREAM_RESERVE_BYTES) {
                break;
            }
            let Some(id) = self.starved.pop_front() else {
                break;
            };
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.send.is_starved = false;
                self.tell_writable(id);
            }
        }
    }
}
