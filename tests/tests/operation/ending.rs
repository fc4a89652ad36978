//! SIGTERM: what is open may finish, until the deadline or the second signal.

use super::*;

/// A drain that would outlast every limit here.
const LONG_DRAIN: &str = "[tunnel]\ndrain_timeout = \"30m\"\n";

/// A drain that ends by its deadline.
const SHORT_DRAIN: &str = "[tunnel]\ndrain_timeout = \"1s\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_client_lets_its_connections_finish() {
    let (mut pair, _echo) = start("", LONG_DRAIN).await;
    let entrance = pair.client().address("echo").unwrap();
    let mut open = opened(&pair).await;
    pair.client().signal(Signal::TERM).unwrap();
    eventually(
        "the listener is closed",
        async || match TcpStream::connect(entrance).await {
            Ok(_) => Err("still accepts"),
            Err(_) => Ok(()),
        },
    )
    .await;
    finishes(&mut open).await;
    let status = pair.client_mut().exit(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_server_lets_its_connections_finish() {
    let (mut pair, _echo) = start(LONG_DRAIN, "").await;
    let mut open = opened(&pair).await;
    drain(pair.server()).await;
    finishes(&mut open).await;
    let status = pair.server_mut().exit(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_ends_at_the_drains_deadline_and_resets_what_is_left() {
    let (mut pair, _echo) = start("", SHORT_DRAIN).await;
    let mut open = opened(&pair).await;
    drain(pair.client()).await;
    is_reset(&mut open).await;
    pair.client_mut().exit(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_ends_at_the_drains_deadline_and_resets_what_is_left() {
    let (mut pair, _echo) = start(SHORT_DRAIN, "").await;
    let mut open = opened(&pair).await;
    drain(pair.server()).await;
    is_reset(&mut open).await;
    pair.server_mut().exit(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_a_client_at_once() {
    let (mut pair, _echo) = start("", LONG_DRAIN).await;
    let mut open = opened(&pair).await;
    drain(pair.client()).await;
    pair.client().signal(Signal::TERM).unwrap();
    is_reset(&mut open).await;
    pair.client_mut().exit(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_a_server_at_once() {
    let (mut pair, _echo) = start(LONG_DRAIN, "").await;
    let mut open = opened(&pair).await;
    drain(pair.server()).await;
    pair.server().signal(Signal::TERM).unwrap();
    is_reset(&mut open).await;
    pair.server_mut().exit(LIMIT).await.unwrap();
}

/// Sends SIGTERM and waits until the edge says that it has understood.
async fn drain(edge: &EdgeProcess) {
    edge.signal(Signal::TERM).unwrap();
    eventually("the edge drains", async || {
        if edge.log().contains("draining") {
            Ok(())
        } else {
            Err(edge.last_log_lines())
        }
    })
    .await;
}

/// The connection still works, and ends as its application wants.
async fn finishes(connection: &mut TcpStream) {
    assert_eq!(echoed(connection, b"still here").await, b"still here");
    connection.shutdown().await.unwrap();
    let ended = timeout(LIMIT, connection.read(&mut [0; 1]))
        .await
        .expect("the end stalled");
    assert_eq!(ended.unwrap(), 0);
}

/// The connection is reset: its far side never ended it, so a clean end would be a lie.
async fn is_reset(connection: &mut TcpStream) {
    let ended = timeout(LIMIT, connection.read(&mut [0; 1]))
        .await
        .expect("the connection outlived its edge");
    assert!(ended.is_err(), "{ended:?}");
}
