//! The bytes of a log in memory, in pages addressed by position.
//!
//! A page that is complete is frozen: from then on it is shared by reference count, and whoever reads or writes from it keeps it alive
//! whatever is evicted meanwhile. A page that is still being filled is read by copying out, under the lock of its log.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Bytes of a page: the unit of memory, so that a log of many small appends costs what its bytes cost.
pub const PAGE_BYTES: u64 = 1 << 16;
const PAGE: usize = 1 << 16;

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
    /// Position behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// The pages of one log.
#[derive(Debug, Default)]
pub struct Pages {
    pages: BTreeMap<u64, Page>,
    spare: Vec<BytesMut>,
}

#[derive(Debug)]
enum Page {
    Filling {
        bytes: BytesMut,
        filled_bytes: usize,
    },
    Frozen(Bytes),
}

impl Pages {
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
    pub fn view(&self, position: u64, limit: &Range<u64>) -> Option<View> {
        let (number, _) = place(position);
        let start = number * PAGE_BYTES;
        let limit = limit.start.max(start)..limit.end.min(start + PAGE_BYTES);
        match self.pages.get(&number)? {
            Page::Frozen(bytes) => {
                let view = bytes.get(inside(&limit, start))?;
                Some(View {
                    start: limit.start,
                    bytes: bytes.slice_ref(view),
                })
            }
            Page::Filling { bytes, .. } => {
                let near = limit.start.max(position.saturating_sub(COPY_BEFORE_BYTES))
                    ..limit.end.min(position + COPY_BEHIND_BYTES);
                Some(View {
                    start: near.start,
                    bytes: Bytes::copy_from_slice(bytes.get(inside(&near, start))?),
                })
            }
        }
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

    /// Drops the pages that lie wholly below `floor`.
    pub fn drop_below(&mut self, floor: u64) {
        while let Some(entry) = self.pages.first_entry() {
            if (entry.key() + 1) * PAGE_BYTES > floor {
                return;
            }
            if let Page::Frozen(bytes) = entry.remove()
                && self.spare.len() < SPARE_MAX
                && let Ok(bytes) = bytes.try_into_mut()
            {
                self.spare.push(bytes);
            }
        }
    }

    /// Memory of the pages, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// The lowest position such that dropping what is below it frees at least `bytes`; `None` if there is not that much.
    pub fn floor_to_free(&self, bytes: u64) -> Option<u64> {
        let pages = usize::try_from(bytes.div_ceil(PAGE_BYTES)).ok()?;
        self.pages
            .keys()
            .nth(pages.checked_sub(1)?)
            .map(|number| (number + 1) * PAGE_BYTES)
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
            }
        });
        // A frozen page awaits nothing; were it written all the same, its bytes stay and a checksum would tell.
        let Page::Filling {
            bytes,
            filled_bytes,
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
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn payload(position: u64, length: usize) -> Vec<u8> {
        (position..position + length as u64)
            .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn bytes_come_back_from_whole_and_unfinished_pages() {
        let mut pages = Pages::default();
        let start = PAGE_BYTES - 1000;
        pages.write(start, &payload(start, PAGE + 5000));
        let limit = start..start + PAGE_BYTES + 5000;
        for position in [
            start,
            PAGE_BYTES - 1,
            PAGE_BYTES,
            PAGE_BYTES + 30_000,
            2 * PAGE_BYTES,
            limit.end - 1,
        ] {
            let view = pages.view(position, &limit).unwrap();
            assert!(
                view.start <= position && position < view.end(),
                "{position}"
            );
            assert!(
                limit.start <= view.start && view.end() <= limit.end,
                "{position}"
            );
            assert_eq!(
                view.bytes,
                payload(view.start, view.bytes.len()),
                "{position}"
            );
        }
        assert_eq!(
            pages.view(PAGE_BYTES, &limit).unwrap().bytes.len(),
            PAGE,
            "a full page is had whole"
        );
        assert!(
            pages
                .view(10 * PAGE_BYTES, &(0..100 * PAGE_BYTES))
                .is_none()
        );
    }

    #[test]
    fn a_view_outlives_its_page() {
        let mut pages = Pages::default();
        pages.write(0, &payload(0, PAGE));
        let view = pages.view(77, &(0..PAGE_BYTES)).unwrap();
        pages.drop_below(PAGE_BYTES);
        assert_eq!(pages.resident_bytes(), 0);
        pages.write(PAGE_BYTES, &payload(PAGE_BYTES, PAGE));
        assert_eq!(view.bytes, payload(0, PAGE));
    }

    #[test]
    fn pages_that_await_nothing_freeze() {
        let mut pages = Pages::default();
        pages.write(100, &payload(100, 50));
        pages.freeze(100..150, PAGE_BYTES - 1, |_| false);
        assert!(
            matches!(pages.pages[&0], Page::Filling { .. }),
            "the tail is in it"
        );
        pages.freeze(100..150, PAGE_BYTES, |_| true);
        assert!(
            matches!(pages.pages[&0], Page::Filling { .. }),
            "bytes are to come"
        );
        pages.freeze(100..150, PAGE_BYTES, |_| false);
        assert!(matches!(pages.pages[&0], Page::Frozen(_)));
        assert_eq!(
            pages.view(120, &(100..150)).unwrap().bytes,
            payload(100, 50)
        );
    }

    #[test]
    fn spare_pages_are_reused_and_floors_count_pages() {
        let mut pages = Pages::default();
        pages.write(0, &payload(0, 4 * PAGE));
        assert_eq!(pages.floor_to_free(1), Some(PAGE_BYTES));
        assert_eq!(pages.floor_to_free(2 * PAGE_BYTES), Some(2 * PAGE_BYTES));
        assert_eq!(pages.floor_to_free(5 * PAGE_BYTES), None);
        pages.drop_below(2 * PAGE_BYTES + 1);
        assert_eq!(
            (pages.resident_bytes(), pages.spare.len()),
            (2 * PAGE_BYTES, 2)
        );
        pages.write(4 * PAGE_BYTES, &payload(4 * PAGE_BYTES, PAGE + 10));
        assert_eq!(pages.spare.len(), 0);
        let view = pages
            .view(5 * PAGE_BYTES + 3, &(4 * PAGE_BYTES..5 * PAGE_BYTES + 10))
            .unwrap();
        assert_eq!(view.bytes, payload(view.start, view.bytes.len()));
    }
}
