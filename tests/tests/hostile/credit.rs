//! A peer that grants nothing or everything, and blocks that wait for what does not come: what is held for it is bounded, and others are served.

use bytes::BytesMut;
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, Space, Span, ops};
use codec::frame::{
    Coverage, CoverageFrame, Data, DomainId, Epoch, Frame, Hello, HistorySide, RefuseReason,
    StreamId,
};
use tokio::net::TcpListener;
use wanproxy_tests::origin;
use wanproxy_tests::payload::Payload;
use xxhash_rust::xxh3::xxh3_64;

use super::bounds::assert_grew_within_bounds;
use super::peer::{Peer, hello};
use super::{Scene, open};

const STREAMS: u64 = 20;

/// Each target has so much to send.
const OFFERED_BYTES: u64 = 64 << 20;

fn hello_with(change: impl FnOnce(&mut Hello)) -> Frame {
    let Frame::Hello(mut hello) = hello() else {
        unreachable!("hello() is a Hello")
    };
    change(&mut hello);
    Frame::Hello(hello)
}

/// Opens streams to targets that have much to say.
async fn open_sources(link: &mut Peer, source: std::net::SocketAddr) {
    for stream in 0..STREAMS {
        link.send(&open(1 + stream, 1 + 2 * stream, source))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_grants_nothing_is_sent_nothing() {
    let scene = Scene::set().await;
    let source = origin::source(Payload::random(21), OFFERED_BYTES).unwrap();
    let before = scene.pair.server().resident_bytes().unwrap();
    let mut link = scene.link().await;
    let nothing = hello_with(|hello| {
        hello.initial_window_bytes = 0;
        hello.streams_max = 0;
        hello.unacknowledged_encoded_max_bytes = 0;
        hello.unacknowledged_plain_max_bytes = 0;
    });
    link.send(&nothing).await.unwrap();
    link.welcomed().await;
    open_sources(&mut link, source.address()).await;
    let mut opened = 0;
    while opened < STREAMS {
        match link.receive().await.expect("the link ended") {
            Frame::Data(data) => panic!("{data:?} was sent without credit"),
            Frame::Opened(_) => opened += 1,
            _ => {}
        }
    }
    for token in 0..200 {
        link.send(&Frame::Ping { token }).await.unwrap();
        loop {
            match link.receive().await.expect("the link ended") {
                Frame::Pong { token: back } if back == token => break,
                Frame::Data(data) => panic!("{data:?} was sent without credit"),
                _ => {}
            }
        }
    }
    scene.honest_works().await;
    assert_grew_within_bounds(scene.pair.server(), before);
    // It grants a little after all: the streams have waited.
    let some = Frame::Credit {
        stream: StreamId(1),
        turn: 1,
        offset: 10,
    };
    link.send(&some).await.unwrap();
    let bytes = link.receive_until("ten bytes", |frame| match frame {
        Frame::Data(data) => Some(data.bytes),
        _ => None,
    });
    let ten = Payload::random(21).bytes(0, 10);
    assert!(bytes.await.ends_with(&ten), "not what the target said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_grants_everything_and_reads_nothing_is_held_to_the_budget() {
    let scene = Scene::with("[memory]\nbudget = \"64MiB\"\n[history]\nsize = \"16MiB\"\n").await;
    let source = origin::source(Payload::random(22), OFFERED_BYTES).unwrap();
    let before = scene.pair.server().resident_bytes().unwrap();
    for most in [1 << 40, u64::MAX] {
        let mut link = scene.link().await;
        let everything = hello_with(|hello| {
            hello.initial_window_bytes = most;
            hello.streams_max = most;
            hello.unacknowledged_encoded_max_bytes = most;
            hello.unacknowledged_plain_max_bytes = most;
            hello.heartbeat_ms = most;
        });
        link.send(&everything).await.unwrap();
        link.welcomed().await;
        open_sources(&mut link, source.address()).await;
        link.receive_until("Data", |frame| {
            matches!(frame, Frame::Data(_)).then_some(())
        })
        .await;
        // Nothing is read from here on.
        for _ in 0..20 {
            scene.honest_works().await;
        }
        assert_grew_within_bounds(scene.pair.server(), before);
        scene.pair.server().id().expect("the server has ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_wait_for_what_never_comes_are_refused_beyond_a_bound() {
    /// The server keeps so many encoded bytes waiting (`PARKED_MAX_BYTES` in the tunnel).
    const PARKED_MAX_BYTES: u64 = 4 << 20;
    const WAITING: u64 = 48;
    const LITERAL_BYTES: u32 = 200_000;
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = scene.link().await;
    link.greet().await;
    agree(&mut link).await;
    for stream in 0..=WAITING {
        let open = open(1 + stream, 1 + 2 * stream, target.local_addr().unwrap());
        link.send(&open).await.unwrap();
    }
    // New streams are offered more than their first window.
    let mut granted = 0;
    while granted <= WAITING {
        granted += link
            .receive_until("credit for a block", |frame| match frame {
                Frame::Credit { offset, stream, .. }
                    if !stream.is_tunnel() && offset > u64::from(LITERAL_BYTES) + 64 =>
                {
                    Some(1)
                }
                _ => None,
            })
            .await;
    }
    // Begun and never finished: it would fill the history from its beginning.
    let first = 2 + WAITING;
    let mut begun = BytesMut::new();
    header(
        1,
        1_000,
        Some(Span {
            position: 0,
            length: 1_000,
        }),
    )
    .encode(Known::default(), &mut begun);
    link.send(&data(first, false, begun)).await.unwrap();
    for stream in 1..=WAITING {
        let block = waiting_block(1 + 2 * stream, LITERAL_BYTES);
        send_block(&mut link, first + stream, block).await;
    }
    let reason = link
        .receive_until("a Refuse", |frame| match frame {
            Frame::Refuse(refuse) => Some(refuse.reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, RefuseReason::Overload);
    assert!(link.is_alive(9).await);
    let metrics = scene.pair.server().metrics().await.unwrap();
    let parked = metrics.sum("wanproxy_memory_bytes", &[("use", "parked")]);
    let parked = parked.expect("a figure for what is parked");
    assert!(
        parked > 0.0 && parked <= (PARKED_MAX_BYTES + (1 << 20)) as f64,
        "{parked} bytes wait"
    );
    scene.honest_works().await;
}

/// Claims a history that is empty, and lets the server append nothing.
pub async fn agree(link: &mut Peer) {
    for side in [HistorySide::Own, HistorySide::Mirror] {
        let coverage = CoverageFrame {
            domain: DomainId::SHARED,
            name: "shared".to_owned(),
            side,
            coverage: Coverage {
                epochs: vec![Epoch {
                    id: [9; 16],
                    start: 0,
                }],
                ..Coverage::default()
            },
        };
        link.send(&Frame::Coverage(coverage)).await.unwrap();
    }
    let quota = Frame::Quota {
        domain: DomainId::SHARED,
        bytes: 0,
    };
    link.send(&quota).await.unwrap();
}

pub fn header(stream: u64, plain_length: u32, append: Option<Span>) -> BlockHeader {
    BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(stream),
        stream_offset: 0,
        plain_length,
        body: BodyKind::Raw,
        domain: append.map(|_| DomainId::SHARED),
        append,
        prefix: None,
        diagonals: [None, None],
        inner_length: 0,
        replaces: None,
        checksum: Some(1),
    }
}

fn data(number: u64, last: bool, bytes: BytesMut) -> Frame {
    Frame::Data(Data {
        number,
        offset: 0,
        last,
        bytes: bytes.freeze(),
    })
}

/// Sends an encoded block in as many fragments as it needs.
pub async fn send_block(link: &mut Peer, number: u64, block: BytesMut) {
    let block = block.freeze();
    let mut offset = 0;
    while offset < block.len() {
        let end = block.len().min(offset + 60_000);
        let fragment = Frame::Data(Data {
            number,
            offset: offset as u64,
            last: end == block.len(),
            bytes: block.slice(offset..end),
        });
        link.send(&fragment).await.unwrap();
        offset = end;
    }
}

/// Refers to what is to come at the history's beginning, and carries literals to be kept meanwhile.
fn waiting_block(stream: u64, literal_bytes: u32) -> BytesMut {
    let mut operations = ops::Writer::new(BlockVersion::One);
    operations.copy(64, false, Space::Sender, 0);
    operations.literal(literal_bytes);
    let literals = Payload::random(stream).bytes(0, usize::try_from(literal_bytes).unwrap());
    let header = BlockHeader {
        body: BodyKind::Stored,
        domain: Some(DomainId::SHARED),
        diagonals: operations.diagonals(),
        plain_length: 64 + literal_bytes,
        checksum: Some(xxh3_64(&literals)),
        ..header(stream, 1, None)
    };
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    operations.put_inner(&mut bytes);
    bytes.extend_from_slice(&literals);
    bytes
}
