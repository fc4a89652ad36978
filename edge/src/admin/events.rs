//! `/api/events`: the live figures as server-sent events.
//!
//! A reader gets one `snapshot` (all that is known), a `tick` each second, which also keeps the connection alive, and an `event` whenever something happens
//! or happens again (the same `id` in its data then). Whoever comes again gets a snapshot, so there is nothing that Last-Event-ID could add; it is
//! ignored.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::Place;
use super::live::Live;

/// Readers at a time, beside the connections of other requests: a few people, each with a window or two.
const READERS_MAX: usize = 16;

/// The live figures and the places of their readers.
#[derive(Clone)]
pub struct Readers {
    live: Arc<Live>,
    places: Arc<Semaphore>,
}

impl Readers {
    /// Of `live`.
    pub fn new(live: Arc<Live>) -> Self {
        Self {
            live,
            places: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }
}

pub(super) async fn events(
    State(readers): State<Readers>,
    ConnectInfo(place): ConnectInfo<Place>,
) -> Response {
    let Ok(permit) = readers.places.clone().try_acquire_owned() else {
        let again = (header::RETRY_AFTER, HeaderValue::from_static("10"));
        let why = format!("{READERS_MAX} readers watch already; close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [again], why).into_response();
    };
    // Browsers try again after this time when the connection ends.
    let first = tokio_stream::once(Bytes::from_static(b"retry: 2000\n\n"));
    let messages = first.chain(ReceiverStream::new(readers.live.join()));
    place.stay(permit);
    let body = Body::from_stream(messages.map(Ok::<_, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        // The place belongs to the connection, so that it ends with it.
        (header::CONNECTION, "close"),
    ];
    (headers, body).into_response()
}
