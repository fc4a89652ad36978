//! How a job looks at a domain's logs: by views that it keeps, so that matching seldom takes a lock.

use super::log::Access;
use super::pages::View;
use crate::domain::{Domain, Log};

/// Views that a reader keeps: the source that is being followed, what a candidate is compared with, and their neighbours.
const KEPT: usize = 4;

/// A job's window on the logs. What it has seen stays readable for it, whatever is evicted meanwhile.
pub(crate) struct Reader<'d> {
    domain: &'d Domain,
    access: Access,
    kept: [Option<(Log, View)>; KEPT],
    oldest: usize,
}

impl<'d> Reader<'d> {
    pub fn new(domain: &'d Domain, access: Access) -> Self {
        Self {
            domain,
            access,
            kept: [const { None }; KEPT],
            oldest: 0,
        }
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
            let view = self.domain.view(log, position, self.access)?;
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
}
