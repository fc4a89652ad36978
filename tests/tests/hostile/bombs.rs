//! Little that claims to be much: compressed bodies, copies of copies, and heads that never end.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, Space, Span, inner_max_bytes, ops};
use codec::frame::{Data, DomainId, Frame};
use codec::varint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wanproxy_tests::origin;
use xxhash_rust::xxh3::xxh3_64;

use super::bounds::{GIVEN_UP_WITHIN, assert_grew_within_bounds, every_listener, exchange};
use super::credit::{agree, header, send_block};
use super::peer::{ALPN, Shows, encoded, hello, tls};
use super::{Scene, open};

/// Plain bytes of each bomb's block, by its header: what a stream may have at once.
const DECLARED_BYTES: u32 = 16 << 10;

/// A zstd frame, without its magic number, of zeros: as many blocks of 128 KiB, each of four bytes, as the body of a block may hold.
fn zeros(frame_header: &[u8]) -> Vec<u8> {
    const RUN_BYTES: u32 = 128 << 10;
    const RUN_LENGTH_ENCODED: u32 = 1 << 1;
    let room = usize::try_from(inner_max_bytes(DECLARED_BYTES)).unwrap();
    let blocks = (room - frame_header.len()) / 4;
    let mut frame = frame_header.to_vec();
    for block in 1..=blocks {
        let is_last = u32::from(block == blocks);
        let header = RUN_BYTES << 3 | RUN_LENGTH_ENCODED | is_last;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_becomes_a_gibibyte_ends_the_tunnel_where_its_declared_length_ends() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before = scene.pair.server().resident_bytes().unwrap();
    // One that says its length, one that says the declared length, and two that say none: with a window of 2 GiB, and with the largest.
    let frame_headers: [Vec<u8>; 4] = [
        [&[0b1110_0000][..], &(1u64 << 30).to_le_bytes()].concat(),
        [&[0b1010_0000][..], &DECLARED_BYTES.to_le_bytes()].concat(),
        vec![0, 21 << 3],
        vec![0, 0xff],
    ];
    for frame_header in frame_headers {
        let mut link = scene.link().await;
        link.greet().await;
        link.send(&open(1, 1, target.local_addr().unwrap()))
            .await
            .unwrap();
        let header = BlockHeader {
            body: BodyKind::Zstd,
            inner_length: u32::try_from(inner_max_bytes(DECLARED_BYTES)).unwrap(),
            ..header(1, DECLARED_BYTES, None)
        };
        let mut block = BytesMut::new();
        header.encode(Known::default(), &mut block);
        block.extend_from_slice(&zeros(&frame_header));
        send_block(&mut link, 2, block).await;
        link.ended().await;
        assert_grew_within_bounds(scene.pair.server(), before);
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_claims_more_than_a_block_may_have_ends_the_tunnel() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for claimed in [0, (256 << 10) + 1, 1 << 32, u64::MAX] {
        let mut link = scene.link().await;
        link.greet().await;
        link.send(&open(1, 1, target.local_addr().unwrap()))
            .await
            .unwrap();
        // Flags of a raw body, stream, offset, length; version 1.
        let mut block = BytesMut::new();
        for field in [0, 1, 0, claimed] {
            varint::put(&mut block, field);
        }
        block.put_slice(b"little");
        let data = Data {
            number: 2,
            offset: 0,
            last: true,
            bytes: block.freeze(),
        };
        link.send(&Frame::Data(data)).await.unwrap();
        link.ended().await;
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_copies_are_held_to_the_credit_of_what_they_become() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before = scene.pair.server().resident_bytes().unwrap();
    let mut link = scene.link().await;
    link.greet().await;
    agree(&mut link).await;
    link.send(&open(1, 1, target.local_addr().unwrap()))
        .await
        .unwrap();
    // A kilobyte of its own, and from there on each block doubles all that was said, in a few bytes.
    let seed = [7; 1024];
    let mut plain_bytes = seed.len() as u64;
    let first = BlockHeader {
        checksum: Some(xxh3_64(&seed)),
        ..header(
            1,
            1024,
            Some(Span {
                position: 0,
                length: 1024,
            }),
        )
    };
    let mut block = BytesMut::new();
    first.encode(Known::default(), &mut block);
    block.extend_from_slice(&seed);
    send_block(&mut link, 2, block).await;
    link.acknowledged(2).await;
    let mut number = 3;
    let mut encoded_bytes = 0;
    while plain_bytes < 256 << 10 {
        let block = doubling(plain_bytes);
        encoded_bytes += block.len();
        send_block(&mut link, number, block).await;
        link.acknowledged(number).await;
        plain_bytes *= 2;
        number += 1;
    }
    assert!(encoded_bytes < 1_000, "{encoded_bytes} encoded bytes");
    let (mut reached, _) = target.accept().await.unwrap();
    let mut received = vec![0; usize::try_from(plain_bytes).unwrap()];
    reached.read_exact(&mut received).await.unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    // The target reads no more: what it may be sent ends, however little the line has to carry for it.
    for repeated in 0..400 {
        let block = repeating(plain_bytes + repeated * (256 << 10));
        let frame = Frame::Data(Data {
            number: number + repeated,
            offset: 0,
            last: true,
            bytes: block.freeze(),
        });
        if link.send(&frame).await.is_err() {
            break;
        }
    }
    link.ended().await;
    assert_grew_within_bounds(scene.pair.server(), before);
    scene.honest_works().await;
}

/// A block that says the first `length` bytes of the history, and appends them.
fn doubling(length: u64) -> BytesMut {
    let plain_length = u32::try_from(length).unwrap();
    let mut operations = ops::Writer::new(BlockVersion::One);
    operations.copy(plain_length, true, Space::Sender, 0);
    let header = BlockHeader {
        body: BodyKind::Stored,
        stream_offset: length,
        domain: Some(DomainId::SHARED),
        append: Some(Span {
            position: length,
            length: plain_length,
        }),
        diagonals: operations.diagonals(),
        checksum: Some(xxh3_64(&vec![7; usize::try_from(length).unwrap()])),
        ..header(1, plain_length, None)
    };
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    operations.put_inner(&mut bytes);
    bytes
}

/// A block that says 256 KiB of the history again.
fn repeating(stream_offset: u64) -> BytesMut {
    const LENGTH: u32 = 256 << 10;
    let mut operations = ops::Writer::new(BlockVersion::One);
    operations.copy(LENGTH, false, Space::Sender, 0);
    let header = BlockHeader {
        body: BodyKind::Stored,
        stream_offset,
        domain: Some(DomainId::SHARED),
        diagonals: operations.diagonals(),
        checksum: Some(xxh3_64(&vec![7; LENGTH as usize])),
        ..header(1, LENGTH, None)
    };
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    operations.put_inner(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_has_room_for_what_is_unknown_and_no_more() {
    let scene = Scene::set().await;
    let ca = scene.intruder.join("ca.pem");
    let link = async || {
        tls(
            scene.server(),
            &ca,
            Shows::Certificate(&scene.intruder),
            ALPN,
        )
        .await
        .unwrap()
    };
    // The frame's payload, to which something is added.
    let honest = encoded(&hello());
    let payload = Bytes::copy_from_slice(&honest[2..]);
    assert_eq!(
        usize::from(honest[1]),
        payload.len(),
        "a length of one byte"
    );
    let with = |more: &[u8]| {
        let mut frame = BytesMut::from(&honest[..1]);
        varint::put(&mut frame, (payload.len() + more.len()) as u64);
        frame.extend_from_slice(&payload);
        frame.extend_from_slice(more);
        frame
    };
    // Two thousand fields of a tag that nobody knows, each empty.
    let unknown: Vec<u8> = std::iter::repeat_n([99, 0], 1_900).flatten().collect();
    let mut welcome = link().await;
    welcome.send_bytes(&with(&unknown)).await.unwrap();
    welcome.welcomed().await;
    welcome.vanish();
    let too_many: Vec<u8> = std::iter::repeat_n([99, 0], 30_000).flatten().collect();
    let twice = [12, 1, b'a'];
    let beyond_its_end = [99, 0xff, 0xff, 3];
    let long_name = [&[13, 64][..], &[b'a'; 64]].concat();
    for (what, more) in [
        ("too many fields", &too_many[..]),
        ("a name twice", &twice),
        ("a field beyond the end", &beyond_its_end),
        ("a status of 64 bytes", &long_name),
    ] {
        let mut link = link().await;
        let _refused_already = link.send_bytes(&with(more)).await;
        assert_eq!(link.receive().await, None, "{what}");
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_are_given_up_at_their_bound_on_every_listener() {
    const CONNECTIONS: usize = 16;
    let echo = origin::echo().unwrap();
    let pair = every_listener(echo.address()).start().await.unwrap();
    let edges = [pair.client(), pair.server()];
    let before = edges.map(|edge| edge.resident_bytes().unwrap());
    let address = |name| pair.client().address(name).unwrap();
    let version_two = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\xff\xff";
    let heads: Vec<(SocketAddr, &[u8])> = vec![
        (address("socks5"), b"\x04\x01\x00\x50\x00\x00\x00\x01"),
        (address("proxy"), b"GET http://127.0.0.1/"),
        (address("proxy"), b"GET http://127.0.0.1/ HTTP/1.1\r\nA: "),
        (address("proxy"), b"CONNECT "),
        (address("proxied"), b"PROXY TCP4 "),
        (address("proxied"), version_two),
        (pair.server().address("back").unwrap(), b"PROXY TCP6 "),
        (pair.server().address("back").unwrap(), version_two),
        (
            pair.client().admin_address().unwrap(),
            b"GET / HTTP/1.1\r\nA: ",
        ),
        (pair.server().admin_address().unwrap(), b"GET /"),
    ];
    let mut floods = Vec::new();
    for (address, head) in heads {
        for _ in 0..CONNECTIONS {
            floods.push((
                head.escape_ascii().to_string(),
                tokio::spawn(flood(address, head.to_vec())),
            ));
        }
    }
    for (head, flood) in floods {
        let given_up = timeout(GIVEN_UP_WITHIN, flood).await;
        given_up
            .unwrap_or_else(|_| panic!("{head}: still taken after {GIVEN_UP_WITHIN:?}"))
            .unwrap();
    }
    for (edge, before) in edges.into_iter().zip(before) {
        assert_grew_within_bounds(edge, before);
        assert!(edge.is_ready().await, "the admin endpoint serves");
    }
    exchange(&mut TcpStream::connect(address("echo")).await.unwrap())
        .await
        .unwrap();
}

/// Sends a head and then its last byte for ever, until the other side has had enough.
async fn flood(address: SocketAddr, head: Vec<u8>) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let more = vec![b'a'; 64 << 10];
    let _refused_already = connection.write_all(&head).await;
    let (mut reader, mut writer) = connection.split();
    let mut answer = Vec::new();
    let writing = async { while writer.write_all(&more).await.is_ok() {} };
    tokio::select! {
        _ended = reader.read_to_end(&mut answer) => {}
        () = writing => {}
    }
}
