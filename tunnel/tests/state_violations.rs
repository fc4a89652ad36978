//! A peer that does what no correct peer does: each offence has its own name, ends the tunnel, and gives back what the tunnel held.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod state_support;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, Source, Space, Span};
use codec::frame::{
    Ack, Coverage, CoverageFrame, Data, DomainId, Epoch, Frame, FrameCodec, FrameKind, Hello,
    HistorySide, Lost, NotStored, Open, Opened, Reason, Refuse, RefuseReason, StreamId, Target,
};
use codec::ranges::RangeSet;
use state_support::{Setting, config, domain, spec};
use tokio_util::codec::Decoder;
use tunnel::budget::{Budget, Use};
use tunnel::metrics::Registry;
use tunnel::state::{CodecScratch, Event, Limits, LinkId, Side, Tunnel, Violation};

const LINK: u64 = 7;

/// A server edge, and what it says.
struct Edge {
    tunnel: Tunnel,
    budget: Arc<Budget>,
    now: Instant,
}

/// The peer here speaks version 1, whose blocks say every field.
fn older() -> Setting {
    Setting {
        blocks: BlockVersion::One,
        ..Setting::default()
    }
}

impl Edge {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        let now = Instant::now();
        let budget = Arc::new(Budget::new(64 << 20));
        let setting = Setting { limits, ..older() };
        let mut tunnel = Tunnel::new(
            config(Side::Server, &setting),
            budget.clone(),
            Arc::new(Registry::new()),
            now,
        );
        tunnel.link_up(LinkId::from(LINK), now);
        Self {
            tunnel,
            budget,
            now,
        }
    }

    /// An edge that holds the shared domain, with a peer that claims the same epoch of its own history.
    fn with_domain() -> Self {
        let mut edge = Self::new();
        edge.tunnel.attach_domain(
            DomainId::SHARED,
            String::new(),
            domain(16 << 20, 5),
            edge.now,
        );
        for side in [HistorySide::Own, HistorySide::Mirror] {
            let epochs = vec![Epoch {
                id: [9; 16],
                start: 0,
            }];
            let coverage = Coverage {
                floor: 0,
                tail: 0,
                epochs,
                holes: RangeSet::new(),
            };
            edge.hear(Frame::Coverage(CoverageFrame {
                domain: DomainId::SHARED,
                name: "shared".to_owned(),
                side,
                coverage,
            }))
            .unwrap();
        }
        edge.hear(Frame::Quota {
            domain: DomainId::SHARED,
            bytes: 16 << 20,
        })
        .unwrap();
        edge
    }

    fn hear(&mut self, frame: Frame) -> Result<(), Violation> {
        self.tunnel
            .handle_frame(LinkId::from(LINK), frame, self.now)
    }

    /// Runs all jobs; what they find out comes as an event.
    fn work(&mut self) -> Option<Violation> {
        let mut scratch = CodecScratch::default();
        while let Some((_, job)) = self.tunnel.poll_job(self.now) {
            let done = job.run(&mut scratch);
            self.tunnel.handle_job(done, self.now);
        }
        std::iter::from_fn(|| self.tunnel.poll_event()).find_map(|event| match event {
            Event::Violated(violation) => Some(violation),
            _ => None,
        })
    }

    fn says(&mut self) -> Vec<Frame> {
        let mut out = Vec::new();
        self.tunnel
            .poll_transmit(LinkId::from(LINK), 1 << 20, self.now, &mut out);
        let mut bytes: BytesMut = out.iter().flat_map(|slice| slice.iter().copied()).collect();
        std::iter::from_fn(|| FrameCodec.decode(&mut bytes).unwrap()).collect()
    }

    fn offends(mut self, frame: Frame) -> Violation {
        let violation = self.hear(frame).unwrap_err();
        assert!(self.tunnel.is_over());
        assert!(self.tunnel.poll_timeout().is_none() && self.says().is_empty());
        for usage in Use::ALL {
            assert_eq!(self.budget.snapshot().used_for(usage), 0, "{usage:?}");
        }
        violation
    }
}

fn numbers(range: std::ops::Range<u64>) -> RangeSet {
    std::iter::once(range).collect()
}

fn open(number: u64, stream: u64) -> Frame {
    let target = Target::Name {
        host: "a".to_owned(),
        port: 1,
    };
    Frame::Open(Open {
        number,
        stream: StreamId(stream),
        domain: None,
        target,
        service: String::new(),
        source: None,
        weight: NonZeroU16::MIN,
    })
}

fn finish(number: u64, stream: u64, offset: u64) -> Frame {
    Frame::Finish {
        number,
        stream: StreamId(stream),
        offset,
    }
}

fn reset(number: u64, stream: u64) -> Frame {
    Frame::Reset {
        number,
        stream: StreamId(stream),
        reason: Reason::Cancelled,
    }
}

fn header(stream: u64, stream_offset: u64, plain_length: u32) -> BlockHeader {
    BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(stream),
        stream_offset,
        plain_length,
        body: BodyKind::Raw,
        domain: None,
        append: None,
        prefix: None,
        diagonals: [None, None],
        inner_length: 0,
        replaces: None,
        checksum: None,
    }
}

fn fragment(number: u64, offset: u64, last: bool, bytes: impl Into<Bytes>) -> Frame {
    Frame::Data(Data {
        number,
        offset,
        last,
        bytes: bytes.into(),
    })
}

fn block(number: u64, header: &BlockHeader, body: &[u8]) -> Frame {
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    bytes.extend_from_slice(body);
    fragment(number, 0, true, bytes.freeze())
}

fn raw(number: u64, stream: u64, offset: u64, body: &[u8]) -> Frame {
    block(
        number,
        &header(stream, offset, u32::try_from(body.len()).unwrap()),
        body,
    )
}

fn opened_edge() -> Edge {
    let mut edge = Edge::new();
    edge.hear(open(1, 1)).unwrap();
    edge.tunnel.accept(StreamId(1), None, edge.now);
    edge
}

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
fn replacements_that_nobody_asked_for_or_that_fail_too() {
    let replacement = BlockHeader {
        replaces: Some(2),
        ..header(1, 0, 4)
    };
    assert_eq!(
        opened_edge().offends(block(3, &replacement, b"abcd")),
        Violation::ReplacementUnasked(2)
    );
    let mut edge = opened_edge();
    let damaged = BlockHeader {
        checksum: Some(1),
        ..header(1, 0, 4)
    };
    edge.hear(block(2, &damaged, b"abcd")).unwrap();
    assert_eq!(edge.work(), None);
    let refuse = Frame::Refuse(Refuse {
        number: 2,
        reason: RefuseReason::Damaged,
        lost: Vec::new(),
    });
    assert!(edge.says().contains(&refuse));
    edge.hear(block(
        3,
        &BlockHeader {
            checksum: Some(1),
            ..replacement.clone()
        },
        b"abcd",
    ))
    .unwrap();
    assert_eq!(edge.work(), Some(Violation::ReplacementRefused(3)));
    assert!(edge.tunnel.is_over());
}

#[test]
fn acknowledging_what_was_not_sent() {
    let ack = |first, end| {
        Frame::Ack(Ack {
            numbers: numbers(first..end),
            not_stored: Vec::new(),
        })
    };
    assert_eq!(Edge::new().offends(ack(1, 2)), Violation::AckOfUnsent(1));
    let refuse = |number| {
        Frame::Refuse(Refuse {
            number,
            reason: RefuseReason::Damaged,
            lost: Vec::new(),
        })
    };
    assert_eq!(Edge::new().offends(refuse(1)), Violation::RefuseOfUnsent(1));
    let mut edge = Edge::new();
    edge.tunnel.open(spec(None), edge.now).unwrap();
    edge.says();
    assert_eq!(edge.offends(refuse(1)), Violation::RefuseOfUnsent(1));
    // A block of which only a part has gone.
    let mut edge = Edge::new();
    let id = edge.tunnel.open(spec(None), edge.now).unwrap();
    edge.tunnel.write(
        id,
        (0..16_000u64)
            .map(|at| u8::try_from(at * at % 251).unwrap())
            .collect(),
        edge.now,
    );
    assert_eq!(edge.work(), None);
    edge.hear(Frame::Ping { token: 1 }).unwrap();
    let mut out = Vec::new();
    edge.tunnel
        .poll_transmit(LinkId::from(LINK), 1, edge.now, &mut out);
    assert_eq!(edge.offends(ack(1, 3)), Violation::AckOfUnsent(2));
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

#[test]
fn domains_that_this_tunnel_does_not_hold() {
    let not_held = Violation::DomainNotHeld(DomainId::SHARED);
    let span = Span {
        position: 0,
        length: 4,
    };
    let appended = BlockHeader {
        domain: Some(DomainId::SHARED),
        append: Some(span),
        checksum: Some(1),
        ..header(1, 0, 4)
    };
    assert_eq!(
        opened_edge().offends(block(2, &appended, b"abcd")),
        not_held
    );
    assert_eq!(
        Edge::new().offends(Frame::Floor {
            domain: DomainId::SHARED,
            position: 1
        }),
        not_held
    );
    let mut edge = Edge::new();
    edge.tunnel.open(spec(None), edge.now).unwrap();
    edge.says();
    let not_stored = vec![NotStored {
        domain: DomainId::SHARED,
        span,
    }];
    assert_eq!(
        edge.offends(Frame::Ack(Ack {
            numbers: numbers(1..2),
            not_stored
        })),
        not_held
    );
    let mut edge = Edge::new();
    for id in 0..16 {
        edge.hear(Frame::Quota {
            domain: DomainId(2 * id),
            bytes: 1,
        })
        .unwrap();
    }
    assert_eq!(
        edge.offends(Frame::Quota {
            domain: DomainId(100),
            bytes: 1
        }),
        Violation::TooManyDomains
    );
}

#[test]
fn references_to_bytes_that_were_never_exchanged() {
    let mut edge = Edge::with_domain();
    edge.hear(open(1, 1)).unwrap();
    let body = {
        let mut writer = codec::block::ops::Writer::new(BlockVersion::One);
        writer.copy(64, false, Space::Receiver, 1_000);
        let mut inner = Vec::new();
        writer.put_inner(&mut inner);
        (inner, writer.diagonals())
    };
    let header = BlockHeader {
        domain: Some(DomainId::SHARED),
        body: BodyKind::Stored,
        diagonals: body.1,
        checksum: Some(1),
        ..header(1, 0, 64)
    };
    edge.hear(block(2, &header, &body.0)).unwrap();
    let violation = edge
        .work()
        .unwrap_or_else(|| panic!("the reference was followed"));
    assert!(
        matches!(
            violation,
            Violation::Codec(codec::error::Violation::NeverSent { .. })
        ),
        "{violation:?}"
    );
    assert!(edge.tunnel.is_over());
}

#[test]
fn a_block_that_waits_for_one_range_after_the_other_is_given_up() {
    const RANGES: u32 = 150;
    let mut edge = Edge::with_domain();
    edge.hear(open(1, 1)).unwrap();
    edge.tunnel.accept(StreamId(1), None, edge.now);
    // Blocks whose ranges are known, and whose bytes come one after the other, later.
    let plain = [7_u8; 64];
    let mut begun = Vec::new();
    for range in 0..RANGES {
        let at = u64::from(range) * 64;
        let header = BlockHeader {
            domain: Some(DomainId::SHARED),
            append: Some(Span {
                position: at,
                length: 64,
            }),
            checksum: Some(BlockHeader::checksum_of(BlockVersion::One, &plain)),
            ..header(1, at, 64)
        };
        let mut bytes = BytesMut::new();
        header.encode(Known::default(), &mut bytes);
        let number = 2 + u64::from(range);
        begun.push((number, bytes.len() as u64));
        edge.hear(fragment(number, 0, false, bytes.freeze()))
            .unwrap();
    }
    let mut writer = codec::block::ops::Writer::new(BlockVersion::One);
    for range in 0..RANGES {
        writer.copy(32, false, Space::Sender, u64::from(range) * 64);
    }
    let mut inner = Vec::new();
    writer.put_inner(&mut inner);
    let number = 2 + u64::from(RANGES);
    let copied = vec![7; RANGES as usize * 32];
    let header = BlockHeader {
        domain: Some(DomainId::SHARED),
        body: BodyKind::Stored,
        diagonals: writer.diagonals(),
        checksum: Some(BlockHeader::checksum_of(BlockVersion::One, &copied)),
        ..header(1, u64::from(RANGES) * 64, RANGES * 32)
    };
    edge.hear(block(number, &header, &inner)).unwrap();
    assert_eq!(edge.work(), None);
    let mut attempts = 0;
    // The last one first, for that is what it waits for.
    let refused = begun.into_iter().rev().find_map(|(filler, offset)| {
        attempts += 1;
        edge.hear(fragment(
            filler,
            offset,
            true,
            Bytes::copy_from_slice(&plain),
        ))
        .unwrap();
        assert_eq!(edge.work(), None);
        edge.says().into_iter().find_map(|frame| match frame {
            Frame::Refuse(refuse) => Some(refuse),
            _ => None,
        })
    });
    let refused = refused.unwrap_or_else(|| panic!("decoded anew {attempts} times"));
    assert_eq!(
        (refused.number, refused.reason),
        (number, RefuseReason::Overload)
    );
    assert!(attempts < 100, "decoded anew {attempts} times");
}

#[test]
fn append_ranges_that_overlap() {
    let mut edge = Edge::with_domain();
    edge.hear(open(1, 1)).unwrap();
    let at = |position, offset| BlockHeader {
        domain: Some(DomainId::SHARED),
        append: Some(Span {
            position,
            length: 4,
        }),
        checksum: Some(1),
        ..header(1, offset, 4)
    };
    edge.hear(block(2, &at(100, 0), b"abcd")).unwrap();
    let violation = edge.hear(block(3, &at(103, 4), b"abcd")).unwrap_err();
    assert_eq!(
        violation,
        Violation::Codec(codec::error::Violation::Registration {
            position: 103,
            length: 4
        })
    );
}

#[test]
fn a_claim_for_coverage_that_cannot_be_is_ignored() {
    let mut edge = Edge::with_domain();
    let coverage = Coverage {
        floor: 0,
        tail: 1 << 40,
        epochs: vec![Epoch {
            id: [3; 16],
            start: 0,
        }],
        holes: RangeSet::new(),
    };
    let claim = CoverageFrame {
        domain: DomainId::SHARED,
        name: "shared".to_owned(),
        side: HistorySide::Mirror,
        coverage,
    };
    edge.hear(Frame::Coverage(claim)).unwrap();
    assert!(!edge.tunnel.is_over());
    let lost = Lost {
        domain: DomainId::SHARED,
        source: Source {
            space: Space::Sender,
            position: 0,
            length: 1,
        },
    };
    let refuse = Frame::Refuse(Refuse {
        number: 1,
        reason: RefuseReason::Evicted,
        lost: vec![lost],
    });
    assert_eq!(edge.hear(refuse), Err(Violation::RefuseOfUnsent(1)));
}
