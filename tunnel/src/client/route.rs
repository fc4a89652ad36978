//! Ways to the servers: which address is dialed, and from where.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

use crate::environment::Prepare;

/// Where connections of a path come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// This source address.
    Address(IpAddr),
    /// This network interface.
    Interface(String),
}

/// One way to one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `HOST:PORT`.
    pub server: String,
    /// Where connections come from; none: the system decides.
    pub bind: Option<Bind>,
    /// Which server it leads to, as far as the configuration tells: routes of one site lead to the same program, and each may carry links of one
    /// tunnel. Lower ones are preferred.
    pub site: usize,
}

impl Route {
    /// A route for each of `servers`, each of which is a program of its own.
    #[must_use]
    pub fn to_servers(servers: impl IntoIterator<Item = String>) -> Vec<Self> {
        let servers = servers.into_iter().enumerate();
        servers
            .map(|(site, server)| Self {
                server,
                bind: None,
                site,
            })
            .collect()
    }

    /// Connects to one of the server's addresses.
    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        prepare: &Prepare,
    ) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        prepare(&socket, address);
        match &self.bind {
            None => {}
            Some(Bind::Address(from)) => {
                if from.is_ipv4() != address.is_ipv4() {
                    let message = format!("the path's address {from} is of another kind");
                    return Err(std::io::Error::new(
                        std::io::ErrorKind::InvalidInput,
                        message,
                    ));
                }
                socket.bind((*from, 0).into())?;
            }
            Some(Bind::Interface(name)) => bind_to_interface(&socket, name)?,
        }
        socket.connect(address).await
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.server)?;
        match &self.bind {
            None => Ok(()),
            Some(Bind::Address(from)) => write!(f, " from {from}"),
            Some(Bind::Interface(name)) => write!(f, " by {name}"),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_to_interface(socket: &TcpSocket, name: &str) -> std::io::Result<()> {
    socket.bind_device(Some(name.as_bytes()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bind_to_interface(_socket: &TcpSocket, name: &str) -> std::io::Result<()> {
    let message =
        format!("a path cannot be bound to interface {name} on this system; name an address");
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        message,
    ))
}
