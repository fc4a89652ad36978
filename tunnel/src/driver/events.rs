//! What the state machine tells, passed on to streams' records and handles.

use std::time::Instant;

use codec::frame::{Reason, Renewed, StreamId};

use super::{Driver, WAITED_FOR_MAX_BYTES};
use crate::handle::EndCause;
use crate::link::LinkError;
use crate::state::Event;
use crate::stream::{IncomingStream, Shared};

impl Driver {
    pub(super) fn take_events(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(event) = self.tunnel.poll_event() {
            moved = true;
            self.handle_event(event, now);
        }
        moved
    }

    pub(super) fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Incoming { stream, open } => {
                let shared = Shared::new(self.sender.clone());
                shared.set_id(stream);
                self.streams.insert(stream, shared.clone());
                if self
                    .incoming
                    .send(IncomingStream::new(
                        shared,
                        open,
                        self.published.peer.clone(),
                    ))
                    .is_err()
                {
                    self.tunnel.refuse(stream, Reason::GoingAway, now);
                }
            }
            Event::Opened { stream, bound } => self.with(stream, |shared| shared.opened(Ok(bound))),
            Event::Data { stream, data } => {
                self.gave_small_piece |= data.len() <= WAITED_FOR_MAX_BYTES;
                self.with(stream, |shared| shared.deliver(data));
            }
            Event::Finished { stream } => self.with(stream, Shared::finished),
            Event::Reset { stream, reason } => self.with(stream, |shared| shared.reset(reason)),
            Event::StopSending { stream, reason } => {
                self.with(stream, |shared| shared.stop_sending(reason))
            }
            Event::Writable { stream } => {
                let capacity = self.tunnel.send_capacity(stream);
                self.with(stream, |shared| shared.set_capacity(capacity));
            }
            Event::Closed { stream, summary } => {
                if let Some(shared) = self.streams.remove(&stream) {
                    shared.close(Some(summary));
                }
            }
            Event::OpensAvailable => self.open_waiting(now),
            Event::GoAway { .. } => self.begin_drain(),
            Event::DomainOffered { domain, name } => self.want_domain(domain, name, now),
            Event::Renew { request } => match &self.renewals {
                Some(renewals) if renewals.send(request).is_ok() => {}
                _ => self.tunnel.renewed(Renewed::Refused {
                    status: 1,
                    message: "this edge issues no certificates".to_owned(),
                }),
            },
            Event::Renewed(answer) => {
                if let Some(waiting) = self.renewed.take() {
                    let _ = waiting.send(answer);
                }
            }
            Event::LinkDead { link } => self.link_ended(link, LinkError::Silent, now),
            Event::TunnelLost => self.lost(),
            Event::Violated(violation) => {
                self.begin_end(EndCause::Violation(violation.to_string()))
            }
        }
    }

    pub(super) fn with(&self, stream: StreamId, act: impl FnOnce(&Shared)) {
        if let Some(shared) = self.streams.get(&stream) {
            act(shared);
        }
    }
}
