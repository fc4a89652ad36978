//! The admin endpoint over HTTP: the dashboard at `/`, `/metrics`, `/api/status`, `/api/events`, `/api/history`, `/healthz` and `/readyz`, for people,
//! scrapers, probes and the commands `status` and `history`.

mod access;
mod ask;
mod command;
mod connection;
mod events;
mod history;
mod live;
mod login;
mod page;
mod session;
mod status;
mod summary;
mod watch;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tokio::task::JoinHandle;

pub use access::{Access, Asked, Token};
pub use ask::{AskError, ask, order};
pub use command::{Endpoint, print_status};
pub use history::{ClearPage, DomainLine, HistoryAccess, HistoryPage, VerifyStarted};
pub use live::{Pulse, Sample};
pub use status::{
    CodecBytes, HistoryStatus, JobStatus, LinkStatus, MemoryStatus, PoolStatus, Savings,
    ServiceStatus, Status, TunnelStatus, ratio,
};
pub use summary::summary;
pub use watch::watch_status;

use crate::cli::Failure;
use crate::config::AdminConfig;
use crate::journal::Journal;
use crate::lan::LanListener;
use crate::metrics::{self, Family, Format};
use connection::Place;
use events::Readers;
use live::Live;

/// The token that `[admin]` asks for.
///
/// # Errors
/// Its file cannot be used.
pub fn configured_token(admin: Option<&AdminConfig>) -> Result<Option<Token>, Failure> {
    let token = admin
        .map(AdminConfig::token)
        .transpose()
        .map_err(Failure::of_configured)?;
    Ok(token.flatten().map(Token::new))
}

/// An edge as the admin endpoint sees it. Asked on each request; answers without waiting.
pub trait Observed: Send + Sync + 'static {
    /// For `/api/status`.
    fn status(&self) -> Status;
    /// What moves, asked each second.
    fn pulse(&self) -> Pulse;
    /// For `/metrics`.
    fn metrics(&self) -> Vec<Family>;
    /// For `/readyz`.
    ///
    /// # Errors
    /// What is missing, in one line.
    fn ready(&self) -> Result<(), String>;
    /// For `/api/history`.
    fn history(&self) -> HistoryAccess;
}

/// A running endpoint. Dropping it closes its listening socket and ends the live figures.
pub struct AdminServer {
    tasks: [JoinHandle<()>; 2],
    live: Arc<Live>,
    access: Arc<ArcSwap<Access>>,
}

impl AdminServer {
    /// Serves `observed` on `listener`, and what its `journal` says.
    pub fn start(
        listener: LanListener,
        access: Access,
        observed: Arc<dyn Observed>,
        journal: Arc<Journal>,
    ) -> Self {
        let access = Arc::new(ArcSwap::from_pointee(access));
        let live = Arc::new(Live::new(observed.clone(), journal));
        let app = router(Parts {
            access: access.clone(),
            observed,
            live: live.clone(),
            readers: Readers::new(live.clone()),
        });
        let serve = tokio::spawn(async move {
            let app = app.into_make_service_with_connect_info::<Place>();
            if let Err(error) = axum::serve(connection::BoundedListener::new(listener), app).await {
                tracing::error!(%error, "the admin endpoint has ended");
            }
        });
        let sampler = live.clone();
        let sample = tokio::spawn(async move { sampler.run().await });
        Self {
            tasks: [serve, sample],
            live,
            access,
        }
    }

    /// Replaces the token, on a reload.
    pub fn set_token(&self, token: Option<Token>) {
        let bind = self.access.load().bind.clone();
        self.access.store(Arc::new(Access { bind, token }));
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.live.end();
    }
}

/// What the pages are made from.
#[derive(Clone)]
struct Parts {
    access: Arc<ArcSwap<Access>>,
    observed: Arc<dyn Observed>,
    live: Arc<Live>,
    readers: Readers,
}

impl FromRef<Parts> for Arc<ArcSwap<Access>> {
    fn from_ref(parts: &Parts) -> Self {
        parts.access.clone()
    }
}

impl FromRef<Parts> for Arc<dyn Observed> {
    fn from_ref(parts: &Parts) -> Self {
        parts.observed.clone()
    }
}

impl FromRef<Parts> for Arc<Live> {
    fn from_ref(parts: &Parts) -> Self {
        parts.live.clone()
    }
}

impl FromRef<Parts> for Readers {
    fn from_ref(parts: &Parts) -> Self {
        parts.readers.clone()
    }
}

fn router(parts: Parts) -> Router {
    let mut router = Router::new()
        .route("/", get(page::index))
        .route("/login", get(login::form).post(login::log_in))
        .layer(DefaultBodyLimit::max(login::BODY_MAX_BYTES))
        .route("/metrics", get(metrics_page))
        .route("/api/status", get(status_page))
        .route("/api/events", get(events::events))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .merge(history::routes());
    for (path, kind, content) in page::FILES {
        router = router.route(path, page::file(kind, content));
    }
    let access = parts.access.clone();
    router
        .with_state(parts)
        .layer(middleware::from_fn_with_state(access, guard))
}

async fn guard(
    State(access): State<Arc<ArcSwap<Access>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let asked = if path == "/login" || page::OF_LOGIN.contains(&path) {
        Asked::Login
    } else {
        Asked::Inside
    };
    let (method, version) = (request.method(), request.version());
    let checked = access
        .load()
        .check(asked, method, version, request.headers());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        // Whoever opens the dashboard is led to the form.
        Err((StatusCode::UNAUTHORIZED, _)) if path == "/" && method == Method::GET => {
            Redirect::to("/login").into_response()
        }
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    if matches!(checked, Err((StatusCode::UNAUTHORIZED, _))) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    for (name, value) in page::HEADERS {
        headers.entry(name).or_insert(value);
    }
    response
}

async fn metrics_page(State(observed): State<Arc<dyn Observed>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter();
    let format = Format::asked_by(accept.filter_map(|value| value.to_str().ok()));
    match metrics::text(observed.metrics(), format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status_page(State(live): State<Arc<Live>>) -> axum::Json<Status> {
    axum::Json(live.status())
}

async fn ready_page(State(observed): State<Arc<dyn Observed>>) -> (StatusCode, String) {
    match observed.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

#[cfg(test)]
mod tests;
