//! Hello: the first frame in each direction of a link.

use bytes::BytesMut;

use super::payload::{PayloadReader, put_tagged, put_tagged_varint, require, set_once};
use super::{FieldProblem, FrameError, FrameKind};
use crate::varint;

/// Bytes of an edge's name: one DNS label's worth.
pub const NAME_MAX_BYTES: usize = 63;
/// Bytes of a message that explains a status: a line of text.
pub const MESSAGE_MAX_BYTES: usize = 256;

/// Feature: further links join the present generation.
pub const FEATURE_LINKS: u64 = 1 << 0;

/// Feature: an Open may say the application's address, from which to connect.
pub const FEATURE_SOURCE: u64 = 1 << 1;

/// Feature: an Open may name a Unix socket as its target.
pub const FEATURE_UNIX: u64 = 1 << 2;

const TAG_INSTANCE: u64 = 1;
const TAG_TUNNEL: u64 = 2;
const TAG_SECRET: u64 = 3;
const TAG_GENERATION: u64 = 4;
const TAG_LINK_INDEX: u64 = 5;
const TAG_PROOF: u64 = 6;
const TAG_WINDOW: u64 = 7;
const TAG_STREAMS: u64 = 8;
const TAG_UNACKNOWLEDGED_ENCODED: u64 = 9;
const TAG_UNACKNOWLEDGED_PLAIN: u64 = 10;
const TAG_HEARTBEAT: u64 = 11;
const TAG_NAME: u64 = 12;
const TAG_STATUS: u64 = 13;
const TAG_MESSAGE: u64 = 14;
const TAG_FEATURES: u64 = 15;

/// Who speaks, which tunnel the link belongs to, and what the speaker accepts. Numbers that are 0, and texts that are empty, do
/// not travel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The lowest wire version that the sender speaks.
    pub version_min: u64,
    /// The highest wire version that the sender speaks, at least `version_min`.
    pub version_max: u64,
    /// Random, one for each start of the program.
    pub instance: [u8; 16],
    /// Client: the tunnel to resume or join, none for a new one. Server: the tunnel's id.
    pub tunnel: Option<[u8; 16]>,
    /// Server, new tunnel only: the secret that later proofs are made with.
    pub secret: Option<Secret>,
    /// How often the tunnel has lost all its links and came back.
    pub generation: u64,
    /// Which of the tunnel's links this is, from 0.
    pub link_index: u64,
    /// HMAC-SHA-256 with the tunnel's secret over exporter, generation and link index.
    pub proof: Option<[u8; 32]>,
    /// Plain bytes of each stream that the sender accepts before its first Credit for it.
    pub initial_window_bytes: u64,
    /// Streams that the other side may have open at once.
    pub streams_max: u64,
    /// Unacknowledged encoded bytes that the sender of this frame accepts.
    pub unacknowledged_encoded_max_bytes: u64,
    /// Unacknowledged plain bytes that the sender of this frame accepts.
    pub unacknowledged_plain_max_bytes: u64,
    /// After so many milliseconds without a byte the sender pings.
    pub heartbeat_ms: u64,
    /// The edge's name, at most [`NAME_MAX_BYTES`]; informative, identity comes from the certificate.
    pub name: String,
    /// Whether the server accepts the link; a client's is always accepted.
    pub status: HelloStatus,
    /// Why it does not, in words, at most [`MESSAGE_MAX_BYTES`].
    pub message: String,
    /// A bit set of optional features that the sender understands, [`FEATURE_LINKS`], [`FEATURE_SOURCE`] and [`FEATURE_UNIX`]; unknown bits mean nothing.
    pub features: u64,
}

/// A tunnel's secret; it never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A server's answer to a client's Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HelloStatus {
    /// 0: the link is up.
    #[default]
    Accepted,
    /// 1: this instance does not hold that tunnel.
    UnknownTunnel,
    /// 2: no version in common.
    Version,
    /// 3: the identity is revoked, or its invite was used.
    IdentityRefused,
    /// 4: a limit was met.
    Limit,
    /// 5: the server takes no new tunnels.
    Draining,
    /// 6: the proof is wrong.
    ProofWrong,
    /// A status that this version does not know; not accepted.
    Other(u8),
}

impl HelloStatus {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::UnknownTunnel => 1,
            Self::Version => 2,
            Self::IdentityRefused => 3,
            Self::Limit => 4,
            Self::Draining => 5,
            Self::ProofWrong => 6,
            Self::Other(code) => code,
        }
    }

    /// The status with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Accepted,
            1 => Self::UnknownTunnel,
            2 => Self::Version,
            3 => Self::IdentityRefused,
            4 => Self::Limit,
            5 => Self::Draining,
            6 => Self::ProofWrong,
            other => Self::Other(other),
        }
    }

    /// Whether the link is up.
    #[must_use]
    pub const fn is_accepted(self) -> bool {
        self.code() == 0
    }
}

impl std::fmt::Display for HelloStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::UnknownTunnel => f.write_str("unknown tunnel"),
            Self::Version => f.write_str("no common version"),
            Self::IdentityRefused => f.write_str("identity refused"),
            Self::Limit => f.write_str("limit reached"),
            Self::Draining => f.write_str("draining"),
            Self::ProofWrong => f.write_str("wrong proof"),
            Self::Other(code) => write!(f, "status {code}"),
        }
    }
}

impl Hello {
    /// The highest version in both ranges; none if they have none in common.
    #[must_use]
    pub fn common_version(&self, other: &Self) -> Option<u64> {
        let highest = self.version_max.min(other.version_max);
        (highest >= self.version_min.max(other.version_min)).then_some(highest)
    }

    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let kind = FrameKind::Hello;
        let mut hello = Self {
            version_min: payload.varint("version_min")?,
            version_max: payload.varint("version_max")?,
            ..Self::default()
        };
        // Tags below 32 that were seen: a known one occurs once.
        let mut seen = 0u32;
        let mut instance = None;
        while let Some((tag, mut value)) = payload.tagged()? {
            if (TAG_INSTANCE..=TAG_FEATURES).contains(&tag) {
                require(seen & (1 << tag) == 0, kind, "tag", FieldProblem::Repeated)?;
                seen |= 1 << tag;
            }
            match tag {
                TAG_INSTANCE => {
                    set_once(&mut instance, value.array("instance")?, kind, "instance")?
                }
                TAG_TUNNEL => hello.tunnel = Some(value.array("tunnel")?),
                TAG_SECRET => hello.secret = Some(Secret(value.array("secret")?)),
                TAG_GENERATION => hello.generation = value.varint("generation")?,
                TAG_LINK_INDEX => hello.link_index = value.varint("link index")?,
                TAG_PROOF => hello.proof = Some(value.array("proof")?),
                TAG_WINDOW => hello.initial_window_bytes = value.varint("initial window")?,
                TAG_STREAMS => hello.streams_max = value.varint("streams")?,
                TAG_UNACKNOWLEDGED_ENCODED => {
                    hello.unacknowledged_encoded_max_bytes = value.varint("encoded bytes")?
                }
                TAG_UNACKNOWLEDGED_PLAIN => {
                    hello.unacknowledged_plain_max_bytes = value.varint("plain bytes")?
                }
                TAG_HEARTBEAT => hello.heartbeat_ms = value.varint("heartbeat")?,
                TAG_NAME => hello.name = value.rest_text("name", NAME_MAX_BYTES)?,
                TAG_STATUS => hello.status = HelloStatus::from_code(value.byte("status")?),
                TAG_MESSAGE => hello.message = value.rest_text("message", MESSAGE_MAX_BYTES)?,
                TAG_FEATURES => hello.features = value.varint("features")?,
                _ => continue,
            }
            value.finish()?;
        }
        hello.instance =
            instance.ok_or_else(|| payload.error("instance", FieldProblem::Missing))?;
        hello.check()?;
        Ok(hello)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.check()?;
        varint::put(out, self.version_min);
        varint::put(out, self.version_max);
        put_tagged(out, TAG_INSTANCE, &self.instance);
        let secret = self.secret.as_ref().map(|secret| secret.0.as_slice());
        let status = [self.status.code()];
        let number = |out: &mut BytesMut, tag, value| {
            if value != 0 {
                put_tagged_varint(out, tag, value);
            }
        };
        let text = |out: &mut BytesMut, tag, value: Option<&[u8]>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                put_tagged(out, tag, value);
            }
        };
        text(
            out,
            TAG_TUNNEL,
            self.tunnel.as_ref().map(<[u8; 16]>::as_slice),
        );
        text(out, TAG_SECRET, secret);
        number(out, TAG_GENERATION, self.generation);
        number(out, TAG_LINK_INDEX, self.link_index);
        text(
            out,
            TAG_PROOF,
            self.proof.as_ref().map(<[u8; 32]>::as_slice),
        );
        number(out, TAG_WINDOW, self.initial_window_bytes);
        number(out, TAG_STREAMS, self.streams_max);
        number(
            out,
            TAG_UNACKNOWLEDGED_ENCODED,
            self.unacknowledged_encoded_max_bytes,
        );
        number(
            out,
            TAG_UNACKNOWLEDGED_PLAIN,
            self.unacknowledged_plain_max_bytes,
        );
        number(out, TAG_HEARTBEAT, self.heartbeat_ms);
        text(out, TAG_NAME, Some(self.name.as_bytes()));
        text(
            out,
            TAG_STATUS,
            (!self.status.is_accepted()).then_some(status.as_slice()),
        );
        text(out, TAG_MESSAGE, Some(self.message.as_bytes()));
        number(out, TAG_FEATURES, self.features);
        Ok(())
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = FrameKind::Hello;
        require(
            self.version_min <= self.version_max,
            kind,
            "version_max",
            FieldProblem::OutOfBounds,
        )?;
        require(
            self.name.len() <= NAME_MAX_BYTES,
            kind,
            "name",
            FieldProblem::OutOfBounds,
        )?;
        require(
            !self.name.contains(char::is_control),
            kind,
            "name",
            FieldProblem::Text,
        )?;
        require(
            self.message.len() <= MESSAGE_MAX_BYTES,
            kind,
            "message",
            FieldProblem::OutOfBounds,
        )?;
        require(
            !self.message.contains(char::is_control),
            kind,
            "message",
            FieldProblem::Text,
        )
    }
}
