//! Clients that do not keep to the protocol, against a server that others use meanwhile.

use bytes::{Bytes, BytesMut};
use codec::frame::{Data, Frame, FrameCodec, Hello, HelloStatus, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::Encoder;
use tunnel::environment::Environment;

use crate::identities::Authority;
use crate::raw::{RawLink, hello};
use crate::support::{
    INLINE_BELOW_BYTES, PATIENCE, Server, connect, environment, on_runtime, payload, receive_all,
    send_all, spec,
};

/// A server, a client that uses it, and what is needed to misbehave towards it.
struct Stage {
    authority: Authority,
    environment: Environment,
    server: Server,
}

impl Stage {
    async fn new() -> Self {
        let authority = Authority::new();
        let hq = Environment {
            // Nobody who misbehaves here answers a Ping, and that shall not be what ends a tunnel.
            heartbeat: PATIENCE,
            ..environment("hq", INLINE_BELOW_BYTES)
        };
        let server = Server::start(&authority, hq).await;
        Self {
            authority,
            environment: environment("evil", INLINE_BELOW_BYTES),
            server,
        }
    }

    async fn link(&self) -> RawLink {
        let identity = self.authority.client("evil");
        RawLink::to(self.server.address, &*identity, &self.environment).await
    }

    /// The server still serves, and nothing of the other is left.
    async fn still_works(mut self) {
        self.server.has_tunnels(0).await;
        let connector = connect(
            &[self.server.address],
            self.authority.client("branch-1"),
            environment("branch-1", INLINE_BELOW_BYTES),
        );
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let (send_half, _recv) = tunnel.open(spec()).unwrap().split();
        let (_send, far_recv) = self.server.accept().await.split();
        send_all(send_half, payload(10_000)).await;
        assert_eq!(receive_all(far_recv).await, payload(10_000));
    }
}

#[test]
fn a_version_that_is_not_spoken_is_refused_in_words() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut link = stage.link().await;
        link.say_frame(Frame::Hello(Hello {
            version_min: 3,
            version_max: 9,
            ..hello()
        }))
        .await;
        let answer = link.hear_hello().await;
        assert_eq!(answer.status, HelloStatus::Version);
        assert!(answer.message.contains("3 to 9"), "{}", answer.message);
        link.closes().await;
        stage.still_works().await;
    });
}

#[test]
fn a_tunnel_that_the_server_does_not_hold_is_refused() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut link = stage.link().await;
        link.say_frame(Frame::Hello(Hello {
            tunnel: Some([1; 16]),
            ..hello()
        }))
        .await;
        assert_eq!(link.hear_hello().await.status, HelloStatus::UnknownTunnel);
        link.closes().await;
        stage.still_works().await;
    });
}

#[test]
fn another_frame_than_hello_comes_first() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut link = stage.link().await;
        link.say_frame(Frame::Ping { token: 1 }).await;
        link.closes().await;
        stage.still_works().await;
    });
}

#[test]
fn what_is_no_frame_ends_the_tunnel() {
    on_runtime(async {
        // An unknown type; a length over its type's bound; a length that is no canonical varint; a second Hello.
        let mut second_hello = BytesMut::new();
        FrameCodec
            .encode(Frame::Hello(hello()), &mut second_hello)
            .unwrap();
        let garbage: [&[u8]; 4] = [
            &[0xee, 0x01, 0x00],
            &[0x01, 0xff, 0xff, 0x7f],
            &[0x1b, 0x88, 0x00],
            &second_hello,
        ];
        for bytes in garbage {
            let stage = Stage::new().await;
            let mut link = stage.link().await;
            link.say_frame(Frame::Hello(hello())).await;
            assert!(link.hear_hello().await.status.is_accepted());
            link.say(bytes).await;
            link.closes().await;
            stage.still_works().await;
        }
    });
}

#[test]
fn data_of_a_stream_that_was_never_opened_ends_the_tunnel() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut link = stage.link().await;
        link.say_frame(Frame::Hello(hello())).await;
        assert!(link.hear_hello().await.status.is_accepted());
        // flags: raw body, no history; stream 1, offset 0, one byte.
        link.say_frame(Frame::Data(Data {
            number: 1,
            offset: 0,
            last: true,
            bytes: Bytes::from_static(&[0, 1, 0, 1, b'x']),
        }))
        .await;
        link.closes().await;
        stage.still_works().await;
    });
}

#[test]
fn a_finish_of_a_stream_of_the_other_side_ends_the_tunnel() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut link = stage.link().await;
        link.say_frame(Frame::Hello(hello())).await;
        assert!(link.hear_hello().await.status.is_accepted());
        link.say_frame(Frame::Finish {
            number: 1,
            stream: StreamId(2),
            offset: 0,
        })
        .await;
        link.closes().await;
        stage.still_works().await;
    });
}

#[test]
fn a_fifth_tunnel_of_one_identity_is_refused_and_the_four_stay() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut links = Vec::new();
        for n in 0..4 {
            let mut link = stage.link().await;
            link.say_frame(Frame::Hello(Hello {
                instance: [n; 16],
                ..hello()
            }))
            .await;
            assert!(link.hear_hello().await.status.is_accepted());
            stage.server.has_tunnels(usize::from(n) + 1).await;
            links.push(link);
        }
        let mut fifth = stage.link().await;
        fifth
            .say_frame(Frame::Hello(Hello {
                instance: [9; 16],
                ..hello()
            }))
            .await;
        assert_eq!(fifth.hear_hello().await.status, HelloStatus::Limit);
        fifth.closes().await;
        stage.server.has_tunnels(4).await;
        drop(links);
        stage.still_works().await;
    });
}

#[test]
fn bytes_that_are_no_tls_are_turned_away() {
    on_runtime(async {
        let stage = Stage::new().await;
        let mut socket = TcpStream::connect(stage.server.address).await.unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nHost: hq\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        // It ends; a TLS alert may come before.
        let _ = socket.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP"));
        stage.still_works().await;
    });
}

#[test]
fn a_connection_that_says_nothing_closes() {
    on_runtime(async {
        let stage = Stage::new().await;
        // One before TLS, one between TLS and Hello.
        let mut silent = TcpStream::connect(stage.server.address).await.unwrap();
        let link = stage.link().await;
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
        link.closes().await;
        stage.still_works().await;
    });
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    on_runtime(async {
        let stage = Stage::new().await;
        let other = Authority::new();
        // It trusts the server's authority, and shows another's certificate.
        let identity = stage.authority.client_certified_by("branch-1", &other);
        let connector = connect(
            &[stage.server.address],
            identity,
            environment("branch-1", INLINE_BELOW_BYTES),
        );
        while connector.status().last_error.is_none() {
            tokio::task::yield_now().await;
        }
        assert!(connector.present().is_none());
        drop(connector);
        // And a client does not talk to a server of another authority.
        let connector = connect(
            &[stage.server.address],
            other.client("branch-1"),
            environment("branch-1", INLINE_BELOW_BYTES),
        );
        let error = loop {
            if let Some(error) = connector.status().last_error {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert!(error.contains("cannot authenticate"), "{error}");
        drop(connector);
        stage.still_works().await;
    });
}
