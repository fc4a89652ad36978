//! The bytes of a log, in pages addressed by position.
//!
//! A page that is complete is frozen: from then on it is shared by reference count, and whoever reads or writes from it keeps it alive
//! whatever is evicted meanwhile. A page that is still being filled is read by copying out, under the lock of its log. A log on disk keeps
//! a page in memory until its file has all of it; from then on the page is *stored*, and this only knows that it is there.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::ranges::RangeSet;

/// Bytes of a page: the unit of memory, so that a log of many small appends costs what its bytes cost.
pub const PAGE_BYTES: u64 = 1 << 16;
const PAGE: usize = 1 << 16;

/// What a page takes on disk with its anchors (eight bytes for every 128 at most) and its checksum.
pub const DISK_PAGE_BYTES: u64 = PAGE_BYTES + PAGE_BYTES / 16 + 16;

/// Bytes copied out of an unfinished page around a wanted position: enough for most of what is found there, cheap if it is not.
const COPY_BEFORE_BYTES: u64 = 512;
const COPY_BEHIND_BYTES: u64 = 8192;

/// Evicted pages that are kept for reuse: 16 MiB, about what one Floor frees, so that a full log faults no fresh memory in.
const SPARE_MAX: usize = 256;

/// Contiguous bytes of a log.
#[derive(Debug, Clone)]
pub struct View {
    /// Position of the first byte.
    pub start: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl View {
    /// A part of a page that is there whole.
    #[must_use]
    pub fn of_page(page: &Bytes, number: u64, limit: Range<u64>) -> Option<Self> {
        let view = page.get(inside(&limit, number * PAGE_BYTES))?;
        Some(Self {
            start: limit.start,
            bytes: page.slice_ref(view),
        })
    }

    /// The bytes of a part of it.
    #[must_use]
    pub fn part(&self, part: Range<u64>) -> Option<Self> {
        let bytes = self.bytes.get(inside(&part, self.start))?;
        Some(Self {
            start: part.start,
            bytes: self.bytes.slice_ref(bytes),
        })
    }

    /// Position behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// Where the wanted bytes are.
#[derive(Debug)]
pub enum Seen {
    /// At hand.
    Here(View),
    /// On disk, in this page, of which `limit` may be read.
    Stored {
        /// The page's number.
        page: u64,
        /// Positions in it.
        limit: Range<u64>,
    },
}

/// A page's bytes as they are to be written.
#[derive(Debug)]
pub struct Unsaved {
    /// The page's number.
    pub page: u64,
    /// All of the page; zeros where nothing was written yet.
    pub bytes: Bytes,
    /// Nothing more will come: once it is written, the page need not stay in memory.
    pub is_complete: bool,
}

/// The pages of one log.
#[derive(Debug, Default)]
pub struct Pages {
    /// Those in memory.
    pages: BTreeMap<u64, Page>,
    /// Numbers of those on disk.
    stored: RangeSet,
    stored_count: u64,
    /// Numbers of those that lie in files and are of no use any more: they take room until their segment goes.
    wasted: RangeSet,
    wasted_count: u64,
    spare: Vec<BytesMut>,
    /// Pages that go together, on disk only: those of a segment.
    segment_pages: Option<u64>,
}

#[derive(Debug)]
enum Page {
    Filling {
        bytes: BytesMut,
        filled_bytes: usize,
        /// How many of the filled bytes are on disk, if it is kept there.
        saved_bytes: usize,
    },
    Frozen(Bytes),
}

impl Pages {
    /// The pages of a log on disk: those that its files have, of which those in `stored` are of use.
    pub fn on_disk(segment_bytes: u64, in_files: RangeSet, stored: RangeSet) -> Self {
        let mut wasted = in_files;
        wasted.remove_all(&stored);
        Self {
            stored_count: stored.len_bytes(),
            stored,
            wasted_count: wasted.len_bytes(),
            wasted,
            segment_pages: Some((segment_bytes / PAGE_BYTES).max(1)),
            ..Self::default()
        }
    }

    /// Lays `bytes` down from `position`. The caller sees to it that no position is written twice.
    pub fn write(&mut self, mut position: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, at) = place(position);
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE - at));
            self.write_page(number, at, part);
            position += part.len() as u64;
            bytes = rest;
        }
    }

    /// The largest stretch around `position` inside `limit` that can be had at once. `position` is in `limit`, and all of `limit` was written.
    pub fn view(&self, position: u64, limit: &Range<u64>) -> Option<Seen> {
        let (number, _) = place(position);
        let start = number * PAGE_BYTES;
        let limit = limit.start.max(start)..limit.end.min(start + PAGE_BYTES);
        let Some(page) = self.pages.get(&number) else {
            let page = number;
            return self
                .stored
                .contains(page)
                .then_some(Seen::Stored { page, limit });
        };
        match page {
            Page::Frozen(bytes) => View::of_page(bytes, number, limit).map(Seen::Here),
            Page::Filling { bytes, .. } => {
                let near = limit.start.max(position.saturating_sub(COPY_BEFORE_BYTES))
                    ..limit.end.min(position + COPY_BEHIND_BYTES);
                Some(Seen::Here(View {
                    start: near.start,
                    bytes: Bytes::copy_from_slice(bytes.get(inside(&near, start))?),
                }))
            }
        }
    }

    /// Whether a page that `range` touches is on disk and no longer in memory: nothing can be added to it.
    pub fn is_stored(&self, range: &Range<u64>) -> bool {
        let last = place(range.end.saturating_sub(1)).0;
        self.stored.overlaps(&(place(range.start).0..last + 1))
    }

    /// What a log on disk has in memory only. It counts as saved from now on; see [`Pages::unsave`].
    pub fn take_unsaved(&mut self) -> Vec<Unsaved> {
        let unsaved = |(&page, kept): (&u64, &mut Page)| match kept {
            Page::Frozen(bytes) => Some(Unsaved {
                page,
                bytes: bytes.clone(),
                is_complete: true,
            }),
            Page::Filling {
                bytes,
                filled_bytes,
                saved_bytes,
            } if *filled_bytes > *saved_bytes => {
                *saved_bytes = *filled_bytes;
                Some(Unsaved {
                    page,
                    bytes: Bytes::copy_from_slice(bytes),
                    is_complete: false,
                })
            }
            Page::Filling { .. } => None,
        };
        self.pages.iter_mut().filter_map(unsaved).collect()
    }

    /// A page could not be saved.
    pub fn unsave(&mut self, page: u64) {
        if let Some(Page::Filling { saved_bytes, .. }) = self.pages.get_mut(&page) {
            *saved_bytes = 0;
        }
    }

    /// A complete page is on disk: it leaves memory. False if it was dropped meanwhile.
    pub fn is_saved(&mut self, page: u64) -> bool {
        if !matches!(self.pages.get(&page), Some(Page::Frozen(_))) {
            return false;
        }
        self.pages.remove(&page);
        self.stored.insert_value(page);
        self.stored_count += 1;
        if self.wasted.contains(page) {
            self.wasted.remove(page..page + 1);
            self.wasted_count -= 1;
        }
        true
    }

    /// A page on disk cannot be read.
    pub fn lose_stored(&mut self, page: u64) {
        if self.stored.contains(page) {
            self.stored.remove(page..page + 1);
            self.stored_count -= 1;
            self.wasted.insert_value(page);
            self.wasted_count += 1;
        }
    }

    /// The lowest page on disk from `page` on.
    pub fn next_stored(&self, page: u64) -> Option<u64> {
        let next = self.stored.within(page..u64::MAX).next();
        next.map(|range| range.start)
    }

    /// How many pages are on disk and not in memory.
    pub const fn stored_count(&self) -> u64 {
        self.stored_count
    }

    /// Forgets all pages, wherever they are.
    pub fn clear(&mut self) {
        *self = Self {
            segment_pages: self.segment_pages,
            ..Self::default()
        };
    }

    /// Freezes the unfinished pages that touch `range` and end at or below `tail`, unless `awaits` says that bytes of them are still to come.
    pub fn freeze(&mut self, range: Range<u64>, tail: u64, awaits: impl Fn(Range<u64>) -> bool) {
        if range.is_empty() {
            return;
        }
        let last = place(range.end.saturating_sub(1)).0;
        for (number, page) in self.pages.range_mut(place(range.start).0..=last) {
            let whole = number * PAGE_BYTES..(number + 1) * PAGE_BYTES;
            if whole.end <= tail && !awaits(whole) {
                page.freeze();
            }
        }
    }

    /// Drops the pages that lie wholly below `floor`; those on disk when all of their segment does.
    pub fn drop_below(&mut self, floor: u64) {
        while let Some(entry) = self.pages.first_entry() {
            if (entry.key() + 1) * PAGE_BYTES > floor {
                break;
            }
            if let Page::Frozen(bytes) = entry.remove()
                && self.spare.len() < SPARE_MAX
                && let Ok(bytes) = bytes.try_into_mut()
            {
                self.spare.push(bytes);
            }
        }
        if let Some(segment_pages) = self.segment_pages {
            let kept = floor / PAGE_BYTES / segment_pages * segment_pages;
            if self.stored.first().is_some_and(|first| first.start < kept) {
                self.stored.remove(0..kept);
                self.stored_count = self.stored.len_bytes();
            }
            if self.wasted.first().is_some_and(|first| first.start < kept) {
                self.wasted.remove(0..kept);
                self.wasted_count = self.wasted.len_bytes();
            }
        }
    }

    /// Memory of the pages, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// What counts against the log's capacity, in bytes: its memory, or on disk its pages with all that belongs to them.
    pub fn used_bytes(&self) -> u64 {
        match self.segment_pages {
            None => self.resident_bytes(),
            Some(_) => {
                let in_files = self.stored_count + self.wasted_count;
                (self.pages.len() as u64 + in_files) * DISK_PAGE_BYTES
            }
        }
    }

    /// The lowest position such that dropping what is below it frees at least `bytes`; `None` if there is not that much.
    pub fn floor_to_free(&self, bytes: u64) -> Option<u64> {
        let Some(segment_pages) = self.segment_pages else {
            let pages = usize::try_from(bytes.div_ceil(PAGE_BYTES)).ok()?;
            return self
                .pages
                .keys()
                .nth(pages.checked_sub(1)?)
                .map(|number| (number + 1) * PAGE_BYTES);
        };
        let mut wanted = bytes.div_ceil(DISK_PAGE_BYTES);
        let mut at = 0;
        while wanted > 0 {
            let in_memory = self.pages.range(at..).next().map(|(number, _)| *number);
            let wasted = self.wasted.within(at..u64::MAX).next();
            let wasted = wasted.map(|range| range.start);
            let first = in_memory
                .into_iter()
                .chain(self.next_stored(at))
                .chain(wasted)
                .min()?;
            let end = (first / segment_pages + 1) * segment_pages;
            let in_files: u64 = [&self.stored, &self.wasted]
                .into_iter()
                .flat_map(|pages| pages.within(first..end))
                .map(|range| range.end - range.start)
                .sum();
            wanted = wanted.saturating_sub(in_files + self.pages.range(first..end).count() as u64);
            at = end;
        }
        (at > 0).then_some(at * PAGE_BYTES)
    }

    fn write_page(&mut self, number: u64, at: usize, part: &[u8]) {
        let spare = &mut self.spare;
        if part.len() == PAGE {
            let mut bytes = spare.pop().unwrap_or_else(|| BytesMut::with_capacity(PAGE));
            bytes.clear();
            bytes.extend_from_slice(part);
            self.pages.insert(number, Page::Frozen(bytes.freeze()));
            return;
        }
        let page = self.pages.entry(number).or_insert_with(|| {
            let bytes = spare
                .pop()
                .filter(|bytes| bytes.len() == PAGE)
                .unwrap_or_else(|| BytesMut::zeroed(PAGE));
            Page::Filling {
                bytes,
                filled_bytes: 0,
                saved_bytes: 0,
            }
        });
        // A frozen page awaits nothing; were it written all the same, its bytes stay and a checksum would tell.
        let Page::Filling {
            bytes,
            filled_bytes,
            ..
        } = page
        else {
            return;
        };
        if let Some(slot) = bytes.get_mut(at..at + part.len()) {
            slot.copy_from_slice(part);
        }
        *filled_bytes += part.len();
        if *filled_bytes >= PAGE {
            page.freeze();
        }
    }
}

impl Page {
    fn freeze(&mut self) {
        if let Self::Filling { bytes, .. } = self {
            *self = Self::Frozen(std::mem::take(bytes).freeze());
        }
    }
}

/// Number of the page that holds `position`, and the place in it.
fn place(position: u64) -> (u64, usize) {
    (position / PAGE_BYTES, (position % PAGE_BYTES) as usize)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range lies in one page"
)]
fn inside(range: &Range<u64>, start: u64) -> Range<usize> {
    (range.start - start) as usize..(range.end - start) as usize
}

#[cfg(test)]
mod tests;
