//! A listening socket of the LAN side, at an address or at a path.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use tokio::net::TcpListener;

use super::stream::{Application, LanStream};
use crate::cli::Failure;
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

/// The line for a service whose address cannot be had.
pub fn cannot_listen(name: &str, bind: &Bind, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot listen on {bind} for \"{name}\": {error}"))
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

    /// The same, for the service `name`.
    ///
    /// # Errors
    /// The address cannot be had; the line says whose it was to be.
    pub fn open_for(name: &str, bind: &Bind) -> Result<Self, Failure> {
        Self::open(bind).map_err(|error| cannot_listen(name, bind, &error))
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_told_with_its_service() {
        let bind = "127.0.0.1:0".parse().unwrap();
        let first = LanListener::open_for("files", &bind).unwrap();
        let error = LanListener::open_for("more", &first.bound().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot listen on 127.0.0.1:") && error.contains("for \"more\": "),
            "{error}"
        );
    }
}
