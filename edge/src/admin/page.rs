//! The dashboard: one page and what it is drawn with, all of it in the program.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{MethodRouter, get};

/// What a page of this endpoint may do: run and show what this endpoint serves, talk to it, and nothing else. A login adds its form.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

/// Set on every answer. With `no-referrer` a browser would not say where a form comes from, and the login could not be checked.
pub(super) const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    ),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Each file's path, type and content. The page itself is at `/`.
pub(super) const FILES: [(&str, &str, &str); 9] = [
    ("/app.css", STYLE, include_str!("page/app.css")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/format.js", SCRIPT, include_str!("page/format.js")),
    ("/panels.js", SCRIPT, include_str!("page/panels.js")),
    ("/tables.js", SCRIPT, include_str!("page/tables.js")),
    ("/login.js", SCRIPT, include_str!("page/login.js")),
    ("/icon.svg", IMAGE, include_str!("page/icon.svg")),
];

/// The files that a login is drawn with.
pub(super) const OF_LOGIN: [&str; 3] = ["/app.css", "/login.js", "/icon.svg"];

/// The page.
pub(super) async fn index() -> impl IntoResponse {
    Html(include_str!("page/index.html"))
}

/// A route that serves one file.
pub(super) fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    content: &'static str,
) -> MethodRouter<S> {
    get(move || std::future::ready(([(header::CONTENT_TYPE, kind)], content)))
}
