//! One direction of a line: delay, rate, and damage.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known};
use codec::frame::{Data, Frame, FrameCodec};
use tokio_util::codec::Decoder;

use super::Random;

/// What a sender may have waiting for the line: a socket's buffer.
const BACKLOG_MAX_BYTES: usize = 256 << 10;

pub struct Line {
    delay: Duration,
    bytes_per_s: Option<u64>,
    blocks: BlockVersion,
    free_at: Option<Instant>,
    under_way: VecDeque<(Instant, Bytes)>,
    arrived: BytesMut,
    /// It takes what is sent, and nothing arrives.
    is_dead: bool,
    pub sent_bytes: u64,
    /// Of 1,000 blocks with a checksum, how many are damaged.
    pub damage_per_mille: u64,
    pub damaged_blocks: u64,
    /// Frames received, by their `Debug` name.
    pub frames: std::collections::BTreeMap<String, u64>,
    /// The first fragment of the block was whole and worth damaging.
    candidate: Option<u64>,
}

impl Line {
    pub fn new(delay: Duration, bytes_per_s: Option<u64>, blocks: BlockVersion) -> Self {
        Self {
            delay,
            bytes_per_s,
            blocks,
            free_at: None,
            under_way: VecDeque::new(),
            arrived: BytesMut::new(),
            is_dead: false,
            sent_bytes: 0,
            damage_per_mille: 0,
            damaged_blocks: 0,
            frames: std::collections::BTreeMap::new(),
            candidate: None,
        }
    }

    pub fn backlog_bytes(&self, now: Instant) -> usize {
        let (Some(rate), Some(free_at)) = (self.bytes_per_s, self.free_at) else {
            return 0;
        };
        let waits = free_at.saturating_duration_since(now);
        usize::try_from(waits.as_micros() * u128::from(rate) / 1_000_000).unwrap()
    }

    pub fn takes(&self, now: Instant) -> bool {
        self.backlog_bytes(now) < BACKLOG_MAX_BYTES
    }

    /// What is under way is lost, and so is what comes.
    pub fn lose(&mut self) {
        self.is_dead = true;
        self.under_way.clear();
        self.arrived.clear();
        self.candidate = None;
    }

    /// Whether nothing arrives over it any more.
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Another connection.
    pub fn restore(&mut self) {
        self.is_dead = false;
        self.free_at = None;
    }

    pub fn send(&mut self, slices: &[Bytes], now: Instant) {
        for slice in slices {
            self.sent_bytes += slice.len() as u64;
            let start = self.free_at.map_or(now, |at| at.max(now));
            let time = self.bytes_per_s.map_or(Duration::ZERO, |rate| {
                Duration::from_nanos(slice.len() as u64 * 1_000_000_000 / rate)
            });
            self.free_at = Some(start + time);
            if !self.is_dead {
                self.under_way
                    .push_back((start + time + self.delay, slice.clone()));
            }
        }
    }

    /// When something arrives, or the backlog is low enough again.
    pub fn next_moment(&self, now: Instant) -> Option<Instant> {
        let arrival = self.under_way.front().map(|(at, _)| *at);
        let room = (!self.takes(now)).then(|| now + Duration::from_millis(1));
        arrival.into_iter().chain(room).min()
    }

    pub fn receive(&mut self, now: Instant, random: &mut Random) -> Vec<Frame> {
        while let Some((at, _)) = self.under_way.front() {
            if *at > now {
                break;
            }
            let (_, bytes) = self.under_way.pop_front().unwrap();
            self.arrived.extend_from_slice(&bytes);
        }
        let mut frames = Vec::new();
        while let Some(mut frame) = FrameCodec.decode(&mut self.arrived).unwrap() {
            let name = format!("{frame:?}");
            let name = name
                .split(['(', ' ', '{'])
                .next()
                .unwrap_or_default()
                .to_owned();
            *self.frames.entry(name).or_default() += 1;
            if let Frame::Data(data) = &mut frame {
                self.damage(data, random);
            }
            frames.push(frame);
        }
        frames
    }

    /// Flips a bit at the end of a block that has a checksum and is not a replacement.
    fn damage(&mut self, data: &mut Data, random: &mut Random) {
        if self.damage_per_mille == 0 {
            return;
        }
        if data.offset == 0 {
            // Without what both ends know it says wrong places, which do not matter here.
            let mut bytes = data.bytes.clone();
            let header = BlockHeader::decode(&mut bytes, self.blocks, |_, _| Known::default());
            // Damage of operations makes nonsense, which ends the tunnel; here it shall be the bytes that are wrong.
            let fits = header.is_ok_and(|header| {
                header.body == BodyKind::Raw
                    && header.checksum.is_some()
                    && header.replaces.is_none()
            });
            self.candidate = fits.then_some(data.number);
        }
        if data.last
            && self.candidate == Some(data.number)
            && random.below(1000) < self.damage_per_mille
        {
            let mut bytes = BytesMut::from(&data.bytes[..]);
            *bytes.last_mut().unwrap() ^= 1;
            data.bytes = bytes.freeze();
            self.damaged_blocks += 1;
        }
    }
}
