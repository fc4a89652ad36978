//! A client's connector and a server's acceptor over loopback: real sockets, real TLS, real pools.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/identities.rs"]
mod identities;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::frame::{DomainId, Reason, Target};
use identities::Authority;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tunnel::budget::Budget;
use tunnel::client::{Connector, ConnectorConfig, DomainSpec};
use tunnel::environment::Environment;
use tunnel::histories::{Histories, Lean};
use tunnel::pool::{Pools, PoolsConfig};
use tunnel::server::Acceptor;
use tunnel::state::{Limits, OpenSpec};
use tunnel::stream::{IncomingStream, StreamHandle};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on a runtime of its own, which does not wait for the pools' workers at the end as a dropped one would.
fn on_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await });
    runtime.shutdown_background();
    done.unwrap();
}

fn environment(name: &str, inline_below_bytes: usize) -> Environment {
    let threads = NonZeroUsize::new(2).unwrap();
    let config = PoolsConfig {
        codec_threads: threads,
        crypto_threads: threads,
        storage_threads: threads,
        resolve_threads: threads,
        queue: NonZeroUsize::new(256).unwrap(),
    };
    Environment {
        instance: rand::random(),
        name: name.to_owned(),
        pools: Arc::new(Pools::start(&tokio::runtime::Handle::current(), config)),
        budget: Arc::new(Budget::new(256 << 20)),
        histories: Arc::new(Histories::new(64 << 20, Lean::Sending)),
        counters: Arc::default(),
        inline_below_bytes,
        heartbeat: Duration::from_secs(5),
        limits: Limits::default(),
        level: codec::policy::Level::default(),
        tune: |socket| socket.set_nodelay(true).unwrap(),
    }
}

struct Pair {
    connector: Connector,
    acceptor: Acceptor,
    incoming: mpsc::UnboundedReceiver<IncomingStream>,
}

async fn pair(client: &str, inline_below_bytes: usize) -> Pair {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (to_server, incoming) = mpsc::unbounded_channel();
    let acceptor = Acceptor::start(
        listener,
        authority.server(),
        environment("hq", inline_below_bytes),
        to_server,
    );
    let config = ConnectorConfig {
        servers: vec![address.to_string()],
        domains: vec![DomainSpec {
            id: DomainId::SHARED,
            name: String::new(),
        }],
    };
    let (to_client, _) = mpsc::unbounded_channel();
    let connector = Connector::start(
        config,
        authority.client(client),
        environment(client, inline_below_bytes),
        to_client,
    );
    Pair {
        connector,
        acceptor,
        incoming,
    }
}

fn spec() -> OpenSpec {
    OpenSpec {
        domain: Some(DomainId::SHARED),
        target: Target::Name {
            host: "origin".to_owned(),
            port: 80,
        },
        service: "files".to_owned(),
        weight: 1,
    }
}

/// Bytes that are a function of their offset, half of them noise.
fn payload(len: usize) -> Bytes {
    (0..len as u64)
        .map(|i| {
            if i / 4096 % 2 == 0 {
                (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
            } else {
                (i % 251) as u8
            }
        })
        .collect()
}

async fn send_all(mut handle: tunnel::stream::SendHalf, mut data: Bytes) {
    while !data.is_empty() {
        let room = handle.ready().await.unwrap();
        handle
            .send(data.split_to(room.min(data.len()).min(100_000)))
            .unwrap();
    }
    handle.finish();
}

async fn receive_all(mut handle: tunnel::stream::RecvHalf) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = handle.recv().await.unwrap() {
        all.extend_from_slice(&data);
        handle.consumed(data.len());
    }
    all
}

async fn echo(handle: StreamHandle) {
    let (mut send, mut recv) = handle.split();
    while let Some(mut data) = recv.recv().await.unwrap() {
        recv.consumed(data.len());
        while !data.is_empty() {
            let room = send.ready().await.unwrap();
            send.send(data.split_to(room.min(data.len()))).unwrap();
        }
    }
    send.finish();
}

async fn echoes_exactly(inline_below_bytes: usize) {
    let mut pair = pair("branch-1", inline_below_bytes).await;
    tokio::spawn(async move {
        while let Some(incoming) = pair.incoming.recv().await {
            assert_eq!(&*incoming.peer, "branch-1");
            tokio::spawn(echo(incoming.accept(None).unwrap()));
        }
    });
    let tunnel = pair.connector.tunnel(PATIENCE).await.unwrap();
    for len in [1, 100, 70_000, 3_000_000, 3_000_000] {
        let mut stream = tunnel.open(spec()).unwrap();
        let sent = payload(len);
        stream.opened().await.unwrap();
        let (send, recv) = stream.split();
        let sender = tokio::spawn(send_all(send, sent.clone()));
        let received = receive_all(recv).await;
        sender.await.unwrap();
        assert_eq!(received.len(), sent.len());
        assert_eq!(received.iter().zip(&sent).position(|(a, b)| a != b), None);
    }
    drop(pair.acceptor);
}

#[test]
fn bytes_come_back_exactly_with_the_default_threshold() {
    on_runtime(async {
        echoes_exactly(16 * 1024).await;
    });
}

#[test]
fn bytes_come_back_exactly_with_everything_in_the_pools() {
    on_runtime(async {
        echoes_exactly(0).await;
    });
}

#[test]
fn bytes_come_back_exactly_with_everything_on_the_spot() {
    on_runtime(async {
        echoes_exactly(usize::MAX).await;
    });
}

#[test]
fn a_refused_identity_is_told_why() {
    on_runtime(async {
        let pair = pair("revoked", 16 * 1024).await;
        assert!(
            pair.connector
                .tunnel(Duration::from_secs(2))
                .await
                .is_none()
        );
        let error = pair.connector.status().last_error.unwrap();
        assert!(error.contains("revoked is revoked"), "{error}");
    });
}

#[test]
fn a_refused_target_reaches_the_opener_with_its_reason() {
    on_runtime(async {
        let mut pair = pair("branch-1", 16 * 1024).await;
        let tunnel = pair.connector.tunnel(PATIENCE).await.unwrap();
        let mut stream = tunnel.open(spec()).unwrap();
        pair.incoming.recv().await.unwrap().refuse(Reason::Policy);
        assert_eq!(stream.opened().await, Err(Reason::Policy));
    });
}

#[test]
fn after_a_lost_tunnel_streams_are_reset_and_the_next_tunnel_is_warm() {
    on_runtime(async {
        let mut pair = pair("branch-1", 16 * 1024).await;
        let first = pair.connector.tunnel(PATIENCE).await.unwrap();
        let data = payload(2_000_000);
        let mut costs = Vec::new();
        for round in 0..2 {
            let tunnel = pair.connector.tunnel(PATIENCE).await.unwrap();
            let stream = tunnel.open(spec()).unwrap();
            let incoming = pair.incoming.recv().await.unwrap().accept(None).unwrap();
            let (send, _keep) = stream.split();
            let (_keep_too, recv) = incoming.split();
            let before = tunnel.links()[0].counters.sent_bytes();
            let sender = tokio::spawn(send_all(send, data.clone()));
            assert_eq!(receive_all(recv).await, data);
            sender.await.unwrap();
            costs.push(tunnel.links()[0].counters.sent_bytes() - before);
            if round == 0 {
                let mut idle = tunnel.open(spec()).unwrap();
                let _served = pair.incoming.recv().await.unwrap().accept(None).unwrap();
                idle.opened().await.unwrap();
                let (_send, mut recv) = idle.split();
                pair.connector.reconnect("a test");
                assert!(recv.recv().await.is_err());
                first.ended().await;
            }
        }
        assert!(
            costs[1] < costs[0] / 20,
            "cold {} warm {}",
            costs[0],
            costs[1]
        );
    });
}
