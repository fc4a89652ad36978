//! What an application hears from the proxy itself.

use bytes::Bytes;
use codec::frame::Reason;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, PROXY_AUTHENTICATE};
use hyper::{Response, StatusCode};

/// An answer: the target's, or one of ours.
pub(super) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// The answer to a CONNECT whose target has taken the connection.
pub(super) fn connected() -> Answer {
    Response::new(Empty::new().map_err(|never| match never {}).boxed())
}

pub(super) fn ask_for_password() -> Answer {
    let mut answer = say(
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        "this proxy asks for a name and a password",
    );
    answer.headers_mut().insert(
        PROXY_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"wanproxy\""),
    );
    answer
}

/// Refusals, each with its status.
pub(super) mod refusal {
    use super::{Answer, Reason, StatusCode, say};

    pub(in super::super) fn bad_target() -> Answer {
        say(
            StatusCode::BAD_REQUEST,
            "the request names no target that can be connected to",
        )
    }

    pub(in super::super) fn not_for_a_proxy() -> Answer {
        say(
            StatusCode::BAD_REQUEST,
            "this is an HTTP proxy: use it by CONNECT, or ask for a whole URL",
        )
    }

    pub(in super::super) fn other_scheme() -> Answer {
        say(
            StatusCode::NOT_IMPLEMENTED,
            "only URLs that begin with http:// are passed on; use CONNECT for others",
        )
    }

    pub(in super::super) fn no_tunnel() -> Answer {
        say(
            StatusCode::SERVICE_UNAVAILABLE,
            "no tunnel to the other site is up",
        )
    }

    pub(in super::super) fn bad_answer() -> Answer {
        say(
            StatusCode::BAD_GATEWAY,
            "the target ended the connection, or does not speak HTTP",
        )
    }

    /// Why the other edge did not connect.
    pub(in super::super) fn of(reason: Reason) -> Answer {
        match reason {
            Reason::Policy => say(
                StatusCode::FORBIDDEN,
                "the other site's policy does not allow this target",
            ),
            Reason::BadTarget => bad_target(),
            Reason::TimedOut => say(
                StatusCode::GATEWAY_TIMEOUT,
                "the target did not answer in time",
            ),
            Reason::NameNotResolved => {
                say(StatusCode::BAD_GATEWAY, "the target's name has no address")
            }
            Reason::Refused => say(StatusCode::BAD_GATEWAY, "the target refused the connection"),
            Reason::HostUnreachable | Reason::NetworkUnreachable => {
                say(StatusCode::BAD_GATEWAY, "there is no way to the target")
            }
            Reason::Limit | Reason::GoingAway | Reason::TunnelLost => say(
                StatusCode::SERVICE_UNAVAILABLE,
                "the other site takes no more connections now",
            ),
            _ => say(StatusCode::BAD_GATEWAY, "the connection failed"),
        }
    }
}

fn say(status: StatusCode, line: &'static str) -> Answer {
    let body = Full::new(Bytes::from(format!("wanproxy: {line}\n")));
    let mut answer = Response::new(body.map_err(|never| match never {}).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_status() {
        for (reason, status) in [
            (Reason::Policy, 403),
            (Reason::BadTarget, 400),
            (Reason::TimedOut, 504),
            (Reason::NameNotResolved, 502),
            (Reason::Refused, 502),
            (Reason::HostUnreachable, 502),
            (Reason::NetworkUnreachable, 502),
            (Reason::Limit, 503),
            (Reason::GoingAway, 503),
            (Reason::TunnelLost, 503),
            (Reason::Internal, 502),
            (Reason::ConnectionReset, 502),
        ] {
            assert_eq!(refusal::of(reason).status(), status, "{reason:?}");
        }
    }
}
