//! Files that were cut, changed, exchanged or put there by somebody else.

use super::*;
use crate::storage::Storage;
use std::path::PathBuf;

/// A log with three segments, all of it durable, and what its manifest says.
fn base() -> Machine {
    let mut machine = Machine::start(&MemoryDisk::default()).unwrap();
    for length in [100_000, 150_000] {
        machine.append(length);
        machine.flush().unwrap();
        machine.skip(SEGMENT_BYTES_MIN);
    }
    machine.append(70_000);
    machine.flush().unwrap();
    assert_eq!(machine.log.segments(), [0, 1, 2]);
    machine
}

impl Machine {
    /// Opens what is there now, and checks that nothing wrong comes out of it.
    fn open_again(&mut self) -> Opened {
        let mut opened = open(&self.disk, 200).unwrap();
        std::mem::swap(&mut self.log, &mut opened.log);
        self.check(&opened.recovered, Loss::Any);
        opened
    }

    fn on_a_copy(&self) -> Self {
        let disk = self.disk.copy();
        Self {
            log: open(&disk, 200).unwrap().log,
            disk,
            state: self.state.clone(),
            pages: self.pages.clone(),
            dirty: self.dirty.clone(),
            new_anchors: self.new_anchors.clone(),
            anchors: self.anchors.clone(),
            life: self.life,
            said: self.said.clone(),
            settled: self.settled,
            set_aside: self.set_aside,
        }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Whether each held page can be read.
fn readable(machine: &Machine) -> Vec<bool> {
    pages(&machine.state)
        .into_iter()
        .map(|page| machine.log.read_page(page).is_ok())
        .collect()
}

#[test]
fn every_bit_of_the_manifest_counts() {
    let base = base();
    let length = base.disk.contents(&path("manifest")).unwrap().len();
    for bit in 0..length * 8 {
        let mut machine = base.on_a_copy();
        machine
            .disk
            .damage(&path("manifest"), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let opened = machine.open_again();
        assert_eq!(opened.set_aside, Some(ManifestError::Damaged), "bit {bit}");
        assert_eq!(opened.recovered, Persisted::default(), "bit {bit}");
    }
}

#[test]
fn a_manifest_cut_anywhere_is_not_believed() {
    let base = base();
    let length = base.disk.contents(&path("manifest")).unwrap().len();
    for cut in 0..length {
        let mut machine = base.on_a_copy();
        machine
            .disk
            .damage(&path("manifest"), |bytes| bytes.truncate(cut));
        let opened = machine.open_again();
        assert_eq!(
            opened.set_aside,
            Some(ManifestError::Damaged),
            "cut at {cut}"
        );
        assert_eq!(
            machine
                .disk
                .contents(&Path::new("ab/own.aside").join("manifest"))
                .unwrap()
                .len(),
            cut
        );
    }
    for (more, why) in [(1, "one byte"), (1 << 20, "a megabyte")] {
        let mut machine = base.on_a_copy();
        machine.disk.damage(&path("manifest"), |bytes| {
            bytes.resize(bytes.len() + more, 0);
        });
        assert_eq!(
            machine.open_again().set_aside,
            Some(ManifestError::Damaged),
            "{why}"
        );
    }
}

#[test]
fn every_bit_of_the_anchors_counts() {
    let mut machine = base();
    let name = path("0000000001.idx");
    let length = machine.disk.contents(&name).unwrap().len();
    let mut whole = Vec::new();
    machine
        .log
        .load_anchors(1, &mut |anchor| whole.push(anchor))
        .unwrap();
    assert!(whole.len() > 100);
    for bit in 0..length * 8 {
        machine
            .disk
            .damage(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let mut loaded = Vec::new();
        let result = machine
            .log
            .load_anchors(1, &mut |anchor| loaded.push(anchor));
        assert!(matches!(result, Err(AnchorsError::Damaged)), "bit {bit}");
        assert_eq!(loaded, whole[..loaded.len()], "bit {bit}");
        machine
            .disk
            .damage(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    machine.open_again();
}

#[test]
fn anchors_cut_anywhere_are_those_before_and_more_can_be_added() {
    let base = base();
    let name = path("0000000002.idx");
    let length = base.disk.contents(&name).unwrap().len();
    for cut in (0..length).rev() {
        let mut machine = base.on_a_copy();
        machine.disk.damage(&name, |bytes| bytes.truncate(cut));
        let result = machine.log.load_anchors(2, &mut |anchor| {
            assert!(machine.anchors.contains(&(anchor.key, anchor.position)));
        });
        assert!(result.is_err(), "cut at {cut}");
        if cut % 97 != 0 {
            continue;
        }
        // The first batch of a new run stands where the good ones end.
        let added = SavedAnchor {
            key: 5,
            position: 2 * SEGMENT_BYTES_MIN + 44,
        };
        machine.log.write_anchors(&[added]).unwrap();
        let mut last = None;
        machine
            .log
            .load_anchors(2, &mut |anchor| last = Some(anchor))
            .unwrap();
        assert_eq!(last, Some(added), "cut at {cut}");
        machine.anchors.insert((added.key, added.position));
        machine.open_again();
    }
}

#[test]
fn anchors_in_another_place_do_not_pass() {
    let mut machine = Machine::start(&MemoryDisk::default()).unwrap();
    // Two batches of one length, in two segments each.
    for _ in 0..2 {
        machine.append(51_200);
        machine.flush().unwrap();
        machine.append(51_200);
        machine.flush().unwrap();
        machine.state.tail = machine.state.tail.next_multiple_of(SEGMENT_BYTES_MIN);
    }
    let [first, second] = [path("0000000000.idx"), path("0000000001.idx")];
    let whole = machine.disk.contents(&first).unwrap();
    assert_eq!(whole.len(), machine.disk.contents(&second).unwrap().len());
    let loads = |machine: &Machine, segment| {
        let mut loaded = 0;
        let result = machine.log.load_anchors(segment, &mut |_| loaded += 1);
        (result.is_ok(), loaded)
    };
    assert_eq!(loads(&machine, 0), (true, 200));
    machine
        .disk
        .damage(&first, |bytes| bytes.rotate_left(whole.len() / 2));
    assert_eq!(loads(&machine, 0), (false, 0));
    machine.disk.damage(&second, |bytes| *bytes = whole);
    assert_eq!(loads(&machine, 1), (false, 0));
}

#[test]
fn every_bit_of_a_segments_head_and_any_of_its_pages_counts() {
    let mut machine = base();
    let name = path("0000000001.seg");
    let length = machine.disk.contents(&name).unwrap().len();
    let whole = readable(&machine);
    assert!(whole.iter().all(|readable| *readable));
    let bits = (0..64 * 8)
        .chain((64 * 8..4096 * 8).step_by(61))
        .chain((4096 * 8..length * 8).step_by(30_011));
    let mut noticed = 0;
    for bit in bits {
        machine
            .disk
            .damage(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        machine.open_again();
        noticed += usize::from(readable(&machine) != whole);
        machine
            .disk
            .damage(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    // The fixed head alone; behind it checksums and pages, and zeros that nobody reads.
    assert!(noticed > 64 * 8, "{noticed}");
    machine.open_again();
    assert_eq!(readable(&machine), whole);
}

#[test]
fn a_segment_may_be_cut_at_every_byte_of_its_tail() {
    let mut machine = base();
    let name = path("0000000002.seg");
    let pages: Vec<u64> = pages(&machine.state).into_iter().collect();
    let (&last, others) = pages.split_last().unwrap();
    let length = machine.disk.contents(&name).unwrap().len();
    // A page, and a little of the one before it.
    for cut in (length - PAGE - 100..length).rev() {
        machine.disk.damage(&name, |bytes| bytes.truncate(cut));
        // What is open notices it.
        assert!(machine.log.read_page(last).is_err(), "cut at {cut}");
        if cut % 97 == 0 {
            let opened = open(&machine.disk, 200).unwrap();
            assert!(
                !opened.recovered.held.contains(machine.state.tail - 1),
                "cut at {cut}"
            );
            assert!(opened.log.read_page(last).is_err(), "cut at {cut}");
        }
    }
    machine.open_again();
    assert!(machine.log.read_page(others[0]).is_ok());
    for cut in [5000, 4096, 4095, 100, 64, 63, 8, 1, 0] {
        machine.disk.damage(&name, |bytes| bytes.truncate(cut));
        machine.open_again();
    }
    machine.restart(Loss::Any).unwrap();
    goes_on(&mut machine);
}

#[test]
fn a_page_in_another_place_does_not_pass() {
    let base = base();
    let segment = |n: u64| path(&format!("{n:010}.seg"));
    let page = |n: usize| 4096 + n * PAGE..4096 + (n + 1) * PAGE;
    let sum = |n: usize| 64 + n * 8..64 + (n + 1) * 8;
    // Two pages of a segment change places, with their checksums.
    let mut machine = base.on_a_copy();
    machine.disk.damage(&segment(0), |bytes| {
        for (a, b) in [(page(0), page(1)), (sum(0), sum(1))] {
            let (first, second) = (bytes[a.clone()].to_vec(), bytes[b.clone()].to_vec());
            bytes[a].copy_from_slice(&second);
            bytes[b].copy_from_slice(&first);
        }
    });
    machine.open_again();
    assert!(matches!(machine.log.read_page(0), Err(ReadError::Damaged)));
    assert!(matches!(machine.log.read_page(1), Err(ReadError::Damaged)));
    // A page of another segment.
    let mut machine = base.on_a_copy();
    let other = base.disk.contents(&segment(1)).unwrap();
    machine.disk.damage(&segment(0), |bytes| {
        let slot = usize::try_from(
            pages(&base.state)
                .into_iter()
                .find(|page| *page >= 16)
                .unwrap(),
        )
        .unwrap()
            - 16;
        for (to, from) in [(page(0), page(slot)), (sum(0), sum(slot))] {
            bytes[to].copy_from_slice(&other[from]);
        }
    });
    machine.open_again();
    assert!(matches!(machine.log.read_page(0), Err(ReadError::Damaged)));
    // A segment in another's place; with its head made to fit, too.
    for fixed in [false, true] {
        let mut machine = base.on_a_copy();
        let (first, second) = (base.disk.contents(&segment(0)).unwrap(), other.clone());
        for (n, content, head) in [(0, &second, &first), (1, &first, &second)] {
            machine.disk.damage(&segment(n), |bytes| {
                bytes.clone_from(content);
                if fixed {
                    bytes[..64].copy_from_slice(&head[..64]);
                }
            });
        }
        machine.open_again();
        assert!(machine.log.read_page(0).is_err() && machine.log.read_page(1).is_err());
        machine.restart(Loss::Any).unwrap();
        goes_on(&mut machine);
    }
}

#[test]
fn a_segment_of_another_log_does_not_pass() {
    let base = base();
    // The same peer and domain, after the manifest was lost: another id, the same positions.
    let mut other = Machine::start(&MemoryDisk::default()).unwrap();
    let opened = open(&MemoryDisk::default(), 9).unwrap();
    other.log = opened.log;
    other.life = 50;
    other.append(100_000);
    let foreign = MemoryDisk::default();
    other.disk = foreign.clone();
    other.log = open(&foreign, 9).unwrap().log;
    other.flush().unwrap();
    let name = path("0000000000.seg");
    let theirs = foreign.contents(&name).unwrap();
    for fixed in [false, true] {
        let mut machine = base.on_a_copy();
        machine.disk.damage(&name, |bytes| {
            let ours = std::mem::replace(bytes, theirs.clone());
            if fixed {
                bytes[..64].copy_from_slice(&ours[..64]);
            }
        });
        machine.open_again();
        assert!(machine.log.read_page(0).is_err());
    }
}

#[test]
fn a_segment_that_is_gone_is_not_held() {
    let mut machine = base();
    machine.disk.remove_file(&path("0000000001.seg")).unwrap();
    let opened = machine.open_again();
    let segment = SEGMENT_BYTES_MIN..2 * SEGMENT_BYTES_MIN;
    assert!(!opened.recovered.held.overlaps(&segment));
    assert!(opened.recovered.held.overlaps(&(0..SEGMENT_BYTES_MIN)));
    machine.restart(Loss::Any).unwrap();
    goes_on(&mut machine);
}
