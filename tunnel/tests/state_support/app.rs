//! An application at one end of a stream: what it sends is a function of stream, direction and offset, and it checks what it receives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::frame::{Reason, StreamId};
use tunnel::state::Tunnel;

use super::Random;

/// What bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Text that all streams share: it is found again in the histories.
    #[default]
    Shared,
    /// Text of the stream's own.
    Own,
    /// Noise of the stream's own.
    Noise,
}

/// How the sending direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    #[default]
    Finish,
    /// The LAN read fails after all bytes were written.
    Reset,
}

/// What an application does.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub bytes: u64,
    pub kind: Kind,
    pub ending: Ending,
    /// Writes have at most this many bytes; 0: as many as capacity allows.
    pub write_max: u64,
    /// Says StopSending after so many received bytes.
    pub stops_after: Option<u64>,
    /// Delivers what it received only after this time.
    pub consumes_after: Duration,
    /// Bytes that it receives before it sends any.
    pub waits_for: u64,
}

#[derive(Debug)]
pub struct App {
    id: StreamId,
    side: usize,
    plan: Plan,
    sent: u64,
    has_ended: bool,
    was_stopped: bool,
    received: u64,
    is_over: bool,
    has_stopped: bool,
    to_consume: VecDeque<(Instant, u64)>,
}

/// One byte of a stream's direction.
fn text(seed: u64, at: u64) -> u8 {
    let word = at / 8;
    let mut x = seed ^ (word % 5000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    b'a' + u8::try_from((x >> (at % 8 * 5)) & 15).unwrap()
}

fn noise(seed: u64, at: u64) -> u8 {
    let mut x = (at / 8)
        .wrapping_add(seed << 40)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    u8::try_from((x >> (at % 8 * 8)) & 255).unwrap()
}

pub fn payload(kind: Kind, id: StreamId, sender: usize, at: u64) -> u8 {
    let seed = id.0 * 2 + sender as u64 + 1;
    match kind {
        Kind::Shared => text(1, at),
        Kind::Own => text(seed, at),
        Kind::Noise => noise(seed, at),
    }
}

fn kind_of(id: StreamId) -> Kind {
    match id.0 / 2 % 3 {
        0 => Kind::Shared,
        1 => Kind::Own,
        _ => Kind::Noise,
    }
}

impl App {
    pub fn new(id: StreamId, side: usize, mut plan: Plan, _now: Instant) -> Self {
        // Both ends must know what to expect, so the stream decides.
        if plan.kind == Kind::default() {
            plan.kind = kind_of(id);
        }
        Self {
            id,
            side,
            plan,
            sent: 0,
            has_ended: false,
            was_stopped: false,
            received: 0,
            is_over: false,
            has_stopped: false,
            to_consume: VecDeque::new(),
        }
    }

    pub fn next_moment(&self) -> Option<Instant> {
        self.to_consume.front().map(|(at, _)| *at)
    }

    /// Writes what fits, ends when all is written, delivers what is due. True if anything was done.
    pub fn act(&mut self, tunnel: &mut Tunnel, random: &mut Random, now: Instant) -> bool {
        let mut moved = false;
        while let Some(&(at, bytes)) = self.to_consume.front()
            && at <= now
        {
            self.to_consume.pop_front();
            tunnel.consumed(self.id, bytes, now);
            moved = true;
        }
        if !self.has_stopped
            && self
                .plan
                .stops_after
                .is_some_and(|after| self.received >= after)
            && !self.is_over
        {
            self.has_stopped = true;
            tunnel.stop_sending(self.id, Reason::ConnectionReset, now);
            moved = true;
        }
        if self.has_ended || self.was_stopped || self.received < self.plan.waits_for {
            return moved;
        }
        if self.sent < self.plan.bytes {
            let capacity = tunnel.send_capacity(self.id) as u64;
            let most = if self.plan.write_max == 0 {
                128 << 10
            } else {
                1 + random.below(self.plan.write_max)
            };
            let length = capacity.min(most).min(self.plan.bytes - self.sent);
            if length > 0 {
                let data: Bytes = (self.sent..self.sent + length)
                    .map(|at| payload(self.plan.kind, self.id, self.side, at))
                    .collect();
                tunnel.write(self.id, data, now);
                self.sent += length;
                if tunnel.send_capacity(self.id) > 0 {
                    tunnel.relay_waiting(self.id, now);
                }
                return true;
            }
            return moved;
        }
        self.has_ended = true;
        match self.plan.ending {
            Ending::Finish => tunnel.finish(self.id, now),
            Ending::Reset => tunnel.reset(self.id, Reason::ConnectionReset, now),
        }
        true
    }

    pub fn receive(&mut self, data: &[u8], now: Instant) {
        assert!(!self.is_over, "stream {}: bytes after the end", self.id);
        assert!(
            !self.has_stopped,
            "stream {}: bytes after StopSending",
            self.id
        );
        for (at, byte) in (self.received..).zip(data) {
            let expected = payload(self.plan.kind, self.id, 1 - self.side, at);
            assert_eq!(
                *byte,
                expected,
                "stream {} from end {} differs at offset {at}",
                self.id,
                1 - self.side
            );
        }
        self.received += data.len() as u64;
        self.to_consume
            .push_back((now + self.plan.consumes_after, data.len() as u64));
    }

    pub fn finished(&mut self) {
        assert!(
            !std::mem::replace(&mut self.is_over, true),
            "stream {}: ended twice",
            self.id
        );
    }

    pub fn reset(&mut self, _reason: Reason) {
        self.is_over = true;
        self.to_consume.clear();
    }

    pub fn stopped(&mut self, _reason: Reason) {
        self.was_stopped = true;
    }
}
