//! What a correct peer never sends is refused with an error that names it, before anything is allocated for it.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::{Bytes, BytesMut};
use codec::block::ops::{Inner, Writer};
use codec::block::{
    BlockError, BlockHeader, BlockVersion, BodyKind, COPY_MIN, Known, POSITION_MAX, Source, Space,
    Span,
};
use codec::frame::*;
use codec::varint;
use tokio_util::codec::{Decoder, Encoder};

/// The error that a frame of this type and payload gives.
fn refused(kind: FrameKind, payload: &[u8]) -> String {
    let mut wire = BytesMut::from([kind.code()].as_slice());
    varint::put(&mut wire, payload.len() as u64);
    wire.extend_from_slice(payload);
    FrameCodec.decode(&mut wire).unwrap_err().to_string()
}

#[test]
fn unknown_types_and_lengths() {
    for (wire, message) in [
        (&[0x00][..], "bad frame: unknown type 0x00"),
        (&[0x1d, 0x00], "bad frame: unknown type 0x1d"),
        (b"GET / HTTP/1.1", "bad frame: unknown type 0x47"),
        (
            &[0x02, 0x81, 0x88, 0x04],
            "bad frame: DataLast: 66561 bytes, at most 66560 are allowed",
        ),
        (
            &[0x1b, 0x41],
            "bad frame: Ping: 65 bytes, at most 64 are allowed",
        ),
        (
            &[0x1b, 0x88, 0x00],
            "bad frame: Ping: length: the varint is not in its shortest form",
        ),
    ] {
        let error = FrameCodec.decode(&mut BytesMut::from(wire)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let mut endless = BytesMut::from([&[0x01][..], &[0xff; 10]].concat().as_slice());
    assert!(matches!(
        FrameCodec.decode(&mut endless),
        Err(FrameError::Length { .. })
    ));
}

#[test]
fn payloads() {
    use FrameKind::*;
    let name = |host: &[u8]| {
        [
            &[1, 1, 1, 1, 2 + u8::try_from(host.len()).unwrap(), 0, 80],
            host,
        ]
        .concat()
    };
    let ack = |ranges: &[u8]| [ranges, &[0]].concat();
    let instance = [&[1, 1, 1, 16][..], &[0; 16]].concat();
    let cases: Vec<(FrameKind, Vec<u8>, &str)> = vec![
        (Data, vec![], "number: cut short"),
        (Data, vec![0, 0, 9], "number: out of bounds"),
        (Data, vec![1, 0x80, 0, 9], "offset: not a canonical varint"),
        (Data, vec![1, 0], "bytes: missing"),
        (
            DataLast,
            [&[1, 0][..], &[0; FRAGMENT_MAX + 1]].concat(),
            "bytes: out of bounds",
        ),
        (Data, vec![1, 0xc0, 0x81, 0x20, 9], "offset: out of bounds"),
        (Open, vec![1, 0, 1], "stream: out of bounds"),
        (Open, vec![1, 1, 1], "target: missing"),
        (
            Open,
            [name(b"a"), vec![2, 6, 1, 2, 3, 4, 0, 80]].concat(),
            "target: given twice",
        ),
        (
            Open,
            [
                name(b"a"),
                vec![5, 6, 1, 2, 3, 4, 0, 80, 5, 6, 1, 2, 3, 4, 0, 80],
            ]
            .concat(),
            "source: given twice",
        ),
        (
            Open,
            [name(b"a"), vec![6, 6, 1, 2, 3, 4, 0, 80]].concat(),
            "address: cut short",
        ),
        (
            Open,
            vec![1, 1, 1, 2, 7, 1, 2, 3, 4, 0, 80, 9],
            "1 bytes left over",
        ),
        (Open, vec![1, 1, 1, 2, 5, 1, 2, 3, 4, 0], "port: cut short"),
        (Open, vec![1, 1, 1, 2, 9, 1], "tagged value: cut short"),
        (
            Open,
            vec![1, 1, 0x82, 0x80, 0x80, 0x80, 0x10, 2, 6, 1, 2, 3, 4, 0, 80],
            "domain: out of bounds",
        ),
        (Open, name(b""), "host: out of bounds"),
        (Open, name(b"a b"), "host: not valid text"),
        (Open, name("ä".as_bytes()), "host: not valid text"),
        (
            Open,
            [name(b"a"), vec![4, 1, 0x0a]].concat(),
            "service: not valid text",
        ),
        (
            Open,
            [name(b"a"), vec![4, 1, 0xff]].concat(),
            "service: not valid text",
        ),
        (
            Open,
            [name(b"a"), vec![4, 64], vec![b's'; 64]].concat(),
            "service: out of bounds",
        ),
        (
            Open,
            [name(b"a"), vec![7, 1, 0]].concat(),
            "weight: out of bounds",
        ),
        (
            Open,
            [name(b"a"), vec![7, 2, 0xe9, 0x07]].concat(),
            "weight: out of bounds",
        ),
        (
            Open,
            [name(b"a"), vec![7, 3, 0x80, 0x80, 0x04]].concat(),
            "weight: out of bounds",
        ),
        (
            Open,
            [name(b"a"), vec![7, 1, 2, 7, 1, 2]].concat(),
            "weight: given twice",
        ),
        (
            Opened,
            vec![1, 1, 2, 6, 1, 2, 3, 4, 0, 80, 2, 6, 1, 2, 3, 4, 0, 80],
            "bound: given twice",
        ),
        (Finish, vec![1, 1], "offset: cut short"),
        (Finish, vec![1, 1, 1, 1], "1 bytes left over"),
        (Reset, vec![1, 1], "reason: cut short"),
        (StopSending, vec![1, 0, 1], "stream: out of bounds"),
        (GoAway, vec![0, 1], "number: out of bounds"),
        (Hello, vec![2, 1, 1, 16], "tagged value: cut short"),
        (Hello, vec![1, 1], "instance: missing"),
        (
            Hello,
            [instance.clone(), vec![4, 1, 1, 4, 1, 1]].concat(),
            "tag: given twice",
        ),
        (
            Hello,
            [instance.clone(), vec![3, 31], vec![0; 31]].concat(),
            "secret: cut short",
        ),
        (
            Hello,
            [instance.clone(), vec![13, 2, 0, 0]].concat(),
            "1 bytes left over",
        ),
        (
            Hello,
            [instance.clone(), vec![12, 64], vec![b'n'; 64]].concat(),
            "name: out of bounds",
        ),
        (
            Hello,
            [vec![2], instance[1..].to_vec()].concat(),
            "version_max: out of bounds",
        ),
        (Ack, ack(&[0, 5]), "ranges: out of bounds"),
        (Ack, ack(&[0x81, 0x02, 5]), "ranges: out of bounds"),
        (Ack, ack(&[1, 5, 5]), "length: out of bounds"),
        (Ack, ack(&[2, 9, 0, 7, 0]), "length: out of bounds"),
        (Ack, ack(&[2, 9, 0, 8, 0]), "gap: out of bounds"),
        (
            Ack,
            ack(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0]),
            "largest: out of bounds",
        ),
        (Ack, vec![1, 5, 0, 65], "not stored: out of bounds"),
        (Ack, vec![1, 5, 0, 1, 0, 0, 0], "length: out of bounds"),
        (
            Ack,
            vec![1, 5, 0, 1, 0, 0, 0x81, 0x80, 0x10],
            "length: out of bounds",
        ),
        (Refuse, vec![1, 0, 0], "reason: out of bounds"),
        (Refuse, vec![1, 1, 1, 0, 2, 0, 1], "space: out of bounds"),
        (Refuse, vec![1, 1, 65], "lost: out of bounds"),
        (Credit, vec![1, 0, 1], "turn: out of bounds"),
        (Yield, vec![0, 0, 1], "stream: out of bounds"),
        (Coverage, vec![0, 0, 0, 0, 0, 0, 0], "name: out of bounds"),
        (
            Coverage,
            vec![0, 1, b'x', 2, 0, 0, 0, 0],
            "log: out of bounds",
        ),
        (
            Coverage,
            vec![0, 1, b'x', 0, 2, 1, 0, 0],
            "tail: out of bounds",
        ),
        (
            Coverage,
            vec![0, 1, b'x', 0, 0, 9, 65, 0],
            "epochs: out of bounds",
        ),
        (
            Coverage,
            vec![0, 1, b'x', 0, 0, 9, 0, 2, 0, 1, 0, 1],
            "hole gap: out of bounds",
        ),
        (
            Coverage,
            vec![0, 1, b'x', 0, 0, 9, 0, 1, 0, 0],
            "hole length: out of bounds",
        ),
        (
            Coverage,
            vec![0, 1, b'x', 0, 0, 9, 0, 1, 1, 9],
            "holes: out of bounds",
        ),
        (
            Coverage,
            [
                &[0, 1, b'x', 0, 0, 9, 2][..],
                &[1; 16],
                &[5],
                &[2; 16],
                &[4],
                &[0],
            ]
            .concat(),
            "epoch start: out of bounds",
        ),
        (
            Floor,
            vec![0, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
            "position: out of bounds",
        ),
        (
            Quota,
            vec![0x80, 0x80, 0x80, 0x80, 0x10, 0],
            "domain: out of bounds",
        ),
        (Renew, vec![], "request: missing"),
        (Renewed, vec![0, 0], "certificates: out of bounds"),
        (Renewed, vec![0, 9], "certificates: out of bounds"),
        (Renewed, vec![0, 1, 0], "certificate: missing"),
        (Renewed, vec![0, 1, 2, 1], "certificate: cut short"),
        (Renewed, vec![1, 0xc3], "message: not valid text"),
        (Ping, vec![0; 7], "token: cut short"),
        (Pong, vec![0; 9], "1 bytes left over"),
    ];
    for (kind, payload, message) in cases {
        assert_eq!(
            refused(kind, &payload),
            format!("bad frame: {kind}: {message}"),
            "{payload:?}"
        );
    }
}

#[test]
fn what_must_not_be_written() {
    let stream = StreamId(1);
    let empty = Bytes::new();
    for frame in [
        Frame::Data(Data {
            number: 1,
            offset: 0,
            last: true,
            bytes: empty.clone(),
        }),
        Frame::Data(Data {
            number: 1,
            offset: BLOCK_ENCODED_MAX,
            last: true,
            bytes: Bytes::from_static(b"x"),
        }),
        Frame::Finish {
            number: 0,
            stream,
            offset: 0,
        },
        Frame::Reset {
            number: 1,
            stream: StreamId::TUNNEL,
            reason: Reason::Cancelled,
        },
        Frame::Ack(Ack::default()),
        Frame::Quota {
            domain: DomainId(u64::MAX),
            bytes: 0,
        },
        Frame::Renew { request: empty },
        Frame::Renew {
            request: Bytes::from(vec![0; RENEW_REQUEST_MAX_BYTES + 1]),
        },
        Frame::Renewed(Renewed::Refused {
            status: 0,
            message: String::new(),
        }),
        Frame::Hello(Hello {
            name: "n".repeat(NAME_MAX_BYTES + 1),
            ..Hello::default()
        }),
    ] {
        let mut out = BytesMut::new();
        assert!(FrameCodec.encode(&frame, &mut out).is_err(), "{frame:?}");
        assert!(out.is_empty());
    }
}

#[test]
fn unknown_tags_and_reasons_are_read_over() {
    let mut wire =
        BytesMut::from([3, 15, 2, 1, 1, 2, 6, 1, 2, 3, 4, 0, 80, 0x70, 2, 9, 9].as_slice());
    let Some(Frame::Open(open)) = FrameCodec.decode(&mut wire).unwrap() else {
        panic!("an Open")
    };
    assert_eq!(open.target, Target::Address("1.2.3.4:80".parse().unwrap()));
    let mut wire = BytesMut::from([8, 2, 1, 200].as_slice());
    assert_eq!(
        FrameCodec.decode(&mut wire).unwrap(),
        Some(Frame::GoAway {
            number: 1,
            reason: Reason::Internal
        })
    );
}

/// An Open whose target is this Unix socket, as a peer that does not keep to the protocol would write it.
fn open_of_path(path: &[u8]) -> BytesMut {
    let length = |bytes: usize| u8::try_from(bytes).unwrap();
    let mut payload = vec![2, 1, 0, 8];
    if path.len() < 128 {
        payload.push(length(path.len()));
    } else {
        payload.extend([length(path.len() % 128 + 128), length(path.len() / 128)]);
    }
    payload.extend(path);
    let mut wire = vec![3];
    if payload.len() < 128 {
        wire.push(length(payload.len()));
    } else {
        wire.extend([
            length(payload.len() % 128 + 128),
            length(payload.len() / 128),
        ]);
    }
    wire.extend(payload);
    BytesMut::from(wire.as_slice())
}

#[test]
fn a_path_is_absolute_plain_and_short() {
    let of_length = |length: usize| [&b"/"[..], &vec![b'a'; length - 1]].concat();
    for path in [&b"/run/app"[..], b"/a", b"/..a/.b/c..", &of_length(107)] {
        let frame = FrameCodec.decode(&mut open_of_path(path)).unwrap();
        let Some(Frame::Open(open)) = frame else {
            panic!("an Open")
        };
        let path = String::from_utf8(path.to_vec()).unwrap();
        assert_eq!(open.target, Target::Unix(path));
    }
    for path in [
        &b""[..],
        b"/",
        b"//",
        b"run/app",
        b"./app",
        b"../app",
        b"/run/../etc/app",
        b"/run/..",
        b"/run/./app",
        b"/run//app",
        b"/run/app/",
        b"/run/\0app",
        b"\0abstract",
        b"/run/a\nb",
        b"/run/\xff",
        &of_length(108),
        &of_length(3_000),
    ] {
        let error = FrameCodec.decode(&mut open_of_path(path));
        assert!(error.is_err(), "{}", path.escape_ascii());
        if let Ok(path) = String::from_utf8(path.to_vec()) {
            let frame = Frame::Open(Open {
                number: 2,
                stream: StreamId(1),
                domain: None,
                target: Target::Unix(path),
                service: String::new(),
                source: None,
                weight: std::num::NonZeroU16::MIN,
            });
            assert!(FrameCodec.encode(&frame, &mut BytesMut::new()).is_err());
        }
    }
    // Two targets are none.
    let mut wire = BytesMut::from([3, 14, 2, 1, 0, 2, 6, 1, 2, 3, 4, 0, 80, 8, 1, 47].as_slice());
    assert!(FrameCodec.decode(&mut wire).is_err());
}

#[test]
fn a_secret_does_not_show() {
    let hello = Hello {
        secret: Some(Secret([0xab; 32])),
        ..Hello::default()
    };
    let shown = format!("{hello:?}");
    assert!(
        !shown.contains("171") && !shown.to_lowercase().contains("ab, "),
        "{shown}"
    );
}

fn stored(plain_length: u32) -> BlockHeader {
    BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(1),
        stream_offset: 0,
        plain_length,
        body: BodyKind::Stored,
        domain: Some(DomainId::SHARED),
        append: None,
        prefix: None,
        diagonals: [None; 2],
        inner_length: 0,
        replaces: None,
        checksum: Some(0),
    }
}

#[test]
fn headers() {
    let whole = |position| {
        Some(Span {
            position,
            length: 10,
        })
    };
    let prefix = |position, length| {
        Some(Source {
            space: Space::Sender,
            position,
            length,
        })
    };
    let zstd = BlockHeader {
        body: BodyKind::Zstd,
        inner_length: 5,
        ..stored(10)
    };
    let raw = BlockHeader {
        body: BodyKind::Raw,
        ..stored(10)
    };
    let bad = [
        BlockHeader {
            stream: StreamId::TUNNEL,
            ..stored(10)
        },
        stored(0),
        stored(262_145),
        BlockHeader {
            stream_offset: u64::MAX - 9,
            ..stored(10)
        },
        BlockHeader {
            domain: None,
            append: whole(0),
            ..stored(10)
        },
        BlockHeader {
            domain: None,
            diagonals: [Some(0), None],
            ..stored(10)
        },
        BlockHeader {
            domain: Some(DomainId(1 << 32)),
            ..stored(10)
        },
        BlockHeader {
            append: Some(Span {
                position: 0,
                length: 11,
            }),
            ..stored(10)
        },
        BlockHeader {
            append: Some(Span {
                position: 0,
                length: 0,
            }),
            ..stored(10)
        },
        BlockHeader {
            append: whole(POSITION_MAX - 9),
            ..stored(10)
        },
        BlockHeader {
            prefix: prefix(0, 10),
            ..stored(10)
        },
        BlockHeader {
            prefix: prefix(0, 0),
            ..zstd.clone()
        },
        BlockHeader {
            prefix: prefix(0, 262_145),
            ..zstd.clone()
        },
        BlockHeader {
            prefix: prefix(POSITION_MAX, 1),
            ..zstd.clone()
        },
        BlockHeader {
            prefix: prefix(5, 10),
            append: whole(14),
            ..zstd.clone()
        },
        BlockHeader {
            diagonals: [Some(i64::MIN), None],
            ..stored(10)
        },
        BlockHeader {
            diagonals: [None, Some(i64::MAX)],
            ..stored(10)
        },
        BlockHeader {
            diagonals: [Some(0), None],
            ..raw.clone()
        },
        BlockHeader {
            append: Some(Span {
                position: 0,
                length: 9,
            }),
            ..raw.clone()
        },
        BlockHeader {
            inner_length: 0,
            ..zstd.clone()
        },
        BlockHeader {
            inner_length: 85,
            ..zstd.clone()
        },
        BlockHeader {
            inner_length: 1,
            ..stored(10)
        },
        BlockHeader {
            replaces: Some(0),
            ..stored(10)
        },
        BlockHeader {
            replaces: Some(1),
            append: whole(0),
            ..stored(10)
        },
        BlockHeader {
            checksum: None,
            ..stored(10)
        },
        BlockHeader {
            checksum: None,
            append: whole(0),
            ..raw.clone()
        },
    ];
    for header in bad {
        assert!(header.check().is_err(), "{header:?}");
    }
    assert_eq!(zstd.check(), Ok(()));
    assert_eq!(
        BlockHeader {
            checksum: None,
            ..raw
        }
        .check(),
        Ok(())
    );
    for (wire, error) in [
        (&[0x03, 1, 0, 1][..], BlockError::UnknownFlags(3)),
        (&[0x80, 0x04, 1, 0, 1], BlockError::UnknownFlags(512)),
        (&[0x80, 0x00, 1, 0, 1], BlockError::Varint("flags")),
        (&[0x00, 1, 0], BlockError::CutShort("plain length")),
        (
            &[0x96, 0x01, 1, 0, 1, 0, 2],
            BlockError::OutOfBounds("prefix space"),
        ),
        (&[0x81, 0x01, 1, 0, 1, 9], BlockError::CutShort("checksum")),
    ] {
        assert_eq!(
            BlockHeader::decode(
                &mut Bytes::copy_from_slice(wire),
                BlockVersion::One,
                |_, _| Known::default()
            ),
            Err(error)
        );
    }
}

#[test]
fn operations() {
    let diagonals = [Some(0), None];
    let header = BlockHeader {
        diagonals,
        ..stored(100)
    };
    let read = |inner: &[u8]| Inner::read(&header, inner).map(|inner| inner.sums().literal_bytes);
    let literals = |count: usize| vec![0; count];
    // One copy of 40 bytes at position 10 (code (40 − 32) << 2), the rest literals.
    assert_eq!(
        read(&[&[3, 10, 32, 0], literals(60).as_slice()].concat()),
        Ok(60)
    );
    assert_eq!(
        read(&[&[3, 10, 32, 0], literals(59).as_slice()].concat()),
        Err(BlockError::Sum("literal lengths"))
    );
    assert_eq!(
        read(&[&[3, 10, 32, 0], literals(61).as_slice()].concat()),
        Err(BlockError::Sum("literal lengths"))
    );
    assert_eq!(read(&[]), Err(BlockError::CutShort("operations length")));
    assert_eq!(
        read(&[5, 10, 32, 0]),
        Err(BlockError::CutShort("operations"))
    );
    assert_eq!(read(&[1, 10]), Err(BlockError::CutShort("copy length")));
    assert_eq!(read(&[2, 10, 32]), Err(BlockError::CutShort("distance")));
    assert_eq!(
        read(&[3, 101, 32, 0]),
        Err(BlockError::Sum("literal lengths"))
    );
    assert_eq!(read(&[3, 61, 32, 0]), Err(BlockError::Sum("copy lengths")));
    assert_eq!(
        read(&[4, 10, 0xa0, 0x00, 0]),
        Err(BlockError::Varint("copy length"))
    );
    let far = [
        &[12, 0, 32][..],
        &[254, 255, 255, 255, 255, 255, 255, 255, 255, 1],
    ]
    .concat();
    assert_eq!(read(&far), Err(BlockError::OutOfBounds("copy source")));
    assert_eq!(
        read(&[3, 10, 32, 21]),
        Err(BlockError::OutOfBounds("copy source")),
        "11 bytes below the diagonal, at 10"
    );
    assert_eq!(
        read(&[3, 10, 33, 0]),
        Err(BlockError::Contradiction(
            "a copy from a space without a diagonal"
        ))
    );
    let wide = [
        &[12, 10][..],
        &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        &[0],
    ]
    .concat();
    assert_eq!(read(&wide), Err(BlockError::Sum("copy lengths")));
    // Operations behind the last plain byte.
    assert_eq!(
        read(&[6, 60, 32, 0, 0, 0, 0]),
        Err(BlockError::Sum("copy lengths"))
    );

    // The sum of what is appended, and the block's own append range.
    let append = |position, length| BlockHeader {
        append: Some(Span { position, length }),
        diagonals,
        ..stored(100)
    };
    let mut writer = Writer::new(BlockVersion::One);
    writer.literal(20);
    writer.copy(COPY_MIN, true, Space::Sender, 20);
    let mut inner = Vec::new();
    writer.put_inner(&mut inner);
    inner.extend_from_slice(&literals(68));
    assert!(Inner::read(&append(52, 100), &inner).is_ok());
    assert!(
        Inner::read(&append(0, 20), &inner)
            .is_err_and(|error| error == BlockError::Sum("appended lengths"))
    );
    let own = BlockError::Contradiction("a block must not use its own append range");
    assert!(Inner::read(&append(51, 100), &inner).is_err_and(|error| error == own));
}
