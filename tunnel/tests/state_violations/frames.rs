//! Frames that cannot be: their order, their numbers, their pieces.

use bytes::BytesMut;
use codec::block::Known;
use codec::frame::{Frame, FrameKind, Hello, StreamId};

use crate::edge::{Edge, finish, fragment, header, open, opened_edge, raw};
use tunnel::state::{CodecScratch, Event, Limits, Violation};

#[test]
fn hello_twice() {
    assert_eq!(
        Edge::new().offends(Frame::Hello(Hello::default())),
        Violation::Misplaced(FrameKind::Hello)
    );
}

#[test]
fn numbers_beyond_the_window_or_used_twice() {
    let edge = opened_edge();
    assert_eq!(
        edge.offends(finish(65_539, 1, 0)),
        Violation::NumberBeyondWindow {
            number: 65_539,
            lowest: 2
        }
    );
    let mut edge = opened_edge();
    let mut begun = BytesMut::new();
    header(1, 0, 100).encode(Known::default(), &mut begun);
    edge.hear(fragment(2, 0, false, begun.freeze())).unwrap();
    assert_eq!(edge.offends(finish(2, 1, 0)), Violation::NumberReused(2));
    let mut edge = opened_edge();
    edge.hear(open(1, 1)).unwrap();
    assert!(
        !edge.tunnel.is_over(),
        "a finished number again is a duplicate"
    );
}

#[test]
fn fragments_with_gaps_or_of_the_wrong_length() {
    assert_eq!(
        opened_edge().offends(fragment(2, 5, true, &b"x"[..])),
        Violation::FragmentGap {
            number: 2,
            offset: 5
        }
    );
    let mut begun = BytesMut::new();
    header(1, 0, 100).encode(Known::default(), &mut begun);
    let begun = begun.freeze();
    let part = |offset: u64, last, length: usize| {
        fragment(2, begun.len() as u64 + offset, last, vec![b'x'; length])
    };
    let begin = || {
        let mut edge = opened_edge();
        edge.hear(fragment(2, 0, false, begun.clone())).unwrap();
        edge
    };
    let gap = Violation::FragmentGap {
        number: 2,
        offset: begun.len() as u64 + 1,
    };
    assert_eq!(begin().offends(part(1, false, 10)), gap);
    assert_eq!(
        begin().offends(part(0, true, 99)),
        Violation::BlockLength(2)
    );
    assert_eq!(
        begin().offends(part(0, true, 101)),
        Violation::BlockLength(2)
    );
    let mut edge = begin();
    edge.hear(part(0, false, 60)).unwrap();
    edge.hear(part(30, true, 70)).unwrap();
    assert_eq!(edge.work(), None, "what overlaps is a repetition");
    assert!(matches!(
        opened_edge().offends(fragment(2, 0, true, &[0xff; 30][..])),
        Violation::Header(_)
    ));
}

#[test]
fn more_unacknowledged_bytes_than_allowed() {
    let mut edge = Edge::with_limits(Limits {
        initial_window_bytes: 10 << 20,
        unacknowledged_plain_max_bytes: 300_000,
        ..Limits::default()
    });
    edge.hear(open(1, 1)).unwrap();
    let mut begun = BytesMut::new();
    header(1, 0, 200_000).encode(Known::default(), &mut begun);
    edge.hear(fragment(2, 0, false, begun.freeze())).unwrap();
    let mut begun = BytesMut::new();
    header(1, 200_000, 200_000).encode(Known::default(), &mut begun);
    assert_eq!(
        edge.offends(fragment(3, 0, false, begun.freeze())),
        Violation::UnacknowledgedBeyondLimit
    );
}

#[test]
fn a_block_that_comes_byte_by_byte_is_the_same_block() {
    const LENGTH: usize = 100_000;
    let mut edge = Edge::with_limits(Limits {
        initial_window_bytes: 1 << 20,
        ..Limits::default()
    });
    edge.hear(open(1, 1)).unwrap();
    edge.tunnel.accept(StreamId(1), None, edge.now);
    let plain: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
    let mut begun = BytesMut::new();
    header(1, 0, u32::try_from(LENGTH).unwrap()).encode(Known::default(), &mut begun);
    let header_bytes = begun.len();
    edge.hear(fragment(2, 0, false, begun.freeze())).unwrap();
    for (at, byte) in plain.iter().enumerate() {
        let offset = (header_bytes + at) as u64;
        edge.hear(fragment(2, offset, at + 1 == LENGTH, vec![*byte]))
            .unwrap();
    }
    let mut scratch = CodecScratch::default();
    while let Some((_, job)) = edge.tunnel.poll_job(edge.now) {
        let done = job.run(&mut scratch);
        edge.tunnel.handle_job(done, edge.now);
    }
    let data = std::iter::from_fn(|| edge.tunnel.poll_event()).find_map(|event| match event {
        Event::Data { data, .. } => Some(data),
        _ => None,
    });
    assert_eq!(data.unwrap(), plain);
}

#[test]
fn more_gaps_than_blocks_can_be_missing() {
    // As many as may wait: a window of numbers, and the blocks that may be refused.
    const MOST: u64 = 65_536 + 16_384;
    let limits = Limits {
        initial_window_bytes: 1 << 20,
        ..Limits::default()
    };
    let scatter = |pieces: u64| {
        let mut edge = Edge::with_limits(limits);
        edge.hear(open(1, 1)).unwrap();
        edge.tunnel.accept(StreamId(1), None, edge.now);
        for piece in 0..pieces {
            edge.hear(raw(2 + piece, 1, 1 + 2 * piece, b"x")).unwrap();
            let found = edge.work();
            if piece < MOST {
                assert_eq!(found, None, "piece {piece}");
            } else {
                return found;
            }
        }
        None
    };
    assert_eq!(scatter(MOST), None);
    assert_eq!(scatter(MOST + 1), Some(Violation::TooScattered));
}
