//! How a job's reader gets at the bytes of a domain's logs.

use super::{Domain, Log};
use crate::block::Span;
use crate::history::log::Access;
use crate::history::pages::{PAGE_BYTES, Seen, View};
use crate::history::reader::Unseen;
use crate::history::used::UsedPages;

impl Domain {
    /// A stretch around `position` of a log. A page that is not in memory is read from disk, without any lock, if the caller `may_block`.
    pub(crate) fn view(
        &self,
        log: Log,
        position: u64,
        access: Access,
        may_block: bool,
    ) -> Result<View, Unseen> {
        let from = match access {
            Access::Source => self.copies_from(log),
            Access::Covered | Access::Present => 0,
        };
        let history = self.read(log);
        let seen = history.view(position, access, from).ok_or(Unseen::Gone)?;
        let (page, limit) = match seen {
            Seen::Here(view) => return Ok(view),
            Seen::Stored { page, limit } => (page, limit),
        };
        let disk = self.disk.as_ref().ok_or(Unseen::Gone)?;
        // Under the lock, so that it is that of the page that was meant.
        let cached_as = disk.cached_as(log);
        drop(history);
        let bytes = match disk.cached(cached_as, page) {
            Some(bytes) => bytes,
            None if !may_block => return Err(Unseen::NotResident),
            None => self.read_page(disk, log, cached_as, page, &limit)?,
        };
        View::of_page(&bytes, page, limit).ok_or(Unseen::Gone)
    }

    /// What the encoder's bound on pages goes by; none where all is in memory.
    pub(crate) fn used_pages(&self) -> Option<&UsedPages> {
        self.disk.as_ref().map(|disk| disk.used_pages())
    }

    /// The pages of a range were written just now.
    pub(super) fn note_pages(&self, log: Log, span: Span) {
        if let Some(used) = self.used_pages() {
            let last = span.end().saturating_sub(1) / PAGE_BYTES;
            (span.position / PAGE_BYTES..=last).for_each(|page| used.note(log, page));
        }
    }
}
