//! A log's directory: its segments, and the one who writes them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use super::manifest::{self, LogFormat, MANIFEST_MAX_BYTES, MANIFEST_NAME_MAX_BYTES};
use super::segment::Segment;
use super::{
    AnchorsError, LogIdentity, ManifestError, Persisted, ReadError, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SavedAnchor,
};
use crate::history::pages::PAGE_BYTES;
use crate::history::storage::{Open, Storage, is_passing};
use crate::ranges::RangeSet;

const MANIFEST: &str = "manifest";
const NEW_MANIFEST: &str = "manifest.new";

/// One log on disk. Pages may be read beside everything else; the rest takes turns.
#[derive(Debug)]
pub(crate) struct DiskLog {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    identity: LogIdentity,
    format: LogFormat,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    writer: Mutex<Writer>,
}

/// What only the one who writes knows.
#[derive(Debug, Default)]
struct Writer {
    /// Files were made whose names are not synced.
    names_unsynced: bool,
}

/// A log that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The log.
    pub log: DiskLog,
    /// What is believed of it. Of what it says to be held, pages may still turn out to be damaged when they are read.
    pub recovered: Persisted,
    /// What stood there before and could not be used was renamed to `NAME.aside`: why.
    pub set_aside: Option<ManifestError>,
}

impl DiskLog {
    /// Opens a log in the directory `dir`, which is made if it is not there.
    ///
    /// A log whose manifest is not understood, or speaks of another log, is set aside, and an empty one takes its place; so is one without a
    /// manifest, but that never held anything. `new_id` (random) and `new_segment_bytes` (a power of two from [`SEGMENT_BYTES_MIN`] to
    /// [`SEGMENT_BYTES_MAX`], see [`super::segment_bytes_for`]) are for an empty log; another keeps its own.
    ///
    /// # Errors
    /// What the system says: then nothing was set aside that may still be good.
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        identity: LogIdentity,
        new_id: [u8; 16],
        new_segment_bytes: u64,
    ) -> io::Result<Opened> {
        if identity.peer.len().max(identity.domain.len()) > MANIFEST_NAME_MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name that does not fit a manifest",
            ));
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            storage.create_dir(parent)?;
        }
        let aside = aside(dir);
        let read = read_manifest(&*storage, &dir.join(MANIFEST))?
            .map(|bytes| manifest::decode(&bytes, &identity));
        let mut set_aside = None;
        let (format, recovered) = match read {
            Some(Ok(read)) => {
                // What was set aside before has been there for one run at least. It is in nobody's way.
                let _removed = storage.remove_dir_all(&aside);
                read
            }
            other => {
                if let Some(Err(why)) = other {
                    gone(storage.remove_dir_all(&aside))?;
                    storage.rename(dir, &aside)?;
                    set_aside = Some(why);
                }
                let segment_bytes = new_segment_bytes
                    .next_power_of_two()
                    .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
                let format = LogFormat {
                    id: new_id,
                    segment_bytes,
                };
                create(&*storage, dir)?;
                (format, Persisted::default())
            }
        };
        let log = Self {
            storage,
            dir: dir.to_owned(),
            identity,
            format,
            segments: RwLock::default(),
            writer: Mutex::default(),
        };
        let recovered = log.find_segments(recovered)?;
        Ok(Opened {
            log,
            recovered,
            set_aside,
        })
    }

    /// Writes a page of 64 KiB, or writes it again with more in it. It can be read from now on, and survives once it was synced.
    ///
    /// # Errors
    /// What the system says; what the page held before may be lost then.
    pub fn write_page(&self, page: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 != PAGE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a page's length",
            ));
        }
        let mut writer = self.writer();
        let segment = self.segment_for_writing(&mut writer, page / self.pages_per_segment());
        segment.write_page(&*self.storage, page, bytes)
    }

    /// Adds anchors; those of a segment of which no page was written are left out.
    ///
    /// # Errors
    /// What the system says. Nothing but savings depends on them.
    pub fn write_anchors(&self, anchors: &[SavedAnchor]) -> io::Result<()> {
        let _writer = self.writer();
        // The window lies before the position, and a position at a segment's start is behind a window in the one before.
        let number =
            |anchor: &SavedAnchor| anchor.position.saturating_sub(1) / self.format.segment_bytes;
        for anchors in anchors.chunk_by(|a, b| number(a) == number(b)) {
            let segment = anchors
                .first()
                .and_then(|first| self.segment(number(first)));
            if let Some(segment) = segment {
                segment.anchors.append(&*self.storage, anchors)?;
            }
        }
        Ok(())
    }

    /// Makes durable all pages written since the last time.
    ///
    /// # Errors
    /// What the system says. All pages written since the last success must then be written again: what a system failed to write it may
    /// have forgotten.
    pub fn sync(&self) -> io::Result<()> {
        let mut writer = self.writer();
        for segment in self.all() {
            segment.sync(&*self.storage)?;
        }
        if writer.names_unsynced {
            self.storage.sync_dir(&self.dir)?;
            writer.names_unsynced = false;
        }
        Ok(())
    }

    /// Replaces the manifest. The caller says nothing that was not synced before.
    ///
    /// # Errors
    /// What the system says; the old manifest or the new one counts then, and each is true.
    pub fn persist(&self, state: &Persisted) -> io::Result<()> {
        let _writer = self.writer();
        let bytes = manifest::encode(self.format, &self.identity, state);
        let new = self.dir.join(NEW_MANIFEST);
        let file = self.storage.open(&new, Open::Write)?;
        file.set_length(0)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        self.storage.rename(&new, &self.dir.join(MANIFEST))?;
        self.storage.sync_dir(&self.dir)
    }

    /// Reads a page whole: exactly 64 KiB, checked.
    ///
    /// # Errors
    /// [`ReadError`]: not there, damaged, or what the system says.
    pub fn read_page(&self, page: u64) -> Result<Bytes, ReadError> {
        self.segment(page / self.pages_per_segment())
            .ok_or(ReadError::Missing)?
            .read_page(&*self.storage, page)
    }

    /// Gives the saved anchors of a segment to `sink`, in the order in which they were written.
    ///
    /// # Errors
    /// [`AnchorsError`] if they are not all there, after those that are: the segment's pages have to be scanned.
    pub fn load_anchors(
        &self,
        segment: u64,
        sink: &mut dyn FnMut(SavedAnchor),
    ) -> Result<(), AnchorsError> {
        self.segment(segment)
            .ok_or(AnchorsError::Missing)?
            .anchors
            .load(&*self.storage, sink)
    }

    /// The numbers of the segments, ascending. Segment n holds the positions from n × [`DiskLog::segment_bytes`] on.
    pub fn segments(&self) -> Vec<u64> {
        self.all().iter().map(|segment| segment.number()).collect()
    }

    /// Positions in a segment.
    pub const fn segment_bytes(&self) -> u64 {
        self.format.segment_bytes
    }

    /// Bytes of the segments on disk, as their files' lengths say; the anchors come on top, about a sixteenth.
    pub fn disk_bytes(&self) -> u64 {
        self.all()
            .iter()
            .map(|segment| segment.length_bytes() + segment.anchors.length_bytes())
            .sum()
    }

    /// Removes the segments that lie wholly below `floor`; to be called once the manifest says no more that they are held.
    ///
    /// # Errors
    /// What the system says, after trying all of them; those that are left are tried again the next time.
    pub fn drop_below(&self, floor: u64) -> io::Result<()> {
        let _writer = self.writer();
        let number = floor / self.format.segment_bytes;
        self.remove(|segment| segment < number)
    }

    /// Removes all segments; to be called once the manifest says no more that they are held.
    ///
    /// # Errors
    /// As [`DiskLog::drop_below`].
    pub fn clear(&self) -> io::Result<()> {
        let _writer = self.writer();
        let removed = self.remove(|_| true);
        removed.and(gone(self.storage.remove_dir_all(&aside(&self.dir))))
    }

    fn remove(&self, which: impl Fn(u64) -> bool) -> io::Result<()> {
        let mut result = Ok(());
        for segment in self.all().iter().filter(|segment| which(segment.number())) {
            let removed = gone(self.storage.remove_file(segment.anchors.path()))
                .and(gone(self.storage.remove_file(segment.path())));
            if removed.is_ok() {
                self.segments
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&segment.number());
            }
            result = result.and(removed);
        }
        result
    }

    /// Looks which segments are there, removes what belongs to none, and takes out of what is held whatever is obviously not there.
    fn find_segments(&self, mut recovered: Persisted) -> io::Result<Persisted> {
        let mut present = RangeSet::new();
        let segment_bytes = self.format.segment_bytes;
        let wanted = recovered.floor / segment_bytes..recovered.tail.div_ceil(segment_bytes);
        for name in self.storage.list(&self.dir)? {
            let path = self.dir.join(&name);
            match segment_name(&name) {
                Some((number, SEGMENT_EXTENSION)) if wanted.contains(&number) => {
                    present.insert(self.find_segment(number, path)?);
                }
                Some((number, _)) if wanted.contains(&number) => {}
                // Left over: above what was persisted, or below the floor when a removal failed. Not worth failing for.
                Some(_) => drop(self.storage.remove_file(&path)),
                None if name == NEW_MANIFEST => drop(self.storage.remove_file(&path)),
                None => {}
            }
        }
        recovered.held = recovered.held.intersect(&present);
        Ok(recovered)
    }

    /// Takes a segment's file over: the positions it reaches. What cannot be opened is not there, and must not be in the way of a new one.
    fn find_segment(&self, number: u64, path: PathBuf) -> io::Result<Range<u64>> {
        let opened = self.storage.open(&path, Open::Read);
        match opened.and_then(|file| file.length()) {
            Ok(length) => {
                let segment = self.insert(Segment::new(self.format, number, path, length));
                Ok(segment.reach())
            }
            Err(cause) if is_passing(&cause) => Err(cause),
            Err(_) => {
                let _removed = self.storage.remove_file(&path);
                Ok(0..0)
            }
        }
    }

    fn segment_for_writing(&self, writer: &mut Writer, number: u64) -> Arc<Segment> {
        if let Some(segment) = self.segment(number) {
            return segment;
        }
        writer.names_unsynced = true;
        let path = self.dir.join(format!("{number:010}.{SEGMENT_EXTENSION}"));
        self.insert(Segment::new(self.format, number, path, 0))
    }

    fn insert(&self, segment: Segment) -> Arc<Segment> {
        let segment = Arc::new(segment);
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(segment.number(), Arc::clone(&segment));
        segment
    }

    fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    fn all(&self) -> Vec<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    const fn pages_per_segment(&self) -> u64 {
        self.format.segment_bytes / PAGE_BYTES
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SEGMENT_EXTENSION: &str = "seg";
const ANCHORS_EXTENSION: &str = "idx";

/// The number and the extension of a segment's file; `None` for a name that is not one.
fn segment_name(name: &str) -> Option<(u64, &str)> {
    let (number, extension) = name.split_once('.')?;
    let ours = [SEGMENT_EXTENSION, ANCHORS_EXTENSION].contains(&extension)
        && number.bytes().all(|digit| digit.is_ascii_digit());
    let number = number.parse().ok().filter(|_| ours)?;
    // One file has one name.
    (name == format!("{number:010}.{extension}")).then_some((number, extension))
}

fn aside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".aside");
    dir.with_file_name(name)
}

/// Makes an empty log's directory, durably.
fn create(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
    storage.create_dir(dir)?;
    let mut at = dir;
    while let Some(parent) = at.parent() {
        storage.sync_dir(parent)?;
        at = parent;
    }
    Ok(())
}

/// The manifest's bytes; none of them, which is no manifest, if it is longer than one or cannot be read. `None` if it is not there.
fn read_manifest(storage: &dyn Storage, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let read = storage.open(path, Open::Read).and_then(|file| {
        let mut bytes = vec![0; MANIFEST_MAX_BYTES + 1];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(if read > MANIFEST_MAX_BYTES { 0 } else { read });
        Ok(bytes)
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) if is_passing(&cause) => Err(cause),
        Err(_) => Ok(Some(Vec::new())),
    }
}

/// That something which should go was not there is fine.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::history::disk::LogSide;
    use crate::history::storage::Directory;

    fn identity(peer: &str) -> LogIdentity {
        LogIdentity {
            side: LogSide::Own,
            peer: peer.to_owned(),
            domain: "shared".to_owned(),
        }
    }

    fn open(root: &Path, peer: &str) -> Opened {
        let storage = Arc::new(Directory::open(&root.join("history")).unwrap());
        DiskLog::open(storage, Path::new("ab/own"), identity(peer), [7; 16], 1).unwrap()
    }

    fn page(number: u64) -> Vec<u8> {
        (0..PAGE_BYTES)
            .map(|at| (at * 31 + at / 251 + number * 7).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn what_was_synced_and_persisted_is_there_again() {
        let root = tempfile::tempdir().unwrap();
        let state = Persisted {
            floor: 3 * PAGE_BYTES,
            tail: 40 * PAGE_BYTES - 5,
            epochs: vec![crate::frame::Epoch {
                id: [3; 16],
                start: 0,
            }],
            held: [
                3 * PAGE_BYTES..9 * PAGE_BYTES,
                10 * PAGE_BYTES..40 * PAGE_BYTES - 5,
            ]
            .into_iter()
            .collect(),
            capacity_bytes: 99 << 20,
        };
        let anchors: Vec<SavedAnchor> = (1..5000)
            .map(|n| SavedAnchor {
                key: 77 * u32::try_from(n).unwrap(),
                position: n * 512,
            })
            .collect();
        {
            let Opened { log, recovered, .. } = open(root.path(), "branch");
            assert_eq!(recovered, Persisted::default());
            for number in (3..9).chain(10..40) {
                log.write_page(number, &page(number)).unwrap();
                assert_eq!(log.read_page(number).unwrap(), page(number));
            }
            log.write_anchors(&anchors).unwrap();
            log.sync().unwrap();
            log.persist(&state).unwrap();
        }
        let Opened {
            log,
            recovered,
            set_aside,
        } = open(root.path(), "branch");
        assert_eq!((recovered, set_aside), (state, None));
        assert_eq!(log.segments(), [0, 1, 2]);
        for number in (3..9).chain(10..40) {
            assert_eq!(log.read_page(number).unwrap(), page(number), "{number}");
        }
        assert!(matches!(log.read_page(9), Err(ReadError::Missing)));
        assert!(matches!(log.read_page(48), Err(ReadError::Missing)));
        let mut loaded = Vec::new();
        for segment in log.segments() {
            log.load_anchors(segment, &mut |anchor| loaded.push(anchor))
                .unwrap();
        }
        assert_eq!(loaded, anchors);
        log.drop_below(16 * PAGE_BYTES).unwrap();
        assert_eq!(log.segments(), [1, 2]);
        log.clear().unwrap();
        assert_eq!((log.segments(), log.disk_bytes()), (vec![], 0));
    }

    #[test]
    fn a_log_of_another_peer_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        {
            let Opened { log, .. } = open(root.path(), "one");
            log.write_page(0, &page(0)).unwrap();
            log.sync().unwrap();
            log.persist(&Persisted {
                tail: PAGE_BYTES,
                held: std::iter::once(0..PAGE_BYTES).collect(),
                ..Persisted::default()
            })
            .unwrap();
        }
        let opened = open(root.path(), "two");
        assert_eq!(opened.recovered, Persisted::default());
        assert_eq!(
            opened.set_aside.unwrap().to_string(),
            "it is the own log of domain shared with peer one"
        );
        assert!(
            root.path()
                .join("history/ab/own.aside/0000000000.seg")
                .exists()
        );
        assert!(opened.log.segments().is_empty());
    }
}
