//! Block headers and operations on the wire: what is written is read again, and nothing else is accepted.

use bytes::{Bytes, BytesMut};
use codec::block::ops::{Reader, Writer};
use codec::block::*;
use codec::frame::{DomainId, StreamId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn encode(header: &BlockHeader) -> BytesMut {
    let mut out = BytesMut::new();
    header.encode(&mut out);
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
        Just(BodyKind::Zstd)
    ];
    let append = option::of((position(), 1..=BLOCK_PLAIN_MAX));
    let prefix = option::of((space(), position(), 1..=PREFIX_MAX));
    let diagonal = || option::of(-1_000..1i64 << 61);
    let first = (
        1..=u64::MAX,
        0..u64::MAX / 2,
        1..=BLOCK_PLAIN_MAX,
        body,
        option::of(0..=DomainId::MAX.0),
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
                (stream, stream_offset, plain_length, body, domain),
                append,
                prefix,
                sender,
                receiver,
                inner,
                replaces,
                checksum,
            )| {
                let mut header = BlockHeader {
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
                    BodyKind::Zstd => header.inner_length = 1 + inner % (2 * plain_length + 64),
                    BodyKind::Stored => {}
                }
                if body != BodyKind::Zstd
                    || header
                        .prefix
                        .is_some_and(|prefix| header.appends_to(prefix))
                {
                    header.prefix = None;
                }
                if body != BodyKind::Raw || header.append.is_some() {
                    header.checksum = checksum.or(Some(0));
                }
                header
            },
        )
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
    (vec(step, 0..30), 0..2_000u32).prop_map(|(steps, last)| {
        let mut ops = Vec::new();
        for (literal, length, append, space, position) in steps {
            if literal > 0 {
                ops.push(Op::Literal { length: literal });
            }
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

fn write(ops: &[Op]) -> Writer {
    let mut writer = Writer::new();
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
    fn header_round_trip(header in header(), body in vec(any::<u8>(), 0..20)) {
        prop_assert_eq!(header.check(), Ok(()));
        let mut wire = encode(&header);
        prop_assert!(wire.len() <= HEADER_MAX_BYTES);
        wire.extend_from_slice(&body);
        let mut wire = wire.freeze();
        prop_assert_eq!(BlockHeader::decode(&mut wire), Ok(header));
        prop_assert_eq!(wire, Bytes::from(body));
    }

    #[test]
    fn header_cut_short(header in header(), keep in any::<prop::sample::Index>()) {
        let mut wire = encode(&header);
        wire.truncate(keep.index(wire.len()));
        let error = BlockHeader::decode(&mut wire.freeze());
        let cut = matches!(error, Err(BlockError::CutShort(_)));
        prop_assert!(cut, "{:?}", error);
    }

    /// Whatever is accepted is what the writer would have written.
    #[test]
    fn header_garbage(garbage in vec(any::<u8>(), 0..150), low in 0x80..=0xffu8, high in 1..4u8) {
        for bytes in [garbage.clone(), [&[low, high], garbage.as_slice()].concat()] {
            let whole = Bytes::from(bytes);
            let mut rest = whole.clone();
            if let Ok(header) = BlockHeader::decode(&mut rest) {
                prop_assert_eq!(encode(&header).freeze(), whole.slice(..whole.len() - rest.len()));
            }
        }
    }

    #[test]
    fn operations_round_trip((ops, plain) in operations()) {
        let writer = write(&ops);
        prop_assert_eq!(writer.plain_length(), plain);
        let read: Result<Vec<Op>, _> = Reader::new(writer.bytes(), plain, writer.diagonals()).collect();
        prop_assert_eq!(read, Ok(ops));
    }

    #[test]
    fn operations_garbage(garbage in vec(any::<u8>(), 0..200), plain in 1..BLOCK_PLAIN_MAX, start in -100..1i64 << 40) {
        let (mut total, mut failed) = (0u64, false);
        for op in Reader::new(&garbage, plain, [Some(start), Some(0)]) {
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
