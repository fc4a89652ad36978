//! Links: frames in, frames out, and what ends one.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use codec::frame::Frame;

use super::Driver;
use crate::handle::{EndCause, LinkName, LinkStatus};
use crate::link::{Link, LinkContext, LinkError, OpenOutput};
use crate::pool::Outcome;
use crate::state::LinkId;
use crate::tls::TlsError;

/// Links of one tunnel: more paths than any site has, and a bound on what a client can make a server keep.
pub(crate) const LINKS_MAX: usize = 16;

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
            Err(e) => self.link_ended(id, e, now),
        }
    }

    pub(super) fn add_link(&mut self, mut link: Link, name: LinkName, now: Instant) {
        link.name = name;
        link.id = LinkId::from(self.links_made);
        self.links_made += 1;
        link.counters.count_for(self.counters.clone());
        self.tunnel.link_up(link.id, now);
        self.links.push(link);
        self.publish_links();
    }

    fn publish_links(&self) {
        let status = self.links.iter().map(|link| LinkStatus {
            name: link.name,
            address: link.peer_address,
            counters: link.counters.clone(),
        });
        self.published.set_links(status.collect());
    }

    /// A link of a newer generation: the client has lost all that were before, whether this side has noticed or not. One that comes too late, or
    /// for a tunnel that is not resumed, is dropped.
    pub(super) fn attach(&mut self, link: Link, generation: u64, now: Instant) {
        if self.ending.is_some() || generation <= self.generation {
            return;
        }
        for old in std::mem::take(&mut self.links) {
            self.tunnel.link_lost(old.id, now);
        }
        if self.tunnel.is_over() {
            return;
        }
        self.lost = None;
        self.generation = generation;
        self.published
            .chain
            .store(Arc::new(link.session().peer_chain().to_vec()));
        self.published.resumes.send_modify(|times| *times += 1);
        self.counters.resumes.add(1);
        tracing::info!(peer = %self.published.peer, address = %link.peer_address, "tunnel resumed");
        let name = LinkName {
            generation,
            index: 0,
        };
        self.add_link(link, name, now);
    }

    /// A further link of the present generation. One for another, or for a tunnel that has no link just now, is dropped.
    pub(super) fn join(&mut self, link: Link, name: LinkName, now: Instant) -> bool {
        let fits = self.ending.is_none()
            && name.generation == self.generation
            && !self.links.is_empty()
            && self.links.len() < LINKS_MAX;
        if fits {
            tracing::info!(
                peer = %self.published.peer,
                address = %link.peer_address,
                links = self.links.len() + 1,
                "a further link is up"
            );
            self.add_link(link, name, now);
        }
        fits
    }

    pub(super) fn link_ended(&mut self, id: LinkId, error: LinkError, now: Instant) {
        self.links.retain(|link| link.id != id);
        if self.ending.is_some() {
            return;
        }
        if !self.links.is_empty() {
            tracing::warn!(
                peer = %self.published.peer,
                %error,
                links = self.links.len(),
                "a link is lost; others carry on"
            );
            self.tunnel.link_lost(id, now);
            self.publish_links();
            return;
        }
        if error.is_final() {
            self.tunnel.close(now);
        } else {
            self.tunnel.link_lost(id, now);
        }
        let waits = self.tunnel.is_detached();
        if waits {
            tracing::warn!(
                peer = %self.published.peer,
                %error,
                streams = self.streams.len(),
                "the line is lost; the tunnel waits for another"
            );
            self.publish_links();
        }
        self.lost = Some((error, waits));
    }

    /// The tunnel is over for want of a link.
    pub(super) fn lost(&mut self) {
        let cause = match self.lost.take() {
            Some((LinkError::Closed, _)) if self.draining && self.streams.is_empty() => {
                EndCause::Drained
            }
            Some((error, true)) => EndCause::LinkLost(format!("{error}, and was not found again")),
            Some((error, false)) => EndCause::LinkLost(error.to_string()),
            None => EndCause::LinkLost(LinkError::Lost.to_string()),
        };
        self.begin_end(cause);
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
            if self.tunnel.wants_sample(link.id, now)
                && let Some(sample) = link.sample(self.sample)
            {
                self.tunnel.link_sampled(link.id, sample, now);
            }
            loop {
                let room = if self.ending.is_some() {
                    0
                } else {
                    link.room_bytes(self.tunnel.batch_bytes(link.id))
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
            self.link_ended(id, e, now);
        }
        moved
    }
}
