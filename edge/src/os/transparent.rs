//! Connections that were meant for somebody else: where they were going, and how to listen for them.
//!
//! A packet filter sends an application's connection here in one of two ways. *Redirect* rewrites its destination, and the kernel remembers the
//! original one (`SO_ORIGINAL_DST`). *TPROXY* delivers it as it is to a socket that may have foreign addresses (`IP_TRANSPARENT`), so the accepted
//! socket's own address is the target.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::socket::listen_prepared;

/// The mark of an edge's own packets (`SO_MARK`), by which rules leave them alone. "wp" and a number: nothing else is likely to use it.
pub const OWN_MARK: u32 = 0x7770_0001;

/// The mark of packets that the policy routing of TPROXY delivers to this machine.
pub const TPROXY_MARK: u32 = 0x7770_0002;

/// Marks what the socket sends as the edge's own. Before it connects or listens, or the first packet goes without.
///
/// # Errors
/// What the kernel said: without `CAP_NET_ADMIN` it may not be done.
#[cfg(target_os = "linux")]
pub fn mark_own(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_mark(OWN_MARK)
}

/// Marks what the socket sends as the edge's own.
///
/// # Errors
/// Always: this system has no such marks.
#[cfg(not(target_os = "linux"))]
pub fn mark_own(_socket: &impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// May this program have sockets with foreign addresses?
///
/// # Errors
/// What the kernel said: `PermissionDenied` without `CAP_NET_ADMIN`.
pub fn may_have_foreign_addresses() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    set_transparent(&socket)
}

/// Lets the socket have foreign addresses, as TPROXY needs of a listener.
///
/// # Errors
/// What the kernel said; see [`may_have_foreign_addresses`].
#[cfg(target_os = "linux")]
pub fn set_transparent(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // One flag of the kernel's socket under two names, of which an IPv4 socket knows one.
    if socket.local_addr().is_ok_and(|address| address.is_ipv6()) {
        socket.set_ip_transparent_v6(true)
    } else {
        socket.set_ip_transparent_v4(true)
    }
}

/// Lets the socket have foreign addresses.
///
/// # Errors
/// Always: this system does not know how.
#[cfg(not(target_os = "linux"))]
pub fn set_transparent(_socket: &impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens a listening socket for TPROXY. `[::]` takes IPv4 connections as well.
///
/// # Errors
/// What the kernel said; see [`may_have_foreign_addresses`].
pub fn listen_transparent(address: SocketAddr) -> io::Result<TcpListener> {
    listen_prepared(address, |socket| {
        // Answers to applications carry foreign source addresses; rules for this machine's own packets must not catch them.
        mark_own(socket)?;
        set_transparent(socket)
    })
}

/// Connects from an address that may be another machine's, with a port that the kernel chooses. Answers come back only where routing brings
/// them here.
///
/// # Errors
/// What the kernel said; see [`may_have_foreign_addresses`].
pub async fn connect_from(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    set_transparent(&socket)?;
    socket.bind((source, 0).into())?;
    socket.connect(target).await
}

/// Where a redirected connection was going before the packet filter rewrote its destination.
///
/// # Errors
/// `NotFound` when it was not redirected; else what the kernel said.
#[cfg(target_os = "linux")]
pub fn original_destination(socket: &TcpStream) -> io::Result<SocketAddr> {
    let local = socket.local_addr()?;
    let options = SockRef::from(socket);
    let original = if local.ip().to_canonical().is_ipv4() {
        options.original_dst_v4()?
    } else {
        options.original_dst_v6()?
    };
    original
        .as_socket()
        .map(canonical)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Where a redirected connection was going.
///
/// # Errors
/// Always: this system does not say.
#[cfg(not(target_os = "linux"))]
pub fn original_destination(_socket: &TcpStream) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// IPv4 in its own form, not as IPv6.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Is this one of the machine's own addresses? The kernel is asked which address it would speak from; nothing is sent.
pub fn is_own_address(ip: IpAddr) -> bool {
    /// Any port does for a question.
    const PORT: u16 = 9;
    // All of 127.0.0.0/8 is, and speaks from 127.0.0.1.
    if ip.to_canonical().is_loopback() {
        return true;
    }
    let unspecified: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asked = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        socket.connect((ip, PORT))?;
        socket.local_addr()
    });
    asked.is_ok_and(|own| own.ip() == ip)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn own_addresses_are_known_from_others() {
        for own in ["127.0.0.1", "127.9.9.9"] {
            assert!(is_own_address(own.parse().unwrap()), "{own}");
        }
        for other in ["192.0.2.1", "2001:db8::1", "198.51.100.255"] {
            assert!(!is_own_address(other.parse().unwrap()), "{other}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_was_going_here_or_nowhere() {
        let listener = super::super::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let _application = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        match original_destination(&accepted) {
            Ok(original) => assert_eq!(original, address),
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_was_asked_for() {
        if may_have_foreign_addresses().is_err() {
            // Without the privilege, what the other test says holds.
            return;
        }
        let listener = super::super::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let source = "127.0.0.77".parse().unwrap();
        let dialed = connect_from(source, listener.local_addr().unwrap()).await;
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip(), source);
        assert_eq!(dialed.unwrap().local_addr().unwrap(), from);
    }

    #[tokio::test]
    async fn foreign_addresses_are_for_those_who_may() {
        match may_have_foreign_addresses() {
            Ok(()) => {
                let listener = listen_transparent("[::]:0".parse().unwrap()).unwrap();
                assert!(SockRef::from(&listener).ip_transparent_v6().unwrap());
                assert_eq!(SockRef::from(&listener).mark().unwrap(), OWN_MARK);
                let listener = listen_transparent("127.0.0.1:0".parse().unwrap()).unwrap();
                assert!(SockRef::from(&listener).ip_transparent_v4().unwrap());
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
