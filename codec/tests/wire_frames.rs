//! Frames on the wire: what is written is read again, at any split, and nothing else is accepted.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use codec::block::{POSITION_MAX, Source, Space, Span};
use codec::frame::*;
use codec::ranges::RangeSet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

fn encode(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    FrameCodec.encode(frame, &mut out).unwrap();
    out
}

fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![1..200u64, 1..=u64::MAX]
}

fn stream() -> impl Strategy<Value = StreamId> {
    number().prop_map(StreamId)
}

fn domain() -> impl Strategy<Value = DomainId> {
    prop_oneof![0..20u64, 0..=DomainId::MAX.0].prop_map(DomainId)
}

fn reason() -> impl Strategy<Value = Reason> {
    proptest::sample::select(Reason::ALL.to_vec())
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| (Ipv4Addr::from(ip), port).into()),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| (Ipv6Addr::from(ip), port).into()),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        ("[!-~]{1,253}", any::<u16>()).prop_map(|(host, port)| Target::Name { host, port }),
        address().prop_map(Target::Address),
        // "é" among the names: bytes count, not letters.
        "(/[a-zé0-9_-]{1,12}){1,4}".prop_map(Target::Unix),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    (
        0..=POSITION_MAX - u64::from(BLOCK_PLAIN_MAX),
        1..=BLOCK_PLAIN_MAX,
    )
        .prop_map(|(position, length)| Span { position, length })
}

fn ascending(start: u64, steps: Vec<(u64, u64)>) -> (RangeSet, u64) {
    let (mut set, mut at) = (RangeSet::new(), start);
    for (gap, length) in steps {
        set.insert(at + gap..at + gap + length);
        at += gap + length + 1;
    }
    (set, at)
}

fn hello() -> impl Strategy<Value = Hello> {
    let ids = (
        any::<[u8; 16]>(),
        option::of(any::<[u8; 16]>()),
        option::of(any::<[u8; 32]>()),
        option::of(any::<[u8; 32]>()),
    );
    (
        ids,
        any::<[u64; 9]>(),
        0..100u64,
        "[a-zäß.-]{0,20}",
        any::<u8>(),
        "[ -~]{0,200}",
    )
        .prop_map(
            |((instance, tunnel, secret, proof), n, more, name, status, message)| Hello {
                version_min: n[0] / 2,
                version_max: n[0] / 2 + more,
                instance,
                tunnel,
                secret: secret.map(Secret),
                generation: n[1],
                link_index: n[2],
                proof,
                initial_window_bytes: n[3],
                streams_max: n[4],
                unacknowledged_encoded_max_bytes: n[5],
                unacknowledged_plain_max_bytes: n[6],
                heartbeat_ms: n[7],
                name,
                status: HelloStatus::from_code(status),
                message,
                features: n[8],
            },
        )
}

fn coverage() -> impl Strategy<Value = Frame> {
    let steps = vec((0..1_000u64, 1..1_000u64), 0..40);
    let epochs = vec(
        (any::<[u8; 16]>(), 0..POSITION_MAX),
        0..=COVERAGE_EPOCHS_MAX,
    );
    (
        domain(),
        "[sc]:[a-z]{0,63}",
        any::<bool>(),
        0..POSITION_MAX / 2,
        epochs,
        steps,
        0..1_000u64,
    )
        .prop_map(|(domain, name, own, floor, mut epochs, steps, more)| {
            epochs.sort_by_key(|&(_, start)| start);
            let (holes, end) = ascending(floor, steps);
            let epochs = epochs
                .into_iter()
                .map(|(id, start)| Epoch { id, start })
                .collect();
            let side = if own {
                HistorySide::Own
            } else {
                HistorySide::Mirror
            };
            Frame::Coverage(CoverageFrame {
                domain,
                name,
                side,
                coverage: Coverage {
                    floor,
                    tail: end + more,
                    epochs,
                    holes,
                },
            })
        })
}

fn lists() -> impl Strategy<Value = Frame> {
    let space = prop_oneof![Just(Space::Sender), Just(Space::Receiver)];
    let lost =
        (domain(), space, span()).prop_map(|(domain, space, Span { position, length })| Lost {
            domain,
            source: Source {
                space,
                position,
                length,
            },
        });
    let not_stored = (domain(), span()).prop_map(|(domain, span)| NotStored { domain, span });
    let ranges = vec((0..1_000u64, 1..1_000u64), 1..=ACK_RANGES_MAX);
    let refuse_reason = proptest::sample::select(RefuseReason::ALL.to_vec());
    prop_oneof![
        (
            1..u64::MAX / 2,
            ranges,
            vec(not_stored, 0..=ACK_NOT_STORED_MAX)
        )
            .prop_map(|(start, ranges, not_stored)| {
                Frame::Ack(Ack {
                    numbers: ascending(start, ranges).0,
                    not_stored,
                })
            }),
        (number(), refuse_reason, vec(lost, 0..=REFUSE_LOST_MAX)).prop_map(
            |(number, reason, lost)| Frame::Refuse(Refuse {
                number,
                reason,
                lost
            })
        ),
        coverage(),
    ]
}

fn numbered() -> impl Strategy<Value = Frame> {
    let open = (
        number(),
        stream(),
        option::of(domain()),
        target(),
        "[a-z0-9-]{0,63}",
        option::of(address()),
        1..=WEIGHT_MAX,
    );
    prop_oneof![
        (number(), 0..500_000u64, any::<bool>(), bytes(1..20_000)).prop_map(
            |(number, offset, last, bytes)| Frame::Data(Data {
                number,
                offset,
                last,
                bytes
            })
        ),
        open.prop_map(
            |(number, stream, domain, target, service, source, weight)| Frame::Open(Open {
                number,
                stream,
                domain,
                target,
                service,
                source,
                weight: weight.try_into().unwrap()
            })
        ),
        (number(), stream(), option::of(address())).prop_map(|(number, stream, bound)| {
            Frame::Opened(Opened {
                number,
                stream,
                bound,
            })
        }),
        (number(), stream(), any::<u64>()).prop_map(|(number, stream, offset)| Frame::Finish {
            number,
            stream,
            offset
        }),
        (number(), stream(), reason()).prop_map(|(number, stream, reason)| Frame::StopSending {
            number,
            stream,
            reason
        }),
        (number(), stream(), reason()).prop_map(|(number, stream, reason)| Frame::Reset {
            number,
            stream,
            reason
        }),
        (number(), reason()).prop_map(|(number, reason)| Frame::GoAway { number, reason }),
    ]
}

fn control() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hello().prop_map(Frame::Hello),
        (any::<u64>(), number(), any::<u64>()).prop_map(|(stream, turn, offset)| Frame::Credit {
            stream: StreamId(stream),
            turn,
            offset
        }),
        (stream(), any::<u64>(), any::<u64>()).prop_map(|(stream, turn, offset)| Frame::Yield {
            stream,
            turn,
            offset
        }),
        (domain(), any::<u64>()).prop_map(|(domain, bytes)| Frame::Quota { domain, bytes }),
        (domain(), 0..=POSITION_MAX)
            .prop_map(|(domain, position)| Frame::Floor { domain, position }),
        (domain(), 0..=POSITION_MAX)
            .prop_map(|(domain, position)| Frame::Floored { domain, position }),
        bytes(1..RENEW_REQUEST_MAX_BYTES).prop_map(|request| Frame::Renew { request }),
        vec(bytes(1..5_000), 1..=RENEWED_CERTIFICATES_MAX)
            .prop_map(|list| Frame::Renewed(Renewed::Issued(list))),
        (1..=255u8, "[ -~]{0,256}")
            .prop_map(|(status, message)| Frame::Renewed(Renewed::Refused { status, message })),
        any::<u64>().prop_map(|token| Frame::Ping { token }),
        any::<u64>().prop_map(|token| Frame::Pong { token }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![numbered(), lists(), control()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn round_trip(frame in frame()) {
        let mut wire = encode(&frame);
        prop_assert!(wire.len() <= frame.kind().payload_max() + 4);
        prop_assert_eq!(FrameCodec.decode(&mut wire).unwrap(), Some(frame));
        prop_assert!(wire.is_empty());
    }

    /// A link may deliver its bytes in pieces of any size.
    #[test]
    fn any_split(frames in vec(frame(), 1..6), pieces in vec(1..3_000usize, 1..20)) {
        let mut wire = BytesMut::new();
        for frame in &frames {
            FrameCodec.encode(frame, &mut wire).unwrap();
        }
        let (mut held, mut got) = (BytesMut::new(), Vec::new());
        let mut sizes = pieces.iter().cycle();
        while !wire.is_empty() {
            let piece = wire.split_to(wire.len().min(*sizes.next().unwrap()));
            held.extend_from_slice(&piece);
            while let Some(frame) = FrameCodec.decode(&mut held).unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
        prop_assert!(FrameCodec.decode_eof(&mut held).unwrap().is_none());
    }

    /// A frame that ends early is waited for, and named when the link ends.
    #[test]
    fn cut_short(frame in frame(), keep in any::<prop::sample::Index>()) {
        let mut wire = encode(&frame);
        wire.truncate(1 + keep.index(wire.len() - 1));
        prop_assume!(!wire.is_empty());
        prop_assert!(FrameCodec.decode(&mut wire).unwrap().is_none());
        let ended = matches!(FrameCodec.decode_eof(&mut wire), Err(FrameError::CutShort { .. }));
        prop_assert!(ended);
    }

    /// Garbage is refused or read as frames that are written and read again as themselves; it never panics.
    #[test]
    fn garbage(code in 0u8..0x20, garbage in vec(any::<u8>(), 0..300)) {
        let mut wire = BytesMut::from([&[code, u8::try_from(garbage.len().min(127)).unwrap()], garbage.as_slice()].concat().as_slice());
        while let Ok(Some(frame)) = FrameCodec.decode(&mut wire) {
            prop_assert_eq!(FrameCodec.decode(&mut encode(&frame)).unwrap(), Some(frame));
        }
    }
}
