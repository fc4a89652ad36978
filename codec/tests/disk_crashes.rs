//! Two ends on disks that fail, forget, are restored and are copied: what both believe to have in common is the same bytes, always.
//!
//! A block carries a checksum of its plain bytes, so two logs that differ where both sides claim them show as a block that is refused as damaged,
//! or as one that comes out wrong. Neither may ever happen here, while holes may: they cost savings.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod core_pair;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use codec::cache::PageCache;
use codec::domain::{Domain, DomainConfig, Log};
use codec::error::DecodeError;
use codec::frame::RefuseReason;
use codec::fuzzing::disk::{Faults, MemoryDisk};
use codec::storage::Storage;
use core_pair::{End, agree, config, drop_as_agreed, noise, place};
use proptest::prelude::*;

/// Small, so that floors and segments come into play.
const CAPACITY_BYTES: u64 = 3 << 20;
const CHUNK_BYTES: usize = 100_000;
/// Different chunks that are sent, again and again.
const CHUNKS: u64 = 40;

/// One machine: a program that comes and goes, and its disk.
struct Machine {
    name: &'static str,
    disk: MemoryDisk,
    /// An older disk of the same machine, or another machine with a copy of it.
    other: Option<MemoryDisk>,
    end: Option<End>,
}

struct Pair {
    machines: [Machine; 2],
    openings: u64,
    streams: u64,
    refused: usize,
    set_aside: usize,
}

fn config_of(opening: u64) -> DomainConfig {
    let mut epoch = [0; 16];
    epoch[..8].copy_from_slice(&opening.to_le_bytes());
    DomainConfig {
        epoch,
        ..config(CAPACITY_BYTES, 0)
    }
}

fn chunk(number: u64) -> Bytes {
    Bytes::from(noise(CHUNK_BYTES, number))
}

fn failing(range: Range<u64>) -> Faults {
    Faults {
        failing: range,
        space_bytes: None,
    }
}

impl Pair {
    fn new() -> Self {
        let machine = |name| Machine {
            name,
            disk: MemoryDisk::default(),
            other: None,
            end: None,
        };
        let mut pair = Self {
            machines: ["a", "b"].map(machine),
            openings: 0,
            streams: 0,
            refused: 0,
            set_aside: 0,
        };
        pair.connect();
        pair
    }

    /// The program begins, with whatever the disk gives.
    fn start(&mut self, which: usize) -> Arc<Domain> {
        let machine = &self.machines[which];
        let storage: Arc<dyn Storage> = Arc::new(machine.disk.clone());
        let cache = Arc::new(PageCache::new(1 << 20));
        loop {
            self.openings += 1;
            let place = place(&storage, machine.name, &cache);
            // An operation that fails once may fail an opening; a program tries again later.
            if let Ok((domain, warnings)) = Domain::open(config_of(self.openings), place) {
                self.set_aside += warnings.len();
                while domain.load_index_step() {}
                return Arc::new(domain);
            }
        }
    }

    /// A new tunnel; whoever is not running starts.
    fn connect(&mut self) {
        for which in [0, 1] {
            let domain = match self.machines[which].end.take() {
                Some(mut end) => {
                    drop(end.lease.take());
                    end.domain
                }
                None => self.start(which),
            };
            self.machines[which].end = Some(End::of(domain));
        }
        let [a, b] = self.ends();
        agree(a, b);
        self.streams += 2;
    }

    fn ends(&mut self) -> [&mut End; 2] {
        self.machines
            .each_mut()
            .map(|machine| machine.end.as_mut().unwrap())
    }

    /// One chunk from one end to the other: bytes on the wire.
    fn send(&mut self, from: usize, number: u64) -> usize {
        let stream = self.streams + from as u64;
        let plain = chunk(number);
        let mut refused = 0;
        let [a, b] = self.ends();
        let (from, to) = if from == 0 { (a, b) } else { (b, a) };
        let flight = from.send(stream, &plain);
        let header = to.register(&flight);
        match to.decode(&header, &flight.body) {
            Ok(decoded) => {
                let wrong = decoded.plain.iter().zip(&plain).position(|(a, b)| a != b);
                assert_eq!((wrong, decoded.plain.len()), (None, plain.len()));
                if let Some(append) = header.append.filter(|_| !decoded.stored) {
                    from.lose(Log::Own, append);
                }
            }
            Err(DecodeError::Refused { reason, lost }) => {
                assert_ne!(reason, RefuseReason::Damaged, "common bytes differ");
                refused = 1;
                for source in lost {
                    let (ours, theirs) = match source.space {
                        codec::block::Space::Sender => (Log::Own, Log::Mirror),
                        codec::block::Space::Receiver => (Log::Mirror, Log::Own),
                    };
                    from.lose(ours, source.span());
                    to.lose(theirs, source.span());
                }
                if let Some(append) = header.append {
                    from.lose(Log::Own, append);
                    to.lose(Log::Mirror, append);
                }
                // Where the sender has lost the source too, it resets the stream.
                if let Some(repeat) = from.repeat(&flight, 1) {
                    let header = to.register(&repeat);
                    assert_eq!(to.decode(&header, &repeat.body).unwrap().plain, plain);
                }
            }
            Err(error) => panic!("{error}"),
        }
        drop_as_agreed(from, to);
        drop_as_agreed(to, from);
        self.refused += refused;
        flight.header.len() + flight.body.len()
    }

    fn flush(&mut self, which: usize) -> bool {
        self.ends()[which].domain.flush().error.is_none()
    }

    /// The program ends without a word.
    fn kill(&mut self, which: usize) {
        self.machines[which].end = None;
    }

    fn power_lost(&mut self, which: usize, seed: u64) {
        self.kill(which);
        self.machines[which].disk.crash(seed);
    }

    /// The disk is exchanged for the one that was kept, or a copy is kept if there is none.
    fn exchange(&mut self, which: usize) {
        let machine = &mut self.machines[which];
        let copy = machine.disk.copy();
        let other = machine.other.take();
        if let Some(other) = other {
            machine.end = None;
            machine.other = Some(std::mem::replace(&mut machine.disk, other));
        } else {
            machine.other = Some(copy);
        }
    }

    /// Whatever happened, all works again, and saves.
    fn works(&mut self) {
        for machine in &self.machines {
            machine.disk.set_faults(Faults::default());
        }
        self.connect();
        assert!(self.flush(0) && self.flush(1));
        // Who was read-only offers room again.
        self.connect();
        // All that is in common is used.
        for number in 0..CHUNKS {
            self.send(0, number);
            self.send(1, number);
            assert!(self.flush(0) && self.flush(1));
        }
        let new = [CHUNKS, CHUNKS + 1];
        for (from, number) in new.into_iter().enumerate() {
            // A mirror that came back does not store what begins in a page it has on disk already, which the owner's tail may be in: once.
            self.send(from, number);
            self.send(from, number);
            let wire = self.send(from, number);
            assert!(wire < CHUNK_BYTES / 20, "{from}: {wire}");
        }
        assert!(self.flush(0) && self.flush(1));
        self.kill(0);
        self.kill(1);
        self.connect();
        for (from, number) in new.into_iter().enumerate() {
            let wire = self.send(from, number);
            assert!(wire < CHUNK_BYTES / 20, "{from}: {wire} after all");
        }
    }
}

#[test]
fn an_owner_that_forgot_what_its_mirror_kept_goes_on_above_it() {
    for which in [0, 1] {
        let mut pair = Pair::new();
        for number in 0..8 {
            pair.send(0, number);
            pair.send(1, number + 8);
        }
        pair.flush(0);
        pair.flush(1);
        for number in 16..24 {
            pair.send(0, number);
            pair.send(1, number + 8);
        }
        // One syncs all, the other loses power.
        pair.flush(1 - which);
        pair.power_lost(which, 3);
        pair.connect();
        for number in 0..32 {
            pair.send(0, number);
            pair.send(1, number);
        }
        assert_eq!(pair.refused, 0);
        pair.works();
    }
}

#[test]
fn a_restored_directory_is_an_older_one() {
    for which in [0, 1] {
        let mut pair = Pair::new();
        for number in 0..8 {
            pair.send(0, number);
            pair.send(1, number);
        }
        pair.flush(0);
        pair.flush(1);
        pair.exchange(which);
        for number in 8..20 {
            pair.send(0, number);
            pair.send(1, number);
        }
        pair.flush(0);
        pair.flush(1);
        pair.exchange(which);
        pair.connect();
        // What both had then is had still.
        assert!(pair.send(0, 3) < CHUNK_BYTES / 20);
        for number in 20..30 {
            pair.send(1, number);
            pair.send(0, number);
        }
        assert_eq!(pair.refused, 0);
        pair.works();
    }
}

#[test]
fn two_programs_with_copies_of_one_directory_do_not_mix_their_bytes() {
    let mut pair = Pair::new();
    let mut number = 0;
    for _ in 0..4 {
        pair.send(0, number);
        number += 1;
    }
    pair.flush(0);
    pair.flush(1);
    pair.exchange(0);
    // In turn, each with bytes of its own at positions that the other has used, too.
    for _ in 0..6 {
        for _ in 0..3 {
            pair.send(0, number);
            number += 1;
            pair.send(1, number);
        }
        pair.flush(0);
        pair.exchange(0);
        pair.connect();
        for old in 0..number {
            pair.send(0, old);
        }
    }
    assert_eq!(pair.refused, 0);
    pair.works();
}

#[test]
fn a_position_never_means_two_things_though_both_ends_go_back_and_one_forth() {
    let mut pair = Pair::new();
    for number in 0..4 {
        pair.send(0, number);
    }
    let both = |pair: &mut Pair| {
        pair.flush(0);
        pair.flush(1);
        pair.exchange(0);
        pair.exchange(1);
    };
    both(&mut pair);
    // From here on each opening begins an epoch, all of them at one position.
    pair.kill(0);
    pair.connect();
    for number in 4..12 {
        pair.send(0, number);
    }
    both(&mut pair);
    // Both are as they were, and write something else at the same positions; as much, and more.
    pair.connect();
    for number in 12..18 {
        pair.send(0, number);
    }
    pair.flush(0);
    pair.flush(1);
    // The sender is again what wrote the first.
    pair.exchange(0);
    pair.connect();
    for number in 0..18 {
        pair.send(0, number);
    }
    assert_eq!(pair.refused, 0);
    pair.works();
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize, u64),
    Flush(usize),
    Connect,
    Kill(usize),
    PowerLost(usize, u64),
    /// Power is lost in a flush, after so many operations.
    PowerLostFlushing(usize, u64, u64),
    Exchange(usize),
    /// The operation after so many fails, whatever it is.
    Fail(usize, u64),
    /// A bit of some file changes.
    Flip(usize, prop::sample::Index, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..2usize;
    prop_oneof![
        12 => (which(), 0..CHUNKS).prop_map(|(from, number)| Step::Send(from, number)),
        4 => which().prop_map(Step::Flush),
        1 => Just(Step::Connect),
        1 => which().prop_map(Step::Kill),
        2 => (which(), any::<u64>()).prop_map(|(end, seed)| Step::PowerLost(end, seed)),
        1 => (which(), 0..40u64, any::<u64>())
            .prop_map(|(end, after, seed)| Step::PowerLostFlushing(end, after, seed)),
        1 => which().prop_map(Step::Exchange),
        1 => (which(), 0..60u64).prop_map(|(end, after)| Step::Fail(end, after)),
        1 => (which(), any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(end, file, bit)| Step::Flip(end, file, bit)),
    ]
}

fn take(pair: &mut Pair, step: &Step) {
    match step {
        Step::Send(from, number) => {
            pair.send(*from, *number);
        }
        Step::Flush(which) => {
            pair.flush(*which);
        }
        Step::Connect => {}
        Step::Kill(which) => pair.kill(*which),
        Step::PowerLost(which, seed) => pair.power_lost(*which, *seed),
        Step::PowerLostFlushing(which, after, seed) => {
            let disk = pair.machines[*which].disk.clone();
            let at = disk.operations() + after;
            disk.set_faults(failing(at..u64::MAX));
            pair.flush(*which);
            pair.power_lost(*which, *seed);
        }
        Step::Exchange(which) => pair.exchange(*which),
        Step::Fail(which, after) => {
            let disk = &pair.machines[*which].disk;
            let at = disk.operations() + after;
            disk.set_faults(failing(at..at + 1));
        }
        Step::Flip(which, file, bit) => {
            let disk = &pair.machines[*which].disk;
            let files = disk.files();
            if !files.is_empty() {
                disk.damage(&files[file.index(files.len())], |bytes| {
                    if !bytes.is_empty() {
                        let bit = bit.index(bytes.len() * 8);
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                });
            }
        }
    }
    if !matches!(step, Step::Send(..) | Step::Flush(_) | Step::Fail(..)) {
        pair.connect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn what_both_believe_common_is_the_same_whatever_happens_to_either(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            take(&mut pair, step);
        }
        pair.works();
    }
}
