//! Block headers and operations on the wire: what is written is read again, and nothing else is accepted.

use bytes::{Bytes, BytesMut};
use codec::block::ops::{Reader, Writer};
use codec::block::*;
use codec::frame::{DomainId, StreamId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn encode(header: &BlockHeader, known: Known) -> BytesMut {
    let mut out = BytesMut::new();
    header.encode(known, &mut out);
    out
}

fn position() -> impl Strategy<Value = u64> {
    let max = POSITION_MAX - u64::from(BLOCK_PLAIN_MAX);
    prop_oneof![0..1_000u64, 0..=max]
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![Just(Space::Sender), Just(Space::Receiver)]
}

fn header() -> impl Strategy<Value = BlockHeader> {
    let body = prop_oneof![
        Just(BodyKind::Raw),
        Just(BodyKind::Stored),
        Just(BodyKind::Zstd),
        Just(BodyKind::ZstdBlock)
    ];
    let version = prop::sample::select(BlockVersion::ALL.to_vec());
    let append = option::of((position(), 1..=BLOCK_PLAIN_MAX));
    let prefix = option::of((space(), position(), 1..=PREFIX_MAX));
    let diagonal = || option::of(-1_000..1i64 << 61);
    let first = (
        1..=u64::MAX,
        0..u64::MAX / 2,
        1..=BLOCK_PLAIN_MAX,
        (version, body),
        option::of(prop_oneof![Just(0), 0..=DomainId::MAX.0]),
    );
    (
        first,
        append,
        prefix,
        diagonal(),
        diagonal(),
        any::<u32>(),
        option::of(1..=u64::MAX),
        option::of(any::<u64>()),
    )
        .prop_map(
            |(
                (stream, stream_offset, plain_length, (version, body), domain),
                append,
                prefix,
                sender,
                receiver,
                inner,
                replaces,
                checksum,
            )| {
                let two = version == BlockVersion::Two;
                let body = match body {
                    BodyKind::ZstdBlock if !two => BodyKind::Zstd,
                    body => body,
                };
                let mut header = BlockHeader {
                    version,
                    stream: StreamId(stream),
                    stream_offset,
                    plain_length,
                    body,
                    domain: domain.map(DomainId),
                    append: append.map(|(position, length)| Span {
                        position,
                        length: length.min(plain_length),
                    }),
                    prefix: prefix.map(|(space, position, length)| Source {
                        space,
                        position,
                        length,
                    }),
                    diagonals: [sender, receiver],
                    inner_length: 0,
                    replaces,
                    checksum,
                };
                if header.domain.is_none() || header.replaces.is_some() {
                    (header.append, header.prefix, header.diagonals) = (None, None, [None; 2]);
                }
                match body {
                    BodyKind::Raw => {
                        header.diagonals = [None; 2];
                        header.append = header.append.map(|append| Span {
                            length: plain_length,
                            ..append
                        });
                    }
                    BodyKind::Zstd | BodyKind::ZstdBlock => {
                        header.inner_length = 1 + inner % (2 * plain_length + 64);
                    }
                    BodyKind::Stored => {}
                }
                if !body.is_compressed()
                    || header
                        .prefix
                        .is_some_and(|prefix| header.appends_to(prefix))
                {
                    header.prefix = None;
                }
                if body != BodyKind::Raw || header.append.is_some() {
                    header.checksum = checksum.or(Some(0));
                }
                if two {
                    normalize(&mut header);
                }
                header
            },
        )
}

/// What version 2 writes of a header of version 1.
fn normalize(header: &mut BlockHeader) {
    if let Some(prefix) = &mut header.prefix {
        prefix.length = prefix_fit(prefix.length.max(8));
    }
    let is_above = |prefix: &Source| {
        header.append.is_some_and(|append| {
            prefix.space == Space::Sender && prefix.span().end() > append.position
        })
    };
    if header.prefix.as_ref().is_some_and(is_above) {
        header.prefix = None;
    }
    if header.body.is_compressed() && !header.copies() {
        header.inner_length = header.plain_length;
    }
    if header.append.is_none() && header.prefix.is_none() && !header.copies() {
        header.domain = None;
        if header.body == BodyKind::Raw {
            header.checksum = None;
        }
    } else if header.domain.is_none() {
        header.domain = Some(DomainId::SHARED);
    }
    if header.plain_length <= 4096 {
        header.checksum = header.checksum.map(|checksum| checksum >> 32);
    }
}

/// What a sender and a receiver know before the block: the receiver has heard more, and neither is beyond the block.
fn known(header: &BlockHeader) -> impl Strategy<Value = [Known; 2]> + use<> {
    let (offset, position) = (
        header.stream_offset,
        header.append.map_or(u64::MAX, |append| append.position),
    );
    let near = |value: u64| prop_oneof![Just(value), value.saturating_sub(300)..=value, 0..=value];
    (near(offset), near(offset), near(position), near(position)).prop_map(|(a, b, c, d)| {
        [
            Known {
                stream_offset: a.min(b),
                append_position: c.min(d),
            },
            Known {
                stream_offset: a.max(b),
                append_position: c.max(d),
            },
        ]
    })
}

fn header_and_known() -> impl Strategy<Value = (BlockHeader, [Known; 2])> {
    header().prop_flat_map(|header| (Just(header.clone()), known(&header)))
}

/// Literal runs and copies of a block that fits [`BLOCK_PLAIN_MAX`].
fn operations() -> impl Strategy<Value = (Vec<Op>, u32)> {
    let step = (
        0..3_000u32,
        COPY_MIN..4_000,
        any::<bool>(),
        space(),
        position(),
    );
    let again = (0..4usize, any::<bool>());
    (vec((step, again), 0..30), 0..2_000u32).prop_map(|(steps, last)| {
        let mut ops: Vec<Op> = Vec::new();
        let mut plain = 0;
        let mut copies: Vec<(u64, Space, u64, u64)> = Vec::new();
        for ((literal, length, append, space, position), (back, along)) in steps {
            if literal > 0 {
                ops.push(Op::Literal { length: literal });
            }
            plain += u64::from(literal);
            // Three of four go on where one of the last copies did, as real ones do.
            let known = copies.len().checked_sub(back).and_then(|at| copies.get(at));
            let (space, position) = match known {
                Some((at, space, source, _)) if along => (*space, source + plain - at),
                Some((_, space, _, end)) => (*space, *end),
                None => (space, position),
            };
            copies.push((plain, space, position, position + u64::from(length)));
            plain += u64::from(length);
            ops.push(Op::Copy {
                length,
                append,
                space,
                position,
            });
        }
        if last > 0 || ops.is_empty() {
            ops.push(Op::Literal {
                length: last.max(1),
            });
        }
        let plain = ops.iter().map(|op| op.length()).sum();
        (ops, plain)
    })
}

fn write(version: BlockVersion, ops: &[Op]) -> Writer {
    let mut writer = Writer::new(version);
    for op in ops {
        match *op {
            Op::Literal { length } => writer.literal(length),
            Op::Copy {
                length,
                append,
                space,
                position,
            } => writer.copy(length, append, space, position),
        }
    }
    writer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn header_round_trip((header, [sender, receiver]) in header_and_known(), body in vec(any::<u8>(), 0..20)) {
        prop_assert_eq!(header.check(), Ok(()));
        let mut wire = encode(&header, sender);
        prop_assert!(wire.len() <= HEADER_MAX_BYTES);
        wire.extend_from_slice(&body);
        let mut wire = wire.freeze();
        let mut asked = None;
        let version = header.version;
        let read = BlockHeader::decode(&mut wire, version, |stream, domain| {
            asked = Some((stream, domain));
            receiver
        });
        if version == BlockVersion::Two {
            prop_assert_eq!(asked, Some((header.stream, header.domain)));
        }
        prop_assert_eq!(read, Ok(header));
        prop_assert_eq!(wire, Bytes::from(body));
    }

    /// What is repeated after a Refuse may lie below what the receiver knows, and the sender need not know that.
    #[test]
    fn a_repeat_says_its_place_in_full(header in header(), number in 1..1000u64, (sender, receiver) in any::<(u64, u64)>()) {
        let mut header = BlockHeader { replaces: Some(number), append: None, prefix: None, diagonals: [None; 2], ..header };
        if header.version == BlockVersion::Two {
            normalize(&mut header);
        }
        let [sender, receiver] = [sender, receiver].map(|stream_offset| Known { stream_offset, append_position: 0 });
        let mut wire = encode(&header, sender).freeze();
        let read = BlockHeader::decode(&mut wire, header.version, |_, _| receiver);
        prop_assert_eq!(read.map(|read| read.stream_offset), Ok(header.stream_offset));
    }

    #[test]
    fn header_cut_short((header, [sender, receiver]) in header_and_known(), keep in any::<prop::sample::Index>()) {
        let mut wire = encode(&header, sender);
        wire.truncate(keep.index(wire.len()));
        let error = BlockHeader::decode(&mut wire.freeze(), header.version, |_, _| receiver);
        let cut = matches!(error, Err(BlockError::CutShort(_)));
        prop_assert!(cut, "{:?}", error);
    }

    /// Whatever is accepted is what the writer would have written; in version 2 a writer that knows as much writes no more.
    #[test]
    fn header_garbage(garbage in vec(any::<u8>(), 0..150), low in 0x80..=0xffu8, high in 1..4u8, offset in 0..1000u64, position in any::<u64>()) {
        let known = Known { stream_offset: offset, append_position: position };
        for bytes in [garbage.clone(), [&[low, high], garbage.as_slice()].concat()] {
            let whole = Bytes::from(bytes);
            let mut rest = whole.clone();
            if let Ok(header) = BlockHeader::decode(&mut rest, BlockVersion::One, |_, _| known) {
                prop_assert_eq!(encode(&header, known).freeze(), whole.slice(..whole.len() - rest.len()));
            }
            let mut rest = whole.clone();
            if let Ok(header) = BlockHeader::decode(&mut rest, BlockVersion::Two, |_, _| known) {
                let mut again = encode(&header, known).freeze();
                prop_assert!(again.len() <= whole.len() - rest.len());
                prop_assert_eq!(BlockHeader::decode(&mut again, BlockVersion::Two, |_, _| known), Ok(header));
            }
        }
    }

    #[test]
    fn operations_round_trip((ops, plain) in operations()) {
        for version in BlockVersion::ALL {
            let writer = write(version, &ops);
            prop_assert_eq!(writer.plain_length(), plain);
            let read: Result<Vec<Op>, _> = Reader::new(version, writer.bytes(), plain, writer.diagonals()).collect();
            prop_assert_eq!(read, Ok(ops.clone()));
        }
    }

    #[test]
    fn operations_garbage(garbage in vec(any::<u8>(), 0..200), plain in 1..BLOCK_PLAIN_MAX, start in -100..1i64 << 40) {
      for version in BlockVersion::ALL {
        let (mut total, mut failed) = (0u64, false);
        for op in Reader::new(version, &garbage, plain, [Some(start), Some(0)]) {
            prop_assert!(!failed, "nothing follows an error");
            match op {
                Ok(op) => total += u64::from(op.length()),
                Err(_) => failed = true,
            }
        }
        prop_assert!(total <= u64::from(plain));
        prop_assert!(failed || total == u64::from(plain));
      }
    }
}
