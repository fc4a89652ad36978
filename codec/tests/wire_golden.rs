//! Golden vectors: the bytes of docs/protocol.md, for every frame, for headers and for operations. A change here is a change of the
//! wire version.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use codec::block::ops::{Inner, Sums, Writer};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, Op, Source, Space, Span};
use codec::frame::*;
use tokio_util::codec::{Decoder, Encoder};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Bytes from hex; blanks divide fields for the reader.
fn unhex(text: &str) -> Bytes {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| {
            pair.iter()
                .fold(0u8, |byte, &digit| byte << 4 | u8::try_from(digit).unwrap())
        })
        .collect()
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 2,
        instance: *b"0123456789abcdef",
        tunnel: Some([0x22; 16]),
        secret: Some(Secret([0x33; 32])),
        generation: 300,
        link_index: 1,
        proof: Some([0x44; 32]),
        initial_window_bytes: 65_536,
        streams_max: 65_536,
        unacknowledged_encoded_max_bytes: 1 << 26,
        unacknowledged_plain_max_bytes: 1 << 28,
        heartbeat_ms: 5_000,
        name: "branch-1".into(),
        status: HelloStatus::Draining,
        message: "bye".into(),
        features: 1,
    }
}

fn frames() -> Vec<(Frame, &'static str)> {
    let stream = StreamId(1);
    let host = Target::Name {
        host: "git.example".into(),
        port: 9418,
    };
    let open = |domain, target, service: &str| {
        Frame::Open(Open {
            number: 2,
            stream,
            domain,
            target,
            service: service.into(),
            source: None,
            weight: NonZeroU16::MIN,
        })
    };
    let from = |source: &str| {
        Frame::Open(Open {
            number: 2,
            stream,
            domain: None,
            target: Target::Address("10.0.0.5:445".parse().unwrap()),
            service: String::new(),
            source: Some(source.parse().unwrap()),
            weight: NonZeroU16::MIN,
        })
    };
    let weighing = |weight: u16| {
        Frame::Open(Open {
            number: 2,
            stream,
            domain: None,
            target: Target::Address("10.0.0.5:445".parse().unwrap()),
            service: String::new(),
            source: None,
            weight: weight.try_into().unwrap(),
        })
    };
    let opened = |bound| {
        Frame::Opened(Opened {
            number: 3,
            stream,
            bound,
        })
    };
    let shared = DomainId::SHARED;
    vec![
        (Frame::Data(Data { number: 1, offset: 0, last: false, bytes: Bytes::from_static(b"abc") }), "01 05 01 00 616263"),
        (Frame::Data(Data { number: 300, offset: 65_536, last: true, bytes: Bytes::from_static(b"z") }), "02 06 ac02 808004 7a"),
        (open(Some(shared), host, "git"), "03 17 02 01 01 01 0d 24ca 6769742e6578616d706c65 04 03 676974"),
        (from("192.0.2.7:443"), "03 13 02 01 00 02 06 0a000005 01bd 05 06 c0000207 01bb"),
        (
            from("[2001:db8::7]:443"),
            "03 1f 02 01 00 02 06 0a000005 01bd 06 12 20010db8 00000000 00000000 00000007 01bb",
        ),
        (weighing(4), "03 0e 02 01 00 02 06 0a000005 01bd 07 01 04"),
        (weighing(1000), "03 0f 02 01 00 02 06 0a000005 01bd 07 02 e807"),
        (open(None, Target::Address("10.0.0.5:445".parse().unwrap()), ""), "03 0b 02 01 00 02 06 0a000005 01bd"),
        (open(None, Target::Unix("/run/app".into()), ""), "03 0d 02 01 00 08 08 2f72756e2f617070"),
        (
            open(Some(DomainId(2)), Target::Address("[2001:db8::1]:22".parse().unwrap()), ""),
            "03 17 02 01 03 03 12 20010db8000000000000000000000001 0016",
        ),
        (opened(None), "04 02 03 01"),
        (opened(Some("192.0.2.1:40000".parse().unwrap())), "04 0a 03 01 02 06 c0000201 9c40"),
        (opened(Some("[::1]:1".parse().unwrap())), "04 16 03 01 03 12 00000000000000000000000000000001 0001"),
        (Frame::Finish { number: 4, stream, offset: 1_000_000 }, "05 05 04 01 c0843d"),
        (Frame::StopSending { number: 5, stream, reason: Reason::ConnectionReset }, "06 03 05 01 07"),
        (Frame::Reset { number: 6, stream, reason: Reason::Policy }, "07 03 06 01 05"),
        (Frame::GoAway { number: 7, reason: Reason::GoingAway }, "08 02 07 09"),
        (
            Frame::Hello(hello()),
            "10 a101 01 02 01 10 30313233343536373839616263646566 02 10 22222222222222222222222222222222
             03 20 3333333333333333333333333333333333333333333333333333333333333333 04 02 ac02 05 01 01
             06 20 4444444444444444444444444444444444444444444444444444444444444444 07 03 808004 08 03 808004
             09 04 80808020 0a 05 8080808001 0b 02 8827 0c 08 6272616e63682d31 0d 01 05 0e 03 627965 0f 01 01",
        ),
        (
            Frame::Ack(Ack { numbers: [1..5, 7..8, 10..13].into_iter().collect(), not_stored: Vec::new() }),
            // Largest 12, 3 of them; 1 missing between (8, 9 are two: gap 1); 7 alone; 5 and 6 missing; 1 to 4.
            "11 08 03 0c 02 01 00 01 03 00",
        ),
        (
            Frame::Ack(Ack {
                numbers: std::iter::once(9..10).collect(),
                not_stored: vec![NotStored { domain: shared, span: Span { position: 4_096, length: 100 } }],
            }),
            "11 08 01 09 00 01 00 8020 64",
        ),
        (
            Frame::Refuse(Refuse {
                number: 9,
                reason: RefuseReason::Evicted,
                lost: vec![Lost { domain: DomainId(2), source: Source { space: Space::Receiver, position: 128, length: 48 } }],
            }),
            "12 08 09 02 01 02 01 8001 30",
        ),
        (Frame::Credit { stream: StreamId::TUNNEL, turn: 1, offset: 100 }, "13 03 00 01 64"),
        (Frame::Yield { stream, turn: 2, offset: 128 }, "14 04 01 02 8001"),
        (
            Frame::Coverage(CoverageFrame {
                domain: shared,
                name: "shared".into(),
                side: HistorySide::Mirror,
                coverage: Coverage {
                    floor: 100,
                    tail: 1_000,
                    epochs: vec![Epoch { id: [0xee; 16], start: 50 }],
                    holes: [100..110, 200..300].into_iter().collect(),
                },
            }),
            "15 23 00 06 736861726564 01 64 e807 01 eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 32 02 00 0a 5a 64",
        ),
        (Frame::Quota { domain: shared, bytes: 1 << 30 }, "16 06 00 8080808004"),
        (Frame::Floor { domain: DomainId(3), position: 128 }, "17 03 03 8001"),
        (Frame::Floored { domain: DomainId(3), position: 128 }, "18 03 03 8001"),
        (Frame::Renew { request: Bytes::from_static(&[0x30, 0]) }, "19 02 3000"),
        (
            Frame::Renewed(Renewed::Issued(vec![Bytes::from_static(&[0x30, 1]), Bytes::from_static(&[0x30])])),
            "1a 07 00 02 02 3001 01 30",
        ),
        (Frame::Renewed(Renewed::Refused { status: 1, message: "no".into() }), "1a 03 01 6e6f"),
        (Frame::Ping { token: 0x0102_0304_0506_0708 }, "1b 08 0807060504030201"),
        (Frame::Pong { token: 1 }, "1c 08 0100000000000000"),
    ]
}

#[test]
fn every_frame() {
    let mut kinds: Vec<FrameKind> = Vec::new();
    for (frame, text) in frames() {
        let expected = unhex(text);
        let mut wire = BytesMut::new();
        FrameCodec.encode(&frame, &mut wire).unwrap();
        assert_eq!(hex(&wire), hex(&expected), "{frame:?}");
        assert_eq!(FrameCodec.decode(&mut wire).unwrap().as_ref(), Some(&frame));
        kinds.push(frame.kind());
    }
    for kind in FrameKind::ALL {
        assert!(kinds.contains(&kind), "{kind} has no vector");
    }
}

#[test]
fn a_data_header_and_its_body_are_the_frame() {
    let body = Bytes::from(vec![7; FRAGMENT_MAX]);
    let header = data_header(70_000, 65_536, true, body.len());
    assert_eq!(hex(&header), "02868004f0a204808004");
    let mut wire = BytesMut::from([header, body.clone()].concat().as_slice());
    let frame = FrameCodec.decode(&mut wire).unwrap();
    assert_eq!(
        frame,
        Some(Frame::Data(Data {
            number: 70_000,
            offset: 65_536,
            last: true,
            bytes: body
        }))
    );
}

fn header() -> BlockHeader {
    BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(5),
        stream_offset: 300,
        plain_length: 1_000,
        body: BodyKind::Raw,
        domain: None,
        append: None,
        prefix: None,
        diagonals: [None; 2],
        inner_length: 0,
        replaces: None,
        checksum: None,
    }
}

#[test]
fn headers() {
    let shared = Some(DomainId::SHARED);
    let checksum = Some(0x0102_0304_0506_0708);
    let append = Some(Span {
        position: 4_096,
        length: 1_000,
    });
    let vectors = [
        // flags, stream, stream offset, plain length, then what the flags say.
        (header(), "00 05 ac02 e807"),
        (
            BlockHeader {
                domain: shared,
                append,
                checksum,
                ..header()
            },
            "8c01 05 ac02 e807 00 8020 e807 0807060504030201",
        ),
        (
            BlockHeader {
                body: BodyKind::Stored,
                replaces: Some(9),
                checksum,
                ..header()
            },
            "8103 05 ac02 e807 09 0807060504030201",
        ),
        (
            BlockHeader {
                body: BodyKind::Zstd,
                domain: Some(DomainId(3)),
                append: Some(Span {
                    position: 128,
                    length: 10,
                }),
                prefix: Some(Source {
                    space: Space::Receiver,
                    position: 1,
                    length: 2,
                }),
                diagonals: [Some(-1), Some(64)],
                inner_length: 17,
                checksum,
                ..header()
            },
            "fe01 05 ac02 e807 03 8001 0a 01 01 02 01 8001 11 0807060504030201",
        ),
    ];
    for (header, text) in vectors {
        let expected = unhex(text);
        let mut wire = BytesMut::new();
        header.encode(Known::default(), &mut wire);
        assert_eq!(hex(&wire), hex(&expected), "{header:?}");
        assert_eq!(
            BlockHeader::decode(
                &mut wire.freeze(),
                BlockVersion::One,
                |_, _| Known::default()
            ),
            Ok(header)
        );
    }
}

#[test]
fn operations() {
    let mut writer = Writer::new(BlockVersion::One);
    writer.literal(3);
    writer.copy(100, false, Space::Sender, 1_003);
    writer.literal(1);
    writer.literal(1);
    // The same diagonal again: distance 0.
    writer.copy(32, true, Space::Sender, 1_105);
    writer.copy(32, false, Space::Receiver, 0);
    // 10 bytes further on.
    writer.copy(40, false, Space::Sender, 1_179);
    writer.literal(2);
    // Literal length, (length − 32) << 2 | append << 1 | space, distance.
    assert_eq!(
        hex(writer.bytes()),
        hex(&unhex("03 9002 00  02 02 00  00 01 00  00 20 14"))
    );
    assert_eq!(writer.diagonals(), [Some(1_000), Some(-137)]);
    assert_eq!(writer.plain_length(), 211);

    let mut inner = Vec::new();
    writer.put_inner(&mut inner);
    inner.extend_from_slice(b"abcdefg");
    let header = BlockHeader {
        plain_length: 211,
        body: BodyKind::Stored,
        domain: Some(DomainId::SHARED),
        append: Some(Span {
            position: 5_000,
            length: 39,
        }),
        diagonals: writer.diagonals(),
        checksum: Some(0),
        ..header()
    };
    let read = Inner::read(&header, &inner).unwrap();
    assert_eq!(
        read.sums(),
        Sums {
            literal_bytes: 7,
            copied_bytes: 204,
            appended_bytes: 39
        }
    );
    assert_eq!(read.literals(), b"abcdefg");
    let copy = |length, append, space, position| Op::Copy {
        length,
        append,
        space,
        position,
    };
    let expected = [
        Op::Literal { length: 3 },
        copy(100, false, Space::Sender, 1_003),
        Op::Literal { length: 2 },
        copy(32, true, Space::Sender, 1_105),
        copy(32, false, Space::Receiver, 0),
        copy(40, false, Space::Sender, 1_179),
        Op::Literal { length: 2 },
    ];
    assert_eq!(read.operations().collect::<Vec<_>>(), expected);

    writer.clear(BlockVersion::One);
    writer.literal(5);
    assert_eq!(
        (writer.bytes(), writer.diagonals(), writer.plain_length()),
        ([].as_slice(), [None; 2], 5)
    );
}
