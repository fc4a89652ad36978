//! Bytes come back exactly, and whoever is refused is told why.

use codec::frame::Reason;
use tunnel::handle::TunnelHandle;
use tunnel::histories::Histories;

use crate::support::{
    INLINE_BELOW_BYTES, PATIENCE, Pair, environment, on_runtime, pair, pair_of, payload,
    receive_all, send_all, spec, until,
};

async fn echoes_exactly(inline_below_bytes: usize) {
    let Pair { connector, server } = pair("branch-1", inline_below_bytes).await;
    let acceptor = server.echo_all();
    let tunnel = connector.tunnel(PATIENCE).await.unwrap();
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
    drop(acceptor);
}

#[test]
fn bytes_come_back_exactly_with_the_default_threshold() {
    on_runtime(async {
        echoes_exactly(INLINE_BELOW_BYTES).await;
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
        let pair = pair("revoked", INLINE_BELOW_BYTES).await;
        let error = loop {
            if let Some(error) = pair.connector.status().last_error {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert!(pair.connector.present().is_none());
        assert!(error.contains("revoked is revoked"), "{error}");
    });
}

#[test]
fn a_refused_target_reaches_the_opener_with_its_reason() {
    on_runtime(async {
        let mut pair = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = pair.tunnel().await;
        let mut stream = tunnel.open(spec()).unwrap();
        pair.server
            .incoming
            .recv()
            .await
            .unwrap()
            .refuse(Reason::Policy);
        assert_eq!(stream.opened().await, Err(Reason::Policy));
    });
}

/// A tunnel of which both sides have agreed on their histories: what is sent before that goes without.
async fn agreed_tunnel(pair: &mut Pair, of_server: &Histories) -> TunnelHandle {
    let tunnel = pair.tunnel().await;
    let _near = tunnel.open(spec()).unwrap();
    let _far = pair.server.accept().await;
    // The server has this tunnel, so the only one that it has is not the one before, which may have kept the histories until now.
    pair.server.has_tunnels(1).await;
    let are_in_use = || of_server.reports().iter().any(|report| report.is_in_use);
    until(are_in_use).await;
    // Of the histories that it has it tells before it answers an Open that comes later.
    let mut near = tunnel.open(spec()).unwrap();
    let _far = pair.server.accept().await;
    near.opened().await.unwrap();
    tunnel
}

#[test]
fn after_a_lost_tunnel_streams_are_reset_and_the_next_tunnel_is_warm() {
    on_runtime(async {
        let hq = environment("hq", INLINE_BELOW_BYTES);
        let histories = hq.histories.clone();
        let mut pair = pair_of(environment("branch-1", INLINE_BELOW_BYTES), hq).await;
        let first = pair.tunnel().await;
        let data = payload(2_000_000);
        let mut costs = Vec::new();
        for round in 0..2 {
            let tunnel = agreed_tunnel(&mut pair, &histories).await;
            let stream = tunnel.open(spec()).unwrap();
            let incoming = pair.server.accept().await;
            let (send, _keep) = stream.split();
            let (_keep_too, recv) = incoming.split();
            let before = tunnel.links()[0].counters.sent_bytes();
            let sender = tokio::spawn(send_all(send, data.clone()));
            assert_eq!(receive_all(recv).await, data);
            sender.await.unwrap();
            costs.push(tunnel.links()[0].counters.sent_bytes() - before);
            if round == 0 {
                let mut idle = tunnel.open(spec()).unwrap();
                let _served = pair.server.accept().await;
                idle.opened().await.unwrap();
                let (_send, mut recv) = idle.split();
                pair.connector.reconnect("a test");
                assert!(recv.recv().await.is_err());
                first.ended().await;
            }
        }
        // How many blocks there are, and what they cost beside the data, depends on how soon credit comes.
        assert!(
            costs[1] < data.len() as u64 / 100 && costs[1] < costs[0] / 4,
            "cold {} warm {}",
            costs[0],
            costs[1]
        );
    });
}
