//! A log's directory: its segments, and the one who writes them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use super::manifest::{self, LogFormat};
use super::opening::{MANIFEST, NEW_MANIFEST, SEGMENT_EXTENSION};
use super::segment::Segment;
use super::{AnchorsError, LogIdentity, Persisted, ReadError, SavedAnchor};
use crate::history::pages::PAGE_BYTES;
use crate::history::storage::{Storage, aside, clear_name, open_to_write, remove_any, replace};
use crate::ranges::RangeSet;

/// One log on disk. Pages may be read beside everything else; the rest takes turns.
#[derive(Debug)]
pub(crate) struct DiskLog {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: PathBuf,
    identity: LogIdentity,
    pub(super) format: LogFormat,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    writer: Mutex<Writer>,
}

/// What only the one who writes knows.
#[derive(Debug, Default)]
struct Writer {
    /// Files were made whose names are not synced.
    names_unsynced: bool,
}

impl DiskLog {
    /// A log of which no segment is known.
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        dir: &Path,
        identity: LogIdentity,
        format: LogFormat,
    ) -> Self {
        Self {
            storage,
            dir: dir.to_owned(),
            identity,
            format,
            segments: RwLock::default(),
            writer: Mutex::default(),
        }
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
        let file = open_to_write(&*self.storage, &new)?;
        file.set_length(0)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        replace(&*self.storage, &new, &self.dir.join(MANIFEST))?;
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

    /// The numbers of the pages that the segments' files are long enough for.
    pub fn pages(&self) -> RangeSet {
        let reaches = self.all().into_iter().map(|segment| segment.reach());
        reaches
            .map(|reach| reach.start / PAGE_BYTES..reach.end / PAGE_BYTES)
            .collect()
    }

    /// Positions in a segment.
    pub const fn segment_bytes(&self) -> u64 {
        self.format.segment_bytes
    }

    /// Bytes on disk, as the files' lengths say; holes in a file count as if they were not.
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
        removed.and(remove_any(&*self.storage, &aside(&self.dir)))
    }

    fn remove(&self, which: impl Fn(u64) -> bool) -> io::Result<()> {
        let mut result = Ok(());
        for segment in self.all().iter().filter(|segment| which(segment.number())) {
            let removed = clear_name(&*self.storage, segment.anchors.path())
                .and(clear_name(&*self.storage, segment.path()));
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

    fn segment_for_writing(&self, writer: &mut Writer, number: u64) -> Arc<Segment> {
        if let Some(segment) = self.segment(number) {
            return segment;
        }
        writer.names_unsynced = true;
        let path = self.dir.join(format!("{number:010}.{SEGMENT_EXTENSION}"));
        self.insert(Segment::new(self.format, number, path, 0))
    }

    pub(super) fn insert(&self, segment: Segment) -> Arc<Segment> {
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
