//! How a job looks at a domain's logs: by views that it keeps, so that matching seldom takes a lock.

use std::ops::Range;
use std::sync::Arc;

use super::log::Access;
use super::pages::{PAGE_BYTES, View};
use crate::domain::{Domain, Log};
use crate::encoder::Avoid;

/// Views that a reader keeps: the source that is being followed, what a candidate is compared with, and their neighbours.
const KEPT: usize = 4;

/// Pages on disk that an encoder looks at for one block, beyond those that its domain used lately and those that paid: what reading for
/// nothing may cost where a history is full of almost the same.
const PAGES_FOR_NOTHING: u32 = 16;

/// Copied bytes that pay for one more page.
const BYTES_PER_PAGE: u64 = 1024;

/// Why bytes that are named cannot be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unseen {
    /// They are not held.
    Gone,
    /// They would have to be read from disk, and the reader may not wait for that.
    NotResident,
    /// They could not be read: these, and no longer held.
    Unreadable(Range<u64>),
}

/// A job's window on the logs. What it has seen stays readable for it, whatever is evicted meanwhile.
pub(crate) struct Reader<'d> {
    domain: &'d Domain,
    access: Access,
    may_block: bool,
    kept: [Option<(Log, View)>; KEPT],
    oldest: usize,
    pages_left: u32,
    /// Pages that were counted for.
    counted: Vec<(Log, u64)>,
    /// What of the own log is not to be seen.
    avoid: Option<Arc<Avoid>>,
    unseen: Option<Unseen>,
}

impl<'d> Reader<'d> {
    /// A reader that waits for the disk only if it `may_block`.
    pub fn new(domain: &'d Domain, access: Access, may_block: bool) -> Self {
        Self {
            domain,
            access,
            may_block,
            kept: [const { None }; KEPT],
            oldest: 0,
            pages_left: PAGES_FOR_NOTHING,
            counted: Vec::new(),
            avoid: None,
            unseen: None,
        }
    }

    /// The same that does not see what is to be avoided of the own log.
    pub fn avoiding(mut self, avoid: Option<Arc<Avoid>>) -> Self {
        self.avoid = avoid;
        self
    }

    /// A stretch of `log` that contains `position`.
    pub fn view(&mut self, log: Log, position: u64) -> Option<&View> {
        let holds = |kept: &Option<(Log, View)>| {
            kept.as_ref().is_some_and(|(of, view)| {
                *of == log && view.start <= position && position < view.end()
            })
        };
        let at = if let Some(at) = self.kept.iter().position(holds) {
            at
        } else {
            let view = self.look(log, position)?;
            self.oldest = (self.oldest + 1) % KEPT;
            *self.kept.get_mut(self.oldest)? = Some((log, view));
            self.oldest
        };
        self.kept.get(at)?.as_ref().map(|(_, view)| view)
    }

    /// The bytes of `log` from `position` to the end of what can be seen at once.
    pub fn from(&mut self, log: Log, position: u64) -> Option<&[u8]> {
        let view = self.view(log, position)?;
        view.bytes
            .get(usize::try_from(position - view.start).ok()?..)
    }

    /// The bytes of `log` that end at `position`, as many as can be seen at once.
    pub fn up_to(&mut self, log: Log, position: u64) -> Option<&[u8]> {
        let view = self.view(log, position.checked_sub(1)?)?;
        view.bytes
            .get(..usize::try_from(position - view.start).ok()?)
    }

    /// Whether something was not seen only because this reader may not wait.
    pub fn is_stuck(&self) -> bool {
        self.unseen == Some(Unseen::NotResident)
    }

    /// Why the last thing that was wanted was not seen.
    pub fn take_unseen(&mut self) -> Unseen {
        self.unseen.take().unwrap_or(Unseen::Gone)
    }

    /// What was looked at gave a copy of so many bytes.
    pub fn paid(&mut self, bytes: u64) {
        let pages = u32::try_from(bytes / BYTES_PER_PAGE).unwrap_or(PAGES_FOR_NOTHING);
        self.pages_left = (self.pages_left + pages).min(PAGES_FOR_NOTHING);
    }

    /// What was looked at for nothing does not count against the prefix, which is a few pages next to each other.
    pub fn begin_prefix(&mut self) {
        self.pages_left = PAGES_FOR_NOTHING;
    }

    /// The block is encoded: the next one may look at the same pages.
    pub fn note_pages(&self) {
        if let Some(used) = self.domain.used_pages() {
            for &(log, page) in &self.counted {
                used.note(log, page);
            }
        }
    }

    fn look(&mut self, log: Log, position: u64) -> Option<View> {
        if self.is_stuck() {
            return None;
        }
        let page = position / PAGE_BYTES;
        let used = self
            .domain
            .used_pages()
            .filter(|_| self.access == Access::Source);
        let is_new =
            used.is_some_and(|used| !used.has(log, page) && !self.counted.contains(&(log, page)));
        if is_new && self.pages_left == 0 {
            return None;
        }
        match self.domain.view(log, position, self.access, self.may_block) {
            Ok(view) => {
                let view = match self.avoid.as_ref().filter(|_| log == Log::Own) {
                    None => view,
                    Some(avoid) => view.part(avoid.around(position, &(view.start..view.end()))?)?,
                };
                if is_new {
                    self.pages_left -= 1;
                    self.counted.push((log, page));
                }
                Some(view)
            }
            Err(unseen) => {
                self.unseen = Some(unseen);
                None
            }
        }
    }
}
