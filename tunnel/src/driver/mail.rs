//! What arrives in a driver's mailbox, and what it does about it.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use codec::frame::{Reason, StreamId};

use super::{Command, Driver, Mail};
use crate::histories::DomainSpec;
use crate::pool::Outcome;
use crate::state::OpenError;
use crate::stream::{Outgoing, Shared};
use crate::tls::TlsError;

impl Driver {
    pub(super) fn take_mail(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let moved = self.receiver.poll_drain(cx, &mut batch).is_ready() && !batch.is_empty();
        for mail in batch.drain(..) {
            match mail {
                Mail::Stream(shared) => self.stream_changed(&shared, now),
                Mail::Command(command) => self.obey(command, now),
                Mail::Codec(id, outcome) => {
                    self.jobs_out -= 1;
                    match outcome {
                        Outcome::Finished(done) => self.tunnel.handle_job(done, now),
                        Outcome::Stopped | Outcome::Panicked => self.tunnel.job_lost(id, now),
                    }
                }
                Mail::Opened(id, outcome) => self.link_opened(id, outcome, now),
                Mail::Sealed(id, outcome) => {
                    let result = self.link_mut(id).map(|link| match outcome {
                        Outcome::Finished(result) => link.sealed(result),
                        Outcome::Stopped | Outcome::Panicked => Err(TlsError::PoolStopped.into()),
                    });
                    if let Some(Err(e)) = result {
                        self.link_ended(id, e, now);
                    }
                }
            }
        }
        self.batch = batch;
        moved
    }
    /// A relay has queued something in its stream's record.
    pub(super) fn stream_changed(&mut self, shared: &Arc<Shared>, now: Instant) {
        // While it waits for its Open, what is queued stays in the record; opening looks at it.
        let Some((id, outgoing)) = shared.take() else {
            if shared.is_abandoned() {
                shared.fail(Reason::Cancelled);
                self.forget_abandoned();
            }
            return;
        };
        self.apply(id, shared, outgoing, now);
    }

    pub(super) fn apply(
        &mut self,
        id: StreamId,
        shared: &Arc<Shared>,
        outgoing: Outgoing,
        now: Instant,
    ) {
        if outgoing.consumed > 0 {
            self.tunnel.consumed(id, outgoing.consumed, now);
        }
        for data in outgoing.data {
            self.tunnel.write(id, data, now);
        }
        if let Some(reason) = outgoing.abort {
            self.tunnel.reset(id, reason, now);
        } else if outgoing.finish {
            self.tunnel.finish(id, now);
        } else {
            let capacity = self.tunnel.send_capacity(id);
            shared.set_capacity(capacity);
            if capacity > 0 {
                // The relay's next step is to read its LAN socket again.
                self.tunnel.relay_waiting(id, now);
            }
        }
        if let Some(reason) = outgoing.stop {
            self.tunnel.stop_sending(id, reason, now);
        }
    }

    pub(super) fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open(pending) => {
                if self.draining {
                    pending.shared.fail(Reason::GoingAway);
                } else if self.ending.is_none() {
                    self.waiting.push_back(pending);
                    self.open_waiting(now);
                }
            }
            Command::Accept(shared, bound) => {
                if let Some((id, outgoing)) = shared.take() {
                    self.tunnel.accept(id, bound, now);
                    self.apply(id, &shared, outgoing, now);
                }
            }
            Command::Refuse(shared, reason) => {
                if let Some((id, _)) = shared.take() {
                    self.tunnel.refuse(id, reason, now);
                }
            }
            Command::WantDomain(DomainSpec { id, name }) => self.want_domain(id, name, now),
            Command::AttachDomain(id, name, domain) => {
                self.tunnel.attach_domain(id, name, domain, now);
            }
            Command::Renew(request, answer) => {
                self.renewed = Some(answer);
                self.tunnel.renew(request);
            }
            Command::Renewed(answer) => self.tunnel.renewed(answer),
            Command::GoAway(reason) => {
                self.begin_drain();
                self.tunnel.go_away(reason, now);
            }
            Command::Attach(link, generation) => self.attach(*link, generation, now),
            Command::Join(link, name, answer) => {
                let _ = answer.send(self.join(*link, name, now));
            }
            Command::Probe => self.tunnel.probe(now),
            Command::Close(cause) => self.begin_end(cause),
        }
    }

    pub(super) fn open_waiting(&mut self, now: Instant) {
        while let Some(pending) = self.waiting.pop_front() {
            let shared = pending.shared.clone();
            if shared.is_abandoned() {
                shared.fail(Reason::Cancelled);
                self.abandoned = self.abandoned.saturating_sub(1);
                continue;
            }
            match self.tunnel.open(pending.spec.clone(), now) {
                Ok(id) => {
                    shared.set_id(id);
                    shared.set_capacity(self.tunnel.send_capacity(id));
                    self.streams.insert(id, shared.clone());
                    self.stream_changed(&shared, now);
                }
                Err(OpenError::Limit) => {
                    shared.set_waiting();
                    self.waiting.push_front(pending);
                    break;
                }
                Err(OpenError::Memory) => shared.fail(Reason::Limit),
                Err(OpenError::NotUnderstood) => shared.fail(Reason::Internal),
                Err(OpenError::GoingAway) => shared.fail(Reason::GoingAway),
                Err(OpenError::TunnelLost) => shared.fail(Reason::TunnelLost),
            }
        }
    }

    /// One more of those that wait is not wanted any more. They are swept out when they are the half, so that a peer which
    /// grants no Open cannot make the queue longer than the connections behind it.
    fn forget_abandoned(&mut self) {
        self.abandoned += 1;
        if self.abandoned * 2 > self.waiting.len() {
            self.waiting
                .retain(|pending| !pending.shared.is_abandoned());
            self.abandoned = 0;
        }
    }

    /// No new streams from now on; the tunnel ends when the last one has.
    pub(super) fn begin_drain(&mut self) {
        self.draining = true;
        let _ = self.published.draining.send_replace(true);
        for pending in self.waiting.drain(..) {
            pending.shared.fail(Reason::GoingAway);
        }
    }
}
