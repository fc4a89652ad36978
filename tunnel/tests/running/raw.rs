//! A client's link on which anything can be said.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use bytes::{Bytes, BytesMut};
use codec::frame::{Frame, FrameCodec, Hello, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder};
use tunnel::environment::{ClientIdentity, Environment};
use tunnel::tls::Session;

/// A TLS connection on which anything can be said.
pub struct RawLink {
    socket: TcpStream,
    session: Session,
    plain: BytesMut,
}

impl RawLink {
    /// Connects to `server` as `identity`.
    pub async fn to(
        server: SocketAddr,
        identity: &dyn ClientIdentity,
        environment: &Environment,
    ) -> Self {
        let socket = TcpStream::connect(server).await.unwrap();
        let pool = &environment.pools.crypto;
        let (socket, session) = identity.tls().connect(socket, pool).await.unwrap();
        Self {
            socket,
            session,
            plain: BytesMut::new(),
        }
    }

    pub async fn say(&mut self, plain: &[u8]) {
        let sealed = self.session.seal(&[Bytes::copy_from_slice(plain)]).unwrap();
        self.socket.write_all(&sealed).await.unwrap();
    }

    pub async fn say_frame(&mut self, frame: Frame) {
        let mut plain = BytesMut::new();
        FrameCodec.encode(frame, &mut plain).unwrap();
        self.say(&plain).await;
    }

    /// The next frame, or none when the server has closed.
    pub async fn hear(&mut self) -> Option<Frame> {
        let mut wire = vec![0; 65_536];
        loop {
            if let Some(frame) = FrameCodec.decode(&mut self.plain).unwrap() {
                return Some(frame);
            }
            match self.socket.read(&mut wire).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => {
                    self.session.open(&wire[..n], &mut self.plain).unwrap();
                }
            }
        }
    }

    pub async fn hear_hello(&mut self) -> Hello {
        match self.hear().await {
            Some(Frame::Hello(hello)) => hello,
            other => unreachable!("Hello was due, {other:?} came"),
        }
    }

    /// Says Hello and gives the server's.
    pub async fn greet(&mut self, hello: Hello) -> Hello {
        self.say_frame(Frame::Hello(hello)).await;
        self.hear_hello().await
    }

    /// What proves over this link that `secret` is known.
    pub fn proof(&self, secret: &Secret, generation: u64) -> [u8; 32] {
        let mut proved = self.session.exporter().to_vec();
        proved.extend_from_slice(&generation.to_le_bytes());
        proved.extend_from_slice(&0_u64.to_le_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        hmac::sign(&key, &proved).as_ref().try_into().unwrap()
    }

    /// Says goodbye and breaks the connection right behind it, as one does who is still being sent something.
    pub async fn leaves_rudely(mut self) {
        let goodbye = self.session.close_notify().unwrap();
        self.socket.write_all(&goodbye).await.unwrap();
        self.socket.set_zero_linger().unwrap();
    }

    pub async fn closes(mut self) {
        while self.hear().await.is_some() {}
    }
}

pub fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        instance: [7; 16],
        initial_window_bytes: 16_384,
        streams_max: 100,
        unacknowledged_encoded_max_bytes: 1 << 20,
        unacknowledged_plain_max_bytes: 1 << 20,
        heartbeat_ms: 5_000,
        name: "evil".to_owned(),
        ..Hello::default()
    }
}
