//! A connection of the LAN side, over TCP or over a Unix socket.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::os;
use crate::relay::LanSocket;

/// A connection of the LAN side.
#[derive(Debug)]
pub enum LanStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket. It cannot be broken, only ended: whoever is at its other end takes a stream that was reset for one that has
    /// ended, unless something that it has sent was not read.
    Unix(UnixStream),
}

/// Who has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// An application at this address.
    Tcp(SocketAddr),
    /// One of this machine, over a Unix socket; it has no address.
    Unix,
}

impl Application {
    /// Its address, where it has one.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Application {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

/// The same expression for either kind of socket.
macro_rules! either {
    ($stream:expr, $socket:ident => $does:expr) => {
        match $stream {
            LanStream::Tcp($socket) => $does,
            LanStream::Unix($socket) => $does,
        }
    };
}

impl LanStream {
    /// Small writes leave at once, and dead peers are noticed; on a Unix socket they always are.
    pub fn tune(&self) {
        if let Self::Tcp(socket) = self
            && let Err(error) = os::tune_lan(socket)
        {
            tracing::debug!(%error, "socket options were not taken");
        }
    }

    /// This end's address, where it has one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// The runtime is going away.
    pub async fn readable(&self) -> io::Result<()> {
        either!(self, socket => socket.readable().await)
    }

    /// Waits for a first byte without taking it: false is the end.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn peek(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(socket) => Ok(socket.peek(&mut [0; 1]).await? > 0),
            Self::Unix(socket) => {
                let peeked = socket.async_io(tokio::io::Interest::READABLE, || os::peek(socket));
                peeked.await
            }
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; else the connection failed.
    pub fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        either!(self, socket => socket.try_read_buf(buffer))
    }
}

impl From<TcpStream> for LanStream {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<UnixStream> for LanStream {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}

impl AsFd for LanStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, socket => socket.as_fd())
    }
}

impl LanSocket for LanStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_read_ready(cx))
    }

    fn try_read<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => os::try_read(socket, buffer),
            Self::Unix(socket) => socket.try_read_buf(buffer),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_write_ready(cx))
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, socket => socket.try_write_vectored(slices))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        os::shutdown_write(self)
    }

    fn set_reset_on_close(&self, reset: bool) {
        if let Self::Tcp(socket) = self {
            socket.set_reset_on_close(reset);
        }
    }
}

impl AsyncRead for LanStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_read(cx, buffer))
    }
}

impl AsyncWrite for LanStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}
