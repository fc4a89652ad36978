//! The wire alone: frames, headers and operations.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::block::ops::{Inner, Writer};
use crate::block::{BlockHeader, BlockVersion, HEADER_MAX_BYTES, Op};
use crate::frame::{Frame, FrameCodec};

/// Takes `data` as what a link delivers: the frames must be the same however it is cut, and each must survive being written.
pub fn frames(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let (at_once, failed) = decode_all(&mut whole);
    let (mut held, mut piecewise) = (BytesMut::new(), Vec::new());
    let mut failed_piecewise = false;
    for piece in data.chunks(7) {
        held.extend_from_slice(piece);
        let (frames, failed) = decode_all(&mut held);
        piecewise.extend(frames);
        if failed {
            failed_piecewise = true;
            break;
        }
    }
    assert_eq!(
        (&at_once, failed),
        (&piecewise, failed_piecewise),
        "frames depend on how they arrive"
    );
    for frame in at_once {
        let mut wire = BytesMut::new();
        let written = FrameCodec.encode(&frame, &mut wire);
        assert!(
            written.is_ok(),
            "what was read cannot be written: {frame:?}: {written:?}"
        );
        let (again, failed) = decode_all(&mut wire);
        assert!(
            !failed && again.first() == Some(&frame) && again.len() == 1,
            "{frame:?} became {again:?}"
        );
    }
}

/// All whole frames at the start of `held`, and whether an error follows them.
fn decode_all(held: &mut BytesMut) -> (Vec<Frame>, bool) {
    let mut frames = Vec::new();
    loop {
        match FrameCodec.decode(held) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, false),
            Err(_) => return (frames, true),
        }
    }
}

/// Takes `data` as an encoded block: an accepted header has one form, and accepted operations cover the plain bytes exactly.
pub fn blocks(data: &[u8]) {
    for version in BlockVersion::ALL {
        block(&Bytes::copy_from_slice(data), version);
    }
}

fn block(whole: &Bytes, version: BlockVersion) {
    let known = super::decoding::KNOWN;
    let mut body = whole.clone();
    let Ok(header) = BlockHeader::decode(&mut body, version, |_, _| known) else {
        return;
    };
    let header_bytes = whole.len() - body.len();
    let mut wire = BytesMut::new();
    header.encode(known, &mut wire);
    assert!(wire.len() <= HEADER_MAX_BYTES);
    if version == BlockVersion::One {
        assert!(whole.starts_with(&wire), "a second form of {header:?}");
    } else {
        // Places may be said in more bytes than are needed: by a sender that knows less.
        assert!(wire.len() <= header_bytes, "a shorter form of {header:?}");
        let again = BlockHeader::decode(&mut wire.freeze(), version, |_, _| known);
        assert_eq!(again.as_ref(), Ok(&header));
    }
    if let Ok(inner) = Inner::read(&header, &body) {
        operations(&header, &inner);
    }
    super::decoding::decode(&header, &body);
}

fn operations(header: &BlockHeader, inner: &Inner<'_>) {
    let ops: Vec<Op> = inner.operations().collect();
    let (mut writer, mut literals) = (Writer::new(header.version), 0);
    for op in &ops {
        match *op {
            Op::Literal { length } => {
                literals += length as usize;
                writer.literal(length);
            }
            Op::Copy {
                length,
                append,
                space,
                position,
            } => writer.copy(length, append, space, position),
        }
    }
    assert_eq!(writer.plain_length(), header.plain_length);
    assert_eq!(writer.sums(), inner.sums());
    assert_eq!(literals, inner.literals().len());
    // Written again, they mean the same.
    let mut again = Vec::new();
    writer.put_inner(&mut again);
    again.extend_from_slice(inner.literals());
    let header = BlockHeader {
        diagonals: writer.diagonals(),
        ..header.clone()
    };
    let read = Inner::read(&header, &again);
    assert!(
        read.is_ok_and(|read| read.operations().eq(ops)),
        "operations changed when written again"
    );
}
