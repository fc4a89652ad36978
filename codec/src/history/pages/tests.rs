//! Pages in memory and on disk.

#![expect(clippy::indexing_slicing, reason = "tests")]
use super::*;

fn here(pages: &Pages, position: u64, limit: &Range<u64>) -> View {
    match pages.view(position, limit) {
        Some(Seen::Here(view)) => view,
        other => panic!("{other:?}"),
    }
}

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
        let view = here(&pages, position, &limit);
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
        here(&pages, PAGE_BYTES, &limit).bytes.len(),
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
    let view = here(&pages, 77, &(0..PAGE_BYTES));
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
    assert_eq!(here(&pages, 120, &(100..150)).bytes, payload(100, 50));
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
    let limit = 4 * PAGE_BYTES..5 * PAGE_BYTES + 10;
    let view = here(&pages, 5 * PAGE_BYTES + 3, &limit);
    assert_eq!(view.bytes, payload(view.start, view.bytes.len()));
}

#[test]
fn what_is_on_disk_takes_room_until_its_segment_goes() {
    let range = |range| std::iter::once(range).collect::<RangeSet>();
    let segment = 4 * PAGE_BYTES;
    let mut pages = Pages::on_disk(segment, range(0..10), range(2..9));
    assert_eq!(pages.used_bytes(), 10 * DISK_PAGE_BYTES);
    assert_eq!((pages.stored_count(), pages.next_stored(0)), (7, Some(2)));
    pages.lose_stored(5);
    pages.lose_stored(5);
    assert_eq!(
        (pages.stored_count(), pages.used_bytes()),
        (6, 10 * DISK_PAGE_BYTES)
    );
    assert!(pages.is_stored(&(8 * PAGE_BYTES + 1..8 * PAGE_BYTES + 2)));
    assert!(!pages.is_stored(&(5 * PAGE_BYTES..6 * PAGE_BYTES)));

    // A page that is written over another counts once it is saved.
    pages.write(9 * PAGE_BYTES, &payload(9 * PAGE_BYTES, PAGE));
    let unsaved = pages.take_unsaved();
    assert_eq!(
        (unsaved.len(), unsaved[0].page, unsaved[0].is_complete),
        (1, 9, true)
    );
    assert!(pages.is_saved(9));
    assert_eq!(pages.used_bytes(), 10 * DISK_PAGE_BYTES);
    assert!(!pages.is_saved(9), "it is not in memory any more");

    assert_eq!(pages.floor_to_free(1), Some(segment), "whole segments");
    assert_eq!(pages.floor_to_free(5 * DISK_PAGE_BYTES), Some(2 * segment));
    assert_eq!(pages.floor_to_free(11 * DISK_PAGE_BYTES), None);
    pages.drop_below(segment + PAGE_BYTES);
    assert_eq!(pages.used_bytes(), 6 * DISK_PAGE_BYTES);
    pages.drop_below(3 * segment);
    assert_eq!((pages.used_bytes(), pages.stored_count()), (0, 0));
}

#[test]
fn a_page_that_grows_is_written_again() {
    let mut pages = Pages::on_disk(4 * PAGE_BYTES, RangeSet::new(), RangeSet::new());
    pages.write(0, &payload(0, 100));
    let first = pages.take_unsaved();
    assert_eq!((first.len(), first[0].is_complete), (1, false));
    assert_eq!(first[0].bytes[..100], payload(0, 100));
    assert!(first[0].bytes[100..].iter().all(|byte| *byte == 0));
    assert!(pages.take_unsaved().is_empty());
    pages.unsave(0);
    assert_eq!(pages.take_unsaved().len(), 1, "it could not be saved");
    pages.write(100, &payload(100, PAGE - 100));
    let whole = pages.take_unsaved();
    assert_eq!((whole.len(), whole[0].is_complete), (1, true));
    assert_eq!(whole[0].bytes, payload(0, PAGE));
    assert_eq!(pages.take_unsaved().len(), 1, "until it is saved");
    assert!(pages.is_saved(0));
    assert!(matches!(
        pages.view(5, &(0..PAGE_BYTES)),
        Some(Seen::Stored { page: 0, .. })
    ));
}
