//! What all tunnels of one program share, and what the edge lends to the tunnel.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::block::BlockVersion;
pub use codec::frame::Renewed;
use codec::frame::{FEATURE_LINKS, FEATURE_SOURCE, FEATURE_UNIX, Hello, HelloStatus};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpSocket, TcpStream};

use crate::budget::Budget;
use crate::histories::Histories;
use crate::metrics::Registry;
use crate::pool::Pools;
use crate::state::{LevelChoice, Limits, LineSample, Side, TunnelConfig};
use crate::tls::{ClientTls, ServerTls};

/// Wire versions spoken: the newest, and the one before.
pub const VERSIONS: RangeInclusive<u64> = 1..=2;

/// TLS handshake and Hello together must be done within this time; an unauthenticated peer holds its place no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is done to a socket before it connects to an address.
pub type Prepare = Arc<dyn Fn(&TcpSocket, SocketAddr) + Send + Sync>;

/// Shared by all tunnels of a program. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    /// Random, one per start of the program.
    pub instance: [u8; 16],
    /// Wire versions to speak: [`VERSIONS`], or fewer where a test is an older program.
    pub versions: RangeInclusive<u64>,
    /// This edge's name, told to peers for their logs.
    pub name: String,
    /// The pools.
    pub pools: Arc<Pools>,
    /// The memory budget.
    pub budget: Arc<Budget>,
    /// The histories.
    pub histories: Arc<Histories>,
    /// Counters by service and peer.
    pub counters: Arc<Registry>,
    /// Blocks and batches up to this many bytes are worked on by the driver itself; 0: never.
    pub inline_below_bytes: usize,
    /// Without a byte for this long a Ping is sent; without one for three times as long the link is lost.
    pub heartbeat: Duration,
    /// For how long a tunnel outlives the loss of its line; zero: not at all.
    pub resume_window: Duration,
    /// What this edge accepts from a peer.
    pub limits: Limits,
    /// How hard blocks are compressed.
    pub level: LevelChoice,
    /// Sets the options of a WAN socket (congestion control, buffers, keepalive); the edge owns the OS calls.
    pub tune: fn(&TcpStream),
    /// Sees each socket towards a server before it connects to the address.
    pub prepare: Prepare,
    /// What the kernel says of a WAN socket; `None` where it says nothing. Called about once a millisecond while a link is busy.
    pub sample: fn(&TcpStream) -> Option<LineSample>,
}

impl Environment {
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            version_min: *self.versions.start(),
            version_max: *self.versions.end(),
            instance: self.instance,
            initial_window_bytes: self.limits.initial_window_bytes,
            streams_max: self.limits.streams_max,
            unacknowledged_encoded_max_bytes: self.limits.unacknowledged_encoded_max_bytes,
            unacknowledged_plain_max_bytes: self.limits.unacknowledged_plain_max_bytes,
            heartbeat_ms: u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX),
            name: self.name.clone(),
            features: FEATURE_LINKS | FEATURE_SOURCE | FEATURE_UNIX,
            ..Hello::default()
        }
    }

    pub(crate) fn tunnel_config(
        &self,
        side: Side,
        peer_name: &str,
        peer: &Hello,
        admit_opens: bool,
    ) -> TunnelConfig {
        // Hello was accepted, so there is one.
        let version = self.hello().common_version(peer);
        TunnelConfig {
            side,
            blocks: BlockVersion::of_wire(version.unwrap_or(*self.versions.start())),
            peer_name: peer_name.to_owned(),
            local: self.limits,
            peer: Limits {
                initial_window_bytes: peer.initial_window_bytes,
                streams_max: peer.streams_max,
                // What a peer says it takes never makes this side keep more than its own bound.
                unacknowledged_encoded_max_bytes: peer
                    .unacknowledged_encoded_max_bytes
                    .min(self.limits.unacknowledged_encoded_max_bytes),
                unacknowledged_plain_max_bytes: peer
                    .unacknowledged_plain_max_bytes
                    .min(self.limits.unacknowledged_plain_max_bytes),
            },
            heartbeat: self.heartbeat,
            level: self.level,
            codec_threads: self.pools.codec.threads(),
            admit_opens,
            peer_features: peer.features,
            resume_window: self.resume_window,
        }
    }
}

/// Who the peer is, as its certificate says and the edge has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The name in its certificate.
    pub name: String,
    /// The certificate is an invite's: it may only be exchanged for a real one.
    pub invite: bool,
}

/// What a client edge's tunnel asks of its identity. Calls may come again after a reload and must be cheap.
pub trait ClientIdentity: Send + Sync + 'static {
    /// The TLS side made from the present certificate.
    fn tls(&self) -> ClientTls;
    /// Is the present certificate an invite's? Its links are only for exchanging it.
    fn is_invite(&self) -> bool;
    /// Checks the server's verified chain (role, pins); the error is one line for the log.
    fn check_server(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String>;
    /// A signing request when the certificate should be replaced now: it is an invite's, or old. May read and write files; called in pool `storage`.
    fn begin_renewal(&self) -> Result<Option<Bytes>, String>;
    /// The server's answer. `Ok(true)`: the new certificate is in place, for the next link. In pool `storage`.
    fn finish_renewal(&self, answer: Renewed) -> Result<bool, String>;
}

/// What a server edge's tunnel asks of its identity and its authority.
pub trait ServerIdentity: Send + Sync + 'static {
    /// The TLS side made from the present certificate.
    fn tls(&self) -> ServerTls;
    /// Checks a client's verified chain (role, revocation, used invites, pins); the error is one line that the client is told.
    fn check_client(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String>;
    /// Signs a request for the client that holds `chain`. May read and write files; called in pool `storage`.
    fn sign(&self, chain: &[CertificateDer<'static>], request: &[u8]) -> Renewed;
}

/// The peer refused the link in its Hello.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server refused the link: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
pub struct Refused {
    /// Why.
    pub status: HelloStatus,
    /// In words.
    pub message: String,
}
