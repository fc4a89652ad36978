//! The admin endpoint: `/metrics`, `/api/status`, `/api/history`, `/healthz` and `/readyz` over HTTP, for scrapers, probes and the commands
//! `status` and `history`.

mod access;
mod ask;
mod command;
mod connection;
mod history;
mod status;
mod summary;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use access::{Access, Token};
pub use ask::{AskError, ask, order};
pub use command::{Endpoint, print_status};
pub use history::{ClearPage, DomainLine, HistoryAccess, HistoryPage, VerifyStarted};
pub use status::{
    CodecBytes, HistoryStatus, JobStatus, LinkStatus, Savings, ServiceStatus, Status, TunnelStatus,
    ratio,
};
pub use summary::summary;

use crate::cli::Failure;
use crate::config::AdminConfig;
use crate::metrics::{self, Family};

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

/// A running endpoint. Dropping it closes its listening socket.
pub struct AdminServer {
    task: JoinHandle<()>,
    access: Arc<ArcSwap<Access>>,
}

impl AdminServer {
    /// Serves `observed` on `listener`.
    pub fn start(listener: TcpListener, access: Access, observed: Arc<dyn Observed>) -> Self {
        let access = Arc::new(ArcSwap::from_pointee(access));
        let app = router(access.clone(), observed);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(connection::BoundedListener::new(listener), app).await {
                tracing::error!(%error, "the admin endpoint has ended");
            }
        });
        Self { task, access }
    }

    /// Replaces the token, on a reload.
    pub fn set_token(&self, token: Option<Token>) {
        let bind = self.access.load().bind;
        self.access.store(Arc::new(Access { bind, token }));
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(access: Arc<ArcSwap<Access>>, observed: Arc<dyn Observed>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/api/status", get(status_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .merge(history::routes())
        .with_state(observed)
        .layer(middleware::from_fn_with_state(access, guard))
}

async fn guard(
    State(access): State<Arc<ArcSwap<Access>>>,
    request: Request,
    next: Next,
) -> Response {
    let checked = access
        .load()
        .check(request.method(), request.version(), request.headers());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    if matches!(checked, Err((StatusCode::UNAUTHORIZED, _))) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

async fn metrics_page(State(observed): State<Arc<dyn Observed>>) -> Response {
    match metrics::text(observed.metrics()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status_page(State(observed): State<Arc<dyn Observed>>) -> axum::Json<Status> {
    axum::Json(observed.status())
}

async fn ready_page(State(observed): State<Arc<dyn Observed>>) -> (StatusCode, String) {
    match observed.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tunnel::histories::{Histories, HistoriesConfig, Lean};
    use tunnel::pool::{Pools, PoolsConfig};

    use super::*;

    struct Fake(Result<(), String>);

    impl Observed for Fake {
        fn status(&self) -> Status {
            Status {
                edge: "client".to_owned(),
                name: "branch-1".to_owned(),
                ..Status::default()
            }
        }

        fn metrics(&self) -> Vec<Family> {
            vec![Family::gauge("wanproxy_test", "A test.").with(&[("peer", "a")], 1u64)]
        }

        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }

        fn history(&self) -> HistoryAccess {
            let one = std::num::NonZeroUsize::MIN;
            let pools = PoolsConfig {
                codec_threads: one,
                crypto_threads: one,
                storage_threads: one,
                resolve_threads: one,
                queue: one,
            };
            let histories = HistoriesConfig::in_memory(Lean::Receiving, 1 << 20);
            HistoryAccess {
                histories: Arc::new(Histories::new(histories)),
                pools: Arc::new(Pools::start(&tokio::runtime::Handle::current(), pools)),
            }
        }
    }

    async fn start(
        token: Option<&str>,
        ready: Result<(), String>,
    ) -> (std::net::SocketAddr, AdminServer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bind = listener.local_addr().unwrap();
        let token = token.map(|secret| Token::new(secret.to_owned()));
        (
            bind,
            AdminServer::start(listener, Access { bind, token }, Arc::new(Fake(ready))),
        )
    }

    async fn raw(address: std::net::SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn page(address: std::net::SocketAddr, path: &str) -> String {
        raw(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        )
        .await
    }

    #[tokio::test]
    async fn the_pages_answer() {
        let (address, _server) = start(None, Ok(())).await;
        assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = page(address, "/metrics").await;
        assert!(
            metrics.contains("wanproxy_test{peer=\"a\"} 1\n"),
            "{metrics}"
        );
        assert!(
            page(address, "/api/status")
                .await
                .contains("\"name\":\"branch-1\"")
        );
        assert!(page(address, "/").await.starts_with("HTTP/1.1 404"));
        assert!(
            page(address, "/api/events")
                .await
                .starts_with("HTTP/1.1 404")
        );
        let post = raw(address, "POST /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    }

    #[tokio::test]
    async fn an_edge_that_is_not_ready_says_what_is_missing() {
        let (address, _server) = start(None, Err("no tunnel is up".to_owned())).await;
        let answer = page(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.ends_with("no tunnel is up\n"),
            "{answer}"
        );
        assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn histories_in_memory_are_shown_and_cleared_but_not_verified() {
        let (address, _server) = start(None, Ok(())).await;
        let answer = page(address, "/api/history").await;
        assert!(
            answer.ends_with("{\"directory\":null,\"excuse\":null,\"domains\":[]}"),
            "{answer}"
        );
        let post = async |path: &str, more: &str| {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n{more}\r\n"
            );
            raw(address, &request).await
        };
        let answer = post("/api/history/verify", "").await;
        assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
        let answer = post("/api/history/clear?peer=a", "").await;
        assert!(
            answer.ends_with("{\"cleared\":[],\"under_way\":[],\"failed\":[]}"),
            "{answer}"
        );
        let answer = post("/api/history/clear", "Origin: https://evil.example\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let answer = page(address, "/api/history/clear").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[tokio::test]
    async fn a_foreign_host_is_refused_everywhere() {
        let (address, _server) = start(None, Ok(())).await;
        for path in [
            "/metrics",
            "/api/status",
            "/api/history",
            "/healthz",
            "/nothing",
        ] {
            let answer = raw(
                address,
                &format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_new_token_counts_at_once() {
        let (address, server) = start(Some("0123456789abcdef"), Ok(())).await;
        let with = |token: &str| {
            format!(
                "GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            )
        };
        assert!(
            raw(address, &with("0123456789abcdef"))
                .await
                .starts_with("HTTP/1.1 200")
        );
        let refused = raw(address, &with("fedcba9876543210")).await;
        assert!(
            refused.starts_with("HTTP/1.1 401")
                && refused.to_lowercase().contains("www-authenticate: bearer"),
            "{refused}"
        );
        server.set_token(Some(Token::new("fedcba9876543210".to_owned())));
        assert!(
            raw(address, &with("0123456789abcdef"))
                .await
                .starts_with("HTTP/1.1 401")
        );
        assert!(
            raw(address, &with("fedcba9876543210"))
                .await
                .starts_with("HTTP/1.1 200")
        );
    }

    #[tokio::test]
    async fn a_header_without_end_is_cut_off() {
        let (address, _server) = start(None, Ok(())).await;
        let mut socket = TcpStream::connect(address).await.unwrap();
        let endless = vec![b'a'; 1 << 20];
        let _ = socket
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
            .await;
        let _ = socket.write_all(&endless).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
