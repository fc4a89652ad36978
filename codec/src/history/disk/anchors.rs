//! The anchors of one segment, saved so that the index can be filled without scanning the pages: batches behind one another, as they came.
//!
//! A batch is the count of its records (u32), zero (u32), the xxh3-64 of its records and its place, and the records: the saved key (u32) and
//! the offset in the segment just behind the window (u32, 1 to the segment's bytes). What does not check ends the file. They are
//! hints, so they are never synced; what a crash takes of them is found again by a scan, or not at all.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::manifest::LogFormat;
use crate::history::storage::{Open, Storage, StorageFile, open_to_write};

const HEAD_BYTES: usize = 16;
const RECORD_BYTES: usize = 8;
/// Records of one batch: what is read and checked at once.
const BATCH_MAX: usize = 1 << 15;
/// An anchor stands at least 16 bytes behind the one before it, so a segment has no more than this part of its bytes.
const ANCHOR_GAP_BYTES: u64 = 16;

/// An anchor as it is saved: what the index keeps of the key, and the position just behind the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedAnchor {
    /// See `index::save_key`.
    pub key: u32,
    /// Just behind the anchor's window; at least 1.
    pub position: u64,
}

/// Why the anchors of a segment are not all there; whoever wants them scans its pages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnchorsError {
    /// There are none.
    #[error("the segment has no saved anchors")]
    Missing,
    /// Something behind those that were given is not what was written.
    #[error("the saved anchors are damaged")]
    Damaged,
    /// They could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The anchors' file of a segment.
#[derive(Debug)]
pub(super) struct AnchorFile {
    format: LogFormat,
    segment: u64,
    path: PathBuf,
    /// Where the next batch goes; not known before the file was looked through.
    end: Mutex<Option<u64>>,
    length_bytes: AtomicU64,
}

impl AnchorFile {
    pub const fn new(format: LogFormat, segment: u64, path: PathBuf) -> Self {
        Self {
            format,
            segment,
            path,
            end: Mutex::new(None),
            length_bytes: AtomicU64::new(0),
        }
    }

    pub const fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Bytes of the file, once they were measured or it was written.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes.load(Ordering::Relaxed)
    }

    /// Looks how long the file is; what cannot be seen counts as nothing.
    pub fn measure(&self, storage: &dyn Storage) {
        let opened = storage.open(&self.path, Open::Read);
        let length = opened.and_then(|file| file.length()).unwrap_or(0);
        self.length_bytes
            .store(length.min(self.most_bytes()), Ordering::Relaxed);
    }

    /// Adds anchors of this segment. Of more than a segment can have, the rest is left out.
    pub fn append(&self, storage: &dyn Storage, anchors: &[SavedAnchor]) -> io::Result<()> {
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let file = open_to_write(storage, &self.path)?;
        let mut end = match *known {
            Some(end) => end,
            None => self.find_end(&*file)?,
        };
        // Until all is written nobody knows what stands there.
        *known = None;
        for batch in anchors.chunks(BATCH_MAX) {
            let bytes = self.encode(batch, end);
            if end + bytes.len() as u64 > self.most_bytes() {
                break;
            }
            file.write_at(&bytes, end)?;
            end += bytes.len() as u64;
        }
        *known = Some(end);
        self.length_bytes.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// Gives all anchors to `sink`, in the order in which they came.
    pub fn load(
        &self,
        storage: &dyn Storage,
        sink: &mut dyn FnMut(SavedAnchor),
    ) -> Result<(), AnchorsError> {
        let file = match storage.open(&self.path, Open::Read) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(AnchorsError::Missing);
            }
            opened => opened?,
        };
        let end = self.read(&*file, sink)?;
        let length = file.length()?;
        if length == 0 {
            Err(AnchorsError::Missing)
        } else if end < length.min(self.most_bytes()) {
            Err(AnchorsError::Damaged)
        } else {
            Ok(())
        }
    }

    /// Where the good batches end; what is behind them is cut off, so that what is added can be found.
    fn find_end(&self, file: &dyn StorageFile) -> io::Result<u64> {
        let end = self.read(file, &mut |_| ())?;
        if file.length()? > end {
            file.set_length(end)?;
        }
        Ok(end)
    }

    fn read(&self, file: &dyn StorageFile, sink: &mut dyn FnMut(SavedAnchor)) -> io::Result<u64> {
        let mut at = 0;
        let mut records = Vec::new();
        while at < self.most_bytes() {
            let mut head = [0; HEAD_BYTES];
            if file.read_at(&mut head, at)? < HEAD_BYTES {
                break;
            }
            let ([count, zero, ..], checksum) = (head.as_chunks().0, head.last_chunk()) else {
                break;
            };
            let count = u32::from_le_bytes(*count) as usize;
            if count == 0 || count > BATCH_MAX || *zero != [0; 4] {
                break;
            }
            records.resize(count * RECORD_BYTES, 0);
            if file.read_at(&mut records, at + HEAD_BYTES as u64)? < records.len()
                || checksum != Some(&self.checksum(&records, at).to_le_bytes())
            {
                break;
            }
            for record in records.as_chunks::<RECORD_BYTES>().0 {
                if let Some(anchor) = self.decode(*record) {
                    sink(anchor);
                }
            }
            at += (HEAD_BYTES + records.len()) as u64;
        }
        Ok(at)
    }

    fn encode(&self, anchors: &[SavedAnchor], at: u64) -> BytesMut {
        let start = self.segment * self.format.segment_bytes;
        let mut records = BytesMut::with_capacity(anchors.len() * RECORD_BYTES);
        for anchor in anchors {
            let offset = anchor.position.saturating_sub(start);
            records.put_u32_le(anchor.key);
            records.put_u32_le(u32::try_from(offset).unwrap_or(0));
        }
        let mut out = BytesMut::with_capacity(HEAD_BYTES + records.len());
        #[expect(clippy::cast_possible_truncation, reason = "at most BATCH_MAX")]
        out.put_u32_le(anchors.len() as u32);
        out.put_u32_le(0);
        out.put_u64_le(self.checksum(&records, at));
        out.put_slice(&records);
        out
    }

    fn decode(&self, record: [u8; RECORD_BYTES]) -> Option<SavedAnchor> {
        let ([key, offset], []) = record.as_chunks() else {
            return None;
        };
        let offset = u64::from(u32::from_le_bytes(*offset));
        let inside = (1..=self.format.segment_bytes).contains(&offset);
        inside.then(|| SavedAnchor {
            key: u32::from_le_bytes(*key),
            position: self.segment * self.format.segment_bytes + offset,
        })
    }

    /// Tied to the log and to the batch's place in it.
    fn checksum(&self, records: &[u8], at: u64) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.format.id);
        hash.update(&self.segment.to_le_bytes());
        hash.update(&at.to_le_bytes());
        hash.update(records);
        hash.digest()
    }

    /// The most that the file may have: every anchor in a batch of its own.
    const fn most_bytes(&self) -> u64 {
        self.format.segment_bytes / ANCHOR_GAP_BYTES * (RECORD_BYTES + HEAD_BYTES) as u64
    }
}
