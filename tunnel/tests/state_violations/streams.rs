//! Streams and credit: what was never opened, promised or left.

use std::sync::Arc;

use bytes::Bytes;
use codec::frame::{Frame, FrameKind, Opened, Reason, StreamId};

use crate::edge::{Edge, LINK, finish, older, open, opened_edge, raw, reset};
use crate::state_support::{config, spec};
use tunnel::budget::Budget;
use tunnel::metrics::Registry;
use tunnel::state::{Event, Limits, LinkId, Side, Tunnel, Violation};

#[test]
fn streams_that_are_not_the_peers_or_not_new() {
    assert_eq!(
        Edge::new().offends(open(1, 2)),
        Violation::ForeignStream(StreamId(2))
    );
    assert_eq!(
        opened_edge().offends(open(2, 1)),
        Violation::StreamReused(StreamId(1))
    );
    let mut edge = Edge::new();
    edge.hear(open(1, 5)).unwrap();
    assert_eq!(
        edge.offends(open(2, 3)),
        Violation::StreamReused(StreamId(3))
    );
    let mut edge = Edge::with_limits(Limits {
        streams_max: 2,
        ..Limits::default()
    });
    edge.hear(open(1, 1)).unwrap();
    edge.hear(open(2, 3)).unwrap();
    assert_eq!(
        edge.offends(open(3, 5)),
        Violation::OpenBeyondCredit(StreamId(5))
    );
}

#[test]
fn frames_for_streams_that_were_never_opened() {
    let unknown = |kind, stream| Violation::UnknownStream {
        kind,
        stream: StreamId(stream),
    };
    assert_eq!(
        Edge::new().offends(raw(1, 1, 0, b"x")),
        unknown(FrameKind::Data, 1)
    );
    assert_eq!(
        Edge::new().offends(finish(1, 3, 0)),
        unknown(FrameKind::Finish, 3)
    );
    let stop = Frame::StopSending {
        number: 1,
        stream: StreamId(2),
        reason: Reason::Cancelled,
    };
    assert_eq!(
        Edge::new().offends(stop),
        unknown(FrameKind::StopSending, 2)
    );
    assert_eq!(
        Edge::new().offends(reset(1, 2)),
        unknown(FrameKind::Reset, 2)
    );
    assert_eq!(
        Edge::new().offends(Frame::Credit {
            stream: StreamId(2),
            turn: 1,
            offset: 9
        }),
        unknown(FrameKind::Credit, 2)
    );
    assert_eq!(
        Edge::new().offends(Frame::Yield {
            stream: StreamId(9),
            turn: 1,
            offset: 9
        }),
        unknown(FrameKind::Yield, 9)
    );
}

#[test]
fn a_reset_before_its_open_leaves_a_tombstone_and_tombstones_are_bounded() {
    let mut edge = Edge::new();
    edge.hear(reset(1, 1)).unwrap();
    edge.hear(open(2, 1)).unwrap();
    assert!(!matches!(
        edge.tunnel.poll_event(),
        Some(Event::Incoming { .. })
    ));
    assert!(
        edge.says()
            .iter()
            .any(|frame| matches!(frame, Frame::Reset { .. }))
    );
    let mut edge = Edge::new();
    for n in 0..1024 {
        edge.hear(reset(n + 1, 2 * n + 1)).unwrap();
    }
    assert_eq!(
        edge.offends(reset(1025, 4001)),
        Violation::TooManyTombstones
    );
}

#[test]
fn answers_that_nobody_waits_for() {
    let answer = |number, stream| {
        Frame::Opened(Opened {
            number,
            stream: StreamId(stream),
            bound: None,
        })
    };
    assert_eq!(
        opened_edge().offends(answer(2, 1)),
        Violation::ForeignStream(StreamId(1))
    );
    let mut edge = Edge::new();
    edge.tunnel.open(spec(None), edge.now).unwrap();
    edge.says();
    edge.hear(answer(1, 2)).unwrap();
    assert_eq!(
        edge.offends(answer(2, 2)),
        Violation::OpenedTwice(StreamId(2))
    );
}

#[test]
fn data_beyond_credit_repeated_or_behind_the_end() {
    let beyond = Violation::BeyondCredit {
        stream: StreamId(1),
        end: 16_385,
        granted: 16_384,
    };
    let limits = Limits::default();
    // Growth at Open must not blur the bound, so the budget gives none.
    let mut edge = Edge::with_limits(limits);
    edge.tunnel = Tunnel::new(
        config(Side::Server, &older()),
        Arc::new(Budget::new(128 << 10)),
        Arc::new(Registry::new()),
        edge.now,
    );
    edge.tunnel.link_up(LinkId::from(LINK), edge.now);
    edge.hear(open(1, 1)).unwrap();
    assert_eq!(edge.offends(raw(2, 1, 16_000, &[0; 385])), beyond);
    let mut edge = opened_edge();
    edge.hear(raw(2, 1, 0, b"abcd")).unwrap();
    assert_eq!(
        edge.offends(raw(3, 1, 3, b"xy")),
        Violation::DataRepeated {
            stream: StreamId(1),
            offset: 3
        }
    );
    let mut edge = opened_edge();
    edge.hear(raw(2, 1, 0, b"abcd")).unwrap();
    assert_eq!(
        edge.offends(finish(3, 1, 3)),
        Violation::FinishContradicted(StreamId(1))
    );
    let mut edge = opened_edge();
    edge.hear(finish(2, 1, 3)).unwrap();
    assert_eq!(
        edge.offends(raw(3, 1, 0, b"abcd")),
        Violation::FinishContradicted(StreamId(1))
    );
    let mut edge = opened_edge();
    edge.hear(finish(2, 1, 3)).unwrap();
    assert_eq!(
        edge.offends(finish(3, 1, 2)),
        Violation::FinishContradicted(StreamId(1))
    );
}

#[test]
fn credit_taken_back_and_yields_of_what_was_never_granted() {
    let mut edge = Edge::new();
    let id = edge.tunnel.open(spec(None), edge.now).unwrap();
    edge.says();
    edge.tunnel
        .write(id, Bytes::from_static(&[1; 1000]), edge.now);
    assert_eq!(edge.work(), None);
    assert_eq!(
        edge.offends(Frame::Credit {
            stream: id,
            turn: 1,
            offset: 999
        }),
        Violation::CreditTakenBack(id)
    );
    let mut edge = Edge::new();
    edge.hear(Frame::Credit {
        stream: StreamId::TUNNEL,
        turn: 1,
        offset: 70_000,
    })
    .unwrap();
    let less = Frame::Credit {
        stream: StreamId::TUNNEL,
        turn: 2,
        offset: 69_999,
    };
    assert_eq!(
        edge.offends(less),
        Violation::CreditTakenBack(StreamId::TUNNEL)
    );
    let out_of_bounds = Violation::YieldOutOfBounds(StreamId(1));
    assert_eq!(
        opened_edge().offends(Frame::Yield {
            stream: StreamId(1),
            turn: 9,
            offset: 0
        }),
        out_of_bounds
    );
    let granted = |edge: &mut Edge| {
        let said = edge.says();
        said.into_iter()
            .find_map(|frame| {
                if let Frame::Credit {
                    stream: StreamId(1),
                    turn,
                    offset,
                } = frame
                {
                    Some((turn, offset))
                } else {
                    None
                }
            })
            .unwrap()
    };
    let mut edge = opened_edge();
    let (turn, offset) = granted(&mut edge);
    assert_eq!(
        edge.offends(Frame::Yield {
            stream: StreamId(1),
            turn,
            offset: offset + 1
        }),
        out_of_bounds
    );
    let mut edge = opened_edge();
    let (turn, _) = granted(&mut edge);
    edge.hear(raw(2, 1, 0, &[0; 10])).unwrap();
    assert_eq!(
        edge.offends(Frame::Yield {
            stream: StreamId(1),
            turn,
            offset: 9
        }),
        out_of_bounds
    );
}
