//! Blocks: what they refer to, what is acknowledged of them, and where they are put.

use bytes::{Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, Source, Space, Span};
use codec::frame::{
    Ack, Coverage, CoverageFrame, DomainId, Epoch, Frame, HistorySide, Lost, NotStored, Refuse,
    RefuseReason, StreamId,
};
use codec::ranges::RangeSet;

use crate::edge::{Edge, LINK, block, fragment, header, numbers, open, opened_edge};
use crate::state_support::spec;
use tunnel::state::{LinkId, Violation};

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
