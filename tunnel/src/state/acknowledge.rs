//! What the peer says became of what was sent.

use std::time::Instant;

use codec::block::Space;
use codec::domain::Log;
use codec::frame::{Ack, Frame, Refuse};

use super::domains::Pins;
use super::encode::Rebuild;
use super::retention::{Sent, SentBlock, SentWhat};
use super::{Tunnel, Violation};

impl Tunnel {
    pub(super) fn handle_ack(&mut self, ack: &Ack, now: Instant) -> Result<(), Violation> {
        for range in ack.numbers.iter() {
            let highest = range.end - 1;
            if range.start == 0 || highest >= self.retention.next_number() {
                return Err(Violation::AckOfUnsent(highest));
            }
        }
        for lost in &ack.not_stored {
            if self.domains.held(lost.domain).is_none() {
                return Err(Violation::DomainNotHeld(lost.domain));
            }
        }
        for range in ack.numbers.iter() {
            let mut from = range.start;
            while let Some(number) = self.retention.first_kept(from, range.end) {
                if !self.retention.was_sent(number) {
                    return Err(Violation::AckOfUnsent(number));
                }
                if let Some(sent) = self.retention.take(number) {
                    self.acknowledged(sent, now);
                }
                from = number + 1;
            }
        }
        for lost in &ack.not_stored {
            if let Some(domain) = self.domains.held(lost.domain) {
                domain.lose(Log::Own, lost.span.position, u64::from(lost.span.length));
            }
        }
        self.raise_floors(now);
        Ok(())
    }

    fn acknowledged(&mut self, sent: Sent, now: Instant) {
        match sent.what {
            SentWhat::Block(block) => {
                self.under_way.end(&block, sent.link);
                self.memory
                    .retained
                    .give(block.header.len() + block.body.len());
                self.domains.unpin(block.pins());
            }
            SentWhat::Frame(frame) => {
                self.goaway_is_known |= matches!(frame, Frame::GoAway { .. });
                if let (Frame::Open(_), Some(stream)) = (&frame, self.streams.get_mut(&sent.stream))
                {
                    stream.is_known = true;
                }
                self.open_is_known(sent.stream, now);
            }
        }
        if let Some(stream) = self.streams.get_mut(&sent.stream) {
            stream.send.unacknowledged -= 1;
            self.close_if_over(sent.stream, now);
        }
    }

    /// The peer could not decode a block: what it lacks is lost for good, and the bytes go again.
    pub(super) fn handle_refuse(&mut self, refuse: &Refuse, now: Instant) -> Result<(), Violation> {
        let number = refuse.number;
        if !self.retention.was_sent(number) {
            return Err(Violation::RefuseOfUnsent(number));
        }
        match self.retention.get(number) {
            // A repetition.
            None => return Ok(()),
            Some(Sent {
                what: SentWhat::Frame(_),
                ..
            }) => return Err(Violation::RefuseOfUnsent(number)),
            Some(Sent {
                what: SentWhat::Block(block),
                ..
            }) if block.is_replacement => return Err(Violation::ReplacementRefused(number)),
            Some(_) => {}
        }
        for lost in &refuse.lost {
            if self.domains.held(lost.domain).is_none() {
                return Err(Violation::DomainNotHeld(lost.domain));
            }
        }
        self.registry.count_refused(refuse.reason);
        for lost in &refuse.lost {
            let log = match lost.source.space {
                Space::Sender => Log::Own,
                Space::Receiver => Log::Mirror,
            };
            if let Some(domain) = self.domains.held(lost.domain) {
                domain.lose(log, lost.source.position, u64::from(lost.source.length));
            }
        }
        let Some(Sent {
            stream,
            link,
            what: SentWhat::Block(block),
        }) = self.retention.take(number)
        else {
            return Ok(());
        };
        self.under_way.end(&block, link);
        self.memory
            .retained
            .give(block.header.len() + block.body.len());
        if let (Some(append), Some(domain)) = (
            block.append,
            block.domain.and_then(|domain| self.domains.held(domain)),
        ) {
            domain.lose(Log::Own, append.position, u64::from(append.length));
        }
        let pins = block.pins();
        let Some(of) = self.streams.get_mut(&stream) else {
            self.domains.unpin(pins);
            return Ok(());
        };
        of.send.unacknowledged -= 1;
        if of.send.delivers() {
            of.send.rebuilding += 1;
            let SentBlock {
                clear: header,
                body,
                plain_bytes,
                ..
            } = block;
            self.jobs.push_rebuild(Rebuild {
                number,
                stream,
                header,
                body,
                plain_bytes: u64::from(plain_bytes),
                pins,
            });
        } else {
            self.domains.unpin(pins);
            self.close_if_over(stream, now);
        }
        Ok(())
    }
}

impl SentBlock {
    fn pins(&self) -> Pins {
        Pins {
            domain: self.domain,
            uses: self.uses,
        }
    }
}
