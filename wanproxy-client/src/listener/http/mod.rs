//! An HTTP proxy: CONNECT, and requests for whole URLs (`GET http://host/path`), which are passed on one by one.
//!
//! hyper parses and bounds what applications send. A CONNECT becomes a stream that is relayed like any other; a request for a URL
//! gets a stream of its own, so that one connection of an application may go to many targets.

mod answer;
mod plain;
mod socket;
mod tunnel;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codec::frame::Target;
use edge::config::parse_host_name;
use edge::lan::{Introduction, LanStream};
use edge::os;
use edge::users::Users;
use hyper::body::Incoming;
use hyper::header::PROXY_AUTHORIZATION;
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::carry::close_after_reply;
use super::{Service, Uplink};
use answer::{Answer, refusal};
use socket::SharedSocket;

/// The most bytes of a request's line and headers.
const HEAD_MAX_BYTES: usize = 8 * 1024;

/// How long an application may take to send them; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// One application's connection.
struct Proxy {
    introduction: Introduction,
    service: Arc<Service>,
    uplink: Arc<Uplink>,
    started: Instant,
}

/// Serves one connection to its end, and what was CONNECTed over it.
pub(super) async fn serve(
    socket: LanStream,
    introduction: Introduction,
    service: Arc<Service>,
    uplink: Arc<Uplink>,
) {
    let socket = SharedSocket::new(socket);
    let proxy = Arc::new(Proxy {
        introduction,
        service,
        uplink,
        started: Instant::now(),
    });
    let answering = proxy.clone();
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_MAX_BYTES)
        // An application may end its direction behind its request and still wants the answer.
        .half_close(true)
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(socket.clone()),
            service_fn(move |request| {
                let proxy = answering.clone();
                async move { Ok::<_, Infallible>(proxy.answer(request).await) }
            }),
        )
        .with_upgrades()
        .await;
    let Err(error) = served else { return };
    let application = introduction.application;
    tracing::debug!(service = proxy.service.name, %application, %error, "HTTP connection ended");
    if error.is_parse() {
        // It has been told; closing with its bytes unread would destroy the answer.
        close_after_reply(socket.get()).await;
    } else if error.is_user() || error.is_body_write_aborted() {
        // An answer that broke off must not look whole.
        let _ = os::arm_reset(socket.get());
    }
}

impl Proxy {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        if let Some(users) = &self.service.users
            && !is_allowed(users, &request)
        {
            return answer::ask_for_password();
        }
        if request.method() == Method::CONNECT {
            return match request
                .uri()
                .authority()
                .and_then(|named| target(named, None))
            {
                Some(target) => self.connect(target, request).await,
                None => refusal::bad_target(),
            };
        }
        match (request.uri().scheme_str(), request.uri().authority()) {
            (Some("http"), Some(named)) => match target(named, Some(HTTP_PORT)) {
                Some(target) => self.pass_on(target, request).await,
                None => refusal::bad_target(),
            },
            (Some(_), _) => refusal::other_scheme(),
            (None, _) => refusal::not_for_a_proxy(),
        }
    }
}

fn is_allowed(users: &Users, request: &Request<Incoming>) -> bool {
    let presented = request.headers().get(PROXY_AUTHORIZATION);
    presented.is_some_and(|value| {
        let (scheme, encoded) = value.as_bytes().split_at_checked(6).unwrap_or_default();
        let decoded = STANDARD.decode(encoded.trim_ascii()).unwrap_or_default();
        let Some(colon) = decoded.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let (name, password) = decoded.split_at(colon);
        scheme.eq_ignore_ascii_case(b"basic ")
            && users.allow(name, password.get(1..).unwrap_or_default())
    })
}

fn target(named: &Authority, default_port: Option<u16>) -> Option<Target> {
    // What stands before an @ would be a password for the target; nobody should send one here.
    if named.as_str().contains('@') {
        return None;
    }
    let port = match (named.port(), default_port) {
        (Some(port), _) => port.as_u16(),
        // "host:" names no port.
        (None, Some(port)) if !named.as_str().ends_with(':') => port,
        _ => return None,
    };
    if port == 0 {
        return None;
    }
    let host = named.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Target::Address(SocketAddr::new(address, port)));
    }
    let host = parse_host_name(host).ok()?;
    Some(Target::Name { host, port })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn targets_are_addresses_or_names_with_a_port() {
        let read = |text: &str, default| target(&text.parse().unwrap(), default);
        let address = |text: &str| Some(Target::Address(text.parse().unwrap()));
        let name = |host: &str, port| {
            Some(Target::Name {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!(read("10.0.0.5:445", None), address("10.0.0.5:445"));
        assert_eq!(read("[::1]:22", None), address("[::1]:22"));
        assert_eq!(
            read("git.example.com:22", None),
            name("git.example.com", 22)
        );
        assert_eq!(
            read("git.example.com", Some(80)),
            name("git.example.com", 80)
        );
        assert_eq!(read("[::1]", Some(80)), address("[::1]:80"));
        for (bad, default) in [
            ("git.example.com", None),
            ("git.example.com:0", None),
            ("a@git.example.com:1", None),
            ("10.0.1:80", None),
            ("a_b..c:80", None),
        ] {
            assert_eq!(read(bad, default), None, "{bad}");
        }
    }
}
