//! Peers, clients and passers-by that mean harm: each is turned away, and an honest client notices nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod again;
mod bombs;
mod bounds;
mod credit;
mod lies;
mod peer;
mod tiny;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known, Space, Span, ops};
use codec::frame::{
    Coverage, CoverageFrame, Data, DomainId, Epoch, Frame, HelloStatus, HistorySide, Open,
    StreamId, Target,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wanproxy_tests::eventually;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{Pair, run_command};
use wanproxy_tests::payload::Payload;
use xxhash_rust::xxh3::xxh3_64;

use peer::{ALPN, Peer, Shows, hello, tls};

/// A pair that works, an echo behind it, and the credentials of a client that turned bad.
struct Scene {
    pair: Pair,
    echo: Server,
    intruder: PathBuf,
}

impl Scene {
    async fn set() -> Self {
        Self::with("").await
    }

    /// The same with `server_toml` merged into the server's configuration.
    async fn with(server_toml: &str) -> Self {
        let echo = origin::echo().unwrap();
        let pair = Pair::builder()
            .forward("echo", echo.address())
            .server_toml(server_toml)
            .start()
            .await
            .unwrap();
        // Its first connection replaces the invite's certificate by one that may open streams.
        let honest_so_far = pair.start_client("intruder", "").await.unwrap();
        eventually("the second client has a tunnel", async || {
            if honest_so_far.is_ready().await {
                Ok(())
            } else {
                Err(honest_so_far.last_log_lines())
            }
        })
        .await;
        // So that the next tunnel has the histories from its first block on, they are open, and nobody else has them. A tunnel has them
        // until it has ended; one that only lost its line gives way.
        eventually("its histories are open", async || {
            let (_, text) = pair.server().page("/api/history").await.unwrap();
            let page: serde_json::Value = serde_json::from_str(&text).unwrap();
            let domains = page["domains"].as_array().unwrap();
            let in_use =
                |line: &serde_json::Value| line["peer"] == "intruder" && line["in_use"] == true;
            if domains.iter().any(in_use) {
                Ok(())
            } else {
                Err(page)
            }
        })
        .await;
        drop(honest_so_far);
        eventually("the server has seen it leave", async || {
            let status = pair.server().status_json().await.unwrap();
            let tunnels = status["tunnels"].as_array().unwrap();
            let stays = |tunnel: &serde_json::Value| {
                tunnel["peer"] == "intruder" && tunnel["state"] != "detached"
            };
            if tunnels.iter().any(stays) {
                Err(status)
            } else {
                Ok(())
            }
        })
        .await;
        let intruder = pair.client_directory("intruder");
        Self {
            pair,
            echo,
            intruder,
        }
    }

    fn server(&self) -> SocketAddr {
        self.pair.server().tunnel_address().unwrap()
    }

    async fn link(&self) -> Peer {
        let ca = self.intruder.join("ca.pem");
        tls(self.server(), &ca, Shows::Certificate(&self.intruder), ALPN)
            .await
            .unwrap()
    }

    /// The honest client still gets its bytes back, through the same server process.
    async fn honest_works(&self) {
        let mut connection = TcpStream::connect(self.pair.client().address("echo").unwrap())
            .await
            .unwrap();
        connection.write_all(b"unimpressed").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut back = Vec::new();
        connection.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"unimpressed");
        self.pair.server().id().expect("the server has ended");
        let metrics = self.pair.server().metrics().await.unwrap();
        assert_eq!(
            metrics
                .sum("wanproxy_integrity_failures_total", &[])
                .unwrap_or(0.0),
            0.0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_is_dropped() {
    let scene = Scene::set().await;
    let random = Payload::random(3).bytes(0, 100_000);
    let record_too_long = [&[22, 3, 1, 255, 255][..], &random[..20_000]].concat();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &random,
        &record_too_long,
        b"",
    ] {
        let mut connection = TcpStream::connect(scene.server()).await.unwrap();
        let _reset_already = connection.write_all(garbage).await;
        let _reset_already = connection.shutdown().await;
        let mut answer = Vec::new();
        let _reset = connection.read_to_end(&mut answer).await;
        assert!(
            answer.len() < 100,
            "garbage was answered with {} bytes",
            answer.len()
        );
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_the_right_authority_nobody_gets_in() {
    let scene = Scene::set().await;
    let ca = scene.intruder.join("ca.pem");
    let other = other_authority(&scene.pair).await;
    for shows in [Shows::Nothing, Shows::Certificate(&other)] {
        // A TLS 1.3 client believes it is connected before the server has looked at its certificate; so what counts
        // is that nobody ever says Hello to it.
        if let Ok(mut link) = tls(scene.server(), &ca, shows, ALPN).await {
            let _refused_already = link.send(&hello()).await;
            assert_eq!(link.receive().await, None);
        }
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_protocol_is_refused() {
    let scene = Scene::set().await;
    let ca = scene.intruder.join("ca.pem");
    if let Ok(mut link) = tls(
        scene.server(),
        &ca,
        Shows::Certificate(&scene.intruder),
        b"h2",
    )
    .await
    {
        let _refused_already = link.send(&hello()).await;
        assert_eq!(link.receive().await, None);
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_trust_a_server_of_another_authority() {
    let scene = Scene::set().await;
    let other = other_authority(&scene.pair).await;
    let honest = scene.pair.join("branch-3").await.unwrap();
    std::fs::copy(other.join("ca.pem"), honest.join("ca.pem")).unwrap();
    let ca = honest.join("ca.pem");
    assert!(
        tls(scene.server(), &ca, Shows::Certificate(&honest), ALPN)
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_from_the_future_is_told_so() {
    let scene = Scene::set().await;
    let mut link = scene.link().await;
    let Frame::Hello(mut hello) = hello() else {
        unreachable!("hello() is a Hello")
    };
    (hello.version_min, hello.version_max) = (90, 91);
    link.send(&Frame::Hello(hello)).await.unwrap();
    let answer = link.receive_until("Hello", |frame| match frame {
        Frame::Hello(hello) => Some(hello),
        _ => None,
    });
    assert_eq!(answer.await.status, HelloStatus::Version);
    link.ended().await;
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_end_the_link_and_nothing_else() {
    let scene = Scene::set().await;
    let over_bound = [&[0x01][..], &[0xff, 0xff, 0xff, 0x7f]].concat();
    let endless_varint = [&[0x01][..], &[0xff; 12]].concat();
    let bad: [&[u8]; 6] = [
        &[0x7f, 0],                            // unknown type
        &over_bound,                           // a length over the bound
        &endless_varint,                       // a length that never ends
        &[0x13, 2, 0, 1],                      // Credit without its offset
        &[0x1b, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], // Ping with a byte left over
        &[0x10, 2, 1, 1],                      // a second Hello, without an instance
    ];
    for bytes in bad {
        for greeted in [false, true] {
            let mut link = scene.link().await;
            if greeted {
                link.greet().await;
            }
            link.send_bytes(bytes).await.unwrap();
            link.ended().await;
        }
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_cut_short_by_the_end_of_the_link_harms_nobody() {
    let scene = Scene::set().await;
    for (greeted, bytes) in [
        (false, &[0x10, 60, 1][..]),
        (true, &[0x01, 60, 1, 0]),
        (true, &[0x03]),
    ] {
        let mut link = scene.link().await;
        if greeted {
            link.greet().await;
        }
        link.send_bytes(bytes).await.unwrap();
        link.vanish();
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coverage_that_cannot_be_is_ignored() {
    let scene = Scene::set().await;
    let mut link = scene.link().await;
    link.greet().await;
    for side in [HistorySide::Own, HistorySide::Mirror] {
        link.send(&Frame::Coverage(CoverageFrame {
            domain: DomainId::SHARED,
            name: "shared".to_owned(),
            side,
            coverage: Coverage {
                floor: 0,
                tail: 1 << 40,
                epochs: vec![Epoch {
                    id: [9; 16],
                    start: 0,
                }],
                ..Coverage::default()
            },
        }))
        .await
        .unwrap();
    }
    assert!(
        link.is_alive(11).await,
        "an impossible claim is no violation"
    );
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_bytes_never_exchanged_ends_the_tunnel() {
    let scene = Scene::set().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (space, position) in [
        (Space::Sender, 0),
        (Space::Sender, 1 << 30),
        (Space::Receiver, 0),
        (Space::Receiver, 1 << 40),
    ] {
        let mut link = scene.link().await;
        link.greet().await;
        opens(&mut link, &listener).await;
        link.send(&copying_block(2, 1, space, position))
            .await
            .unwrap();
        link.ended().await;
        // Nothing of what was referred to reached the target.
        let (mut target, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        let _reset = target.read_to_end(&mut received).await;
        assert_eq!(received, b"");
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_beyond_credit_ends_the_tunnel() {
    let scene = Scene::set().await;
    let mut link = scene.link().await;
    let window_bytes = link.greet().await.initial_window_bytes;
    link.send(&open(1, 1, scene.echo.address())).await.unwrap();
    link.send(&raw_block(2, 1, window_bytes + (1 << 40), b"too far"))
        .await
        .unwrap();
    link.ended().await;
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_the_policy_does_not_name_is_refused_by_the_server_itself() {
    let scene = Scene::set().await;
    let mut link = scene.link().await;
    link.greet().await;
    link.send(&open(1, 1, "169.254.169.254:80".parse().unwrap()))
        .await
        .unwrap();
    let reason = link.receive_until("a Reset", |frame| match frame {
        Frame::Reset {
            stream: StreamId(1),
            reason,
            ..
        } => Some(reason),
        Frame::Opened(_) => panic!("a forbidden target was opened"),
        _ => None,
    });
    assert_eq!(reason.await, codec::frame::Reason::Policy);
    assert!(link.is_alive(5).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_never_says_hello_does_not_shut_a_client_out() {
    let scene = Scene::set().await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        // Another address of the loopback network, so that the crowd is told apart from the honest client.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        crowd.push(socket.connect(scene.server()).await.unwrap());
    }
    let late = scene.pair.start_client("branch-9", "").await.unwrap();
    eventually("a client gets in beside the crowd", async || {
        if late.is_ready().await {
            Ok(())
        } else {
            Err(late.last_log_lines())
        }
    })
    .await;
    drop(crowd);
    scene.honest_works().await;
}

/// The directory of a client edge that another authority made.
async fn other_authority(pair: &Pair) -> PathBuf {
    let (authority, client) = (
        pair.scratch().join("other"),
        pair.scratch().join("other-client"),
    );
    let invite = pair.scratch().join("other.invite");
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let server = pair.programs().server();
    let init = words(&format!(
        "init --address 127.0.0.1:7443 --dir {}",
        authority.display()
    ));
    assert_eq!(run_command(server, init).await.unwrap().code, Some(0));
    let ask = words(&format!(
        "invite intruder --dir {} --out {}",
        authority.display(),
        invite.display()
    ));
    assert_eq!(run_command(server, ask).await.unwrap().code, Some(0));
    let join = words(&format!(
        "join {} --dir {}",
        invite.display(),
        client.display()
    ));
    assert_eq!(
        run_command(pair.programs().client(), join)
            .await
            .unwrap()
            .code,
        Some(0)
    );
    client
}

/// Opens stream 1 to `target`, and waits until it is reached.
async fn opens(link: &mut Peer, target: &TcpListener) {
    link.send(&open(1, 1, target.local_addr().unwrap()))
        .await
        .unwrap();
    link.receive_until("Opened", |frame| {
        matches!(frame, Frame::Opened(_)).then_some(())
    })
    .await;
}

fn open(number: u64, stream: u64, target: SocketAddr) -> Frame {
    Frame::Open(Open {
        number,
        stream: StreamId(stream),
        domain: Some(DomainId::SHARED),
        target: Target::Address(target),
        service: "files".to_owned(),
        source: None,
        weight: NonZeroU16::MIN,
    })
}

/// A block whose bytes are 64 that were never exchanged.
fn copying_block(number: u64, stream: u64, space: Space, position: u64) -> Frame {
    copying_block_of(number, stream, space, position, DomainId::SHARED)
}

fn copying_block_of(
    number: u64,
    stream: u64,
    space: Space,
    position: u64,
    domain: DomainId,
) -> Frame {
    let mut operations = ops::Writer::new(BlockVersion::One);
    operations.copy(64, false, space, position);
    let header = BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(stream),
        stream_offset: 0,
        plain_length: 64,
        body: BodyKind::Stored,
        domain: Some(domain),
        append: None,
        prefix: None,
        diagonals: operations.diagonals(),
        inner_length: 0,
        replaces: None,
        checksum: Some(1),
    };
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    operations.put_inner(&mut bytes);
    whole_block(number, bytes.freeze())
}

fn raw_block(number: u64, stream: u64, stream_offset: u64, plain: &[u8]) -> Frame {
    let header = BlockHeader {
        version: BlockVersion::One,
        stream: StreamId(stream),
        stream_offset,
        plain_length: u32::try_from(plain.len()).unwrap(),
        body: BodyKind::Raw,
        domain: None,
        append: None::<Span>,
        prefix: None,
        diagonals: [None, None],
        inner_length: 0,
        replaces: None,
        checksum: Some(xxh3_64(plain)),
    };
    let mut bytes = BytesMut::new();
    header.encode(Known::default(), &mut bytes);
    bytes.extend_from_slice(plain);
    whole_block(number, bytes.freeze())
}

fn whole_block(number: u64, bytes: Bytes) -> Frame {
    Frame::Data(Data {
        number,
        offset: 0,
        last: true,
        bytes,
    })
}
