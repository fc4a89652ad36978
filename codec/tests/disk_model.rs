//! Two ends on disks that crash, forget, are put back and are damaged, against what a reader of DESIGN would expect: what both ends believe
//! common is what both claim in epochs that both know, and is equal to the byte.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod core_pair;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use codec::cache::PageCache;
use codec::domain::{Domain, Log, VerifyCursor};
use codec::error::DecodeError;
use codec::frame::{Coverage, RefuseReason};
use codec::fuzzing::disk::{Faults, MemoryDisk};
use codec::storage::Storage;
use core_pair::{End, Flight, agree, config, drop_as_agreed, mix, noise, place, text};
use proptest::prelude::*;

const CAPACITY_BYTES: u64 = 6 << 20;

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    /// One end sends: new bytes, or some that were sent before. They may get lost with the line.
    Send {
        from: usize,
        kind: u8,
        length: usize,
        seed: u64,
        arrives: bool,
    },
    Flush(usize),
    /// A flush during which operations of the disk fail.
    FailingFlush {
        at: usize,
        failing: Range<u64>,
    },
    /// The machine loses power.
    Crash {
        at: usize,
        seed: u64,
    },
    /// The program ends without a last flush.
    Kill(usize),
    /// The directory is saved.
    Save(usize),
    /// What was saved some time is put back.
    PutBack {
        at: usize,
        which: usize,
    },
    /// A bit of some file changes.
    Damage {
        at: usize,
        file: usize,
        bit: u64,
    },
    /// The tunnel is another.
    Relink,
    Resize {
        at: usize,
        mib: u64,
    },
    Clear(usize),
    Verify(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0usize..2;
    let send = (at.clone(), 0u8..4, 1usize..200_000, 0u64..8, 0u8..12).prop_map(
        |(from, kind, length, seed, luck)| Step::Send {
            from,
            kind,
            length,
            seed,
            arrives: luck > 0,
        },
    );
    let step = prop_oneof![
        14 => send,
        5 => at.clone().prop_map(Step::Flush),
        2 => (at.clone(), 0u64..60, 1u64..40).prop_map(|(at, from, count)| Step::FailingFlush { at, failing: from..from + count }),
        3 => (at.clone(), any::<u64>()).prop_map(|(at, seed)| Step::Crash { at, seed }),
        2 => at.clone().prop_map(Step::Kill),
        1 => at.clone().prop_map(Step::Save),
        1 => (at.clone(), any::<usize>()).prop_map(|(at, which)| Step::PutBack { at, which }),
        1 => (at.clone(), any::<usize>(), any::<u64>()).prop_map(|(at, file, bit)| Step::Damage { at, file, bit }),
        2 => Just(Step::Relink),
        1 => (at.clone(), 2u64..10).prop_map(|(at, mib)| Step::Resize { at, mib }),
        1 => at.clone().prop_map(Step::Clear),
        1 => at.prop_map(Step::Verify),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    disks: [MemoryDisk; 2],
    saved: [Vec<MemoryDisk>; 2],
    ends: [Option<End>; 2],
    cache: Arc<PageCache>,
    openings: u8,
    sent: Vec<Bytes>,
    streams: u64,
    number: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            disks: [MemoryDisk::default(), MemoryDisk::default()],
            saved: [Vec::new(), Vec::new()],
            ends: [None, None],
            cache: Arc::new(PageCache::new(1 << 20)),
            openings: 0,
            sent: Vec::new(),
            streams: 0,
            number: 0,
        };
        world.open(0);
        world.open(1);
        world.relink();
        world
    }

    fn end(&self, at: usize) -> &End {
        self.ends[at].as_ref().unwrap()
    }

    fn open(&mut self, at: usize) {
        self.ends[at] = None;
        self.openings += 1;
        let storage: Arc<dyn Storage> = Arc::new(self.disks[at].clone());
        let config = config(CAPACITY_BYTES, self.openings);
        let place = place(&storage, ["a", "b"][at], &self.cache);
        let (domain, _set_aside) = Domain::open(config, place).unwrap();
        while domain.load_index_step() {}
        self.ends[at] = Some(End::of(Arc::new(domain)));
    }

    /// A new tunnel: both ends agree, and on no more and no less than what can be common.
    fn relink(&mut self) {
        for end in &mut self.ends {
            let domain = Arc::clone(&end.as_ref().unwrap().domain);
            // The lease goes before the next one is taken.
            drop(end.take());
            *end = Some(End::of(domain));
        }
        let [a, b] = [0, 1].map(|at| self.end(at));
        let pairs = [(a, b), (b, a)];
        let expected = pairs.map(|(owner, peer)| {
            naive_common(
                &owner.domain.claim(Log::Own),
                &peer.domain.claim(Log::Mirror),
            )
        });
        agree(a, b);
        for ((owner, peer), expected) in pairs.into_iter().zip(expected) {
            let own = owner.domain.claim(Log::Own);
            let mirror = peer.domain.claim(Log::Mirror);
            assert_eq!(held(&own), expected, "what the owner believes");
            assert_eq!(held(&mirror), expected, "what the mirror believes");
            assert_eq!(mirror.epochs.last(), own.epochs.last());
            assert!(mirror.tail <= own.tail, "no position means two things");
        }
    }

    fn send(&mut self, from: usize, plain: &Bytes, arrives: bool) {
        self.streams += 1;
        self.number += 1;
        let stream = self.streams;
        let [a, b] = &mut self.ends;
        let (owner, peer) = if from == 0 { (a, b) } else { (b, a) };
        let (owner, peer) = (owner.as_mut().unwrap(), peer.as_mut().unwrap());
        let flight = owner.send(stream, plain);
        if !arrives {
            self.relink();
            return;
        }
        let header = peer.register(&flight);
        match peer.decode(&header, &flight.body) {
            Ok(decoded) => {
                assert_eq!(decoded.plain, flight.plain);
                if let Some(append) = header.append.filter(|_| !decoded.stored) {
                    owner.lose(Log::Own, append);
                    peer.lose(Log::Mirror, append);
                }
            }
            Err(DecodeError::Refused { reason, lost }) => {
                assert!(
                    [RefuseReason::Evicted, RefuseReason::Unreadable].contains(&reason),
                    "what is common is equal: {reason:?} {lost:?}"
                );
                let mirrors = |space| match space {
                    codec::block::Space::Sender => [Log::Own, Log::Mirror],
                    codec::block::Space::Receiver => [Log::Mirror, Log::Own],
                };
                for source in lost {
                    let [at_owner, at_peer] = mirrors(source.space);
                    owner.lose(at_owner, source.span());
                    peer.lose(at_peer, source.span());
                }
                if let Some(append) = header.append {
                    owner.lose(Log::Own, append);
                    peer.lose(Log::Mirror, append);
                }
                let repeat: Option<Flight> = owner.repeat(&flight, self.number);
                // Else its stream is reset: both sides lost what it was made of.
                if let Some(repeat) = repeat {
                    let header = peer.register(&repeat);
                    let decoded = peer.decode(&header, &repeat.body).unwrap();
                    assert_eq!(decoded.plain, flight.plain);
                }
            }
            Err(error) => panic!("{error}"),
        }
        drop_as_agreed(owner, peer);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Send {
                from,
                kind,
                length,
                seed,
                arrives,
            } => {
                let plain = match (kind, self.sent.len()) {
                    (0, _) => Bytes::from(noise(length, mix(seed))),
                    (1, _) => Bytes::from(text(length, seed)),
                    (_, 0) => Bytes::from(noise(length, seed)),
                    (_, count) => self.sent[length % count].clone(),
                };
                self.sent.push(plain.clone());
                self.send(from, &plain, arrives);
            }
            Step::Flush(at) => {
                let flush = self.end(at).domain.flush();
                assert!(flush.error.is_none(), "{flush:?}");
                assert!(!self.end(at).domain.is_dirty());
                assert!(!self.end(at).domain.is_read_only());
            }
            Step::FailingFlush { at, failing } => {
                let done = self.disks[at].operations();
                self.disks[at].set_faults(Faults {
                    failing: failing.start + done..failing.end + done,
                    ..Faults::default()
                });
                let domain = &self.end(at).domain;
                let flush = domain.flush();
                assert_eq!(domain.is_read_only(), flush.error.is_some());
                assert!(flush.error.is_none() || domain.is_dirty());
                assert!(flush.error.is_none() || domain.quota_offer() == 0);
                assert!(flush.error.is_none() || domain.reserve(100).is_none());
                self.disks[at].set_faults(Faults::default());
            }
            Step::Crash { at, seed } => {
                self.disks[at].crash(seed);
                self.open(at);
                self.relink();
            }
            Step::Kill(at) => {
                self.open(at);
                self.relink();
            }
            Step::Save(at) => {
                let saved = self.disks[at].copy();
                self.saved[at].push(saved);
            }
            Step::PutBack { at, which } => {
                let count = self.saved[at].len();
                if let Some(saved) = self.saved[at].get(which % count.max(1)) {
                    self.disks[at] = saved.copy();
                    self.open(at);
                    self.relink();
                }
            }
            Step::Damage { at, file, bit } => {
                let files: Vec<PathBuf> = self.disks[at].files();
                if let Some(path) = files.get(file % files.len().max(1)) {
                    self.disks[at].damage(path, |bytes| {
                        let bits = bytes.len() as u64 * 8;
                        if let Some(bit) = bit.checked_rem(bits) {
                            bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
                        }
                    });
                }
            }
            Step::Relink => self.relink(),
            Step::Resize { at, mib } => {
                self.end(at).domain.set_capacity(mib << 20, mib << 20);
                let quota = self.end(at).domain.quota_offer();
                self.end(1 - at).domain.set_quota(quota);
                drop_as_agreed(self.end(0), self.end(1));
                drop_as_agreed(self.end(1), self.end(0));
            }
            Step::Clear(at) => {
                // Under way until the tunnel ends.
                let _cleared = self.end(at).domain.clear();
                self.relink();
                let domain = &self.end(at).domain;
                for log in [Log::Own, Log::Mirror] {
                    assert_eq!(held(&domain.claim(log)), []);
                }
            }
            Step::Verify(at) => {
                let mut cursor = VerifyCursor::default();
                while !self.end(at).domain.verify_step(&mut cursor).is_done {}
            }
        }
    }
}

/// What a claimant says that it holds, as ascending ranges that do not touch.
fn held(claim: &Coverage) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for range in claim.holes.gaps(claim.floor..claim.tail) {
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// Position by position, as far as anything changes: held by both, and of an epoch that both know as the same.
fn naive_common(own: &Coverage, mirror: &Coverage) -> Vec<Range<u64>> {
    let mut borders: Vec<u64> = [own, mirror]
        .into_iter()
        .flat_map(|claim| {
            let holes = claim.holes.iter().flat_map(|hole| [hole.start, hole.end]);
            let epochs = claim.epochs.iter().map(|epoch| epoch.start);
            holes.chain(epochs).chain([claim.floor, claim.tail])
        })
        .collect();
    borders.sort_unstable();
    borders.dedup();
    let epoch_of = |claim: &Coverage, position: u64| {
        let known = claim.epochs.iter();
        known.rev().find(|epoch| epoch.start <= position).copied()
    };
    let holds = |claim: &Coverage, position: u64| {
        (claim.floor..claim.tail).contains(&position) && !claim.holes.contains(position)
    };
    let mut common: Vec<Range<u64>> = Vec::new();
    for pair in borders.windows(2) {
        let position = pair[0];
        let both = holds(own, position) && holds(mirror, position);
        let epoch = epoch_of(own, position);
        if both && epoch.is_some() && epoch == epoch_of(mirror, position) {
            match common.last_mut() {
                Some(last) if last.end == position => last.end = pair[1],
                _ => common.push(position..pair[1]),
            }
        }
    }
    common
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_is_common_is_equal_whatever_happens_to_either_disk(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        // And it goes on: all that is left is found, whatever it is.
        for plain in world.sent.clone() {
            world.send(0, &plain, true);
            world.send(1, &plain, true);
        }
        world.relink();
    }
}

#[test]
fn directories_that_are_put_back_never_make_one_position_mean_two_things() {
    let mut world = World::new();
    // Whole pages, so that nothing but epochs keeps them apart.
    let [first, one, two] = [1, 2, 3].map(|seed| Bytes::from(noise(2 << 16, seed)));
    world.send(0, &first, true);
    let save = |world: &mut World| {
        for at in 0..2 {
            world.run(Step::Flush(at));
            world.run(Step::Save(at));
        }
    };
    save(&mut world);
    world.send(0, &one, true);
    save(&mut world);
    // Both ends as they were before, and other bytes where the first ones had been.
    for at in 0..2 {
        world.disks[at] = world.saved[at][0].copy();
        world.open(at);
    }
    world.relink();
    world.send(0, &two, true);
    save(&mut world);
    for which in [(1, 1), (0, 1), (1, 2), (0, 2), (0, 0), (1, 1)] {
        let (at, which) = which;
        world.run(Step::PutBack { at, which });
        for plain in [&first, &one, &two] {
            world.send(0, plain, true);
        }
    }
}
