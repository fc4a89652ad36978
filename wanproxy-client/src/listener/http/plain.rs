//! A request for a whole URL: passed on over a stream of its own, and its answer back.

use std::sync::Arc;
use std::time::Instant;

use codec::frame::{Reason, Target};
use edge::log::Ended;
use edge::pace::paced;
use edge::relay::{Outcome, Report, StreamIo, StreamReset, send_preface};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::{Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use tunnel::handle::TunnelHandle;

use super::Proxy;
use super::answer::{Answer, refusal};

/// Headers that are between two neighbours only (RFC 9110, section 7.6.1). Transfer-Encoding is hyper's own business on either side.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    // Whether to send a body is settled between application and proxy.
    EXPECT,
];

impl Proxy {
    /// Sends the request on and returns the target's answer, whose body follows as it comes.
    pub(super) async fn pass_on(
        self: Arc<Self>,
        target: Target,
        mut request: Request<Incoming>,
    ) -> Answer {
        if !rewrite(&mut request) {
            return refusal::bad_target();
        }
        let Some((tunnel, mut stream)) = self.uplink.open(&self.service, &target).await else {
            return refusal::no_tunnel();
        };
        if let Err(reason) = stream.opened().await {
            tracing::info!(service = self.service.name, application = %self.introduction.application, target_address = %target, ?reason, "stream refused");
            return refusal::of(reason);
        }
        let end = stream.end();
        let (send, receive) = stream.split();
        let (mut send, receive) = paced(send, receive, std::slice::from_ref(&self.service.pace));
        send_preface(&mut send, self.introduction.preface()).await;
        let stream = StreamIo::new(send, receive);
        let carried = stream.carried();
        let started = Instant::now();
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            return refusal::bad_answer();
        };
        let carrying = self.uplink.carrying();
        tokio::spawn(async move {
            let _carrying = carrying;
            let result = connection.await;
            let report = Report {
                to_wan_bytes: carried.to_wan_bytes(),
                from_wan_bytes: carried.from_wan_bytes(),
                outcome: outcome(result),
            };
            let tunnel: TunnelHandle = tunnel;
            let ended = Ended {
                service: &self.service.name,
                application: self.introduction.application,
                target: &target,
                tunnel: &tunnel,
                started,
            };
            ended.log(end, &report).await;
        });
        // The sender goes with this function, and the stream ends behind the answer.
        match sender.send_request(request).await {
            Ok(response) => answer(response),
            Err(error) => {
                tracing::debug!(%error, "no answer from the target");
                refusal::bad_answer()
            }
        }
    }
}

/// Makes of what was sent to a proxy what is sent to the target. False if that cannot be.
fn rewrite<B>(request: &mut Request<B>) -> bool {
    let Some(authority) = request.uri().authority() else {
        return false;
    };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
        return false;
    };
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| hyper::http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    headers.insert(HOST, host);
    headers.append(VIA, HeaderValue::from_static("1.1 wanproxy"));
    true
}

fn answer(response: Response<Incoming>) -> Answer {
    let mut response = response.map(BodyExt::boxed);
    remove_hop_by_hop(response.headers_mut());
    response
        .headers_mut()
        .append(VIA, HeaderValue::from_static("1.1 wanproxy"));
    *response.version_mut() = Version::HTTP_11;
    response
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn outcome(result: hyper::Result<()>) -> Outcome {
    let Err(error) = result else {
        return Outcome::Finished;
    };
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        let reset = inner.downcast_ref::<std::io::Error>().and_then(|io| {
            io.get_ref()
                .and_then(|inner| inner.downcast_ref::<StreamReset>())
        });
        if let Some(StreamReset(reason)) = reset {
            return Outcome::PeerReset(*reason);
        }
        source = inner.source();
    }
    if error.is_incomplete_message() || error.is_parse() {
        // The target broke HTTP, or off.
        return Outcome::PeerReset(Reason::ConnectionReset);
    }
    Outcome::LanFailed
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_request_loses_what_was_for_the_proxy() {
        let mut request = Request::builder()
            .uri("http://Example.com:8080/a?b=c")
            .version(Version::HTTP_10)
            .header("Proxy-Authorization", "Basic secret")
            .header("Proxy-Connection", "keep-alive")
            .header("Connection", "close, X-Private")
            .header("X-Private", "1")
            .header("X-Kept", "2")
            .header("Host", "elsewhere")
            .body(())
            .unwrap();
        assert!(rewrite(&mut request));
        assert_eq!(request.uri(), "/a?b=c");
        let mut headers: Vec<(String, &[u8])> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes()))
            .collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                ("host".to_owned(), &b"Example.com:8080"[..]),
                ("via".to_owned(), b"1.1 wanproxy"),
                ("x-kept".to_owned(), b"2"),
            ]
        );
    }

    #[test]
    fn a_url_without_a_path_asks_for_the_root() {
        let mut request = Request::builder()
            .uri("http://example.com")
            .body(())
            .unwrap();
        assert!(rewrite(&mut request));
        assert_eq!(request.uri(), "/");
    }
}
