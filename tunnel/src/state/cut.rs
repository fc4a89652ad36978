//! How a stream's bytes are cut into blocks: when, and how long.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use codec::encoder::Tally;
pub(super) use codec::policy::BULK_BLOCK_BYTES;

use super::stream::{GAP, HOLD_MAX, SendSide, SendState};

impl SendSide {
    /// The newest block in stream order has been encoded.
    pub(super) fn learn(&mut self, block: Tally) {
        self.mostly_copies = u64::from(block.copied_bytes) * 2 >= block.plain_bytes();
        self.block_bytes = block.bulk_block_bytes();
    }

    /// Bytes that may be cut now.
    fn cuttable_bytes(&self) -> u64 {
        self.allowance
            .limit()
            .saturating_sub(self.cut_offset)
            .min(self.queued_bytes)
            .min(self.block_bytes)
    }

    /// Whether a block should be cut now. `None`: yes. Otherwise the time at which to look again, or none if something else must happen first.
    pub(super) fn cut_waits(&self, has_room: bool, now: Instant) -> Option<Option<Instant>> {
        let bytes = self.cuttable_bytes();
        let one_at_a_time = !self.is_bulk || self.mostly_copies;
        if bytes == 0 || !self.delivers() || (one_at_a_time && self.encoding > 0) {
            return Some(None);
        }
        let relay_can_bring_more =
            self.state == SendState::Open && has_room && self.room_bytes() > 0;
        if !self.is_bulk || bytes >= self.block_bytes || !relay_can_bring_more {
            return None;
        }
        let until = self.hold_until();
        if now >= until {
            None
        } else {
            Some(Some(until))
        }
    }

    /// When held bytes go out at the latest.
    pub(super) fn hold_until(&self) -> Instant {
        let at_most = self.last_write + HOLD_MAX;
        self.waiting_since
            .map_or(at_most, |since| (since + GAP).min(at_most))
    }

    /// Cuts the next block's bytes off the queue: a slice of one piece where that is a block's worth, gathered otherwise.
    pub(super) fn cut(&mut self) -> Bytes {
        let length = self.cuttable_bytes();
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let plain = match self.queue.front_mut() {
            None => Bytes::new(),
            Some(head) if head.len() > wanted => head.split_to(wanted),
            Some(head) if head.len() == wanted => self.queue.pop_front().unwrap_or_default(),
            Some(_) => self.gather(wanted),
        };
        self.queued_bytes -= plain.len() as u64;
        self.cut_offset += plain.len() as u64;
        plain
    }

    fn gather(&mut self, wanted: usize) -> Bytes {
        let mut plain = BytesMut::with_capacity(wanted);
        while plain.len() < wanted {
            let Some(head) = self.queue.front_mut() else {
                break;
            };
            let room = wanted - plain.len();
            if head.len() > room {
                plain.extend_from_slice(&head.split_to(room));
            } else {
                plain.extend_from_slice(head);
                self.queue.pop_front();
            }
        }
        plain.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send_side(now: Instant) -> SendSide {
        let mut send = SendSide::new(16 << 10, now);
        send.allowance.credit(1, 10 << 20);
        send
    }

    fn piece(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[test]
    fn a_small_write_is_cut_at_once() {
        let now = Instant::now();
        let mut send = send_side(now);
        assert_eq!(send.cut_waits(true, now), Some(None), "nothing there");
        send.push(piece(1), now);
        assert_eq!(send.cut_waits(true, now), None);
        assert_eq!(send.cut().len(), 1);
        assert_eq!((send.cut_offset, send.queued_bytes), (1, 0));
    }

    #[test]
    fn bulk_waits_for_a_full_block_or_a_gap() {
        let now = Instant::now();
        let mut send = send_side(now);
        for _ in 0..4 {
            send.push(piece(64 << 10), now);
        }
        assert!(send.is_bulk);
        for _ in 0..2 {
            assert_eq!(send.cut_waits(true, now), None);
            assert_eq!(send.cut().len(), 128 << 10);
        }
        send.push(piece(1000), now);
        assert_eq!(send.cut_waits(true, now), Some(Some(now + HOLD_MAX)));
        send.waiting_since = Some(now);
        assert_eq!(send.cut_waits(true, now), Some(Some(now + GAP)));
        assert_eq!(send.cut_waits(true, now + GAP), None);
        assert_eq!(
            send.cut_waits(false, now),
            None,
            "without room the relay brings nothing"
        );
        send.state = SendState::Finishing;
        assert_eq!(send.cut_waits(true, now), None);
    }

    #[test]
    fn a_gap_ends_bulk() {
        let now = Instant::now();
        let mut send = send_side(now);
        send.push(piece(300 << 10), now);
        assert!(send.is_bulk);
        send.waiting_since = Some(now);
        send.push(piece(10), now + GAP);
        assert!(!send.is_bulk);
    }

    #[test]
    fn an_exchange_of_messages_never_becomes_bulk() {
        let now = Instant::now();
        let mut send = send_side(now);
        for _ in 0..100 {
            send.was_answered = true;
            send.push(piece(16 << 10), now);
            assert_eq!(send.cut_waits(true, now), None);
            assert_eq!(send.cut().len(), 16 << 10);
            send.waiting_since = Some(now);
        }
        for _ in 0..16 {
            send.push(piece(16 << 10), now);
        }
        assert!(send.is_bulk, "what goes on without an answer is");
    }

    #[test]
    fn cutting_stops_at_credit_and_loses_nothing() {
        let now = Instant::now();
        let mut send = SendSide::new(1000, now);
        for length in [300, 300, 300, 300] {
            send.push(piece(length), now);
        }
        assert_eq!(send.cut().len(), 1000);
        assert_eq!(send.cut_waits(true, now), Some(None));
        send.allowance.credit(1, 1100);
        assert_eq!(send.cut().len(), 100);
        assert_eq!(
            (send.cut_offset, send.queued_bytes, send.queue.len()),
            (1100, 100, 1)
        );
    }

    #[test]
    fn a_large_piece_is_used_as_it_is() {
        let now = Instant::now();
        let mut send = send_side(now);
        let large = piece(200 << 10);
        let at = large.as_ptr();
        send.push(large, now);
        send.push(piece(200 << 10), now);
        let block = send.cut();
        assert_eq!((block.as_ptr(), block.len()), (at, 128 << 10));
    }

    #[test]
    fn blocks_are_long_while_nearly_everything_is_copied() {
        let now = Instant::now();
        let mut send = send_side(now);
        for _ in 0..8 {
            send.push(piece(128 << 10), now);
        }
        let tally = |copied_bytes, compressed_bytes| Tally {
            copied_bytes,
            compressed_bytes,
            raw_bytes: 0,
        };
        assert_eq!(send.cut().len(), 128 << 10);
        send.learn(tally(130_000, 1072));
        assert!(send.mostly_copies);
        assert_eq!(send.cut_waits(true, now), None);
        assert_eq!(send.cut().len(), 256 << 10);
        send.learn(tally(200_000, 62_144));
        assert!(send.mostly_copies);
        assert_eq!(send.cut().len(), 128 << 10);
    }
}
