//! Why an attempt to get a tunnel failed.

use std::net::SocketAddr;

use crate::environment::{HANDSHAKE_TIMEOUT, Refused};
use crate::link::LinkError;
use crate::resolve::ResolveError;
use crate::tls::TlsError;

/// Why an attempt to get a tunnel failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server's name or address cannot be used.
    #[error("cannot resolve {server}: {source}")]
    Resolve {
        /// As configured.
        server: String,
        /// Why.
        source: ResolveError,
    },
    /// No address answered.
    #[error("cannot connect to {server} ({address}): {source}")]
    Dial {
        /// As configured.
        server: String,
        /// The last address tried.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// TLS failed: wrong CA, expired or refused certificate.
    #[error("cannot authenticate with {server}: {source}")]
    Tls {
        /// As configured.
        server: String,
        /// Why.
        source: TlsError,
    },
    /// The server's certificate is not acceptable.
    #[error("{server} is not to be trusted: {why}")]
    Identity {
        /// As configured.
        server: String,
        /// Why.
        why: String,
    },
    /// The link broke during Hello.
    #[error("{server} did not say Hello: {source}")]
    Link {
        /// As configured.
        server: String,
        /// Why.
        source: LinkError,
    },
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server spoke something else than Hello first.
    #[error("{server} sent {kind} where Hello was due")]
    NoHello {
        /// As configured.
        server: String,
        /// What came instead.
        kind: String,
    },
    /// All of it took too long.
    #[error("{server} did not finish the handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout {
        /// As configured.
        server: String,
    },
}
