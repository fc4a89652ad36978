//! One segment: a head with the checksums of its pages, then the pages.
//!
//! The head is magic (8 bytes), the log's id (16), segment number (u64), segment bytes (u64), zeros to 64 bytes; then one xxh3-64 a page, 0
//! for a page that was never written; zeros up to a multiple of 4 KiB. Checksums are kept in memory once they were read (one part in 8,192 of
//! what is on disk), and written when the segment is synced.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::anchors::AnchorFile;
use super::manifest::LogFormat;
use super::{PAGE, ReadError};
use crate::history::pages::PAGE_BYTES;
use crate::history::storage::{Open, Storage, StorageFile, open_to_write};

const MAGIC: [u8; 8] = *b"wanphseg";
/// Bytes of the head before the checksums.
const FIXED_BYTES: usize = 64;
/// Pages start at a multiple of this, as file systems' blocks do.
const ALIGN_BYTES: u64 = 4096;

/// One segment's file.
#[derive(Debug)]
pub(super) struct Segment {
    format: LogFormat,
    number: u64,
    path: PathBuf,
    pub anchors: AnchorFile,
    state: Mutex<State>,
    /// Held while one page is written, so that a reader who met it half written can tell that from damage.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The checksums of the pages, once they were read.
    table: Option<Vec<u64>>,
    /// Checksums that are not written yet.
    unwritten: Range<usize>,
    /// This run has synced the head once. Until then all of it is written: what an earlier run left can perhaps be read and yet not be durable.
    is_head_synced: bool,
    unsynced: bool,
    length_bytes: u64,
}

impl Segment {
    pub fn new(format: LogFormat, number: u64, path: PathBuf, length_bytes: u64) -> Self {
        let anchors = AnchorFile::new(format, number, path.with_extension("idx"));
        let state = State {
            // A longer file is not ours, and counts as one of ours.
            length_bytes: length_bytes.min(head_bytes(format.segment_bytes) + format.segment_bytes),
            ..State::default()
        };
        Self {
            format,
            number,
            path,
            anchors,
            state: Mutex::new(state),
            writing: Mutex::new(()),
        }
    }

    pub const fn number(&self) -> u64 {
        self.number
    }

    pub const fn path(&self) -> &PathBuf {
        &self.path
    }

    pub fn length_bytes(&self) -> u64 {
        self.state().length_bytes
    }

    /// The positions of the pages that the file is long enough for.
    pub fn reach(&self) -> Range<u64> {
        let pages = self
            .length_bytes()
            .saturating_sub(head_bytes(self.format.segment_bytes))
            / PAGE_BYTES;
        let start = self.number * self.format.segment_bytes;
        start..start + (pages * PAGE_BYTES).min(self.format.segment_bytes)
    }

    pub fn write_page(&self, storage: &dyn Storage, page: u64, bytes: &[u8]) -> io::Result<()> {
        let at = self.slot(page);
        let file = open_to_write(storage, &self.path)?;
        self.with_table(&*file, |_| ())?;
        let offset = self.offset(at);
        let checksum = page_checksum(self.format.id, page, bytes);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.state().unsynced = true;
        file.write_at(bytes, offset)?;
        let mut state = self.state();
        state.length_bytes = state.length_bytes.max(offset + PAGE_BYTES);
        state.set(at, checksum);
        Ok(())
    }

    /// Writes the checksums, and syncs all that was written since the last time. After an error all of it must be written again.
    pub fn sync(&self, storage: &dyn Storage) -> io::Result<()> {
        if !self.state().unsynced {
            return Ok(());
        }
        let file = open_to_write(storage, &self.path)?;
        let (is_head_synced, at, checksums) = {
            let state = self.state();
            let range = state.unwritten.clone();
            let table = state.table.as_deref().unwrap_or_default();
            let checksums: Vec<u8> = table
                .get(range.clone())
                .unwrap_or_default()
                .iter()
                .flat_map(|checksum| checksum.to_le_bytes())
                .collect();
            (state.is_head_synced, range.start, checksums)
        };
        if !is_head_synced {
            file.write_at(&self.head(), 0)?;
        }
        if !checksums.is_empty() {
            file.write_at(&checksums, (FIXED_BYTES + at * size_of::<u64>()) as u64)?;
        }
        file.sync()?;
        let mut state = self.state();
        state.is_head_synced = true;
        state.unsynced = false;
        state.unwritten = 0..0;
        Ok(())
    }

    /// Reads a page whole and checks it.
    pub fn read_page(&self, storage: &dyn Storage, page: u64) -> Result<Bytes, ReadError> {
        let file = match storage.open(&self.path, Open::Read) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::Missing);
            }
            opened => opened?,
        };
        match self.read_once(&*file, page) {
            Err(ReadError::Damaged) => {
                let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                self.read_once(&*file, page)
            }
            read => read,
        }
    }

    fn read_once(&self, file: &dyn StorageFile, page: u64) -> Result<Bytes, ReadError> {
        let at = self.slot(page);
        let expected = self.with_table(file, |table| table.get(at).copied().unwrap_or(0))?;
        if expected == 0 {
            return Err(ReadError::Missing);
        }
        let mut bytes = BytesMut::zeroed(PAGE);
        let read = file.read_at(&mut bytes, self.offset(at))?;
        if read == PAGE && page_checksum(self.format.id, page, &bytes) == expected {
            Ok(bytes.freeze())
        } else {
            Err(ReadError::Damaged)
        }
    }

    /// The checksums; they are read if they were not yet.
    fn with_table<R>(
        &self,
        file: &dyn StorageFile,
        see: impl FnOnce(&[u64]) -> R,
    ) -> io::Result<R> {
        let mut state = self.state();
        if state.table.is_none() {
            state.table = Some(self.load(file)?);
        }
        Ok(see(state.table.as_deref().unwrap_or_default()))
    }

    /// The checksums in the file; none if it is not this segment's.
    fn load(&self, file: &dyn StorageFile) -> io::Result<Vec<u64>> {
        let pages = pages_of(self.format.segment_bytes);
        let mut bytes = vec![0; FIXED_BYTES + pages * size_of::<u64>()];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.get_mut(read..).unwrap_or_default().fill(0);
        let (head, table) = bytes.split_at_checked(FIXED_BYTES).unwrap_or_default();
        if head != self.head() {
            return Ok(vec![0; pages]);
        }
        Ok(table
            .as_chunks()
            .0
            .iter()
            .map(|checksum| u64::from_le_bytes(*checksum))
            .collect())
    }

    fn head(&self) -> [u8; FIXED_BYTES] {
        let mut head = [0; FIXED_BYTES];
        let said = MAGIC
            .into_iter()
            .chain(self.format.id)
            .chain(self.number.to_le_bytes())
            .chain(self.format.segment_bytes.to_le_bytes());
        for (byte, said) in head.iter_mut().zip(said) {
            *byte = said;
        }
        head
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "below the pages of a segment"
    )]
    const fn slot(&self, page: u64) -> usize {
        (page % (self.format.segment_bytes / PAGE_BYTES)) as usize
    }

    const fn offset(&self, slot: usize) -> u64 {
        head_bytes(self.format.segment_bytes) + slot as u64 * PAGE_BYTES
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, at: usize, checksum: u64) {
        if let Some(slot) = self.table.as_mut().and_then(|table| table.get_mut(at)) {
            *slot = checksum;
        }
        if !self.is_head_synced {
            self.unwritten = 0..self.table.as_ref().map_or(0, Vec::len);
        } else if self.unwritten.is_empty() {
            self.unwritten = at..at + 1;
        } else {
            self.unwritten = self.unwritten.start.min(at)..self.unwritten.end.max(at + 1);
        }
    }
}

/// Where the pages of a segment's file begin.
const fn head_bytes(segment_bytes: u64) -> u64 {
    ((FIXED_BYTES + pages_of(segment_bytes) * size_of::<u64>()) as u64)
        .next_multiple_of(ALIGN_BYTES)
}

/// At most 1,024.
const fn pages_of(segment_bytes: u64) -> usize {
    (segment_bytes / PAGE_BYTES) as usize
}

/// Tied to the log and the page's place in it, so that nothing passes that stands in the wrong place; never 0.
fn page_checksum(log: [u8; 16], page: u64, bytes: &[u8]) -> u64 {
    let mut seed = Xxh3::new();
    seed.update(&log);
    seed.update(&page.to_le_bytes());
    xxh3_64_with_seed(bytes, seed.digest()).max(1)
}
