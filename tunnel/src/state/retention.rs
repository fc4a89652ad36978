//! What was sent and is not yet acknowledged, by number.

use std::collections::VecDeque;

use bytes::Bytes;
use codec::block::{BlockHeader, Span};
use codec::encoder::{Append, Uses};
use codec::frame::{DomainId, Frame, StreamId};

use super::LinkId;

/// Numbers above the lowest unfinished one that may be in use: bounds what a receiver remembers (docs/protocol.md, section 2).
pub(super) const NUMBER_WINDOW: u64 = 65_536;

/// A numbered frame or a block that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Sent {
    /// The stream it belongs to; [`StreamId::TUNNEL`] for GoAway.
    pub(super) stream: StreamId,
    /// Which link it was handed to, or will be.
    pub(super) link: LinkId,
    pub(super) what: SentWhat,
}

#[derive(Debug)]
pub(super) enum SentWhat {
    /// Kept whole, so that it can be sent again on another link.
    Frame(Frame),
    Block(SentBlock),
}

/// A block as it went, or is going, out.
#[derive(Debug)]
pub(super) struct SentBlock {
    /// The clear header as on the wire, and what it says: not to be read again without what was known when it was written.
    pub(super) header: Bytes,
    pub(super) clear: Box<BlockHeader>,
    pub(super) body: Bytes,
    pub(super) plain_bytes: u32,
    pub(super) domain: Option<DomainId>,
    /// What it refers to, pinned until it is acknowledged.
    pub(super) uses: Uses,
    pub(super) append: Option<Span>,
    /// What is to be committed when its last fragment has been handed to a link.
    pub(super) to_commit: Option<(DomainId, u64, Append)>,
    pub(super) is_replacement: bool,
    /// Its last fragment was handed to a link.
    pub(super) complete: bool,
}

impl SentBlock {
    pub(super) fn encoded_bytes(&self) -> u64 {
        (self.header.len() + self.body.len()) as u64
    }
}

/// See the module. Numbers start at 1 and are given in order.
#[derive(Debug)]
pub(super) struct Retention {
    /// Number of the front entry.
    base: u64,
    entries: VecDeque<Option<Box<Sent>>>,
    encoded_bytes: u64,
    plain_bytes: u64,
}

impl Retention {
    pub(super) fn new() -> Self {
        Self {
            base: 1,
            entries: VecDeque::new(),
            encoded_bytes: 0,
            plain_bytes: 0,
        }
    }

    /// The number that the next frame gets.
    pub(super) fn next_number(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Whether one more number stays within the peer's window.
    pub(super) fn has_room(&self) -> bool {
        (self.entries.len() as u64) < NUMBER_WINDOW
    }

    /// Whether nothing is unacknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Encoded bytes of unacknowledged blocks.
    pub(super) fn encoded_bytes(&self) -> u64 {
        self.encoded_bytes
    }

    /// Plain bytes of unacknowledged blocks.
    pub(super) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Keeps `sent` under the next number.
    pub(super) fn push(&mut self, sent: Sent) -> u64 {
        if let SentWhat::Block(block) = &sent.what {
            self.encoded_bytes += block.encoded_bytes();
            self.plain_bytes += u64::from(block.plain_bytes);
        }
        let number = self.next_number();
        self.entries.push_back(Some(Box::new(sent)));
        number
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.base)?).ok()
    }

    pub(super) fn get(&self, number: u64) -> Option<&Sent> {
        self.entries.get(self.index(number)?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Sent> {
        let index = self.index(number)?;
        self.entries.get_mut(index)?.as_deref_mut()
    }

    /// All that is kept, in the order of numbers.
    pub(super) fn kept(&self) -> impl Iterator<Item = (u64, &Sent)> {
        (self.base..)
            .zip(&self.entries)
            .filter_map(|(number, sent)| Some((number, sent.as_deref()?)))
    }

    /// Those that were handed to `from` are `to`'s from now on. Returns their numbers, in order.
    pub(super) fn move_to(&mut self, from: LinkId, to: LinkId) -> Vec<u64> {
        let mut moved = Vec::new();
        for (number, sent) in (self.base..).zip(&mut self.entries) {
            if let Some(sent) = sent.as_mut().filter(|sent| sent.link == from) {
                sent.link = to;
                moved.push(number);
            }
        }
        moved
    }

    /// Whether everything under this number went out; true for what was acknowledged long ago.
    pub(super) fn was_sent(&self, number: u64) -> bool {
        let incomplete = matches!(
            self.get(number),
            Some(Sent {
                what: SentWhat::Block(SentBlock {
                    complete: false,
                    ..
                }),
                ..
            })
        );
        number >= 1 && number < self.next_number() && !incomplete
    }

    /// The lowest number that is not acknowledged.
    pub(super) fn frontier(&self) -> u64 {
        self.base
    }

    /// The lowest number at or above `from` and below `end` that is still kept.
    pub(super) fn first_kept(&self, from: u64, end: u64) -> Option<u64> {
        let from = from.max(self.base);
        let skip = self.index(from)?;
        let found = self.entries.iter().skip(skip).position(Option::is_some)?;
        Some(from + found as u64).filter(|number| *number < end)
    }

    /// Takes what is kept under `number`, if it still is.
    pub(super) fn take(&mut self, number: u64) -> Option<Sent> {
        let index = self.index(number)?;
        let sent = *self.entries.get_mut(index)?.take()?;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.base += 1;
        }
        if let SentWhat::Block(block) = &sent.what {
            self.encoded_bytes -= block.encoded_bytes();
            self.plain_bytes -= u64::from(block.plain_bytes);
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::frame::Reason;

    fn frame(number: u64) -> Sent {
        let what = SentWhat::Frame(Frame::GoAway {
            number,
            reason: Reason::GoingAway,
        });
        Sent {
            stream: StreamId::TUNNEL,
            link: LinkId::from(0),
            what,
        }
    }

    #[test]
    fn numbers_start_at_one_and_are_kept_until_taken() {
        let mut kept = Retention::new();
        for number in 1..=5 {
            assert_eq!(kept.push(frame(number)), number);
        }
        assert!(kept.take(3).is_some());
        assert!(kept.take(3).is_none());
        assert!(kept.was_sent(3) && kept.was_sent(5) && !kept.was_sent(6) && !kept.was_sent(0));
        assert_eq!(kept.first_kept(1, 6), Some(1));
        assert_eq!(kept.first_kept(3, 6), Some(4));
        assert_eq!(kept.first_kept(3, 4), None);
        for number in [1, 2, 4, 5] {
            assert!(kept.take(number).is_some());
        }
        assert_eq!(kept.next_number(), 6);
        assert_eq!(kept.first_kept(0, u64::MAX), None);
    }

    #[test]
    fn the_window_of_numbers_is_bounded() {
        let mut kept = Retention::new();
        while kept.has_room() {
            let number = kept.next_number();
            kept.push(frame(number));
        }
        assert_eq!(kept.next_number(), NUMBER_WINDOW + 1);
        kept.take(2);
        assert!(!kept.has_room(), "the lowest one is still open");
        kept.take(1);
        assert!(kept.has_room());
    }
}
