//! `/api/history`: what the histories hold, by peer and domain, and what they are ordered to do.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tunnel::histories::{Cleared, DomainReport, Histories};
use tunnel::pool::Pools;

use super::{Observed, Parts};

/// What orders about histories need.
#[derive(Clone)]
pub struct HistoryAccess {
    /// The histories.
    pub histories: Arc<Histories>,
    /// Where file work is done.
    pub pools: Arc<Pools>,
}

/// The histories at one moment: `GET /api/history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The directory; nothing where they are in memory.
    pub directory: Option<String>,
    /// Why they are in memory although a directory is configured.
    pub excuse: Option<String>,
    /// Each domain with each peer.
    pub domains: Vec<DomainLine>,
}

/// One domain with one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainLine {
    /// The peer.
    pub peer: String,
    /// `shared`, or `c:SERVICE`.
    pub domain: String,
    /// `disk` or `memory`.
    pub place: String,
    /// What may be used, in bytes.
    pub capacity_bytes: u64,
    /// Sent and remembered, in bytes; nothing of one that was not used since the start.
    pub own_bytes: Option<u64>,
    /// Received and remembered, in bytes; nothing of one that was not used since the start.
    pub mirror_bytes: Option<u64>,
    /// Taken on disk.
    pub disk_bytes: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Its files lack something that is in memory; within a second they do not.
    pub unwritten: bool,
    /// It cannot be written at present.
    pub read_only: bool,
    /// A tunnel uses it.
    pub in_use: bool,
    /// Pages that could not be read since the start.
    pub damaged_pages: u64,
}

/// The answer to `POST /api/history/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStarted {
    /// Names the job in `status`.
    pub token: String,
}

/// The answer to `POST /api/history/clear`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearPage {
    /// Domains that are empty now, as `PEER DOMAIN`.
    pub cleared: Vec<String>,
    /// Domains in use: their tunnel gives up what there is as soon as nothing under way needs it.
    pub under_way: Vec<String>,
    /// Domains that could not be cleared, each with why.
    pub failed: Vec<String>,
}

#[derive(Deserialize)]
struct ClearQuery {
    peer: Option<String>,
}

impl HistoryPage {
    /// The present state of `histories`. Reads only what is in memory.
    pub fn of(histories: &Histories) -> Self {
        Self {
            directory: histories.directory().map(|path| path.display().to_string()),
            excuse: histories.excuse().map(str::to_owned),
            domains: histories.reports().into_iter().map(Into::into).collect(),
        }
    }
}

impl From<DomainReport> for DomainLine {
    fn from(report: DomainReport) -> Self {
        Self {
            peer: report.peer,
            domain: report.name,
            place: if report.is_on_disk { "disk" } else { "memory" }.to_owned(),
            capacity_bytes: report.room_bytes,
            own_bytes: report.is_open.then_some(report.own_bytes),
            mirror_bytes: report.is_open.then_some(report.mirror_bytes),
            disk_bytes: report.disk_bytes,
            index_bytes: report.index_bytes,
            unwritten: report.is_dirty,
            read_only: report.is_read_only,
            in_use: report.is_in_use,
            damaged_pages: report.damaged_pages,
        }
    }
}

impl From<Cleared> for ClearPage {
    fn from(cleared: Cleared) -> Self {
        Self {
            cleared: cleared.done,
            under_way: cleared.under_way,
            failed: cleared.failed,
        }
    }
}

pub(super) fn routes() -> Router<Parts> {
    Router::new()
        .route("/api/history", get(page))
        .route("/api/history/verify", post(verify))
        .route("/api/history/clear", post(clear))
}

async fn page(State(observed): State<Arc<dyn Observed>>) -> Json<HistoryPage> {
    Json(HistoryPage::of(&observed.history().histories))
}

async fn verify(State(observed): State<Arc<dyn Observed>>) -> Response {
    let HistoryAccess { histories, pools } = observed.history();
    match histories.verify(&pools.storage).await {
        Ok(token) => Json(VerifyStarted {
            token: token.to_string(),
        })
        .into_response(),
        Err(why) => (StatusCode::CONFLICT, format!("{why}\n")).into_response(),
    }
}

async fn clear(
    State(observed): State<Arc<dyn Observed>>,
    Query(ClearQuery { peer }): Query<ClearQuery>,
) -> Response {
    let HistoryAccess { histories, pools } = observed.history();
    match histories.clear(&pools.storage, peer).await {
        Some(cleared) => Json(ClearPage::from(cleared)).into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "this program is being stopped\n",
        )
            .into_response(),
    }
}
