//! What stands in a log's directory: what stays, what goes, what is set aside.

use super::*;
use crate::storage::{Open, Storage, StorageFile};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

fn put(disk: &MemoryDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), Open::Write).unwrap();
    file.write_at(bytes, 0).unwrap();
}

fn names(disk: &MemoryDisk, dir: &str) -> Vec<String> {
    disk.list(Path::new(dir)).unwrap_or_default()
}

#[test]
fn what_was_synced_and_persisted_is_there_again() {
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    script(&mut machine, Err).unwrap();
    let (state, anchors) = (machine.state.clone(), machine.anchors.clone());
    let before: HashSet<(u32, u64)> = anchors
        .into_iter()
        .filter(|(_, position)| *position > SEGMENT_BYTES_MIN)
        .collect();
    let opened = open(&disk, 77).unwrap();
    assert_eq!((opened.recovered, opened.set_aside), (state.clone(), None));
    machine.log = opened.log;
    machine.check_pages(&state, |_| false);
    let mut loaded = HashSet::new();
    for segment in machine.log.segments() {
        machine
            .log
            .load_anchors(segment, &mut |anchor| {
                loaded.insert((anchor.key, anchor.position));
            })
            .unwrap();
    }
    assert_eq!(loaded, before, "without those that were dropped");
}

#[test]
fn segments_go_by_the_floor_and_all_at_once() {
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    machine.append(2 * SEGMENT_BYTES_MIN + 1);
    machine.flush().unwrap();
    assert_eq!(machine.log.segments(), [0, 1, 2]);
    machine.log.drop_below(SEGMENT_BYTES_MIN - 1).unwrap();
    assert_eq!(machine.log.segments(), [0, 1, 2]);
    let before = machine.log.disk_bytes();
    machine.log.drop_below(SEGMENT_BYTES_MIN).unwrap();
    assert_eq!(machine.log.segments(), [1, 2]);
    assert!(machine.log.disk_bytes() < before - SEGMENT_BYTES_MIN);
    assert!(matches!(machine.log.read_page(0), Err(ReadError::Missing)));
    assert!(machine.log.read_page(16).is_ok());
    machine.log.clear().unwrap();
    assert_eq!(
        (machine.log.segments(), machine.log.disk_bytes()),
        (vec![], 0)
    );
    assert_eq!(names(&disk, DIR), ["manifest"]);
}

#[test]
fn only_one_is_kept_aside_and_only_until_the_log_was_good_for_a_run() {
    let disk = MemoryDisk::default();
    let aside = |disk: &MemoryDisk| {
        let path = Path::new("ab/own.aside/manifest");
        disk.contents(path)
    };
    let mut machine = Machine::start(&disk).unwrap();
    for text in [b"first".as_slice(), b"second"] {
        machine.flush().unwrap();
        disk.damage(&Path::new(DIR).join("manifest"), |bytes| {
            *bytes = text.to_vec()
        });
        let opened = open(&disk, 5).unwrap();
        assert_eq!(opened.set_aside, Some(ManifestError::Damaged));
        assert_eq!(aside(&disk).as_deref(), Some(text));
        machine.log = opened.log;
    }
    machine.flush().unwrap();
    assert!(aside(&disk).is_some());
    open(&disk, 6).unwrap();
    assert!(aside(&disk).is_none());
}

#[test]
fn a_manifest_of_another_log_or_version_is_set_aside() {
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    machine.append(100);
    machine.flush().unwrap();
    let good = disk.contents(&Path::new(DIR).join("manifest")).unwrap();
    let mut newer = good.clone();
    newer[8] = 2;
    let at = newer.len() - 8;
    let checksum = xxhash_rust::xxh3::xxh3_64(&newer[..at]).to_le_bytes();
    newer[at..].copy_from_slice(&checksum);
    disk.damage(&Path::new(DIR).join("manifest"), |bytes| *bytes = newer);
    let opened = open(&disk, 5).unwrap();
    assert_eq!(opened.set_aside, Some(ManifestError::Version(2)));
    assert_eq!(opened.recovered, Persisted::default());
    opened.log.persist(&Persisted::default()).unwrap();

    disk.damage(&Path::new(DIR).join("manifest"), |bytes| *bytes = good);
    for (side, peer, domain) in [
        (LogSide::Mirror, "branch", "shared"),
        (LogSide::Own, "other", "shared"),
        (LogSide::Own, "branch", "c:files"),
    ] {
        let copy = disk.copy();
        let identity = LogIdentity {
            side,
            peer: peer.to_owned(),
            domain: domain.to_owned(),
        };
        let opened =
            DiskLog::open(Arc::new(copy.clone()), Path::new(DIR), identity, [5; 16], 1).unwrap();
        assert_eq!(
            opened.set_aside.unwrap().to_string(),
            "it is the own log of domain shared with peer branch"
        );
        assert_eq!(opened.recovered, Persisted::default());
    }
}

#[test]
fn what_belongs_to_no_segment_goes_and_what_is_not_ours_stays() {
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    machine.append(100_000);
    machine.flush().unwrap();
    for name in [
        "0000000009.seg",
        "0000000009.idx",
        "9999999999999999999.seg",
        "18446744073709551615.idx",
        "manifest.new",
        "0.seg",
        "00000000000.seg",
        "0000000000.seg.bak",
        "notes",
    ] {
        put(&disk, &format!("{DIR}/{name}"), b"something");
    }
    disk.create_dir(&Path::new(DIR).join("0000000001.seg"))
        .unwrap();
    machine.restart(Loss::None).unwrap();
    assert_eq!(
        names(&disk, DIR),
        [
            "0.seg",
            "0000000000.idx",
            "0000000000.seg",
            "0000000000.seg.bak",
            "00000000000.seg",
            "0000000001.seg",
            "manifest",
            "notes"
        ]
    );
}

#[test]
fn segments_without_a_manifest_are_nothing() {
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    machine.append(100_000);
    machine.flush().unwrap();
    disk.remove_file(&Path::new(DIR).join("manifest")).unwrap();
    let opened = open(&disk, 5).unwrap();
    assert_eq!(
        (opened.recovered, opened.set_aside),
        (Persisted::default(), None)
    );
    assert!(opened.log.segments().is_empty());
    assert!(names(&disk, DIR).is_empty());
}

#[test]
fn segment_bytes_follow_the_room_and_stay() {
    assert_eq!(segment_bytes_for(0), SEGMENT_BYTES_MIN);
    assert_eq!(segment_bytes_for(100 << 20), 4 << 20);
    assert_eq!(segment_bytes_for(1 << 30), 64 << 20);
    assert_eq!(segment_bytes_for(u64::MAX), SEGMENT_BYTES_MAX);
    let disk = MemoryDisk::default();
    let mut machine = Machine::start(&disk).unwrap();
    machine.flush().unwrap();
    let storage = Arc::new(disk);
    let opened = DiskLog::open(
        storage,
        Path::new(DIR),
        identity(),
        [5; 16],
        SEGMENT_BYTES_MAX,
    )
    .unwrap();
    assert_eq!(opened.log.segment_bytes(), SEGMENT_BYTES_MIN);
}

/// Lets a reader in between a page's bytes and its checksum.
#[derive(Debug)]
struct Meeting {
    disk: MemoryDisk,
    is_on: AtomicBool,
    written: Barrier,
    read: Barrier,
}

#[derive(Debug)]
struct MetFile(Arc<dyn StorageFile>, Arc<Meeting>);

#[derive(Debug)]
struct MetStorage(Arc<Meeting>);

impl Storage for MetStorage {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.disk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.disk.list(path)
    }
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.0.disk.open(path, mode)?;
        Ok(Arc::new(MetFile(file, Arc::clone(&self.0))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.disk.sync_dir(path)
    }
}

impl StorageFile for MetFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(out, offset);
        if out.len() == PAGE && self.1.is_on.swap(false, Ordering::SeqCst) {
            self.1.read.wait();
        }
        read
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.0.write_at(bytes, offset);
        if bytes.len() == PAGE && self.1.is_on.load(Ordering::SeqCst) {
            self.1.written.wait();
            self.1.read.wait();
        }
        written
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }
}

#[test]
fn a_page_that_is_met_half_written_is_read_again() {
    let meeting = Arc::new(Meeting {
        disk: MemoryDisk::default(),
        is_on: AtomicBool::new(false),
        written: Barrier::new(2),
        read: Barrier::new(2),
    });
    let storage = Arc::new(MetStorage(Arc::clone(&meeting)));
    let opened = DiskLog::open(
        storage,
        Path::new(DIR),
        identity(),
        [1; 16],
        SEGMENT_BYTES_MIN,
    );
    let log = opened.unwrap().log;
    log.write_page(3, &[1; PAGE]).unwrap();
    meeting.is_on.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| log.write_page(3, &[2; PAGE]));
        meeting.written.wait();
        // The new bytes are there, the checksum is still that of the old ones.
        assert_eq!(log.read_page(3).unwrap(), [2; PAGE].as_slice());
        writer.join().unwrap().unwrap();
    });
}
