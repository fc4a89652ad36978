//! Any bytes, any cuts, any interleaving of streams, both directions, jobs in any order, any eviction, any block damaged or lost: what is
//! decoded is what was sent, nobody is accused, and nothing panics.
#![expect(
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod core_pair;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use codec::block::{BlockHeader, Source, Space};
use codec::domain::Log;
use codec::error::DecodeError;
use codec::frame::RefuseReason;
use core_pair::{End, Flight, agree, mix, noise, text};
use proptest::prelude::*;

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// One end sends bytes of a stream: which part of the common pool, and how it differs.
    Send {
        from: bool,
        stream: u8,
        start: u16,
        length: u16,
        change: u8,
    },
    /// Up to so many first fragments arrive at an end.
    Arrive { at: bool, blocks: u8 },
    /// A job runs: one of the blocks that have arrived at an end.
    Decode { at: bool, which: u8 },
    /// The next block that is decoded at an end has the wrong checksum.
    Damage { at: bool },
    /// An end finds that it cannot read a range of a log any more.
    Lose {
        at: bool,
        mirror: bool,
        position: u16,
        length: u16,
    },
    /// A reserved range is never sent.
    Abandon { from: bool, length: u16 },
    /// An end forgets the older part of its mirror on its own account.
    Evict { at: bool, part: u8 },
    /// The owner's floor rises as far as its unacknowledged blocks let it.
    Floor { from: bool },
    /// The tunnel ends with all that was on its way; another takes over, perhaps with one end restarted.
    NewTunnel { restarted: Option<bool> },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (any::<bool>(), 0u8..4, any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(from, stream, start, length, change)| Event::Send { from, stream, start, length, change }),
        8 => (any::<bool>(), 1u8..5).prop_map(|(at, blocks)| Event::Arrive { at, blocks }),
        12 => (any::<bool>(), any::<u8>()).prop_map(|(at, which)| Event::Decode { at, which }),
        1 => any::<bool>().prop_map(|at| Event::Damage { at }),
        1 => (any::<bool>(), any::<bool>(), any::<u16>(), any::<u16>()).prop_map(|(at, mirror, position, length)| Event::Lose { at, mirror, position, length }),
        1 => (any::<bool>(), 1u16..5000).prop_map(|(from, length)| Event::Abandon { from, length }),
        1 => (any::<bool>(), 0u8..10).prop_map(|(at, part)| Event::Evict { at, part }),
        2 => any::<bool>().prop_map(|from| Event::Floor { from }),
        1 => proptest::option::weighted(0.4, any::<bool>()).prop_map(|restarted| Event::NewTunnel { restarted }),
    ]
}

/// A tunnel's two directions. `0` sends what `1` decodes, and the other way round.
struct World {
    ends: [End; 2],
    /// Sent and not arrived, by receiver.
    line: [VecDeque<Flight>; 2],
    /// Arrived and not decoded, by receiver.
    arrived: [Vec<(Flight, BlockHeader)>; 2],
    damage: [bool; 2],
    pool: Vec<u8>,
    capacity_bytes: u64,
    openings: u8,
    seen: Seen,
}

/// What the run has exercised.
#[derive(Debug, Default)]
struct Seen {
    decoded: u32,
    refused: u32,
    waited: u32,
    reset: u32,
}

impl World {
    fn new(capacity_bytes: u64) -> Self {
        let ends = core_pair::pair(capacity_bytes);
        let pool = [
            text(60_000, 1),
            noise(20_000, 1),
            vec![0; 5000],
            text(20_000, 2),
            noise(60_000, 2),
        ]
        .concat();
        Self {
            ends,
            line: Default::default(),
            arrived: Default::default(),
            damage: [false; 2],
            pool,
            capacity_bytes,
            openings: 2,
            seen: Seen::default(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Send {
                from,
                stream,
                start,
                length,
                change,
            } => self.send(from.into(), stream, start, length, change),
            Event::Arrive { at, blocks } => (0..blocks).for_each(|_| self.arrive(at.into())),
            Event::Decode { at, which } => self.decode(at.into(), which.into()),
            Event::Damage { at } => self.damage[usize::from(at)] = true,
            Event::Lose {
                at,
                mirror,
                position,
                length,
            } => {
                let log = if mirror { Log::Mirror } else { Log::Own };
                let end = &self.ends[usize::from(at)];
                let claim = end.domain.claim(log);
                let position =
                    claim.floor + (claim.tail - claim.floor) * u64::from(position) / 65_536;
                end.domain.lose(log, position, length.into());
            }
            Event::Abandon { from, length } => {
                let domain = &self.ends[usize::from(from)].domain;
                if let Some(position) = domain.reserve(length.into()) {
                    domain.abandon(codec::block::Span {
                        position,
                        length: length.into(),
                    });
                }
            }
            Event::Evict { at, part } => {
                let end = &self.ends[usize::from(at)];
                let claim = end.domain.claim(Log::Mirror);
                end.domain.drop_below(
                    Log::Mirror,
                    claim.floor + (claim.tail - claim.floor) * u64::from(part) / 10,
                );
            }
            Event::Floor { from } => self.floor(from.into()),
            Event::NewTunnel { restarted } => self.new_tunnel(restarted),
        }
    }

    fn send(&mut self, from: usize, stream: u8, start: u16, length: u16, change: u8) {
        // Short and long blocks, from places that repeat often.
        let length = 1 + if change & 1 == 0 {
            usize::from(length) % 200
        } else {
            usize::from(length) % 40_000
        };
        let start = usize::from(start & 0xf800) * 2 % (self.pool.len() - length);
        let mut plain = self.pool[start..start + length].to_vec();
        if change & 6 == 0 {
            let at = mix(u64::from(change)) as usize % plain.len();
            plain.splice(at..at, noise(usize::from(change), change.into()));
        }
        let flight = self.ends[from].send(u64::from(stream) * 2 + 1, &Bytes::from(plain));
        self.line[1 - from].push_back(flight);
    }

    fn arrive(&mut self, at: usize) {
        if let Some(flight) = self.line[at].pop_front() {
            let header = self.ends[at].register(&flight);
            self.arrived[at].push((flight, header));
        }
    }

    fn decode(&mut self, at: usize, which: usize) {
        if self.arrived[at].is_empty() {
            return;
        }
        let which = which % self.arrived[at].len();
        let (flight, header) = self.arrived[at].swap_remove(which);
        let mut shown = header.clone();
        if let Some(checksum) = shown
            .checksum
            .as_mut()
            .filter(|_| header.replaces.is_none() && std::mem::take(&mut self.damage[at]))
        {
            *checksum ^= 1;
        }
        match self.ends[at].decode(&shown, &flight.body) {
            Ok(decoded) => {
                assert_eq!(shown, header, "damage was noticed");
                assert_eq!(decoded.plain, flight.plain);
                if let Some(append) = header.append.filter(|_| !decoded.stored) {
                    // The Ack lists it.
                    self.ends[1 - at].lose(Log::Own, append);
                }
                self.seen.decoded += 1;
            }
            Err(DecodeError::Waits { log, .. }) => {
                assert_eq!(
                    log,
                    Log::Mirror,
                    "only what the peer still sends is waited for"
                );
                self.seen.waited += 1;
                if shown == header {
                    self.arrived[at].push((flight, header));
                } else {
                    self.damage[at] = true;
                    self.arrived[at].push((flight, header));
                }
            }
            Err(DecodeError::Refused { reason, lost }) => {
                assert!(header.replaces.is_none(), "a repeat refers to nothing");
                assert!(
                    reason != RefuseReason::Damaged || shown != header,
                    "{lost:?}"
                );
                self.refuse(at, flight, &header, &lost);
            }
            Err(error @ (DecodeError::NotResident | DecodeError::Violation(_))) => {
                panic!("{error} for {header:?}")
            }
        }
    }

    /// Both sides give up what is lost, and the bytes come again.
    fn refuse(&mut self, at: usize, flight: Flight, header: &BlockHeader, lost: &[Source]) {
        self.seen.refused += 1;
        let append = header.append.map(|span| Source {
            space: Space::Sender,
            position: span.position,
            length: span.length,
        });
        for source in lost.iter().copied().chain(append) {
            let (senders, receivers) = match source.space {
                Space::Sender => (Log::Own, Log::Mirror),
                Space::Receiver => (Log::Mirror, Log::Own),
            };
            self.ends[at].lose(receivers, source.span());
            self.ends[1 - at].lose(senders, source.span());
        }
        match self.ends[1 - at].repeat(&flight, 1) {
            Some(repeat) => {
                assert!(repeat.encoded.uses == codec::encoder::Uses::default());
                self.line[at].push_back(repeat);
            }
            // The stream alone is reset.
            None => self.seen.reset += 1,
        }
    }

    /// Floor and Floored, which wait for what is unacknowledged.
    fn floor(&mut self, owner: usize) {
        let Some(wanted) = self.ends[owner].domain.floor_wanted() else {
            return;
        };
        let used = |receiver: usize, log: Log| {
            let flights = self.line[receiver]
                .iter()
                .chain(self.arrived[receiver].iter().map(|(flight, _)| flight));
            flights
                .filter_map(move |flight| {
                    if log == Log::Own {
                        flight.encoded.uses.own
                    } else {
                        flight.encoded.uses.mirror
                    }
                })
                .min()
                .unwrap_or(u64::MAX)
        };
        let floor = wanted
            .min(used(1 - owner, Log::Own))
            .min(used(owner, Log::Mirror));
        self.ends[owner].domain.drop_below(Log::Own, floor);
        self.ends[1 - owner].domain.drop_below(Log::Mirror, floor);
    }

    fn new_tunnel(&mut self, restarted: Option<bool>) {
        self.line = Default::default();
        self.arrived = Default::default();
        for (at, end) in self.ends.iter_mut().enumerate() {
            let domain = Arc::clone(&end.domain);
            end.lease = None;
            *end = if restarted.map(usize::from) == Some(at) {
                self.openings += 1;
                End::new(self.capacity_bytes, self.openings)
            } else {
                End::of(domain)
            };
        }
        let [a, b] = &self.ends;
        agree(a, b);
    }

    /// Everything arrives and is decoded in the end: no block waits for ever.
    fn finish(&mut self) {
        for at in [0, 1] {
            while !self.line[at].is_empty() {
                self.arrive(at);
            }
            for round in 0.. {
                if self.arrived[at].is_empty() && self.line[at].is_empty() {
                    break;
                }
                assert!(round < 10_000, "blocks wait for ever");
                self.arrive(at);
                self.decode(at, (mix(round) >> 40) as usize);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn decoded_is_sent(events in proptest::collection::vec(event(), 1..150), capacity in prop_oneof![Just(0u64), Just(200_000), Just(1 << 20), Just(8 << 20)]) {
        let mut world = World::new(capacity);
        events.iter().for_each(|event| world.apply(event));
        world.finish();
    }

    /// Without faults there is no refusal: coverage, floors and order are enough.
    #[test]
    fn without_faults_nothing_is_refused(events in proptest::collection::vec(event(), 1..150), capacity in prop_oneof![Just(200_000u64), Just(1 << 20), Just(8 << 20)]) {
        let mut world = World::new(capacity);
        for event in &events {
            if !matches!(event, Event::Damage { .. } | Event::Lose { .. } | Event::Evict { .. }) {
                world.apply(event);
            }
        }
        world.finish();
        prop_assert_eq!(world.seen.refused, 0);
    }

    /// What a sender still pins it can send again, whatever its peer has lost.
    #[test]
    fn nothing_is_reset_while_the_sender_keeps_what_it_uses(events in proptest::collection::vec(event(), 1..150), capacity in prop_oneof![Just(200_000u64), Just(1 << 20)]) {
        let mut world = World::new(capacity);
        for event in &events {
            if !matches!(event, Event::Evict { .. }) {
                world.apply(event);
            }
        }
        world.finish();
        prop_assert_eq!(world.seen.reset, 0);
    }
}

/// The property tests do reach what they are about.
#[test]
fn the_faults_are_exercised() {
    let mut seen = Seen::default();
    for seed in 0..60 {
        let mut world = World::new(if seed % 2 == 0 { 1 << 20 } else { 200_000 });
        for step in 0..200 {
            let random = mix(seed << 20 | step);
            let (side, small) = (random & 1 == 1, (random >> 8) as u16);
            let event = match random >> 32 & 15 {
                0..=5 => Event::Send {
                    from: side,
                    stream: (random >> 4 & 3) as u8,
                    start: small,
                    length: (random >> 24) as u16,
                    change: (random >> 40) as u8,
                },
                6..=8 => Event::Arrive {
                    at: side,
                    blocks: 3,
                },
                9..=12 => Event::Decode {
                    at: side,
                    which: small as u8,
                },
                13 => Event::Damage { at: side },
                14 => Event::Lose {
                    at: side,
                    mirror: true,
                    position: small,
                    length: 3000,
                },
                _ => Event::Floor { from: side },
            };
            world.apply(&event);
        }
        world.finish();
        seen.decoded += world.seen.decoded;
        seen.refused += world.seen.refused;
        seen.waited += world.seen.waited;
    }
    assert!(
        seen.decoded > 1000 && seen.refused > 50 && seen.waited > 20,
        "{seen:?}"
    );
}
