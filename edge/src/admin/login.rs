//! The way in for a browser, where a token is asked for: a form, which is answered by a cookie. The token never stands in an address that is sent or logged;
//! behind `/login#` it may, for a browser keeps that part to itself, and the page's script takes it from there.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Form;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{Access, session};

/// The page's own policy: it may send its form here.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// Bytes of a login's body; a token has at most a kibibyte.
pub(super) const BODY_MAX_BYTES: usize = 4 * 1024;

/// Where the page says that a token was wrong.
const NOTE: &str = "<!-- note -->";

const WRONG: &str =
    r#"<p class="wrong" id="wrong" role="alert">That is not the token of this edge.</p>"#;

#[derive(Deserialize)]
pub(super) struct Login {
    token: String,
}

/// The form.
pub(super) async fn form(State(access): State<Arc<ArcSwap<Access>>>) -> Response {
    if access.load().token.is_none() {
        return Redirect::to("/").into_response();
    }
    page(StatusCode::OK, "")
}

/// What the form sends.
pub(super) async fn log_in(
    State(access): State<Arc<ArcSwap<Access>>>,
    Form(login): Form<Login>,
) -> Response {
    let access = access.load();
    let Some(token) = &access.token else {
        return Redirect::to("/").into_response();
    };
    if !token.is(login.token.as_bytes()) {
        tracing::warn!("a login at the dashboard with a wrong token");
        return page(StatusCode::UNAUTHORIZED, WRONG);
    }
    match HeaderValue::from_str(&session::cookie(token)) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn page(status: StatusCode, note: &str) -> Response {
    let html = include_str!("page/login.html").replace(NOTE, note);
    let policy = [(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)];
    (status, policy, Html(html)).into_response()
}
