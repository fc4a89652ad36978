//! Connections that a packet filter sends here: where they were going, and which must not be carried.
//!
//! What would lead back is refused: a connection to the listener itself, and one to a server of the tunnel, which may well be this edge's own
//! attempt to reach it. Carried, each would make the next one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge::config::Method;
use edge::lan::Application;
use edge::log::Throttle;
use edge::os;
use tokio::net::TcpStream;
use tunnel::environment::Prepare;

/// Refusals of a service for one reason are logged once in this time.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// Addresses of servers that are remembered, the newest: 16 names with 16 addresses each.
const SERVERS_MAX: usize = 256;

/// What this edge's own connections are known by.
#[derive(Debug)]
pub struct OwnConnections {
    servers: Mutex<VecDeque<SocketAddr>>,
    marks: AtomicBool,
    throttle: Throttle<(String, &'static str)>,
}

impl Default for OwnConnections {
    fn default() -> Self {
        Self {
            servers: Mutex::default(),
            marks: AtomicBool::new(false),
            throttle: Throttle::new(REFUSAL_LOG_PERIOD),
        }
    }
}

/// A connection is not carried.
#[derive(Debug)]
pub enum NotCarried {
    /// The kernel does not know where it was going.
    NotRedirected(io::Error),
    /// It was going to the listener itself.
    Listener,
    /// It was going to a server of the tunnel.
    Server,
}

impl NotCarried {
    /// One word for logs and metrics.
    const fn label(&self) -> &'static str {
        match self {
            Self::NotRedirected(_) => "not_redirected",
            Self::Listener => "loop_to_listener",
            Self::Server => "loop_to_server",
        }
    }
}

impl fmt::Display for NotCarried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRedirected(error) => write!(
                formatter,
                "no rule has redirected it here, so there is no telling where it was going ({error}); load the rules of `wanproxy-client transparent-rules`"
            ),
            Self::Listener => formatter.write_str(
                "it was going to this listener itself and would go round for ever; connect to the target, not to the listener",
            ),
            Self::Server => formatter.write_str(
                "it was going to the tunnel's own server and would go round for ever; exclude the server from the rules, as `wanproxy-client transparent-rules` does",
            ),
        }
    }
}

impl OwnConnections {
    /// From now on the edge's own connections bear its mark, or do not.
    pub fn set_marks(&self, marks: bool) {
        self.marks.store(marks, Ordering::Relaxed);
    }

    /// What the tunnel does with a socket before it dials a server.
    pub fn prepare(self: &Arc<Self>) -> Prepare {
        let own = self.clone();
        Arc::new(move |socket, address| {
            own.note_server(address);
            if own.marks.load(Ordering::Relaxed)
                && let Err(error) = os::mark_own(socket)
            {
                // Rules that catch forwarded connections only need no mark.
                tracing::debug!(%error, "the connection to the server bears no mark, which needs CAP_NET_ADMIN");
            }
        })
    }

    fn note_server(&self, address: SocketAddr) {
        let address = os::canonical(address);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.contains(&address) {
            return;
        }
        if servers.len() == SERVERS_MAX {
            servers.pop_front();
        }
        servers.push_back(address);
    }

    fn check(&self, target: SocketAddr, listener: SocketAddr) -> Result<SocketAddr, NotCarried> {
        let listener_ip = listener.ip().to_canonical();
        if target.port() == listener.port()
            && (target.ip() == listener_ip || os::is_own_address(target.ip()))
        {
            return Err(NotCarried::Listener);
        }
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.contains(&target) {
            return Err(NotCarried::Server);
        }
        Ok(target)
    }

    /// Where an intercepted connection was going.
    ///
    /// # Errors
    /// It is not to be carried. One word says why, and a line in the log all of it.
    pub fn target(
        &self,
        socket: &TcpStream,
        application: Application,
        listener: SocketAddr,
        (service, method): (&str, Method),
    ) -> Result<SocketAddr, &'static str> {
        let original = match method {
            Method::Redirect => os::original_destination(socket),
            Method::Tproxy => socket.local_addr().map(os::canonical),
        };
        let (target, why) = match original {
            Ok(target) => match self.check(target, listener) {
                Ok(target) => return Ok(target),
                Err(why) => (Some(target), why),
            },
            Err(error) => (None, NotCarried::NotRedirected(error)),
        };
        let kind = (service.to_owned(), why.label());
        if let Some(held_back) = self.throttle.admit(&kind, Instant::now()) {
            let target = target.map(|target| target.to_string());
            tracing::warn!(service, %application, target_address = target, reason = why.label(), %why, held_back, "connection refused");
        }
        Err(why.label())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_leads_back_is_refused_and_what_looks_like_it_is_not() {
        let own = OwnConnections::default();
        own.note_server(address("192.0.2.1:7443"));
        own.note_server(address("[::ffff:192.0.2.2]:7443"));
        let listener = address("[::]:7080");
        for (target, refused) in [
            ("192.0.2.1:7443", true),
            ("192.0.2.2:7443", true),
            ("192.0.2.1:443", false),
            ("127.0.0.1:7080", true),
            ("127.0.0.1:80", false),
            ("192.0.2.9:7080", false),
        ] {
            let result = own.check(address(target), listener);
            assert_eq!(result.is_err(), refused, "{target}: {result:?}");
        }
        let result = own.check(address("192.0.2.9:7080"), address("192.0.2.9:7080"));
        assert!(matches!(result, Err(NotCarried::Listener)), "{result:?}");
    }

    #[test]
    fn servers_are_remembered_up_to_a_bound() {
        let own = OwnConnections::default();
        for port in 1..=u16::try_from(SERVERS_MAX).unwrap() + 1 {
            own.note_server(SocketAddr::from(([192, 0, 2, 1], port)));
            own.note_server(SocketAddr::from(([192, 0, 2, 1], port)));
        }
        let servers = own.servers.lock().unwrap();
        assert_eq!(servers.len(), SERVERS_MAX);
        assert!(!servers.contains(&address("192.0.2.1:1")));
    }

    #[tokio::test]
    async fn a_connection_to_the_listener_itself_is_not_carried() {
        let own = OwnConnections::default();
        let listener = os::listen(address("127.0.0.1:0")).unwrap();
        let listening = listener.local_addr().unwrap();
        let _application = TcpStream::connect(listening).await.unwrap();
        let (accepted, application) = listener.accept().await.unwrap();
        for method in [Method::Redirect, Method::Tproxy] {
            let target = own.target(
                &accepted,
                Application::Tcp(application),
                listening,
                ("lan", method),
            );
            assert!(target.is_err(), "{method:?}");
        }
    }
}
