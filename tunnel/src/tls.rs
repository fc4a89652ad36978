//! TLS 1.3 between the edges: the only file that names rustls.
//!
//! The handshake is driven by tokio-rustls inside jobs of pool `crypto`; afterwards the connection is taken out of
//! it and used as a pair of pure transformations, [`Session::seal`] and [`Session::open`], which do no I/O and never
//! block. One mutex guards the connection; it is held for at most [`BATCH_MAX`] bytes of sealing or opening.

use std::io::{BufRead, IoSlice, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use aws_lc_rs::hmac;
use bytes::{Bytes, BytesMut};
use codec::frame::Secret;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::pool::{Job, JobName, Pool, Priority, Step, StepContext};

/// The most plain bytes that one seal job takes, and the most wire bytes that one open job takes: bounds how long the
/// lock around a connection is held (about 8 µs of AES-GCM).
pub const BATCH_MAX: usize = 64 * 1024;

/// Application protocol of a link (ALPN).
const ALPN: &[u8] = b"wanproxy/1";

/// The DNS name that every server edge's certificate carries; the client edge verifies it.
pub const SERVER_NAME: &str = "server.wanproxy";

/// Label of the TLS exporter from which a resuming link's proof is made.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-wanproxy-resume";

/// What went wrong with TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate, key or CA cannot be used together.
    #[error("the certificate, key or CA cannot be used: {0}")]
    Identity(String),
    /// The handshake failed, or an alert came, or a record did not verify.
    #[error("TLS failed: {0}")]
    Protocol(#[from] rustls::Error),
    /// The socket failed during the handshake.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The pool was closed or the job panicked.
    #[error("the crypto pool has stopped")]
    PoolStopped,
    /// The other side does not speak this protocol.
    #[error("the other side does not speak wanproxy/1 over TLS 1.3 (no ALPN agreement)")]
    NotWanproxy,
}

/// An edge's own certificate chain and key, and the CA that it trusts.
pub struct Credentials {
    /// Own chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Private key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Trust anchors for the peer's chain.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Credentials {
    fn root_store(&self) -> Result<rustls::RootCertStore, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        for root in &self.roots {
            roots
                .add(root.clone())
                .map_err(|e| TlsError::Identity(e.to_string()))?;
        }
        Ok(roots)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Client side of TLS: made from [`Credentials`], cheap to clone, replaced as a whole on reload.
#[derive(Clone)]
pub struct ClientTls(Arc<rustls::ClientConfig>);

impl ClientTls {
    /// Builds the client side. Fails when key and certificate do not belong together.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(credentials.root_store()?)
            .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
            .map_err(|e| TlsError::Identity(e.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        Ok(Self(Arc::new(config)))
    }

    /// Handshakes over `socket` in jobs of `pool`. Cancel-safe: dropping the future closes the socket.
    pub async fn connect(
        &self,
        socket: TcpStream,
        pool: &Pool,
    ) -> Result<(TcpStream, Session), TlsError> {
        let name =
            ServerName::try_from(SERVER_NAME).map_err(|e| TlsError::Identity(e.to_string()))?;
        let connect = tokio_rustls::TlsConnector::from(self.0.clone()).connect(name, socket);
        let stream = handshake(pool, Box::pin(connect)).await?;
        let (socket, connection) = stream.into_inner();
        Ok((
            socket,
            Session::new(rustls::Connection::Client(connection))?,
        ))
    }
}

/// Server side of TLS: made from [`Credentials`], cheap to clone, replaced as a whole on reload.
#[derive(Clone)]
pub struct ServerTls(Arc<rustls::ServerConfig>);

impl ServerTls {
    /// Builds the server side, which demands a certificate of the same CA from every client.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        let roots = Arc::new(credentials.root_store()?);
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|e| TlsError::Identity(e.to_string()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
            .map_err(|e| TlsError::Identity(e.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Tickets that a client never reads turn its close into an RST, which loses bytes still in flight.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Self(Arc::new(config)))
    }

    /// Handshakes over an accepted `socket` in jobs of `pool`. Cancel-safe: dropping the future closes the socket.
    pub async fn accept(
        &self,
        socket: TcpStream,
        pool: &Pool,
    ) -> Result<(TcpStream, Session), TlsError> {
        let accept = tokio_rustls::TlsAcceptor::from(self.0.clone()).accept(socket);
        let stream = handshake(pool, Box::pin(accept)).await?;
        let (socket, connection) = stream.into_inner();
        Ok((
            socket,
            Session::new(rustls::Connection::Server(connection))?,
        ))
    }
}

/// One established TLS connection without its socket. Shared by the seal job and the open job of a link.
pub struct Session {
    connection: Mutex<rustls::Connection>,
    peer_chain: Vec<CertificateDer<'static>>,
    exporter: [u8; 32],
}

fn proof_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

/// What [`Session::open`] found besides plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenReport {
    /// The peer said `close_notify`: an EOF that follows is clean.
    pub closed: bool,
    /// TLS itself has bytes to send (a KeyUpdate): call [`Session::pending_output`].
    pub wants_write: bool,
}

impl Session {
    fn new(mut connection: rustls::Connection) -> Result<Self, TlsError> {
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(TlsError::NotWanproxy);
        }
        connection.set_buffer_limit(None);
        let peer_chain = connection.peer_certificates().unwrap_or_default().to_vec();
        let exporter = connection.export_keying_material([0_u8; 32], EXPORTER_LABEL, None)?;
        Ok(Self {
            connection: Mutex::new(connection),
            peer_chain,
            exporter,
        })
    }

    /// The peer's verified certificate chain, leaf first.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.peer_chain
    }

    /// 32 bytes of keying material bound to this connection, for the proof of a resuming link.
    pub fn exporter(&self) -> &[u8; 32] {
        &self.exporter
    }

    /// Proves over this connection, and no other, that whoever speaks knows `secret`: it carries on with a tunnel (docs/protocol.md, Hello).
    pub(crate) fn prove(&self, secret: &Secret, generation: u64, link_index: u64) -> [u8; 32] {
        let tag = hmac::sign(&proof_key(secret), &self.proved(generation, link_index));
        let mut proof = [0; 32];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether the peer's `proof` is right.
    pub(crate) fn verifies(
        &self,
        secret: &Secret,
        generation: u64,
        link_index: u64,
        proof: &[u8; 32],
    ) -> bool {
        let proved = self.proved(generation, link_index);
        hmac::verify(&proof_key(secret), &proved, proof).is_ok()
    }

    fn proved(&self, generation: u64, link_index: u64) -> [u8; 48] {
        let mut proved = [0; 48];
        let numbers = generation
            .to_le_bytes()
            .into_iter()
            .chain(link_index.to_le_bytes());
        for (to, from) in proved
            .iter_mut()
            .zip(self.exporter.into_iter().chain(numbers))
        {
            *to = from;
        }
        proved
    }

    fn lock(&self) -> MutexGuard<'_, rustls::Connection> {
        // A panic inside rustls leaves records half made at worst; the peer's record check then ends the link.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals `plain` (at most [`BATCH_MAX`] bytes plus frame headers) into TLS records, packed across slice borders.
    pub fn seal(&self, plain: &[Bytes]) -> Result<Bytes, TlsError> {
        let total: usize = plain.iter().map(Bytes::len).sum();
        let mut slices: Vec<IoSlice<'_>> = plain.iter().map(|b| IoSlice::new(b)).collect();
        let mut connection = self.lock();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let written = connection.writer().write_vectored(rest)?;
            if written == 0 {
                break;
            }
            IoSlice::advance_slices(&mut rest, written);
        }
        drain_output(&mut connection, total + total / 256 + 64)
    }

    /// TLS bytes that wait to be sent without new plain bytes (KeyUpdate answers, alerts).
    pub fn pending_output(&self) -> Result<Bytes, TlsError> {
        drain_output(&mut self.lock(), 64)
    }

    /// The `close_notify` record.
    pub fn close_notify(&self) -> Result<Bytes, TlsError> {
        let mut connection = self.lock();
        connection.send_close_notify();
        drain_output(&mut connection, 64)
    }

    /// Opens wire bytes; appends the plain bytes to `plain`. A record that does not verify is an error for good.
    pub fn open(&self, wire: &[u8], plain: &mut BytesMut) -> Result<OpenReport, TlsError> {
        let mut connection = self.lock();
        let mut rest = wire;
        let mut closed = false;
        loop {
            let before = rest.len();
            if !rest.is_empty() {
                connection.read_tls(&mut rest)?;
            }
            closed |= connection.process_new_packets()?.peer_has_closed();
            loop {
                let mut reader = connection.reader();
                let taken = match reader.fill_buf() {
                    Ok(chunk) => {
                        plain.extend_from_slice(chunk);
                        chunk.len()
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
                    Err(e) => return Err(e.into()),
                };
                if taken == 0 {
                    break;
                }
                reader.consume(taken);
            }
            if rest.is_empty() || rest.len() == before {
                break;
            }
        }
        Ok(OpenReport {
            closed,
            wants_write: connection.wants_write(),
        })
    }
}

fn drain_output(connection: &mut rustls::Connection, capacity: usize) -> Result<Bytes, TlsError> {
    let mut sealed = Vec::with_capacity(capacity);
    while connection.wants_write() {
        connection.write_tls(&mut sealed)?;
    }
    Ok(Bytes::from(sealed))
}

/// Remembers a wake-up that came while the handshake was away in a job, so that none is lost.
struct StepWaker(Notify);

impl Wake for StepWaker {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// One poll of a handshake, as a job of pool `crypto`. The thread is given back when the handshake waits for the peer.
struct HandshakeStep<F> {
    future: Option<Pin<Box<F>>>,
    waker: Waker,
}

impl<F> Job for HandshakeStep<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = (Pin<Box<F>>, Poll<F::Output>);

    fn name(&self) -> JobName {
        JobName {
            who: "link".into(),
            why: "handshake",
        }
    }

    fn step(&mut self, _cx: &mut StepContext<'_>) -> Step<Self::Output> {
        let Some(mut future) = self.future.take() else {
            return Step::Stopped;
        };
        let poll = future.as_mut().poll(&mut Context::from_waker(&self.waker));
        Step::Finished((future, poll))
    }
}

async fn handshake<F, T>(pool: &Pool, future: Pin<Box<F>>) -> Result<T, TlsError>
where
    F: Future<Output = std::io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let woken = Arc::new(StepWaker(Notify::new()));
    let mut future = future;
    loop {
        let step = HandshakeStep {
            future: Some(future),
            waker: Waker::from(woken.clone()),
        };
        let (back, poll) = crate::pool::run(pool, step, Priority::Second)
            .await
            .ok_or(TlsError::PoolStopped)?;
        match poll {
            Poll::Ready(result) => return Ok(result?),
            Poll::Pending => future = back,
        }
        woken.0.notified().await;
    }
}
