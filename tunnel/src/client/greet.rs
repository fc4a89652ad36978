//! One attempt at a server: an address that answers, TLS, and Hello both ways.

use codec::frame::{Frame, Hello, HelloStatus};
use tokio::net::TcpStream;

use super::dialer::Dialer;
use super::{ConnectError, DIAL_TIMEOUT, Route};
use crate::environment::{HANDSHAKE_TIMEOUT, PeerIdentity, Refused};
use crate::link::{Link, LinkError};
use crate::resolve::{ResolveError, resolve};
use crate::state::LinkId;
use crate::tls::{Session, TlsError};

/// A server that has answered.
pub(super) struct Greeted {
    pub(super) link: Link,
    /// Its Hello; the status may be a refusal.
    pub(super) hello: Hello,
    pub(super) peer: PeerIdentity,
}

impl Dialer {
    /// Connects over `route` and says what `say` makes of the connection.
    pub(super) async fn greet(
        &self,
        route: &Route,
        say: impl FnOnce(&Session) -> Hello,
    ) -> Result<Greeted, ConnectError> {
        let socket = self.dial(route).await?;
        let server = &*route.to_string();
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(server, socket, say)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout {
                server: server.to_owned(),
            }),
        }
    }

    async fn dial(&self, route: &Route) -> Result<TcpStream, ConnectError> {
        let server = &*route.to_string();
        let addresses = resolve(&self.environment.pools.resolve, &route.server)
            .await
            .map_err(|source| ConnectError::Resolve {
                server: server.to_owned(),
                source,
            })?;
        let mut last = ConnectError::Resolve {
            server: server.to_owned(),
            source: ResolveError::NoAddress,
        };
        for address in addresses {
            let connecting = route.connect(address, &self.environment.prepare);
            let source = match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
                Ok(Ok(socket)) => {
                    (self.environment.tune)(&socket);
                    return Ok(socket);
                }
                Ok(Err(e)) => e,
                Err(_) => std::io::ErrorKind::TimedOut.into(),
            };
            last = ConnectError::Dial {
                server: server.to_owned(),
                address,
                source,
            };
        }
        Err(last)
    }

    async fn handshake(
        &self,
        server: &str,
        socket: TcpStream,
        say: impl FnOnce(&Session) -> Hello,
    ) -> Result<Greeted, ConnectError> {
        let tls_error = |source: TlsError| ConnectError::Tls {
            server: server.to_owned(),
            source,
        };
        let link_error = |source: LinkError| ConnectError::Link {
            server: server.to_owned(),
            source,
        };
        let address = socket.peer_addr().map_err(|e| tls_error(e.into()))?;
        let (socket, session) = self
            .identity
            .tls()
            .connect(socket, &self.environment.pools.crypto)
            .await
            .map_err(tls_error)?;
        let peer = self
            .identity
            .check_server(session.peer_chain())
            .map_err(|why| ConnectError::Identity {
                server: server.to_owned(),
                why,
            })?;
        let mut link = Link::new(LinkId::from(0), socket, session, address);
        let hello = say(link.session());
        link.send_frame(&Frame::Hello(hello))
            .await
            .map_err(link_error)?;
        // The server's refusal of this edge's certificate shows only here: TLS 1.3 lets the client finish first.
        let hello = match link.recv_frame().await.map_err(link_error)? {
            Frame::Hello(hello) => hello,
            other => {
                return Err(ConnectError::NoHello {
                    server: server.to_owned(),
                    kind: format!("{:?}", other.kind()),
                });
            }
        };
        let ours = self.environment.hello();
        if hello.status.is_accepted() && ours.common_version(&hello).is_none() {
            return Err(Refused {
                status: HelloStatus::Version,
                message: format!(
                    "it speaks version {} to {}, this client {} to {}",
                    hello.version_min, hello.version_max, ours.version_min, ours.version_max
                ),
            }
            .into());
        }
        Ok(Greeted { link, hello, peer })
    }
}
