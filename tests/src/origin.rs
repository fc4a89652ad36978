//! Small TCP servers on free loopback ports: what the tests reach through the tunnel.
//!
//! Every server ends with its connections when its handle is dropped.

mod head;
mod http;
mod plain;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) use head::{Head, read_head};
pub use http::{Content, HttpOrigin};
pub use plain::{discard, echo, sink, source};

use crate::packets::Place;

/// Length of the kernel's accept queue: a storm of a thousand connections must not be refused.
const ACCEPT_QUEUE: u32 = 4096;

/// Pause after an accept that failed, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accept: JoinHandle<()>,
}

impl Server {
    /// Runs `serve` for each connection to a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), serve)
    }

    /// Like [`start`](Self::start), on another address of this machine, such as `::1`.
    ///
    /// # Errors
    /// When no socket can be had there.
    pub fn start_at<F>(
        ip: IpAddr,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_on((ip, 0).into(), serve)
    }

    /// Like [`start`](Self::start), on this very address: for an origin that others are told of beforehand.
    ///
    /// # Errors
    /// When no socket can be had there.
    pub fn start_on<F>(
        address: SocketAddr,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // An origin that is started again must not wait for the connections of its last life.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Self::run(socket.listen(ACCEPT_QUEUE)?, serve)
    }

    /// Like [`start`](Self::start), on a free port of 127.0.0.1 in `place`.
    ///
    /// # Errors
    /// When no socket can be had there.
    pub fn start_in<F>(
        place: &Place,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_in_at(place, (Ipv4Addr::LOCALHOST, 0).into(), serve)
    }

    /// Like [`start_in`](Self::start_in), on this very address.
    ///
    /// # Errors
    /// When no socket can be had there.
    pub fn start_in_at<F>(
        place: &Place,
        address: SocketAddr,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = place.run(|| std::net::TcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        Ok(Self::run(TcpListener::from_std(listener)?, serve)?)
    }

    fn run<F>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let address = listener.local_addr()?;
        Ok(Self {
            address,
            accept: tokio::spawn(accept(listener, serve)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    // Owned by this task, so that the connections end with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((connection, _)) => {
                        let _gone = connection.set_nodelay(true);
                        connections.spawn(serve(connection));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
            // What a connection ended with is its client's business: it sees the reset or the short answer.
            Some(_) = connections.join_next() => {}
        }
    }
}
