//! Frames arrive. A frame is checked whole before anything changes.

use std::time::Instant;

use bytes::BytesMut;
use codec::frame::{Frame, FrameCodec, FrameKind, Open, Opened, Reason, StreamId};
use tokio_util::codec::Encoder;

use super::inbound::NumberState;
use super::stream::{NewStream, RecvState, Stream};
use super::{Event, LinkId, Tunnel, Violation};
use crate::metrics::{CountedStream, StreamResult};

/// Streams that were reset before they were opened: a peer of ours does not do that, but may.
const TOMBSTONES_MAX: usize = 1_024;

impl Tunnel {
    /// Takes a frame that came over `link`.
    ///
    /// # Errors
    /// What the peer did that no correct peer does. The tunnel is over then.
    pub fn handle_frame(
        &mut self,
        link: LinkId,
        frame: Frame,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(state) = self.links.iter_mut().find(|state| state.id == link) else {
            return Ok(());
        };
        if self.is_over {
            return Ok(());
        }
        state.path.heard(now);
        if matches!(frame, Frame::Data(_)) {
            state.path.received_data();
        }
        if ends_report(&frame) {
            state.again.is_reported();
        }
        let result = self.dispatch(link, frame, now);
        self.close_gaps();
        if result.is_err() {
            self.end();
        }
        result
    }

    fn dispatch(&mut self, link: LinkId, frame: Frame, now: Instant) -> Result<(), Violation> {
        match frame {
            Frame::Data(data) => self.handle_data(data, now),
            Frame::Open(_)
            | Frame::Opened(_)
            | Frame::Finish { .. }
            | Frame::StopSending { .. }
            | Frame::Reset { .. }
            | Frame::GoAway { .. } => self.handle_numbered(frame, now),
            Frame::Hello(_) => Err(Violation::Misplaced(FrameKind::Hello)),
            Frame::Ack(ack) => self.handle_ack(&ack, now),
            Frame::Refuse(refuse) => self.handle_refuse(&refuse, now),
            Frame::Credit {
                stream,
                turn,
                offset,
            } => {
                if !stream.is_tunnel() {
                    self.check_known(FrameKind::Credit, stream)?;
                }
                self.handle_credit(stream, turn, offset, now)
            }
            Frame::Yield {
                stream,
                turn,
                offset,
            } => {
                self.check_known(FrameKind::Yield, stream)?;
                self.handle_yield(stream, turn, offset, now)
            }
            Frame::Coverage(coverage) => {
                let (frames, event) = self.domains.coverage(coverage)?;
                self.outbox.extend(frames);
                self.events.extend(event);
                Ok(())
            }
            Frame::Quota { domain, bytes } => {
                self.domains.quota(domain, bytes)?;
                self.raise_floors(now);
                Ok(())
            }
            Frame::Floor { domain, position } => {
                self.domains.floor(domain, position, self.jobs.next_id())?;
                self.raise_floors(now);
                Ok(())
            }
            Frame::Floored { domain, position } => {
                self.domains.floored(domain, position);
                self.raise_floors(now);
                Ok(())
            }
            Frame::Renew { request } => {
                if !std::mem::replace(&mut self.is_renewing, true) {
                    self.events.push_back(Event::Renew { request });
                }
                Ok(())
            }
            Frame::Renewed(answer) => {
                self.events.push_back(Event::Renewed(answer));
                Ok(())
            }
            Frame::Ping { token } => {
                self.answer_ping(link, token);
                // On an idle tunnel nothing else comes by here, and a peer that always asks first keeps our own timer from running out.
                self.raise_floors(now);
                Ok(())
            }
            Frame::Pong { token } => {
                let is_newest = self
                    .link_mut(link)
                    .is_some_and(|state| state.path.pong(token, now));
                if is_newest && self.links.first().is_some_and(|first| first.id == link) {
                    self.outbox.confirm(token);
                }
                Ok(())
            }
        }
    }

    fn handle_numbered(&mut self, frame: Frame, now: Instant) -> Result<(), Violation> {
        let number = frame.number().unwrap_or(0);
        match self.inbound.number(number)? {
            NumberState::Finished => return Ok(()),
            NumberState::UnderWay => return Err(Violation::NumberReused(number)),
            NumberState::New => {}
        }
        let bytes = encoded_length(&frame);
        let of = match frame {
            Frame::Open(open) => {
                let stream = open.stream;
                self.handle_open(open, now)?;
                stream
            }
            Frame::Opened(opened) => {
                self.check_known(FrameKind::Opened, opened.stream)?;
                self.handle_opened(&opened)?;
                opened.stream
            }
            Frame::Finish { stream, offset, .. } => {
                self.check_known(FrameKind::Finish, stream)?;
                self.handle_finish(stream, offset, now)?;
                stream
            }
            Frame::StopSending { stream, reason, .. } => {
                self.check_known(FrameKind::StopSending, stream)?;
                self.handle_stop_sending(stream, reason);
                stream
            }
            Frame::Reset { stream, reason, .. } => {
                self.handle_reset(stream, reason, now)?;
                stream
            }
            Frame::GoAway { reason, .. } => {
                if !std::mem::replace(&mut self.peer_going_away, true) {
                    self.events.push_back(Event::GoAway { reason });
                }
                self.peer_goaway = Some(number);
                return Ok(());
            }
            other => return Err(Violation::Misplaced(other.kind())),
        };
        self.inbound.finish(number, now);
        if let Some(stream) = self.streams.get_mut(&of) {
            stream.count_received(bytes);
            self.close_if_over(of, now);
        }
        Ok(())
    }

    /// Whether a stream was opened, be it closed by now.
    pub(super) fn check_known(&self, kind: FrameKind, stream: StreamId) -> Result<(), Violation> {
        let known = match stream.opener() {
            None => return Err(Violation::ForeignStream(stream)),
            Some(side) if side == self.config.side => {
                self.next_own.is_none_or(|next| stream < next)
            }
            Some(_) => stream <= self.last_peer,
        };
        if known {
            Ok(())
        } else {
            Err(Violation::UnknownStream { kind, stream })
        }
    }

    fn handle_open(&mut self, open: Open, now: Instant) -> Result<(), Violation> {
        let id = open.stream;
        if id.opener() != Some(self.config.side.other()) {
            return Err(Violation::ForeignStream(id));
        }
        if id <= self.last_peer {
            return Err(Violation::StreamReused(id));
        }
        if self.opens.received >= self.opens.granted {
            return Err(Violation::OpenBeyondCredit(id));
        }
        self.opens.received += 1;
        self.last_peer = id;
        let refused = if !self.config.admit_opens {
            Some(Reason::Policy)
        } else if self.going_away && self.goaway_is_known {
            Some(Reason::GoingAway)
        } else {
            None
        };
        let share = if refused.is_none() {
            self.memory.identity.admit()
        } else {
            None
        };
        let refused = refused.or(share.is_none().then_some(Reason::Limit));
        let new = NewStream {
            domain: open.domain,
            weight: open.weight.get().into(),
            opened_here: false,
            local_window_bytes: self.config.local.initial_window_bytes,
            peer_window_bytes: self.config.peer.initial_window_bytes,
            counted: CountedStream::new(self.series(&open.service)),
            share,
            scattered: self.scattered.clone(),
        };
        let mut stream = Box::new(Stream::new(new, now));
        let is_dead = self.tombstones.remove(&id);
        if is_dead {
            stream.recv.state = RecvState::Over;
        }
        self.streams.insert(id, stream);
        if let Some(reason) = refused.or(is_dead.then_some(Reason::Cancelled)) {
            self.refuse(id, reason, now);
        } else {
            self.events.push_back(Event::Incoming { stream: id, open });
            self.grow_at_open(id, now);
        }
        Ok(())
    }

    fn handle_opened(&mut self, opened: &Opened) -> Result<(), Violation> {
        let id = opened.stream;
        if id.opener() != Some(self.config.side) {
            return Err(Violation::ForeignStream(id));
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if std::mem::replace(&mut stream.is_answered, true) {
            return Err(Violation::OpenedTwice(id));
        }
        stream.is_known = true;
        self.events.push_back(Event::Opened {
            stream: id,
            bound: opened.bound,
        });
        Ok(())
    }

    fn handle_finish(&mut self, id: StreamId, offset: u64, now: Instant) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let recv = &mut stream.recv;
        match recv.state {
            RecvState::Open => {
                let contradicts = recv.finish.is_some_and(|known| known != offset);
                if contradicts
                    || offset < recv.order.announced_end()
                    || offset > recv.window.granted()
                {
                    return Err(Violation::FinishContradicted(id));
                }
                recv.finish = Some(offset);
                self.deliver(id, now);
            }
            RecvState::Finished if recv.finish != Some(offset) => {
                return Err(Violation::FinishContradicted(id));
            }
            RecvState::Discarding => recv.state = RecvState::Over,
            RecvState::Finished | RecvState::Over => {}
        }
        Ok(())
    }

    /// The peer delivers nothing more: this side's sending direction ends, with Reset unless it has ended already.
    fn handle_stop_sending(&mut self, id: StreamId, reason: Reason) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.delivers() {
            stream.ends_with(StreamResult::Reset);
            self.events
                .push_back(Event::StopSending { stream: id, reason });
            self.give_up_sending(id, reason);
        }
    }

    fn handle_reset(
        &mut self,
        id: StreamId,
        reason: Reason,
        now: Instant,
    ) -> Result<(), Violation> {
        if self.check_known(FrameKind::Reset, id).is_err() {
            // The Open may still come over another link, but only the peer's own.
            if id.opener() != Some(self.config.side.other()) {
                return Err(Violation::UnknownStream {
                    kind: FrameKind::Reset,
                    stream: id,
                });
            }
            if self.tombstones.len() >= TOMBSTONES_MAX {
                return Err(Violation::TooManyTombstones);
            }
            self.tombstones.insert(id);
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let refused = stream.opened_here && !stream.is_answered;
        match stream.recv.state {
            RecvState::Open => {
                stream.recv.state = RecvState::Over;
                stream.ends_with(if refused {
                    StreamResult::Refused
                } else {
                    StreamResult::Reset
                });
                self.release_received(id);
                self.events.push_back(Event::Reset { stream: id, reason });
            }
            RecvState::Discarding => {
                stream.recv.state = RecvState::Over;
                stream.stop = None;
            }
            // Everything before the end was given out already: nothing is lost.
            RecvState::Finished | RecvState::Over => {}
        }
        self.close_if_over(id, now);
        Ok(())
    }
}

/// Whether whoever has resumed a tunnel and sends this frame has reported before what it has: its first Ping stands behind its Acks.
fn ends_report(frame: &Frame) -> bool {
    matches!(frame, Frame::Ping { .. } | Frame::Pong { .. }) || frame.number().is_some()
}

/// Bytes of a numbered frame on the wire, for the counters.
fn encoded_length(frame: &Frame) -> usize {
    let mut bytes = BytesMut::new();
    match FrameCodec.encode(frame, &mut bytes) {
        Ok(()) => bytes.len(),
        Err(_) => 0,
    }
}
