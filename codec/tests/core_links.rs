//! Blocks that overtake each other on several links: append ranges in any order, and what a block may refer to meanwhile.

#![expect(clippy::unwrap_used, reason = "tests")]

mod core_pair;

use std::sync::Arc;

use bytes::Bytes;
use codec::block::{BlockVersion, Span};
use codec::domain::Log;
use codec::encoder::{Avoid, EncodeRequest, Encoder};
use codec::error::{DecodeError, Violation};
use codec::frame::{DomainId, StreamId};
use codec::policy::{Habit, Level};
use codec::ranges::RangeSet;
use core_pair::{noise, pair};

fn span(position: u64, length: u32) -> Span {
    Span { position, length }
}

fn refused(span: Span) -> Result<bool, Violation> {
    let Span { position, length } = span;
    Err(Violation::Registration { position, length })
}

#[test]
fn a_gap_is_open_until_it_is_closed() {
    let [_, b] = pair(1 << 20);
    let domain = &b.domain;
    assert_eq!(
        domain.register_ahead(span(100, 50)),
        Ok(true),
        "0 to 100 was skipped"
    );
    assert_eq!(domain.register_ahead(span(150, 50)), Ok(false));
    // Into the gap, once, and not beyond it.
    assert_eq!(domain.register_ahead(span(40, 20)), Ok(false));
    assert_eq!(domain.register_ahead(span(50, 5)), refused(span(50, 5)));
    assert_eq!(domain.register_ahead(span(90, 20)), refused(span(90, 20)));
    domain.close_gaps(60);
    assert_eq!(domain.register_ahead(span(0, 10)), refused(span(0, 10)));
    assert_eq!(domain.register_ahead(span(60, 10)), Ok(false));
    domain.close_gaps(100);
    assert_eq!(domain.register_ahead(span(80, 10)), refused(span(80, 10)));
    assert_eq!(domain.register(span(300, 10)), Ok(()));
    let after = domain.register_ahead(span(250, 10));
    assert_eq!(
        after,
        refused(span(250, 10)),
        "who does not ask for a gap leaves none"
    );
}

#[test]
fn blocks_that_overtake_fill_the_mirror_as_if_they_had_not() {
    let [mut a, mut b] = pair(8 << 20);
    let plains: Vec<Bytes> = (0..6).map(|seed| noise(150_000, seed).into()).collect();
    let flights: Vec<_> = plains.iter().map(|plain| a.send(1, plain)).collect();
    for at in [3, 0, 5, 1, 4, 2] {
        let flight = &flights[at];
        let header = flight.encoded.header().clone();
        b.domain.register_ahead(header.append.unwrap()).unwrap();
        let decoded = b.decode(&header, &flight.body).unwrap();
        assert!(decoded.stored && decoded.plain == plains[at]);
    }
    b.domain.close_gaps(u64::MAX >> 2);
    let claims = [a.domain.claim(Log::Own), b.domain.claim(Log::Mirror)];
    assert_eq!(claims[0].tail, claims[1].tail);
    assert_eq!(claims[1].holes, claims[0].holes);
    // And all of it can be referred to.
    for plain in &plains {
        let again = a.send(2, plain);
        assert!(again.body.len() < 1_000, "{}", again.body.len());
        let header = b.register(&again);
        assert_eq!(b.decode(&header, &again.body).unwrap().plain, plain);
    }
}

#[test]
fn a_source_in_an_open_gap_was_never_sent() {
    let [mut a, mut b] = pair(8 << 20);
    let plain: Bytes = noise(100_000, 1).into();
    let first = a.send(1, &plain);
    let copy = a.send(1, &plain);
    let header = copy.encoded.header().clone();
    // Something behind the first block has come, and the first has not.
    b.domain.register_ahead(span(1 << 20, 10)).unwrap();
    let result = b.decode(&header, &copy.body);
    assert!(
        matches!(
            result,
            Err(DecodeError::Violation(Violation::NeverSent { .. }))
        ),
        "{result:?}"
    );
    drop(first);
}

#[test]
fn what_is_to_be_avoided_is_not_referred_to() {
    let [mut a, _] = pair(8 << 20);
    let plain: Bytes = noise(200_000, 9).into();
    a.send(1, &plain);
    let tail = a.domain.tail(Log::Own);
    let start = tail - 200_000;
    let encode = |ranges: RangeSet, from| {
        let request = EncodeRequest {
            version: BlockVersion::Two,
            stream: StreamId(3),
            stream_offset: 0,
            plain: plain.clone(),
            domain: Some((DomainId::SHARED, a.domain.clone())),
            may_copy: true,
            may_append: false,
            level: Level::default(),
            hint: None,
            habit: Habit::default(),
            replaces: None,
            avoid: Some(Arc::new(Avoid { ranges, from })),
        };
        Encoder::new().encode(request)
    };
    assert_eq!(
        encode(RangeSet::new(), u64::MAX).tally.copied_bytes,
        200_000
    );
    assert_eq!(encode(RangeSet::new(), start).tally.copied_bytes, 0);
    let mut middle = RangeSet::new();
    middle.insert(start + 50_000..start + 150_000);
    let encoded = encode(middle, tail);
    let copied = encoded.tally.copied_bytes;
    assert!((95_000..=100_000).contains(&copied), "{copied}");
    let all: RangeSet = std::iter::once(start..tail).collect();
    assert_eq!(encode(all, tail).tally.copied_bytes, 0);
}
