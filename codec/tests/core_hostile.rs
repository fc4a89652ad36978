//! What a hostile or broken peer says costs it its tunnel or a refusal, and nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod core_pair;

use bytes::{Bytes, BytesMut};
use codec::block::ops::Writer;
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, POSITION_MAX, Source, Space, Span};
use codec::domain::Log;
use codec::error::{DecodeError, Violation};
use codec::frame::{Coverage, DomainId, Epoch, RefuseReason, StreamId};
use codec::ranges::RangeSet;
use core_pair::{End, agree, noise, pair, text, transfer};
use proptest::prelude::*;

/// A block of one copy, as a peer may write it.
fn copy_of(source: Source) -> (BlockHeader, Bytes) {
    let mut writer = Writer::new(BlockVersion::Two);
    writer.copy(source.length, false, source.space, source.position);
    let mut inner = BytesMut::new();
    writer.put_inner(&mut inner);
    let header = BlockHeader {
        version: BlockVersion::Two,
        stream: StreamId(1),
        stream_offset: 0,
        plain_length: source.length,
        body: BodyKind::Stored,
        domain: Some(DomainId::SHARED),
        append: None,
        prefix: None,
        diagonals: writer.diagonals(),
        inner_length: 0,
        replaces: None,
        checksum: Some(0),
    };
    (header, inner.freeze())
}

fn source(space: Space, position: u64, length: u32) -> Source {
    Source {
        space,
        position,
        length,
    }
}

#[test]
fn what_was_never_sent_cannot_be_referred_to() {
    let [mut a, mut b] = pair(1 << 20);
    transfer(&mut a, &mut b, 1, &noise(10_000, 1), 5000);
    for (space, position) in [
        (Space::Sender, 10_000),
        (Space::Sender, 9_990),
        (Space::Receiver, 0),
        (Space::Sender, POSITION_MAX - 100),
    ] {
        let (header, body) = copy_of(source(space, position, 64));
        let tail = if space == Space::Sender { 10_000 } else { 0 };
        let expected = Violation::NeverSent {
            position: position.max(tail),
        };
        assert_eq!(
            b.decode(&header, &body),
            Err(DecodeError::Violation(expected)),
            "{space:?} {position}"
        );
    }
    // Positions that this side has given to a block, but not sent.
    let position = b.domain.reserve(100).unwrap();
    let (header, body) = copy_of(source(Space::Receiver, position, 64));
    assert_eq!(
        b.decode(&header, &body),
        Err(DecodeError::Violation(Violation::NeverSent { position }))
    );
}

#[test]
fn what_is_gone_is_refused_and_what_comes_is_waited_for() {
    let [mut a, mut b] = pair(1 << 20);
    transfer(&mut a, &mut b, 1, &noise(10_000, 1), 5000);
    b.domain.lose(Log::Mirror, 2000, 100);
    let (header, body) = copy_of(source(Space::Sender, 1950, 300));
    let lost = vec![source(Space::Sender, 2000, 100)];
    assert_eq!(
        b.decode(&header, &body),
        Err(DecodeError::Refused {
            reason: RefuseReason::Evicted,
            lost
        })
    );

    b.domain
        .register(Span {
            position: 10_000,
            length: 500,
        })
        .unwrap();
    let (header, body) = copy_of(source(Space::Sender, 9_950, 300));
    let span = Span {
        position: 9_950,
        length: 300,
    };
    assert_eq!(
        b.decode(&header, &body),
        Err(DecodeError::Waits {
            log: Log::Mirror,
            span
        })
    );
    b.domain.lose(Log::Mirror, 10_000, 500);
    assert!(
        matches!(
            b.decode(&header, &body),
            Err(DecodeError::Refused {
                reason: RefuseReason::Evicted,
                ..
            })
        ),
        "parked on what was refused"
    );
}

#[test]
fn a_wrong_checksum_names_all_sources() {
    let [mut a, mut b] = pair(1 << 20);
    let plain = noise(10_000, 1);
    transfer(&mut a, &mut b, 1, &plain, 5000);
    let (mut header, body) = copy_of(source(Space::Sender, 100, 300));
    let lost = vec![source(Space::Sender, 100, 300)];
    assert_eq!(
        b.decode(&header, &body),
        Err(DecodeError::Refused {
            reason: RefuseReason::Damaged,
            lost
        })
    );
    header.checksum = Some(BlockHeader::checksum_of(header.version, &plain[100..400]));
    assert_eq!(b.decode(&header, &body).unwrap().plain, plain[100..400]);
}

#[test]
fn registrations_ascend() {
    let [a, b] = pair(1 << 20);
    drop(a);
    b.domain
        .register(Span {
            position: 100,
            length: 50,
        })
        .unwrap();
    for (position, length) in [
        (149, 10),
        (0, 10),
        (150, 0),
        (POSITION_MAX, 1),
        (u64::MAX, u32::MAX),
    ] {
        let span = Span { position, length };
        assert_eq!(
            b.domain.register(span),
            Err(Violation::Registration { position, length })
        );
    }
    b.domain
        .register(Span {
            position: 150,
            length: 1,
        })
        .unwrap();
}

#[test]
fn a_block_needs_its_domain() {
    let mut end = End::new(1 << 20, 1);
    let (header, body) = copy_of(source(Space::Sender, 0, 64));
    assert_eq!(
        end.decoder.decode(None, &header, &[body]),
        Err(DecodeError::Violation(Violation::NoDomain))
    );
}

/// Sparse registrations make holes, and holes are bounded: so is the memory behind them.
#[test]
fn scattered_appends_do_not_hoard_memory() {
    let [mut a, mut b] = pair(64 << 20);
    let mut header = a.send(1, &noise(64, 1).into()).encoded.header().clone();
    for at in 0..20_000u64 {
        let plain = Bytes::from(noise(64, at));
        let append = Span {
            position: 1000 + at * 65_536,
            length: 64,
        };
        b.domain.register(append).unwrap();
        header.append = Some(append);
        header.checksum = Some(BlockHeader::checksum_of(header.version, &plain));
        assert!(b.decode(&header, &plain).unwrap().stored);
    }
    let stats = b.domain.stats();
    assert!(stats.mirror_bytes <= 73 << 20, "{stats:?}");
    assert!(b.domain.claim(Log::Mirror).holes.range_count() <= 1024);
}

fn coverage() -> impl Strategy<Value = Coverage> {
    let small = 0u64..200_000;
    let epochs = proptest::collection::vec((1u8..4, 0u64..100_000), 0..5);
    let holes = proptest::collection::vec((small.clone(), 0u64..5000), 0..20);
    (
        small.clone(),
        prop_oneof![8 => small, 1 => Just(POSITION_MAX)],
        epochs,
        holes,
    )
        .prop_map(|(floor, length, epochs, holes)| {
            let mut epochs: Vec<Epoch> = epochs
                .into_iter()
                .map(|(id, start)| Epoch {
                    id: [id; 16],
                    start: start / 50_000 * 50_000,
                })
                .collect();
            epochs.sort_by_key(|epoch| epoch.start);
            let tail = (floor + length).min(POSITION_MAX);
            let holes: RangeSet = holes
                .into_iter()
                .map(|(start, length)| floor + start..(floor + start + length).min(tail))
                .collect();
            Coverage {
                floor,
                tail,
                epochs,
                holes,
            }
        })
}

fn held(coverage: &Coverage) -> RangeSet {
    coverage.holes.gaps(coverage.floor..coverage.tail).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever a peer claims, this side holds no more than it did, and what it appends stays in bounds and readable.
    #[test]
    fn claims_only_narrow(claims in proptest::collection::vec((any::<bool>(), coverage()), 1..6)) {
        let [mut a, mut b] = pair(1 << 20);
        transfer(&mut a, &mut b, 1, &text(120_000, 1), 20_000);
        transfer(&mut b, &mut a, 2, &text(120_000, 2), 20_000);
        let domain = std::sync::Arc::clone(&a.domain);
        drop(a);
        let mut a = End::of(domain);
        for (own, claim) in &claims {
            let log = if *own { Log::Own } else { Log::Mirror };
            let before = a.domain.claim(log);
            a.domain.agree(log, claim);
            let after = a.domain.claim(log);
            prop_assert_eq!(held(&after).intersect(&held(&before)), held(&after));
            prop_assert_eq!(held(&after).intersect(&held(claim)), held(&after));
            prop_assert!(after.tail >= before.tail && after.tail <= POSITION_MAX);
        }
        a.domain.set_quota(1 << 20);
        // Nothing of it makes encoding fail, and a block refers to nothing that is not held.
        let flight = a.send(1, &Bytes::from(text(120_000, 1)));
        let own = held(&a.domain.claim(Log::Own));
        if let Some(lowest) = flight.encoded.uses.own {
            prop_assert!(own.contains(lowest));
        }
    }

    /// Bytes turned over anywhere in a block: never a panic, never wrong bytes.
    #[test]
    fn garbled_blocks_never_pass(turn in proptest::collection::vec((any::<u16>(), 1u8..), 1..4), seed in 0u64..50, version in proptest::sample::select(BlockVersion::ALL.to_vec())) {
        let [mut a, mut b] = pair(1 << 20);
        (a.version, b.version) = (version, version);
        transfer(&mut a, &mut b, 1, &text(30_000, 1), 10_000);
        let mut plain = text(20_000, 1);
        plain.splice(5000..5000, noise(500 + seed as usize, seed));
        let flight = a.send(1, &plain.into());
        let mut whole = [flight.header.as_ref(), flight.body.as_ref()].concat();
        for (at, by) in &turn {
            let at = usize::from(*at) % whole.len();
            *whole.get_mut(at).unwrap() ^= by;
        }
        let mut body = Bytes::from(whole);
        if let Ok(header) = BlockHeader::decode(&mut body, b.version, |_, _| Known::default()) {
            if let Some(append) = header.append && b.domain.register(append).is_err() {
                return Ok(());
            }
            if let Ok(decoded) = b.decode(&header, &body) {
                prop_assert!(header.checksum.is_none() || decoded.plain == flight.plain);
            }
        }
    }

    /// After agreement both sides say the same of each log, whatever happened before.
    #[test]
    fn agreement_is_mutual(blocks in proptest::collection::vec((any::<bool>(), any::<bool>(), 40usize..6000), 0..30), lost in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..60_000, 0u64..5000), 0..8)) {
        let [mut a, mut b] = pair(1 << 20);
        for (number, (down, arrives, length)) in blocks.iter().enumerate() {
            let (from, to) = if *down { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let flight = from.send(1, &noise(*length, number as u64).into());
            if *arrives {
                let header = to.register(&flight);
                to.decode(&header, &flight.body).unwrap();
            }
        }
        for (at_a, own, position, length) in lost {
            let end = if at_a { &a } else { &b };
            end.domain.lose(if own { Log::Own } else { Log::Mirror }, position, length);
        }
        let domains = [&a, &b].map(|end| std::sync::Arc::clone(&end.domain));
        drop((a, b));
        let [a, b] = domains.map(End::of);
        let before = [(&a, &b), (&b, &a)].map(|(owner, peer)| held(&owner.domain.claim(Log::Own)).intersect(&held(&peer.domain.claim(Log::Mirror))));
        agree(&a, &b);
        for ((owner, peer), before) in [(&a, &b), (&b, &a)].into_iter().zip(before) {
            prop_assert_eq!(held(&owner.domain.claim(Log::Own)), held(&peer.domain.claim(Log::Mirror)));
            prop_assert_eq!(held(&owner.domain.claim(Log::Own)), before);
        }
    }
}
