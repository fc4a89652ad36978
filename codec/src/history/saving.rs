//! What a log on disk has in memory only, and what may be said of it in its manifest.

use std::ops::Range;

use super::disk::{Persisted, SavedAnchor};
use super::log::History;
use super::pages::{PAGE_BYTES, Pages, Unsaved};
use crate::ranges::RangeSet;

/// Of a log on disk: what its files lack, and what they have.
#[derive(Debug, Default)]
pub(crate) struct Saving {
    /// Positions whose bytes were written and synced.
    synced: RangeSet,
    /// Not yet written.
    anchors: Vec<SavedAnchor>,
    /// The manifest lags behind.
    is_changed: bool,
}

/// One round of writing.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub pages: Vec<Unsaved>,
    pub anchors: Vec<SavedAnchor>,
    /// The positions that the pages hold.
    written: RangeSet,
}

impl History {
    /// A log as its files have it; `in_files` are the numbers of all pages that they take room for.
    pub fn reopened(recovered: Persisted, segment_bytes: u64, in_files: RangeSet) -> Self {
        let held = recovered.held;
        let stored = held
            .iter()
            .map(|range| range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES))
            .collect();
        Self {
            floor: recovered.floor,
            tail: recovered.tail,
            epochs: recovered.epochs,
            present: held.clone(),
            pages: Pages::on_disk(segment_bytes, in_files, stored),
            saving: Some(Saving {
                synced: held.clone(),
                ..Saving::default()
            }),
            held,
            ..Self::default()
        }
    }

    /// Something that the manifest says is no longer so.
    pub fn changed(&mut self) {
        if let Some(saving) = &mut self.saving {
            saving.is_changed = true;
        }
    }

    /// Whether the files lag behind.
    pub fn is_changed(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| saving.is_changed)
    }

    /// Keeps anchors until they are written.
    pub fn keep_anchors(&mut self, anchors: impl Iterator<Item = SavedAnchor>) {
        if let Some(saving) = &mut self.saving {
            saving.anchors.extend(anchors);
        }
    }

    /// What is to be written; it is not given again unless [`History::put_back`] says that it failed.
    pub fn take_round(&mut self) -> Round {
        let Some(saving) = &mut self.saving else {
            return Round::default();
        };
        let pages = self.pages.take_unsaved();
        let written = pages
            .iter()
            .flat_map(|page| {
                let start = page.page * PAGE_BYTES;
                self.present.within(start..start + PAGE_BYTES)
            })
            .collect();
        saving.is_changed = false;
        Round {
            pages,
            anchors: std::mem::take(&mut saving.anchors),
            written,
        }
    }

    /// The round was not written, or not for good.
    pub fn put_back(&mut self, round: Round) {
        let Some(saving) = &mut self.saving else {
            return;
        };
        saving.is_changed = true;
        let later = std::mem::replace(&mut saving.anchors, round.anchors);
        saving.anchors.extend(later);
        for page in round.pages {
            self.pages.unsave(page.page);
        }
    }

    /// The round was written and synced. Returns the pages that left memory.
    pub fn saved(&mut self, round: Round) -> Vec<Unsaved> {
        let floor = self.floor;
        let Some(saving) = &mut self.saving else {
            return Vec::new();
        };
        saving.synced.insert_all(&round.written);
        saving.synced.remove(0..floor);
        let pages = &mut self.pages;
        let mut round = round.pages;
        round.retain(|page| page.is_complete && pages.is_saved(page.page));
        round
    }

    /// What the manifest may say now.
    pub fn persisted(&self, capacity_bytes: u64) -> Persisted {
        let synced = self.saving.as_ref().map(|saving| &saving.synced);
        Persisted {
            floor: self.floor,
            tail: self.tail,
            epochs: self.epochs.clone(),
            held: synced
                .map(|synced| self.held.intersect(synced))
                .unwrap_or_default(),
            capacity_bytes,
        }
    }

    /// A page on disk cannot be read: it is a hole. False if nobody would have read it.
    pub fn lose_page(&mut self, page: u64) -> bool {
        let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        if !self.pages.is_stored(&range) {
            return false;
        }
        self.pages.lose_stored(page);
        let was_held = self.present.overlaps(&range);
        for set in [&mut self.present, &mut self.held, &mut self.covered] {
            set.remove(range.clone());
        }
        if let Some(saving) = &mut self.saving {
            saving.synced.remove(range.clone());
        }
        self.changed();
        self.settle(range);
        was_held
    }

    /// What is held of some pages.
    pub fn held_in(&self, pages: Range<u64>) -> RangeSet {
        let positions = pages.start * PAGE_BYTES..pages.end.saturating_mul(PAGE_BYTES);
        self.held.within(positions).collect()
    }

    /// The lowest page on disk from `page` on.
    pub fn next_stored(&self, page: u64) -> Option<u64> {
        self.pages.next_stored(page)
    }

    /// How many pages are on disk and not in memory.
    pub const fn stored_pages(&self) -> u64 {
        self.pages.stored_count()
    }

    /// Forgets all bytes; positions and epochs stay.
    pub fn forget(&mut self) {
        self.drop_below(self.tail);
        self.pages.clear();
        if let Some(saving) = &mut self.saving {
            *saving = Saving {
                is_changed: true,
                ..Saving::default()
            };
        }
    }
}
