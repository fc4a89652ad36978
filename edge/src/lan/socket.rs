//! A listening socket of the LAN side, at an address or at a path.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use tokio::net::TcpListener;

use super::stream::{Application, LanStream};
use crate::config::Bind;
use crate::os::{self, UnixSocket};

/// A listening socket of the LAN side. Dropping one at a path removes its file, unless another program listens there by then.
#[derive(Debug)]
pub enum LanListener {
    /// At an address.
    Tcp(TcpListener),
    /// At a path, which it was opened for.
    Unix(UnixSocket, String),
}

impl LanListener {
    /// Opens it, or takes the one that was passed to this process.
    ///
    /// # Errors
    /// What the system said; see [`os::listen`] and [`os::listen_unix`].
    pub fn open(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Tcp(address) => os::listen(*address).map(Self::Tcp),
            Bind::Unix(path) => {
                let socket = os::listen_unix(Path::new(path))?;
                Ok(Self::Unix(socket, path.clone()))
            }
        }
    }

    /// Where it listens, with the port that the system has chosen.
    ///
    /// # Errors
    /// The socket does not know.
    pub fn bound(&self) -> io::Result<Bind> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Bind::Tcp),
            Self::Unix(_, path) => Ok(Bind::Unix(path.clone())),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system said.
    pub async fn accept(&self) -> io::Result<(LanStream, Application)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                Ok((socket.into(), Application::Tcp(address)))
            }
            Self::Unix(socket, _) => {
                let (socket, _) = socket.listener.accept().await?;
                Ok((socket.into(), Application::Unix))
            }
        }
    }
}

impl AsFd for LanListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(socket, _) => socket.listener.as_fd(),
        }
    }
}
