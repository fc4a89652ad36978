//! Links: frames in, frames out, and what ends one.

use std::task::{Context, Poll};
use std::time::Instant;

use codec::frame::Frame;

use super::Driver;
use crate::handle::EndCause;
use crate::link::{Link, LinkContext, LinkError, OpenOutput};
use crate::pool::Outcome;
use crate::state::LinkId;
use crate::tls::TlsError;

impl Driver {
    pub(super) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    pub(super) fn link_opened(&mut self, id: LinkId, outcome: Outcome<OpenOutput>, now: Instant) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let result = match outcome {
            Outcome::Finished(output) => link.opened(output),
            Outcome::Stopped | Outcome::Panicked => Err(TlsError::PoolStopped.into()),
        };
        self.handle_received(id, result, now);
    }
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        for index in 0..self.links.len() {
            let Some(link) = self.links.get_mut(index) else {
                break;
            };
            let at = LinkContext {
                crypto: &self.pools.crypto,
                mail: &self.sender,
                inline_below_bytes: self.link_inline_below_bytes,
            };
            let id = link.id;
            if let Poll::Ready(result) = link.poll_receive(cx, &at) {
                moved = true;
                self.handle_received(id, result, now);
            }
        }
        moved
    }

    pub(super) fn handle_received(
        &mut self,
        id: LinkId,
        result: Result<Vec<Frame>, LinkError>,
        now: Instant,
    ) {
        match result {
            Ok(frames) => {
                for frame in frames {
                    if let Err(violation) = self.tunnel.handle_frame(id, frame, now) {
                        self.begin_end(EndCause::Violation(violation.to_string()));
                        return;
                    }
                }
            }
            Err(e @ LinkError::Frame(_)) => self.begin_end(EndCause::Violation(e.to_string())),
            Err(e) => self.link_ended(id, &e, now),
        }
    }

    pub(super) fn link_ended(&mut self, id: LinkId, error: &LinkError, now: Instant) {
        self.links.retain(|link| link.id != id);
        if self.links.is_empty() && !self.tunnel.is_over() {
            self.tunnel.close_delivered(now);
            self.take_events(now);
        }
        self.tunnel.link_lost(id, now);
        if self.links.is_empty() {
            let drained =
                matches!(error, LinkError::Closed) && self.draining && self.streams.is_empty();
            let cause = if drained {
                EndCause::Drained
            } else {
                EndCause::LinkLost(error.to_string())
            };
            self.begin_end(cause);
        }
    }

    pub(super) fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let mut failed = Vec::new();
        for link in &mut self.links {
            let at = LinkContext {
                crypto: &self.pools.crypto,
                mail: &self.sender,
                inline_below_bytes: self.link_inline_below_bytes,
            };
            loop {
                let room = if self.ending.is_some() {
                    0
                } else {
                    link.room_bytes()
                };
                let mut plain = Vec::new();
                let took = if room > 0 {
                    self.tunnel.poll_transmit(link.id, room, now, &mut plain)
                } else {
                    0
                };
                let mut result = Ok(());
                if took > 0 {
                    moved = true;
                    result = link.send(plain, &at);
                }
                let mut written = 0;
                if let Poll::Ready(n) = link.poll_send(cx) {
                    written = n;
                }
                if let Err(e) = result {
                    failed.push((link.id, e));
                    break;
                }
                if written > 0 {
                    moved = true;
                    self.tunnel
                        .link_written(link.id, written, link.backlog_bytes(), now);
                }
                if took == 0 {
                    break;
                }
            }
            if let Some(rtt) = self.tunnel.rtt(link.id) {
                link.counters
                    .set_rtt_us(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
            }
        }
        for (id, e) in failed {
            self.link_ended(id, &e, now);
        }
        moved
    }
}
