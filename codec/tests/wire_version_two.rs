//! Version 2 of blocks, byte for byte: golden vectors of headers and operations, and what no correct sender writes.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::{Bytes, BytesMut};
use codec::block::ops::{Inner, Reader, Writer};
use codec::block::{
    BlockError, BlockHeader, BlockVersion, BodyKind, Known, Op, POSITION_MAX, Source, Space, Span,
};
use codec::frame::{DomainId, StreamId};

const TWO: BlockVersion = BlockVersion::Two;

/// "0a ff" as bytes.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| Some(u8::try_from(digit.to_digit(16)?).unwrap()))
        .collect();
    digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| high << 4 | low)
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn raw() -> BlockHeader {
    BlockHeader {
        version: TWO,
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

/// A message as most are: it goes on where its stream and the history end, and resembles what is before it.
fn message() -> BlockHeader {
    BlockHeader {
        body: BodyKind::ZstdBlock,
        domain: Some(DomainId::SHARED),
        append: Some(Span {
            position: 70_000,
            length: 1_000,
        }),
        prefix: Some(Source {
            space: Space::Sender,
            position: 70_000 - 12_288,
            length: 12_288,
        }),
        inner_length: 1_000,
        checksum: Some(0x0102_0304),
        ..raw()
    }
}

const AT_BOTH: Known = Known {
    stream_offset: 300,
    append_position: 70_000,
};

#[test]
fn headers() {
    let far = Known {
        stream_offset: 299,
        append_position: 4_000,
    };
    let vectors = [
        // flags, stream, plain length.
        (raw(), AT_BOTH, "00 05 e807"),
        // Counts, and one low byte of the offset.
        (raw(), far, "10 05 01 2c e807"),
        // Zstd block, all appended, prefix: 0 bytes before the append, (8 + 4) << 10; half a checksum.
        (message(), AT_BOTH, "0f 05 e807 00 54 04030201"),
        // One byte of the offset, three of the position would do for 66,000 beyond.
        (message(), far, "1f 05 31 2c 701101 e807 00 54 04030201"),
        (
            BlockHeader {
                body: BodyKind::Stored,
                replaces: Some(9),
                checksum: Some(1),
                ..raw()
            },
            // What is repeated says its offset in full, wherever it lies.
            AT_BOTH,
            "9104 05 08 2c01000000000000 e807 09 01000000",
        ),
        (
            BlockHeader {
                plain_length: 5_000,
                body: BodyKind::Zstd,
                domain: Some(DomainId(3)),
                append: Some(Span {
                    position: 70_000,
                    length: 10,
                }),
                prefix: Some(Source {
                    space: Space::Receiver,
                    position: 1,
                    length: 9,
                }),
                diagonals: [Some(-1), Some(64)],
                inner_length: 17,
                checksum: Some(0x0102_0304_0506_0708),
                ..raw()
            },
            AT_BOTH,
            "ea03 05 03 8827 0a 03 01 01 8001 11 0807060504030201",
        ),
    ];
    for (header, known, text) in vectors {
        let expected = unhex(text);
        let mut wire = BytesMut::new();
        header.encode(known, &mut wire);
        assert_eq!(hex(&wire), hex(&expected), "{header:?}");
        let read = BlockHeader::decode(&mut wire.freeze(), TWO, |_, _| known);
        assert_eq!(read, Ok(header));
    }
}

#[test]
fn operations() {
    let copies = [
        // Literals before, length, append, space, position.
        (3, 100, false, Space::Sender, 1_003),
        // On the diagonal of the last.
        (2, 32, true, Space::Sender, 1_105),
        // Elsewhere.
        (0, 40, true, Space::Receiver, 5_000),
        // Back on the diagonal of the place before.
        (0, 32, false, Space::Sender, 1_177),
        // At the end of the place before.
        (7, 48, false, Space::Receiver, 5_040),
        // At the end of the last.
        (1, 32, false, Space::Receiver, 5_088),
        // 10 bytes beyond the running diagonal of the sender's space.
        (0, 32, false, Space::Sender, 1_307),
    ];
    let mut writer = Writer::new(TWO);
    for (literal, length, append, space, position) in copies {
        writer.literal(literal);
        writer.copy(length, append, space, position);
    }
    writer.literal(2);
    // Literal length, (length − 32) << 4 | append << 3 | mode, distance in modes 0 and 1.
    let expected = "03 c008 00  02 0a  00 8901 00  00 04  07 8502  01 03  00 00 14";
    assert_eq!(hex(writer.bytes()), hex(&unhex(expected)));
    assert_eq!(writer.diagonals(), [Some(1_000), Some(4_863)]);

    let mut read = Vec::new();
    for op in Reader::new(
        TWO,
        writer.bytes(),
        writer.plain_length(),
        writer.diagonals(),
    ) {
        if let Op::Copy {
            length,
            append,
            space,
            position,
        } = op.unwrap()
        {
            read.push((length, append, space, position));
        }
    }
    let wanted: Vec<_> = copies
        .iter()
        .map(|&(_, length, append, space, position)| (length, append, space, position))
        .collect();
    assert_eq!(read, wanted);
}

#[test]
fn literals_alone_are_the_inner_part() {
    let mut writer = Writer::new(TWO);
    writer.literal(5);
    let mut inner = Vec::new();
    writer.put_inner(&mut inner);
    assert_eq!(inner, b"");
    let header = BlockHeader {
        plain_length: 5,
        body: BodyKind::Stored,
        checksum: Some(0),
        ..raw()
    };
    assert_eq!(Inner::read(&header, b"abcde").unwrap().literals(), b"abcde");
    for wrong in [&b"abcd"[..], b"abcdef", b""] {
        let error = Inner::read(&header, wrong).unwrap_err();
        assert_eq!(error, BlockError::Sum("literal lengths"));
    }
}

#[test]
fn what_no_correct_sender_writes() {
    let bad = [
        // Of a block that uses no history nothing is said of one.
        BlockHeader {
            checksum: Some(1),
            ..raw()
        },
        BlockHeader {
            checksum: Some(1 << 32),
            ..message()
        },
        BlockHeader {
            checksum: None,
            ..message()
        },
        BlockHeader {
            inner_length: 1_001,
            ..message()
        },
        // A length that no code says, and a prefix that begins below the append and ends in what is above it.
        BlockHeader {
            prefix: Some(Source {
                space: Space::Sender,
                position: 0,
                length: 12_289,
            }),
            ..message()
        },
        BlockHeader {
            prefix: Some(Source {
                space: Space::Sender,
                position: 80_000,
                length: 8,
            }),
            ..message()
        },
        BlockHeader {
            version: BlockVersion::One,
            ..message()
        },
    ];
    for header in bad {
        assert!(header.check().is_err(), "{header:?}");
    }
    assert_eq!(message().check(), Ok(()));

    use BlockError::{Contradiction, CutShort, OutOfBounds, UnknownFlags};
    for (text, error) in [
        ("8008 05 01", UnknownFlags(0x400)),
        ("8401 05 01", Contradiction("all is appended, and some")),
        ("8002 05 00 01", OutOfBounds("domain")),
        ("8002 05 03 01", Contradiction("a domain that is not used")),
        ("10 05 00 01", OutOfBounds("counts of bytes")),
        (
            "9104 05 01 2c 01 09",
            Contradiction("a replacement whose offset is not whole"),
        ),
        (
            "8104 05 01 09",
            Contradiction("a replacement whose offset is not whole"),
        ),
        ("10 05 09 01", OutOfBounds("counts of bytes")),
        ("14 05 90 01", OutOfBounds("counts of bytes")),
        ("10 05 10 01", Contradiction("a position without an append")),
        ("10 05 03 0101", CutShort("stream offset")),
        ("14 05 21 01 01", CutShort("append position")),
        ("8101 05 0a 0a 00000000", OutOfBounds("append range")),
        // Before the log's beginning; longer than a prefix may be.
        (
            "0f 05 0a 80808080808001 00 00000000",
            OutOfBounds("prefix range"),
        ),
        ("0f 05 0a 00 79 00000000", OutOfBounds("prefix range")),
        ("0f 05 0a 00 ff 00000000", OutOfBounds("prefix range")),
        (
            "0c 05 0a 00 54 00000000",
            Contradiction("a prefix needs a zstd body"),
        ),
        ("0f 05 0a 00", CutShort("prefix length")),
        ("01 05 0a 000000", CutShort("checksum")),
    ] {
        let mut wire = Bytes::from(unhex(text));
        let read = BlockHeader::decode(&mut wire, TWO, |_, _| AT_BOTH);
        assert_eq!(read, Err(error), "{text}");
    }
    // A place beyond all: the next one with these low bytes does not fit.
    let known = Known {
        stream_offset: u64::MAX,
        append_position: POSITION_MAX,
    };
    for text in ["10 05 01 00 01", "04 05 0a 00000000"] {
        let read = BlockHeader::decode(&mut Bytes::from(unhex(text)), TWO, |_, _| known);
        assert!(matches!(read, Err(OutOfBounds(_))), "{text}: {read:?}");
    }
}

#[test]
fn operations_that_go_on_where_nothing_was() {
    let read = |text: &str| -> Result<Vec<Op>, BlockError> {
        Reader::new(TWO, &unhex(text), 1_000, [Some(100), None]).collect()
    };
    let nowhere = BlockError::Contradiction("a copy that goes on where none was");
    for mode in 2..6 {
        assert_eq!(read(&format!("00 0{mode}")), Err(nowhere));
    }
    // After one copy there is a last place, and none before it.
    for (mode, known) in [(2, true), (3, true), (4, false), (5, false)] {
        let ops = read(&format!("00 00 00 00 0{mode}"));
        assert_eq!(ops.is_ok(), known, "{mode}: {ops:?}");
    }
    for mode in [6, 7] {
        assert_eq!(
            read(&format!("00 0{mode}")),
            Err(BlockError::OutOfBounds("copy mode"))
        );
    }
    assert_eq!(
        read("00 01 00"),
        Err(BlockError::Contradiction(
            "a copy from a space without a diagonal"
        ))
    );
    assert_eq!(read("00 00"), Err(BlockError::CutShort("distance")));
    assert_eq!(
        read("00 00 00 00 9275"),
        Err(BlockError::Sum("copy lengths"))
    );
}
