//! Who a connection is from, and what its target is told of that.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{Application, LanStream};
use crate::config::ProxyConfig;
use crate::proxy_protocol::{self, Header, HeaderError, Version};

/// An application that has connected, directly or through a proxy that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The application's address; a proxy's where it names none.
    pub application: Application,
    header: Header,
    send: Option<Version>,
}

impl Introduction {
    /// Learns who `socket`, which `peer` has opened, is from: from the header that it begins with, if the service accepts one.
    ///
    /// # Errors
    /// There is no header where one is due.
    pub async fn of(
        socket: &mut LanStream,
        peer: Application,
        proxy: ProxyConfig,
    ) -> Result<Self, HeaderError> {
        let header = if proxy.accept {
            proxy_protocol::read(socket).await?
        } else {
            match (peer.address(), socket.local_address()) {
                (Some(peer), Some(local)) => Header::between(peer, local),
                // Over a Unix socket: nobody knows.
                _ => Header::Unknown,
            }
        };
        Ok(Self {
            application: header.source().map_or(peer, Application::Tcp),
            header,
            send: proxy.send,
        })
    }

    /// The application meant to connect to `destination`, whatever its socket's address is.
    #[must_use]
    pub fn meant_for(mut self, destination: SocketAddr) -> Self {
        if let Header::Proxied { source, .. } = self.header {
            self.header = Header::between(source, destination);
        }
        self
    }

    /// What the target gets before the application's bytes; may be nothing.
    pub fn preface(&self) -> Bytes {
        self.send
            .map(|version| self.header.to_bytes(version).into())
            .unwrap_or_default()
    }
}
