//! Socket options of the LAN side and of links.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use super::passed::take_passed;
use super::patience::patiently;

/// How long a connection stays silent before the kernel asks whether the other end lives. Shorter than the usual ten minutes
/// of NAT devices, long enough to cost nothing.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// The time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How many stay unanswered before the connection counts as dead.
#[cfg(target_os = "linux")]
const KEEPALIVE_PROBES: u32 = 4;

/// Connections that the kernel completes before we accept them. The kernel caps it by `net.core.somaxconn`.
pub(super) const LISTEN_BACKLOG: i32 = 4096;

/// The most that may wait unsent in a link's socket. Enough to keep the line busy between two wake-ups, and small enough that a
/// one-byte write does not queue behind megabytes of bulk.
#[cfg(target_os = "linux")]
const LINK_NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// Prepares a socket of the LAN side: small writes leave at once, dead peers are noticed.
///
/// # Errors
/// What the kernel said; the connection is usable all the same.
pub fn tune_lan(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())
}

fn keepalive() -> TcpKeepalive {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(target_os = "linux")]
    let keepalive = keepalive.with_retries(KEEPALIVE_PROBES);
    keepalive
}

/// Prepares a link's socket: small writes leave at once, little waits in the kernel, BBR where it exists, and a line that takes
/// nothing for `user_timeout` is an error.
///
/// # Errors
/// What the kernel said to `TCP_NODELAY`; the rest is taken where it exists.
pub fn tune_link(socket: &impl AsFd, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    // Heartbeats are sooner, but not before the handshake, and not once a tunnel has ended.
    if let Err(error) = socket.set_tcp_keepalive(&keepalive()) {
        tracing::debug!(%error, "the kernel does not take SO_KEEPALIVE; going on without it");
    }
    #[cfg(target_os = "linux")]
    {
        for (option, result) in [
            ("TCP_CONGESTION=bbr", socket.set_tcp_congestion(b"bbr")),
            (
                "TCP_NOTSENT_LOWAT",
                socket.set_tcp_notsent_lowat(LINK_NOTSENT_LOWAT_BYTES),
            ),
            (
                "TCP_USER_TIMEOUT",
                socket.set_tcp_user_timeout(Some(user_timeout)),
            ),
        ] {
            if let Err(error) = result {
                tracing::debug!(option, %error, "the kernel does not take a socket option; going on without it");
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = user_timeout;
    Ok(())
}

/// From now on, closing this socket sends an RST and drops what is unsent; so does the kernel when the process is killed.
///
/// A relay arms its socket at once and disarms it after a clean end: then no crash, panic or deadline of ours looks to an
/// application like the regular end of its data.
///
/// # Errors
/// What the kernel said.
pub fn arm_reset(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Undoes [`arm_reset`]: closing sends what is left and then a FIN.
///
/// # Errors
/// What the kernel said.
pub fn disarm_reset(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(None)
}

/// Ends the sending direction with a FIN; the other direction goes on.
///
/// # Errors
/// What the kernel said; `NotConnected` when the other end is already gone.
pub fn shutdown_write(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

/// Opens a listening socket, or takes the one that was passed to this process for the address. An unspecified IPv6 address (`[::]`) takes IPv4
/// connections as well.
///
/// # Errors
/// What the kernel said, such as an address in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_prepared(address, |_| Ok(()))
}

/// As [`listen`], on a socket that `prepare` has seen before it has an address; a passed one has it already.
pub(super) fn listen_prepared(
    address: SocketAddr,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<TcpListener> {
    if let Some(socket) = take_passed(&address.into()) {
        prepare(&socket)?;
        return TcpListener::from_std(socket.into());
    }
    patiently(|| listen_anew(address, &prepare))
}

fn listen_anew(
    address: SocketAddr,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    // A restart must not wait for the connections of its predecessor to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (dialled, accepted)
    }

    #[tokio::test]
    async fn lan_sockets_send_small_writes_at_once_and_notice_dead_peers() {
        let (socket, _other) = pair().await;
        tune_lan(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(&socket).keepalive().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn links_bound_what_waits_in_the_kernel() {
        let (socket, _other) = pair().await;
        tune_link(&socket, Duration::from_secs(15)).unwrap();
        let options = SockRef::from(&socket);
        assert!(socket.nodelay().unwrap() && options.keepalive().unwrap());
        assert_eq!(
            options.tcp_notsent_lowat().unwrap(),
            LINK_NOTSENT_LOWAT_BYTES
        );
        assert_eq!(
            options.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(15))
        );
    }

    #[tokio::test]
    async fn an_armed_socket_closes_with_a_reset_and_a_disarmed_one_with_an_end() {
        let (armed, mut other) = pair().await;
        arm_reset(&armed).unwrap();
        drop(armed);
        let error = other.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let (mut disarmed, mut other) = pair().await;
        arm_reset(&disarmed).unwrap();
        disarmed.write_all(b"last words").await.unwrap();
        disarm_reset(&disarmed).unwrap();
        drop(disarmed);
        let mut heard = Vec::new();
        other.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
    }

    #[tokio::test]
    async fn an_end_of_sending_leaves_the_other_direction_open() {
        let (mut one, mut other) = pair().await;
        shutdown_write(&one).unwrap();
        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0);
        other.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        one.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
