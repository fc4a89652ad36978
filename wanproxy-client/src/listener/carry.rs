//! One LAN connection from its accept to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::frame::{Reason, Target};
use edge::cli::Failure;
use edge::config::{Bind, ListenConfig, ListenKind};
use edge::lan::{Application, Carry, Introduction, LanListener, LanStream};
use edge::log::Ended;
use edge::os;
use edge::pace::paced;
use edge::relay::{relay, send_preface};
use tunnel::handle::TunnelHandle;
use tunnel::stream::StreamHandle;

use super::socks5::{self, Reply, Request, Version};
use super::uplink::Accepted;
use super::{Service, Uplink, http, sockets};

/// How long a refused application gets to read its reply before the connection is closed under it.
const REPLY_LINGER: Duration = Duration::from_secs(1);

impl Carry for Uplink {
    type Service = Service;

    fn open(config: &ListenConfig) -> Result<LanListener, Failure> {
        sockets::open(config)
    }

    fn refit(socket: &LanListener, config: &ListenConfig) -> Result<(), Failure> {
        sockets::refit(socket, config)
    }

    fn carry(
        self: Arc<Self>,
        socket: LanStream,
        between: (Application, Bind),
        service: Arc<Service>,
    ) -> impl Future<Output = ()> + Send + 'static {
        // From now on, and not from when there is time for it.
        let accepted = self.accepted();
        carry(socket, between, accepted, service, self)
    }
}

/// Serves one connection, from an application to the listener at an address.
async fn carry(
    mut socket: LanStream,
    (peer, listener): (Application, Bind),
    accepted: Accepted,
    service: Arc<Service>,
    uplink: Arc<Uplink>,
) {
    let _carrying = uplink.carrying();
    let started = Instant::now();
    socket.tune();
    let mut introduction = match Introduction::of(&mut socket, peer, service.proxy).await {
        Ok(introduction) => introduction,
        Err(error) => {
            tracing::debug!(service = service.name, %peer, %error, "connection refused");
            let _ = os::arm_reset(&socket);
            return;
        }
    };
    let application = introduction.application;
    let connected = match &service.kind {
        ListenKind::Forward(target) => {
            forward(socket, &target.to_wire(), None, &service, &uplink).await
        }
        ListenKind::Socks5 => socks5(socket, application, &service, &uplink).await,
        ListenKind::Http => {
            // Of its requests none may ever come.
            drop(accepted);
            return http::serve(socket, introduction, service, uplink).await;
        }
        ListenKind::Transparent(config) => {
            let whose = (service.name.as_str(), config.method);
            let source = application.address().filter(|_| config.preserve_source);
            let source = source.map(os::canonical);
            // The configuration gives a transparent service no Unix socket.
            let target = match (&socket, listener) {
                (LanStream::Tcp(socket), Bind::Tcp(listener)) => {
                    uplink.own().target(socket, application, listener, whose)
                }
                _ => Err("not_redirected"),
            };
            match target {
                Ok(target) => {
                    introduction = introduction.meant_for(target);
                    forward(socket, &Target::Address(target), source, &service, &uplink).await
                }
                Err(why) => {
                    uplink.count_refusal(why);
                    let _ = os::arm_reset(&socket);
                    None
                }
            }
        }
    };
    drop(accepted);
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
    let (mut send, receive) = paced(send, receive, std::slice::from_ref(&service.pace));
    send_preface(&mut send, introduction.preface()).await;
    let report = relay(socket, send, receive).await;
    let ended = Ended {
        service: &service.name,
        application,
        target: &target,
        tunnel: &tunnel,
        started,
    };
    ended.log(end, &report).await;
}

/// A connection whose stream is open.
struct Connected {
    socket: LanStream,
    target: Target,
    tunnel: TunnelHandle,
    stream: StreamHandle,
}

/// The target is known, and bytes may follow the Open at once. A refusal shows as a reset.
async fn forward(
    socket: LanStream,
    target: &Target,
    source: Option<SocketAddr>,
    service: &Service,
    uplink: &Uplink,
) -> Option<Connected> {
    match uplink.open_from(service, target, source).await {
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
    mut socket: LanStream,
    application: Application,
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
async fn gone(socket: &LanStream) {
    if let Ok(true) = socket.peek().await {
        std::future::pending().await
    }
}

async fn refuse(mut socket: LanStream, version: Version, reply: Reply) {
    if socks5::write_reply(&mut socket, version, reply, None)
        .await
        .is_ok()
    {
        close_after_reply(&socket).await;
    }
}

/// Closes so that what was written is read: closing with unread bytes at hand would break the connection and drop the reply.
pub(super) async fn close_after_reply(socket: &LanStream) {
    if os::shutdown_write(socket).is_ok() {
        let _ = tokio::time::timeout(REPLY_LINGER, discard(socket)).await;
    }
}

async fn discard(socket: &LanStream) -> io::Result<()> {
    let mut buffer = [0_u8; 1024];
    loop {
        socket.readable().await?;
        match socket.try_read_buf(&mut buffer.as_mut_slice()) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn sockets() -> (TcpStream, LanStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (application, listener.accept().await.unwrap().0.into())
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
        let (application, socket) = tokio::net::UnixStream::pair().unwrap();
        drop(application);
        gone(&socket.into()).await;
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
