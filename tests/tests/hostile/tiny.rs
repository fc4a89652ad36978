//! Everything in pieces of one byte: what they cost beside their bytes is bounded, and they mean the same.

use bytes::BytesMut;
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known};
use codec::frame::{Data, Frame, StreamId};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use wanproxy_tests::eventually;
use wanproxy_tests::payload::Payload;
use xxhash_rust::xxh3::xxh3_64;

use super::peer::{encoded, hello};
use super::{Scene, open, raw_block};

/// Streams whose blocks come byte by byte at the same time: each of a window, together a million frames.
const STREAMS: u64 = 64;

/// What an edge may grow by for a million fragments of a byte, in bytes: a sixth of what they took when each was kept by itself.
const FRAGMENTS_MAX_BYTES: u64 = 24 << 20;

/// Small pieces that may wait behind gaps; one more ends the tunnel (`SCATTERED_MAX` in the tunnel).
const SCATTERED_MAX: u64 = 65_536 + 16_384;

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_byte_by_byte_are_the_same_frames() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = scene.link().await;
    for byte in encoded(&hello()) {
        link.send_bytes(&[byte]).await.unwrap();
    }
    link.welcomed().await;
    for frame in [
        open(1, 1, target.local_addr().unwrap()),
        raw_block(2, 1, 0, b"one by one"),
    ] {
        for byte in encoded(&frame) {
            link.send_bytes(&[byte]).await.unwrap();
        }
    }
    let (mut reached, _) = target.accept().await.unwrap();
    let mut received = [0; 10];
    reached.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"one by one");
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_fragments_of_a_byte_take_little_more_memory_than_their_bytes() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = scene.link().await;
    let window_bytes = usize::try_from(link.greet().await.initial_window_bytes).unwrap();
    for stream in 0..STREAMS {
        let open = open(1 + stream, 1 + 2 * stream, target.local_addr().unwrap());
        link.send(&open).await.unwrap();
    }
    link.acknowledged(STREAMS).await;
    let before = scene.pair.server().resident_bytes().unwrap();
    let mut last = Vec::new();
    for stream in 0..STREAMS {
        let plain = Payload::random(stream).bytes(0, window_bytes);
        let number = 1 + STREAMS + stream;
        let mut frames = fragments(number, 1 + 2 * stream, &plain);
        last.push(frames.pop().unwrap());
        let bytes: BytesMut = frames.iter().flat_map(encoded).collect();
        link.send_bytes(&bytes).await.unwrap();
    }
    assert!(link.is_alive(1).await, "each fragment is allowed");
    let now = scene.pair.server().resident_bytes().unwrap();
    assert!(
        now < before + FRAGMENTS_MAX_BYTES,
        "memory went from {before} to {now} bytes, more than {FRAGMENTS_MAX_BYTES} more"
    );
    scene.honest_works().await;
    for frame in last {
        link.send(&frame).await.unwrap();
    }
    // Opens are dialed side by side, so the connections come in any order.
    let mut expected: Vec<Vec<u8>> = (0..STREAMS)
        .map(|stream| Payload::random(stream).bytes(0, window_bytes))
        .collect();
    for _ in 0..STREAMS {
        let (mut reached, _) = target.accept().await.unwrap();
        let mut received = vec![0; window_bytes];
        reached.read_exact(&mut received).await.unwrap();
        let place = expected.iter().position(|plain| *plain == received);
        expected.swap_remove(place.expect("other bytes than were sent"));
    }
}

/// A raw block in fragments of one byte behind its header.
fn fragments(number: u64, stream: u64, plain: &[u8]) -> Vec<Frame> {
    let header = BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(stream),
        stream_offset: 0,
        plain_length: u32::try_from(plain.len()).unwrap(),
        body: BodyKind::Raw,
        domain: None,
        append: None,
        prefix: None,
        diagonals: [None, None],
        inner_length: 0,
        replaces: None,
        checksum: Some(xxh3_64(plain)),
    };
    let mut begun = BytesMut::new();
    header.encode(Known::default(), &mut begun);
    let header_bytes = begun.len();
    let of = |offset: usize, last, bytes| {
        Frame::Data(Data {
            number,
            offset: offset as u64,
            last,
            bytes,
        })
    };
    let first = of(0, false, begun.freeze());
    let bytes = plain.iter().enumerate().map(|(at, byte)| {
        let bytes = BytesMut::from(&[*byte][..]).freeze();
        of(header_bytes + at, at + 1 == plain.len(), bytes)
    });
    std::iter::once(first).chain(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_byte_arrive_in_order_and_their_reader_may_take_its_time() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = scene.link().await;
    let window_bytes = usize::try_from(link.greet().await.initial_window_bytes).unwrap();
    link.send(&open(1, 1, target.local_addr().unwrap()))
        .await
        .unwrap();
    let plain = Payload::random(5).bytes(0, window_bytes);
    let mut bytes = BytesMut::new();
    for (at, byte) in plain.iter().enumerate() {
        let block = raw_block(2 + at as u64, 1, at as u64, &[*byte]);
        bytes.extend_from_slice(&encoded(&block));
    }
    link.send_bytes(&bytes).await.unwrap();
    link.acknowledged(1 + window_bytes as u64).await;
    let (mut reached, _) = target.accept().await.unwrap();
    let mut received = vec![0; window_bytes];
    reached.read_exact(&mut received).await.unwrap();
    assert_eq!(received, plain);
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_scattered_over_their_streams_end_the_tunnel_before_they_fill_memory() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = scene.link().await;
    let window_bytes = link.greet().await.initial_window_bytes;
    // Every second byte, and never the first: nothing can be given out, and nothing joined.
    let pieces_per_stream = window_bytes / 2 - 1;
    let streams = SCATTERED_MAX.div_ceil(pieces_per_stream) + 1;
    for stream in 0..streams {
        let open = open(1 + stream, 1 + 2 * stream, target.local_addr().unwrap());
        link.send(&open).await.unwrap();
    }
    link.acknowledged(streams).await;
    let mut number = streams;
    for stream in 0..streams {
        let mut bytes = BytesMut::new();
        for piece in 0..pieces_per_stream {
            number += 1;
            let block = raw_block(number, 1 + 2 * stream, 1 + 2 * piece, b"x");
            bytes.extend_from_slice(&encoded(&block));
        }
        let pieces = number - streams;
        let sent = link.send_bytes(&bytes).await;
        if pieces > SCATTERED_MAX {
            break;
        }
        sent.expect("fewer than may wait");
        link.acknowledged(number).await;
    }
    link.ended().await;
    eventually("the log says why", async || {
        let log = scene.pair.server().last_log_lines();
        if log.contains("too many gaps") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    scene.honest_works().await;
}
