//! What a tunnel tells its driver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::frame::{DomainId, Open, Reason, Renewed, StreamId};

use super::{LinkId, Violation};
use crate::metrics::StreamResult;

/// What happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The peer wants a stream; answer with `accept` or `refuse`.
    Incoming {
        /// Its id.
        stream: StreamId,
        /// What it asked for.
        open: Open,
    },
    /// The peer has reached the target of a stream opened here.
    Opened {
        /// The stream.
        stream: StreamId,
        /// The peer's local address towards the target.
        bound: Option<SocketAddr>,
    },
    /// The next bytes of a stream; say `consumed` when they have left to the LAN.
    Data {
        /// The stream.
        stream: StreamId,
        /// At least one byte.
        data: Bytes,
    },
    /// The peer's LAN side has said EOF, and everything before it was given out.
    Finished {
        /// The stream.
        stream: StreamId,
    },
    /// The peer's sending direction failed; before `Opened`: the stream was refused.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// The peer cannot deliver any more; this side's sending direction is over.
    StopSending {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// `send_capacity` has grown for a stream for which it was small when last asked.
    Writable {
        /// The stream.
        stream: StreamId,
    },
    /// Both directions are over and everything is acknowledged. The stream's id means nothing any more.
    Closed {
        /// The stream.
        stream: StreamId,
        /// What became of it.
        summary: StreamSummary,
    },
    /// After [`OpenError::Limit`](super::OpenError::Limit): the peer allows more Opens.
    OpensAvailable,
    /// The peer opens and accepts no new streams.
    GoAway {
        /// Why.
        reason: Reason,
    },
    /// The peer holds histories for a domain that is not attached here.
    DomainOffered {
        /// The domain.
        domain: DomainId,
        /// `shared`, `c:SERVICE` or `s:SERVICE`.
        name: String,
    },
    /// The peer asks for a new certificate.
    Renew {
        /// PKCS #10 in DER.
        request: Bytes,
    },
    /// The peer's answer to `renew`.
    Renewed(Renewed),
    /// Nothing was heard on a link for three heartbeats. It is lost already for the tunnel.
    LinkDead {
        /// The link.
        link: LinkId,
    },
    /// The last link is lost, and the tunnel is not to be resumed or was not resumed in time.
    TunnelLost,
    /// The peer broke the protocol in something that a job found out; the tunnel has ended.
    Violated(Violation),
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// The service's name.
    pub service: Arc<str>,
    /// Whether this edge opened it.
    pub opened_here: bool,
    /// How it ended.
    pub result: StreamResult,
    /// Plain bytes that went to the WAN.
    pub lan_to_wan_bytes: u64,
    /// Plain bytes that came from the WAN and were delivered.
    pub lan_from_wan_bytes: u64,
    /// Bytes of frames sent for it.
    pub wan_to_wan_bytes: u64,
    /// Bytes of frames received for it.
    pub wan_from_wan_bytes: u64,
    /// From Open to the end.
    pub duration: Duration,
}
