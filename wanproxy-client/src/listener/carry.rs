//! One LAN connection from its accept to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::frame::{Reason, Target};
use edge::config::{self, Host, ListenKind};
use edge::log::StreamLine;
use edge::os;
use edge::relay::{Report, relay};
use tokio::net::TcpStream;
use tunnel::handle::TunnelHandle;
use tunnel::stream::{StreamEnd, StreamHandle};

use super::socks5::{self, Reply, Request, Version};
use super::{Service, Uplink, http};

/// How long a refused application gets to read its reply before the connection is closed under it.
const REPLY_LINGER: Duration = Duration::from_secs(1);

/// Serves one connection.
pub async fn carry(
    socket: TcpStream,
    application: SocketAddr,
    service: Arc<Service>,
    uplink: Arc<Uplink>,
) {
    let _carrying = uplink.carrying();
    let started = Instant::now();
    if let Err(error) = os::tune_lan(&socket) {
        tracing::debug!(%error, %application, "socket options were not taken");
    }
    let connected = match &service.kind {
        ListenKind::Forward(target) => {
            forward(socket, &wire_target(target), &service, &uplink).await
        }
        ListenKind::Socks5 => socks5(socket, application, &service, &uplink).await,
        ListenKind::Http => return http::serve(socket, application, service, uplink).await,
    };
    let Some(Connected {
        socket,
        target,
        tunnel,
        stream,
    }) = connected
    else {
        return;
    };
    let end = stream.end();
    let (send, receive) = stream.split();
    let report = relay(socket, send, receive).await;
    let ended = Ended {
        service: &service,
        application,
        target: &target,
        tunnel: &tunnel,
        started,
    };
    log_end(ended, end, &report).await;
}

/// A stream that has ended, for the log.
pub(super) struct Ended<'a> {
    pub(super) service: &'a Service,
    pub(super) application: SocketAddr,
    pub(super) target: &'a Target,
    pub(super) tunnel: &'a TunnelHandle,
    pub(super) started: Instant,
}

/// Writes the stream's line once the tunnel knows what it has cost.
pub(super) async fn log_end(ended: Ended<'_>, end: StreamEnd, report: &Report) {
    let summary = tokio::select! {
        biased;
        summary = end.summary() => summary,
        _ = ended.tunnel.ended() => None,
    };
    let line = StreamLine {
        service: &ended.service.name,
        peer: ended.tunnel.peer(),
        application: Some(ended.application),
        target: &ended.target.to_string(),
        report,
        summary: summary.as_ref(),
        duration: ended.started.elapsed(),
    };
    line.write();
}

/// A connection whose stream is open.
struct Connected {
    socket: TcpStream,
    target: Target,
    tunnel: TunnelHandle,
    stream: StreamHandle,
}

/// The target is known, and bytes may follow the Open at once. A refusal shows as a reset.
async fn forward(
    socket: TcpStream,
    target: &Target,
    service: &Service,
    uplink: &Uplink,
) -> Option<Connected> {
    match uplink.open(service, target).await {
        Some((tunnel, stream)) => Some(Connected {
            socket,
            target: target.clone(),
            tunnel,
            stream,
        }),
        None => {
            // Closed with an RST: nobody is there.
            let _ = os::arm_reset(&socket);
            None
        }
    }
}

/// The application says the target, and hears how it went before it sends more.
async fn socks5(
    mut socket: TcpStream,
    application: SocketAddr,
    service: &Service,
    uplink: &Uplink,
) -> Option<Connected> {
    let Request { target, version } =
        match socks5::read_request(&mut socket, service.users.as_deref()).await {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(service = service.name, %application, %error, "no SOCKS request");
                close_after_reply(&socket).await;
                return None;
            }
        };
    let Some((tunnel, mut stream)) = uplink.open(service, &target).await else {
        refuse(socket, version, Reply::GeneralFailure).await;
        return None;
    };
    let opened = tokio::select! {
        opened = stream.opened() => opened,
        // Dropping the stream tells the other edge.
        () = gone(&socket) => Err(Reason::Cancelled),
    };
    match opened {
        Ok(bound) => match socks5::write_reply(&mut socket, version, Reply::Succeeded, bound).await
        {
            Ok(()) => Some(Connected {
                socket,
                target,
                tunnel,
                stream,
            }),
            Err(_) => None,
        },
        Err(reason) => {
            tracing::info!(service = service.name, %application, target_address = %target, ?reason, "stream refused");
            refuse(socket, version, reason.into()).await;
            None
        }
    }
}

/// Resolves when the application has closed its connection. Bytes that it sends too early stay for the target.
async fn gone(socket: &TcpStream) {
    match socket.peek(&mut [0; 1]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn refuse(mut socket: TcpStream, version: Version, reply: Reply) {
    if socks5::write_reply(&mut socket, version, reply, None)
        .await
        .is_ok()
    {
        close_after_reply(&socket).await;
    }
}

/// Closes so that what was written is read: closing with unread bytes at hand would break the connection and drop the reply.
pub(super) async fn close_after_reply(socket: &TcpStream) {
    if os::shutdown_write(socket).is_ok() {
        let _ = tokio::time::timeout(REPLY_LINGER, discard(socket)).await;
    }
}

async fn discard(socket: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

fn wire_target(target: &config::Target) -> Target {
    match target.host() {
        Host::Ip(ip) => Target::Address(SocketAddr::new(*ip, target.port())),
        Host::Name(host) => Target::Name {
            host: host.clone(),
            port: target.port(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (application, listener.accept().await.unwrap().0)
    }

    #[test]
    fn names_stay_names() {
        let name = Target::Name {
            host: "git.example.com".to_owned(),
            port: 22,
        };
        assert_eq!(wire_target(&"git.example.com:22".parse().unwrap()), name);
        assert_eq!(
            wire_target(&"[::1]:22".parse().unwrap()),
            Target::Address("[::1]:22".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn a_refused_application_reads_its_reply_although_it_has_sent_too_much() {
        let (mut application, socket) = sockets().await;
        application.write_all(&[7; 4096]).await.unwrap();
        socket.readable().await.unwrap();
        let closing = tokio::spawn(refuse(socket, Version::Five, Reply::NotAllowed));
        let mut reply = Vec::new();
        application.read_to_end(&mut reply).await.unwrap();
        assert_eq!(reply, [5, 2, 0, 1, 0, 0, 0, 0, 0, 0]);
        drop(application);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn an_application_that_leaves_is_noticed_and_early_bytes_are_left_alone() {
        let (application, socket) = sockets().await;
        drop(application);
        gone(&socket).await;
        let (mut application, mut socket) = sockets().await;
        application.write_all(b"early").await.unwrap();
        socket.readable().await.unwrap();
        tokio::select! {
            biased;
            () = gone(&socket) => panic!("it is still there"),
            () = tokio::task::yield_now() => {}
        }
        let mut bytes = [0; 5];
        socket.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
    }
}
