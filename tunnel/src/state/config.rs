//! What a tunnel is made with, and the names of its parts.

use std::num::NonZeroU16;
use std::time::Duration;

use codec::block::BlockVersion;
use codec::frame::{DomainId, FEATURE_SOURCE, FEATURE_UNIX, Target};

pub use codec::frame::Side;

use super::LevelChoice;

/// Names one link of a tunnel, for as long as the tunnel lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

impl From<u64> for LinkId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl From<LinkId> for u64 {
    fn from(id: LinkId) -> Self {
        id.0
    }
}

/// What one side accepts, as it says in Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Plain bytes of each stream before the first Credit for it. They are reserved for as long as the stream lives.
    pub initial_window_bytes: u64,
    /// Streams that the other side may have open at once.
    pub streams_max: u64,
    /// Encoded bytes that the other side may have unacknowledged.
    pub unacknowledged_encoded_max_bytes: u64,
    /// Plain bytes that the other side may have unacknowledged.
    pub unacknowledged_plain_max_bytes: u64,
}

impl Default for Limits {
    /// DESIGN's figures: 16 KiB, 65,536 streams, 64 MiB encoded, 256 MiB plain.
    fn default() -> Self {
        Self {
            initial_window_bytes: crate::budget::STREAM_RESERVE_BYTES as u64,
            streams_max: 65_536,
            unacknowledged_encoded_max_bytes: 64 << 20,
            unacknowledged_plain_max_bytes: 256 << 20,
        }
    }
}

/// What a tunnel is made with. Hello was exchanged before.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Which end this is.
    pub side: Side,
    /// How blocks are written, both ways: as the highest wire version that both ends speak has them.
    pub blocks: BlockVersion,
    /// The peer's name from its certificate: a label of the counters.
    pub peer_name: String,
    /// What this side accepts.
    pub local: Limits,
    /// What the peer accepts.
    pub peer: Limits,
    /// Without a byte for this long a Ping is sent; without one for three times as long the link is dead.
    pub heartbeat: Duration,
    /// How hard blocks are compressed.
    pub level: LevelChoice,
    /// Threads of the pool in which jobs run: sets how many blocks are encoded ahead of the link.
    pub codec_threads: usize,
    /// Whether the peer may open streams; it may not with an invite's certificate.
    pub admit_opens: bool,
    /// What the peer's Hello says that it understands.
    pub peer_features: u64,
    /// For how long the tunnel outlives the loss of its last link; zero: not at all.
    pub resume_window: Duration,
}

/// A stream to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSpec {
    /// The domain whose histories it uses; none: dedup is off.
    pub domain: Option<DomainId>,
    /// Where the other edge shall connect to.
    pub target: Target,
    /// The service that took the connection.
    pub service: String,
    /// Its share of the line relative to others, in both directions where the peer knows of weights; at most
    /// [`WEIGHT_MAX`](codec::frame::WEIGHT_MAX).
    pub weight: NonZeroU16,
    /// Where the other edge shall connect from: the application's address.
    pub source: Option<std::net::SocketAddr>,
}

impl OpenSpec {
    /// What the other edge must understand to serve it, as a bit set of Hello's features.
    pub fn needed_features(&self) -> u64 {
        let of_source = self.source.map_or(0, |_| FEATURE_SOURCE);
        let of_target = match self.target {
            Target::Unix(_) => FEATURE_UNIX,
            Target::Name { .. } | Target::Address(_) => 0,
        };
        of_source | of_target
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer allows no more Opens at present; [`Event::OpensAvailable`](super::Event::OpensAvailable) tells when it does.
    #[error("the other edge allows no more streams now")]
    Limit,
    /// One of both sides has said GoAway.
    #[error("the tunnel takes no new streams")]
    GoingAway,
    /// No memory is left to reserve for the stream.
    #[error("the memory budget has no room for another stream")]
    Memory,
    /// The spec asks for something that the peer does not understand.
    #[error("the other edge is too old for this stream")]
    NotUnderstood,
    /// The tunnel has ended.
    #[error("the tunnel is lost")]
    TunnelLost,
}
