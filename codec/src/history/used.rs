//! Which pages a domain has used lately: what an encoder may look at without counting the cost.
//!
//! Whether a page is in the cache for all logs depends on what other peers send, and nothing of theirs may decide what is copied. So the
//! encoder's bound on pages goes by this table, which only the domain's own blocks change.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::Log;

/// Places: 64 MiB of pages, a part of what memory usually caches for a busy domain.
const PLACES: usize = 1024;

/// The pages that were used last, each in the place that its number gives it.
pub(crate) struct UsedPages([AtomicU64; PLACES]);

impl Default for UsedPages {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }
}

impl UsedPages {
    /// The page was used.
    pub fn note(&self, log: Log, page: u64) {
        if let Some((place, name)) = self.place(log, page) {
            place.store(name, Ordering::Relaxed);
        }
    }

    /// Whether it was used, and no other page took its place since.
    pub fn has(&self, log: Log, page: u64) -> bool {
        self.place(log, page)
            .is_some_and(|(place, name)| place.load(Ordering::Relaxed) == name)
    }

    /// Own pages and those of the mirror start half a table apart, since both grow page by page.
    fn place(&self, log: Log, page: u64) -> Option<(&AtomicU64, u64)> {
        let (apart, bit) = match log {
            Log::Own => (0, 0),
            Log::Mirror => (PLACES as u64 / 2, 1),
        };
        let at = usize::try_from((page + apart) % PLACES as u64).ok()?;
        Some((self.0.get(at)?, (page + 1) << 1 | bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pages_are_known_and_logs_apart() {
        let used = UsedPages::default();
        assert!(!used.has(Log::Own, 0));
        (0..2000).for_each(|page| used.note(Log::Own, page));
        assert!(!used.has(Log::Own, 2000 - 1 - PLACES as u64));
        assert!((2000 - PLACES as u64..2000).all(|page| used.has(Log::Own, page)));
        assert!(!used.has(Log::Mirror, 1990));
        used.note(Log::Mirror, 1990);
        assert!(used.has(Log::Mirror, 1990) && used.has(Log::Own, 1990));
    }
}
