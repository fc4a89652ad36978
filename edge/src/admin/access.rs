//! Who may ask the admin endpoint.
//!
//! With a token every request has to present it, or the cookie that a login has given for it. Without one the endpoint is on loopback only, and
//! the Host header must name loopback or the address it listens on: a web page elsewhere can make a browser connect here by a name of its
//! own, but it cannot make the browser send another name than that (DNS rebinding). What a browser does on behalf of another page is refused:
//! requests that change something, which must come from no page or from one of this endpoint's own, and any that the browser says another site
//! has caused, but for a link that somebody follows.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, StatusCode, Version, header};

use super::session;
use crate::config::Bind;

/// The secret that admin requests present.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes what [`AdminConfig::token`](crate::config::AdminConfig::token) read.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The value of the Authorization header that presents it.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Is this it?
    pub(super) fn is(&self, presented: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(presented.trim_ascii(), self.0.as_bytes())
            .is_ok()
    }

    /// For keys that are derived from it.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn is_presented_by(&self, authorization: &[u8]) -> bool {
        let Some((scheme, presented)) = authorization.split_at_checked(7) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && self.is(presented)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// What is asked for, as far as access depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Figures, orders, the dashboard itself.
    Inside,
    /// The way in, and what it is drawn with: nothing that anybody may not know.
    Login,
}

/// The rule for one endpoint.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it listens.
    pub bind: Bind,
    /// What requests must present, if anything.
    pub token: Option<Token>,
}

impl Access {
    /// May this request be served?
    ///
    /// # Errors
    /// The status to answer with, and a line that says why.
    pub fn check(
        &self,
        asked: Asked,
        method: &Method,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), (StatusCode, &'static str)> {
        let authorization = headers.get(header::AUTHORIZATION);
        if let (Some(token), Some(value)) = (&self.token, authorization)
            && token.is_presented_by(value.as_bytes())
        {
            // No page can make a browser send this.
            return Ok(());
        }
        let host = headers
            .get(header::HOST)
            .map(|value| value.to_str().unwrap_or_default());
        if is_of_another_page(method, headers, host) {
            return Err((
                StatusCode::FORBIDDEN,
                "a page from elsewhere may not ask here\n",
            ));
        }
        if let Some(token) = &self.token {
            return if asked == Asked::Login || session::is_in(headers, token) {
                Ok(())
            } else {
                Err((
                    StatusCode::UNAUTHORIZED,
                    "present the token: Authorization: Bearer TOKEN; in a browser, log in at /login\n",
                ))
            };
        }
        match host {
            Some(host) if self.is_own_name(host) => Ok(()),
            // No browser leaves it out; a probe that speaks HTTP/1.0 may.
            None if version == Version::HTTP_10 => Ok(()),
            _ => Err((
                StatusCode::FORBIDDEN,
                "the Host header must name localhost, a loopback address or the address of [admin] bind\n",
            )),
        }
    }

    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, _port)) => inside,
            None => host.split_once(':').map_or(host, |(name, _port)| name),
        };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        name.parse::<IpAddr>().is_ok_and(|address| {
            address.to_canonical().is_loopback()
                || self.bind.tcp().is_some_and(|bind| address == bind.ip())
        })
    }
}

/// Has a page from elsewhere caused this? Browsers name the page that makes them change something, and most say of anything whether another site
/// is behind it; programs say neither.
fn is_of_another_page(method: &Method, headers: &HeaderMap, host: Option<&str>) -> bool {
    let says = |name: &str, values: &[&str]| {
        headers
            .get(name)
            .is_some_and(|said| values.iter().any(|value| said == value))
    };
    let is_elsewhere = says("sec-fetch-site", &["cross-site", "same-site"]);
    let is_followed_link = method == Method::GET
        && says("sec-fetch-mode", &["navigate"])
        && says("sec-fetch-dest", &["document"]);
    if is_elsewhere && !is_followed_link {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let page = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_scheme, host)| host);
    page.is_none() || page != host
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use axum::http::HeaderName;

    use super::*;

    fn asked(
        access: &Access,
        version: Version,
        name: HeaderName,
        value: Option<&str>,
    ) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(name, value.parse().unwrap());
        }
        access
            .check(Asked::Inside, &Method::GET, version, &headers)
            .err()
            .map(|(status, _)| status)
    }

    #[test]
    fn without_a_token_only_own_names_are_served() {
        let access = Access {
            bind: "192.0.2.1:9900".parse().unwrap(),
            token: None,
        };
        let host = |value| asked(&access, Version::HTTP_11, header::HOST, value);
        for good in [
            "localhost",
            "LocalHost:9900",
            "127.0.0.1:9900",
            "127.9.9.9",
            "[::1]:9900",
            "[::1]",
            "192.0.2.1:1",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(host(Some(good)), None, "{good}");
        }
        for bad in [
            "evil.example:9900",
            "localhost.evil.example",
            "192.0.2.2",
            "[::2]",
            "",
            "127.0.0.1.evil.example",
            "::1",
        ] {
            assert_eq!(host(Some(bad)), Some(StatusCode::FORBIDDEN), "{bad}");
        }
        assert_eq!(host(None), Some(StatusCode::FORBIDDEN));
        assert_eq!(asked(&access, Version::HTTP_10, header::HOST, None), None);
    }

    #[test]
    fn only_own_pages_may_change_something() {
        let access = Access {
            bind: "127.0.0.1:9900".parse().unwrap(),
            token: None,
        };
        let post = |method: Method, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:9900".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            access
                .check(Asked::Inside, &method, Version::HTTP_11, &headers)
                .is_ok()
        };
        assert!(post(Method::POST, None));
        assert!(post(Method::POST, Some("http://127.0.0.1:9900")));
        for elsewhere in [
            "https://evil.example",
            "http://127.0.0.1:8080",
            "http://127.0.0.1:9900.evil.example",
            "null",
            "",
        ] {
            assert!(!post(Method::POST, Some(elsewhere)), "{elsewhere}");
            assert!(!post(Method::DELETE, Some(elsewhere)), "{elsewhere}");
            assert!(!post(Method::GET, Some(elsewhere)), "{elsewhere}");
        }
    }

    #[test]
    fn what_another_site_causes_is_refused_but_for_a_link_that_is_followed() {
        let access = Access {
            bind: "127.0.0.1:9900".parse().unwrap(),
            token: None,
        };
        let from = |method: Method, site: &str, mode: &str, dest: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:9900".parse().unwrap());
            headers.insert("sec-fetch-site", site.parse().unwrap());
            headers.insert("sec-fetch-mode", mode.parse().unwrap());
            headers.insert("sec-fetch-dest", dest.parse().unwrap());
            access
                .check(Asked::Inside, &method, Version::HTTP_11, &headers)
                .is_ok()
        };
        assert!(from(Method::GET, "none", "navigate", "document"));
        assert!(from(Method::GET, "same-origin", "cors", "empty"));
        assert!(from(Method::GET, "cross-site", "navigate", "document"));
        assert!(!from(Method::GET, "cross-site", "no-cors", "image"));
        assert!(!from(Method::GET, "same-site", "cors", "empty"));
        assert!(!from(Method::GET, "cross-site", "navigate", "iframe"));
        assert!(!from(Method::POST, "cross-site", "navigate", "document"));
    }

    #[test]
    fn with_a_token_only_its_bearer_is_served() {
        let access = Access {
            bind: "0.0.0.0:9900".parse().unwrap(),
            token: Some(Token("0123456789abcdef".to_owned())),
        };
        let with = |value| asked(&access, Version::HTTP_11, header::AUTHORIZATION, value);
        for good in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
            assert_eq!(with(Some(good)), None, "{good}");
        }
        for bad in [
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer",
            "Bearer ",
        ] {
            assert_eq!(with(Some(bad)), Some(StatusCode::UNAUTHORIZED), "{bad}");
        }
        assert_eq!(with(None), Some(StatusCode::UNAUTHORIZED));
        let login = access.check(
            Asked::Login,
            &Method::GET,
            Version::HTTP_11,
            &HeaderMap::new(),
        );
        assert!(login.is_ok());
    }

    #[test]
    fn a_token_does_not_print() {
        let token = Token::new("0123456789abcdef".to_owned());
        assert_eq!(token.authorization(), "Bearer 0123456789abcdef");
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
