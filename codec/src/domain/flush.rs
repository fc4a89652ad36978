//! Writing what waits in memory: pages, then what makes them durable, then the manifest that says so.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::disk::OnDisk;
use super::{Domain, Log};

/// What a [`Domain::flush`] did.
#[derive(Debug, Default)]
pub struct Flush {
    /// Pages that were written and synced.
    pub pages: u64,
    /// Why not all could be written: the domain is read-only until a later flush succeeds.
    pub error: Option<FlushError>,
    /// It is the first that failed, or the first that succeeded after one that failed.
    pub is_turn: bool,
}

/// Why a log could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the history: {doing}: {cause}")]
pub struct FlushError {
    /// What failed, in words.
    pub doing: &'static str,
    /// What the system says.
    pub cause: io::Error,
}

impl Domain {
    /// Writes what the files lack, and removes what was dropped. Blocking; several calls take turns.
    ///
    /// After an error nothing is appended ([`Domain::quota_offer`] is 0), what could not be written stays in memory, and the domain is still dirty;
    /// [`Domain::on_dirty`] does not call for it again.
    pub fn flush(&self) -> Flush {
        let Some(disk) = &self.disk else {
            return Flush::default();
        };
        let _flushing = disk.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        disk.set_dirty(false);
        let mut flush = Flush::default();
        for log in Log::BOTH {
            match self.flush_log(disk, log) {
                Ok(pages) => flush.pages += pages,
                Err(error) => flush.error = flush.error.or(Some(error)),
            }
        }
        let failed = flush.error.is_some();
        flush.is_turn = failed != self.is_read_only();
        if failed {
            disk.set_dirty(true);
        }
        disk.set_read_only(failed);
        flush
    }

    fn flush_log(&self, disk: &OnDisk, log: Log) -> Result<u64, FlushError> {
        let files = disk.log(log);
        self.drop_files(disk, log)?;
        let mut history = self.write(log);
        if !history.is_changed() {
            return Ok(0);
        }
        let round = history.take_round();
        // Under the lock, so that it is that of these pages.
        let cached_as = disk.cached_as(log);
        drop(history);
        let written = round
            .pages
            .iter()
            .try_for_each(|page| files.write_page(page.page, &page.bytes))
            .and_then(|()| files.write_anchors(&round.anchors))
            .map_err(|cause| {
                // A page that was written again has its old checksum in the file, and may stay there: the program may end before there is room.
                let _synced = files.sync();
                failed("writing pages", cause)
            })
            .and_then(|()| files.sync().map_err(|cause| failed("syncing", cause)));
        if let Err(error) = written {
            self.write(log).put_back(round);
            return Err(error);
        }
        let pages = round.pages.len() as u64;
        // Before they count as stored, or a reader would fetch them from the disk.
        for page in round.pages.iter().filter(|page| page.is_complete) {
            disk.keep(cached_as, page.page, page.bytes.clone());
        }
        let mut history = self.write(log);
        history.saved(round);
        disk.count_unsaved(log, &history);
        drop(history);
        self.persist(disk, log)?;
        Ok(pages)
    }

    /// Makes the manifest say what is so now.
    fn persist(&self, disk: &OnDisk, log: Log) -> Result<(), FlushError> {
        let persisted = self.read(log).persisted(self.capacity_bytes(log));
        disk.log(log).persist(&persisted).map_err(|cause| {
            self.write(log).changed();
            failed("replacing the manifest", cause)
        })
    }

    /// Removes the files of what was dropped or forgotten, first: on a full disk that is what makes room.
    fn drop_files(&self, disk: &OnDisk, log: Log) -> Result<(), FlushError> {
        let files = disk.log(log);
        let forgotten = log.of(&disk.forgotten);
        let is_forgotten = forgotten.load(Ordering::Relaxed);
        let floor = self.read(log).floor();
        let segment_bytes = files.segment_bytes();
        let is_below = files
            .segments()
            .first()
            .is_some_and(|first| (first + 1) * segment_bytes <= floor);
        if !is_forgotten && !is_below {
            return Ok(());
        }
        // Whether or not it can be written: what it still says of removed files is found to be missing.
        let persisted = self.persist(disk, log);
        let removed = if is_forgotten {
            files.clear()
        } else {
            files.drop_below(floor)
        };
        if is_forgotten && removed.is_ok() {
            forgotten.store(false, Ordering::Relaxed);
        }
        removed.map_err(|cause| failed("removing segments", cause))?;
        // Perhaps there is room for it now.
        persisted.or_else(|_| self.persist(disk, log))
    }
}

const fn failed(doing: &'static str, cause: io::Error) -> FlushError {
    FlushError { doing, cause }
}
