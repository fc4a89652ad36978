//! Tests of a log on disk: a machine that writes it as a domain does, and knows what it must give back.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod crash;
mod damage;
mod files;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::frame::Epoch;
use crate::fuzzing::disk::{Faults, MemoryDisk};
use crate::history::pages::PAGE_BYTES;

const DIR: &str = "ab/own";

fn identity() -> LogIdentity {
    LogIdentity {
        side: LogSide::Own,
        peer: "branch".to_owned(),
        domain: "shared".to_owned(),
    }
}

fn open(disk: &MemoryDisk, id: u8) -> io::Result<Opened> {
    let storage = Arc::new(disk.clone());
    DiskLog::open(
        storage,
        Path::new(DIR),
        identity(),
        [id; 16],
        SEGMENT_BYTES_MIN,
    )
}

/// Bytes that depend on where they stand and on which life wrote them, so that nothing old passes for something new.
fn byte(position: u64, life: u8) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_le_bytes()[0] ^ life.wrapping_mul(101)
}

/// A program with one log, on a disk that goes wrong.
struct Machine {
    disk: MemoryDisk,
    log: DiskLog,
    state: Persisted,
    /// What this life has filled, by page.
    pages: BTreeMap<u64, Vec<u8>>,
    dirty: BTreeSet<u64>,
    new_anchors: Vec<SavedAnchor>,
    anchors: HashSet<(u32, u64)>,
    life: u8,
    /// What manifests may say, and the pages that were written since each.
    said: Vec<(Persisted, BTreeSet<u64>)>,
    /// Of them the first that may still count.
    settled: usize,
    set_aside: usize,
}

/// What a check allows beyond what is always allowed.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    /// What was persisted is there, but for pages that were being written again.
    None,
    /// Anything may be missing.
    Any,
}

impl Machine {
    fn start(disk: &MemoryDisk) -> io::Result<Self> {
        let opened = open(disk, 1)?;
        assert_eq!(opened.recovered, Persisted::default());
        let mut machine = Self {
            disk: disk.clone(),
            log: opened.log,
            state: Persisted::default(),
            pages: BTreeMap::new(),
            dirty: BTreeSet::new(),
            new_anchors: Vec::new(),
            anchors: HashSet::new(),
            life: 0,
            said: vec![(Persisted::default(), BTreeSet::new())],
            settled: 0,
            set_aside: 0,
        };
        machine.begin_life();
        Ok(machine)
    }

    fn begin_life(&mut self) {
        self.life += 1;
        self.pages.clear();
        self.dirty.clear();
        self.new_anchors.clear();
        self.state.tail = self.state.tail.next_multiple_of(PAGE_BYTES);
        self.state.epochs.push(Epoch {
            id: [self.life; 16],
            start: self.state.tail,
        });
    }

    fn append(&mut self, length: u64) {
        let range = self.state.tail..self.state.tail + length;
        for position in range.clone() {
            let (page, at) = (position / PAGE_BYTES, position % PAGE_BYTES);
            let bytes = self.pages.entry(page).or_insert_with(|| vec![0; PAGE]);
            bytes[usize::try_from(at).unwrap()] = byte(position, self.life);
            self.dirty.insert(page);
        }
        for position in range.clone().skip(32).step_by(512) {
            let key = u32::try_from(position % 65_521).unwrap() * 7 + u32::from(self.life);
            self.new_anchors.push(SavedAnchor { key, position });
        }
        self.state.held.insert(range.clone());
        self.state.tail = range.end;
    }

    fn skip(&mut self, length: u64) {
        self.state.tail += length;
    }

    fn raise_floor(&mut self, floor: u64) {
        self.state.floor = floor.min(self.state.tail).max(self.state.floor);
        self.state.held.remove(0..self.state.floor);
    }

    /// As a domain does it; what failed is dirty still, and comes again the next time.
    fn flush(&mut self) -> io::Result<()> {
        for &page in &self.dirty {
            for (_, written) in &mut self.said {
                written.insert(page);
            }
            self.log.write_page(page, &self.pages[&page])?;
        }
        let anchors = std::mem::take(&mut self.new_anchors);
        self.anchors
            .extend(anchors.iter().map(|anchor| (anchor.key, anchor.position)));
        self.log.write_anchors(&anchors)?;
        self.log.sync()?;
        self.dirty.clear();
        self.said.push((self.state.clone(), BTreeSet::new()));
        self.log.persist(&self.state)?;
        self.settled = self.said.len() - 1;
        self.log.drop_below(self.state.floor)
    }

    /// The program ends and comes again.
    fn restart(&mut self, loss: Loss) -> io::Result<()> {
        let opened = open(&self.disk, 100 + self.life)?;
        self.log = opened.log;
        self.set_aside += usize::from(opened.set_aside.is_some());
        assert!(
            loss == Loss::Any || opened.set_aside.is_none(),
            "{:?}",
            opened.set_aside
        );
        let lost = self.check(&opened.recovered, loss);
        self.state = opened.recovered.clone();
        for page in &lost {
            let start = page * PAGE_BYTES;
            self.state.held.remove(start..start + PAGE_BYTES);
        }
        if loss == Loss::None {
            self.said.clear();
            self.settled = 0;
        }
        // Else the manifest may say more than a failing disk gave.
        self.said.push((opened.recovered, lost));
        self.begin_life();
        Ok(())
    }

    /// What was recovered is what a manifest said, and what can be read of it is what was written. The pages that cannot, which a domain makes holes.
    fn check(&self, recovered: &Persisted, loss: Loss) -> BTreeSet<u64> {
        let same = |said: &Persisted| {
            let held = recovered.held.intersect(&said.held) == recovered.held;
            let all = recovered.held == said.held;
            let rest = Persisted {
                held: said.held.clone(),
                ..recovered.clone()
            };
            rest == *said && held && (all || loss == Loss::Any)
        };
        let said = self.said[self.settled..]
            .iter()
            .find(|(said, _)| same(said));
        let nothing = (Persisted::default(), BTreeSet::new());
        let emptied = loss == Loss::Any && *recovered == nothing.0;
        let (_, written_since) = said
            .or(emptied.then_some(&nothing))
            .unwrap_or_else(|| panic!("nobody said {recovered:?}"));
        self.check_anchors();
        self.check_pages(recovered, |page| {
            loss == Loss::Any || written_since.contains(&page)
        })
    }

    fn check_pages(
        &self,
        recovered: &Persisted,
        may_be_lost: impl Fn(u64) -> bool,
    ) -> BTreeSet<u64> {
        let mut lost = BTreeSet::new();
        for page in pages(recovered) {
            let bytes = match self.log.read_page(page) {
                Ok(bytes) => bytes,
                Err(_) if may_be_lost(page) => {
                    lost.insert(page);
                    continue;
                }
                Err(cause) => panic!("page {page}: {cause}"),
            };
            let start = page * PAGE_BYTES;
            for range in recovered.held.within(start..start + PAGE_BYTES) {
                let life = recovered
                    .epochs
                    .iter()
                    .rfind(|epoch| epoch.start <= range.start)
                    .unwrap()
                    .id[0];
                let wrong = range
                    .clone()
                    .find(|&at| bytes[usize::try_from(at - start).unwrap()] != byte(at, life));
                assert_eq!(wrong, None, "the first wrong position");
            }
        }
        lost
    }

    /// Saved anchors are some that were saved. What is lost of them is found by scanning.
    fn check_anchors(&self) {
        for segment in self.log.segments() {
            let range = segment * SEGMENT_BYTES_MIN..=(segment + 1) * SEGMENT_BYTES_MIN;
            let _complete = self.log.load_anchors(segment, &mut |anchor| {
                assert!(range.contains(&anchor.position));
                assert!(self.anchors.contains(&(anchor.key, anchor.position)));
            });
        }
    }
}

/// The pages of which something is held.
fn pages(state: &Persisted) -> BTreeSet<u64> {
    let pages = |range: Range<u64>| range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
    state.held.iter().flat_map(pages).collect()
}

/// Fills, fills up, skips, drops and restarts, over four segments; tells `went_wrong` each failure, and ends when it says so.
fn script(
    machine: &mut Machine,
    mut went_wrong: impl FnMut(io::Error) -> Result<(), io::Error>,
) -> io::Result<()> {
    let mut survive = |result: io::Result<()>| result.or_else(&mut went_wrong);
    for length in [100_000, 30_000, 5_000] {
        machine.append(length);
        survive(machine.flush())?;
    }
    machine.skip(3_000);
    machine.append(200_000);
    machine.skip(SEGMENT_BYTES_MIN);
    machine.append(150_000);
    survive(machine.flush())?;
    machine.append(10);
    survive(machine.flush())?;
    machine.skip(SEGMENT_BYTES_MIN);
    machine.append(90_000);
    machine.raise_floor(SEGMENT_BYTES_MIN + 1);
    survive(machine.flush())?;
    // Whatever can be read is right, also before the end.
    let state = machine.state.clone();
    machine.check_pages(&state, |_| true);
    survive(machine.restart(Loss::Any))?;
    machine.append(70_000);
    survive(machine.flush())?;
    machine.append(1);
    survive(machine.flush())
}

/// The disk works again, and so does the log.
fn goes_on(machine: &mut Machine) {
    machine.append(40_000);
    machine.flush().unwrap();
    machine.restart(Loss::None).unwrap();
    machine.append(40_000);
    machine.flush().unwrap();
    machine.restart(Loss::None).unwrap();
}

/// How many operations the script takes when nothing goes wrong.
fn operations() -> u64 {
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    script(&mut machine, Err).unwrap();
    let count = disk.operations();
    machine.restart(Loss::None).unwrap();
    count
}
