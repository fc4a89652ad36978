//! A peer that speaks TLS and frames as it likes, with a certificate that the server accepts.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use codec::frame::{Frame, FrameCodec, Hello, StreamId};
use codec::ranges::RangeSet;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Decoder, Encoder};

/// What has not come by then never will.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Application protocol of a link.
pub const ALPN: &[u8] = b"wanproxy/1";

/// Which certificate the peer shows.
pub enum Shows<'a> {
    Nothing,
    /// The one in this directory of a client edge.
    Certificate(&'a Path),
}

/// A link whose other end is a real server edge.
pub struct Peer {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    /// Numbers that the server has acknowledged.
    finished: RangeSet,
}

/// Connects with TLS, trusting the CA in `ca`.
pub async fn tls(server: SocketAddr, ca: &Path, shows: Shows<'_>, alpn: &[u8]) -> io::Result<Peer> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        Shows::Nothing => builder.with_no_client_auth(),
        Shows::Certificate(directory) => {
            let chain = CertificateDer::pem_file_iter(directory.join("edge.pem")).unwrap();
            let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_file(directory.join("edge.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let socket = TcpStream::connect(server).await?;
    let name = ServerName::try_from("server.wanproxy").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    Ok(Peer {
        stream,
        buffer: BytesMut::new(),
        finished: RangeSet::new(),
    })
}

/// A Hello of a new tunnel, as an honest client would say it.
pub fn hello() -> Frame {
    Frame::Hello(Hello {
        version_min: 1,
        version_max: 1,
        instance: [7; 16],
        initial_window_bytes: 1 << 20,
        streams_max: 100,
        unacknowledged_encoded_max_bytes: 1 << 20,
        unacknowledged_plain_max_bytes: 1 << 20,
        heartbeat_ms: 60_000,
        name: "intruder".to_owned(),
        ..Hello::default()
    })
}

/// The frame as it travels.
pub fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec.encode(frame, &mut bytes).unwrap();
    bytes
}

impl Peer {
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&encoded(frame)).await
    }

    /// The server's next frame; `None` when it has ended the link.
    pub async fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = FrameCodec
                .decode(&mut self.buffer)
                .expect("the server sent a bad frame")
            {
                match &frame {
                    Frame::Ack(ack) => self.finished.insert_all(&ack.numbers),
                    // On a busy machine a test may be silent for longer than a dead line.
                    Frame::Ping { token } => {
                        let _ended_already = self.send(&Frame::Pong { token: *token }).await;
                    }
                    _ => {}
                }
                return Some(frame);
            }
            let read = timeout(ANSWER_LIMIT, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("the server said nothing and did not end the link") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Skips frames until one is wanted.
    pub async fn receive_until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(Frame) -> Option<T>,
    ) -> T {
        loop {
            let frame = self
                .receive()
                .await
                .unwrap_or_else(|| panic!("the link ended; waited for {what}"));
            if let Some(found) = wanted(frame) {
                return found;
            }
        }
    }

    /// Says Hello, reads the server's and waits until streams may be opened.
    pub async fn greet(&mut self) -> Hello {
        self.send(&hello()).await.unwrap();
        self.welcomed().await
    }

    /// The same for one that has said Hello already.
    pub async fn welcomed(&mut self) -> Hello {
        let answer = self
            .receive_until("Hello", |frame| match frame {
                Frame::Hello(hello) => Some(hello),
                _ => None,
            })
            .await;
        if answer.streams_max == 0 {
            self.receive_until("credit for Opens", |frame| {
                matches!(
                    frame,
                    Frame::Credit {
                        stream: StreamId::TUNNEL,
                        ..
                    }
                )
                .then_some(())
            })
            .await;
        }
        answer
    }

    /// Whether the server still answers on this link.
    pub async fn is_alive(&mut self, token: u64) -> bool {
        if self.send(&Frame::Ping { token }).await.is_err() {
            return false;
        }
        while let Some(frame) = self.receive().await {
            if frame == (Frame::Pong { token }) {
                return true;
            }
        }
        false
    }

    /// Waits until the server has acted on everything up to this number, and returns the frames that came before, but Acks.
    pub async fn acknowledged(&mut self, number: u64) -> Vec<Frame> {
        let mut others = Vec::new();
        while self.finished.lowest_gap(1) <= number {
            match self.receive().await {
                Some(Frame::Ack(_)) => {}
                Some(other) => others.push(other),
                None => panic!("the link ended; waited for the Ack of {number}"),
            }
        }
        others
    }

    /// Ends the socket without a word of TLS.
    pub fn vanish(self) {
        drop(self.stream.into_inner().0);
    }

    /// Reads until the server has ended the link.
    pub async fn ended(&mut self) {
        while self.receive().await.is_some() {}
    }
}
