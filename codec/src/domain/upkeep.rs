//! What is done to a domain's files beside writing: teaching the index what was saved, and looking whether all can still be read.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::disk::{Loss, OnDisk};
use super::{Domain, Log};
use crate::anchor::{Density, Scanner, Selector};
use crate::history::disk::DiskLog;
use crate::history::pages::PAGE_BYTES;
use crate::index::load_key;

/// Pages that a step reads: 4 MiB, some milliseconds, and on a slow disk less than a tenth of a second.
const STEP_PAGES: u64 = 64;

/// A segment whose anchors the index does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unloaded {
    pub log: Log,
    segment: u64,
    /// Its saved anchors cannot be had, and its pages are scanned: down to this one.
    scanned_to: Option<u64>,
}

/// All segments of both logs, the newest first.
pub(super) fn unloaded(own: &DiskLog, mirror: &DiskLog) -> VecDeque<Unloaded> {
    let of = |log: Log, files: &DiskLog| {
        let segments = files.segments().into_iter().rev();
        segments
            .map(move |segment| Unloaded {
                log,
                segment,
                scanned_to: None,
            })
            .collect::<Vec<_>>()
    };
    let (own, mirror) = (of(Log::Own, own), of(Log::Mirror, mirror));
    // Neither log knows when the other's bytes came; one segment of each in turn is as good as any guess.
    let mut all = Vec::new();
    for at in 0..own.len().max(mirror.len()) {
        all.extend(own.get(at));
        all.extend(mirror.get(at));
    }
    all.into()
}

/// How far a domain was verified.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyCursor {
    at: Option<(Log, u64)>,
    verified: Verified,
}

/// What was found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Pages read and checked.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, those that could not be read or are not what was written: they are holes now.
    pub damaged_pages: u64,
    /// Pages there are in all, about.
    pub pages_in_all: u64,
    /// All were looked at.
    pub is_done: bool,
}

impl Domain {
    /// Makes the index know the anchors of one more segment, or of a part of it; true while more is left. Blocking. The edge works meanwhile, and finds
    /// less.
    pub fn load_index_step(&self) -> bool {
        let Some(disk) = &self.disk else {
            return false;
        };
        let mut queue = disk.unloaded.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = queue.front().copied() else {
            return false;
        };
        drop(queue);
        let rest = self.load_segment(disk, next);
        queue = disk.unloaded.lock().unwrap_or_else(PoisonError::into_inner);
        // The log may have been forgotten meanwhile.
        let is_still_first =
            |front: &Unloaded| front.log == next.log && front.segment == next.segment;
        if queue.front().is_some_and(is_still_first) {
            queue.pop_front();
            if let Some(rest) = rest {
                queue.push_front(rest);
            }
        }
        !queue.is_empty()
    }

    /// Reads the next pages and checks them. Blocking, for less than a tenth of a second on all but the slowest disks. What is damaged becomes a hole.
    pub fn verify_step(&self, cursor: &mut VerifyCursor) -> Verified {
        let Some(disk) = &self.disk else {
            cursor.verified.is_done = true;
            return cursor.verified;
        };
        cursor.verified.pages_in_all = Log::BOTH
            .into_iter()
            .map(|log| self.read(log).stored_pages())
            .sum();
        let (mut log, mut from) = cursor.at.unwrap_or((Log::Own, 0));
        for _ in 0..STEP_PAGES {
            let Some(page) = self.read(log).next_stored(from) else {
                if log == Log::Mirror {
                    cursor.verified.is_done = true;
                    break;
                }
                (log, from) = (Log::Mirror, 0);
                continue;
            };
            from = page + 1;
            cursor.verified.pages += 1;
            cursor.verified.bytes += PAGE_BYTES;
            if let Err(error) = disk.log(log).read_page(page)
                && self.lose_page(disk, log, page, &error) == Loss::Damaged
            {
                cursor.verified.damaged_pages += 1;
            }
        }
        cursor.at = Some((log, from));
        cursor.verified
    }

    /// Loads a segment's anchors; returns what is left of it.
    fn load_segment(&self, disk: &OnDisk, next: Unloaded) -> Option<Unloaded> {
        let files = disk.log(next.log);
        let first = next.segment * (files.segment_bytes() / PAGE_BYTES);
        let behind = first + files.segment_bytes() / PAGE_BYTES;
        if next.scanned_to.is_none() {
            let held = self.read(next.log).held_in(first..behind);
            let mut anchors = Vec::new();
            let loaded = files.load_anchors(next.segment, &mut |anchor| {
                if held.contains(anchor.position.saturating_sub(1)) {
                    anchors.push((load_key(anchor.key), anchor.position));
                }
            });
            let given = !anchors.is_empty();
            self.index.insert_older(next.log, &anchors);
            if loaded.is_ok() && (given || held.is_empty()) {
                return None;
            }
        }
        let to = next.scanned_to.unwrap_or(behind);
        let from = to.saturating_sub(STEP_PAGES).max(first);
        for page in (from..to).rev() {
            self.scan_page(disk, next.log, page);
        }
        (from > first).then_some(Unloaded {
            scanned_to: Some(from),
            ..next
        })
    }

    /// Finds the anchors of a page on disk anew.
    fn scan_page(&self, disk: &OnDisk, log: Log, page: u64) {
        let held = self.read(log).held_in(page..page + 1);
        if held.is_empty() || self.read(log).next_stored(page) != Some(page) {
            return;
        }
        let bytes = match disk.log(log).read_page(page) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.lose_page(disk, log, page, &error);
                return;
            }
        };
        let mut candidates = Vec::new();
        let mut select = Selector::new(Density::Dense);
        Scanner::default().scan(&bytes, 0..bytes.len(), select.density(), &mut candidates);
        let mut anchors = Vec::new();
        for candidate in candidates {
            let position = page * PAGE_BYTES + u64::from(candidate.end);
            if select.accepts(candidate)
                && held.contains(position - 1)
                && let Some(key) = candidate.key(&bytes)
            {
                anchors.push((key, position));
            }
        }
        self.index.insert_older(log, &anchors);
    }
}
