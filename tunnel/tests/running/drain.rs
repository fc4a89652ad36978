//! Ends that are asked for: GoAway from either side, another server that takes over, a certificate that is renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use codec::frame::{Reason, Renewed};
use rustls_pki_types::CertificateDer;
use tunnel::environment::{ClientIdentity, PeerIdentity};
use tunnel::handle::EndCause;
use tunnel::metrics::StreamResult;
use tunnel::stream::{StreamError, StreamHandle};
use tunnel::tls::ClientTls;

use crate::identities::Authority;
use crate::support::{
    INLINE_BELOW_BYTES, PATIENCE, Pair, Server, connect, environment, on_runtime, pair, pair_of,
    payload, receive_all, send, send_all, spec,
};

/// Both directions carry some bytes and end.
async fn use_and_finish(near: StreamHandle, far: StreamHandle) {
    let ends = [near.end(), far.end()];
    let (near_send, near_recv) = near.split();
    let (far_send, far_recv) = far.split();
    let senders = [
        tokio::spawn(send_all(near_send, payload(300_000))),
        tokio::spawn(send_all(far_send, payload(200_000))),
    ];
    assert_eq!(receive_all(far_recv).await, payload(300_000));
    assert_eq!(receive_all(near_recv).await, payload(200_000));
    for sender in senders {
        sender.await.unwrap();
    }
    for end in ends {
        let summary = end.summary().await.unwrap();
        assert_eq!(summary.result, StreamResult::Completed);
    }
}

#[test]
fn a_server_that_drains_waits_for_its_last_stream() {
    on_runtime(async {
        let Pair {
            connector,
            mut server,
        } = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let near = tunnel.open(spec()).unwrap();
        let far = server.accept().await;
        let far_tunnel = server.acceptor.tunnels().remove(0);
        let acceptor = Arc::new(server.acceptor);
        let draining = acceptor.clone();
        let drained = tokio::spawn(async move { draining.drain().await });
        tunnel.unusable().await;
        assert!(tunnel.open(spec()).is_err());
        assert!(tunnel.is_up() && !drained.is_finished());
        use_and_finish(near, far).await;
        drained.await.unwrap();
        assert_eq!(tunnel.ended().await, EndCause::Drained);
        assert_eq!(far_tunnel.ended().await, EndCause::Drained);
    });
}

#[test]
fn a_client_that_drains_waits_for_its_last_stream() {
    on_runtime(async {
        let Pair {
            connector,
            mut server,
        } = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let near = tunnel.open(spec()).unwrap();
        let far = server.accept().await;
        let far_tunnel = server.acceptor.tunnels().remove(0);
        let connector = Arc::new(connector);
        let draining = connector.clone();
        let drained = tokio::spawn(async move { draining.drain().await });
        far_tunnel.unusable().await;
        assert!(connector.present().is_none());
        assert!(tunnel.is_up() && !drained.is_finished());
        use_and_finish(near, far).await;
        drained.await.unwrap();
        assert_eq!(tunnel.ended().await, EndCause::Drained);
        assert_eq!(far_tunnel.ended().await, EndCause::Drained);
    });
}

#[test]
fn an_idle_tunnel_drains_at_once_on_both_sides() {
    on_runtime(async {
        let Pair { connector, server } = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        server.has_tunnels(1).await;
        let far_tunnel = server.acceptor.tunnels().remove(0);
        server.acceptor.drain().await;
        assert_eq!(far_tunnel.ended().await, EndCause::Drained);
        assert_eq!(tunnel.ended().await, EndCause::Drained);
    });
}

#[test]
fn while_one_server_goes_away_another_gets_the_new_streams() {
    on_runtime(async {
        let authority = Authority::new();
        let mut old = Server::start(&authority, environment("hq", INLINE_BELOW_BYTES)).await;
        let mut new = Server::start(&authority, environment("hq", INLINE_BELOW_BYTES)).await;
        let connector = connect(
            &[old.address, new.address],
            authority.client("branch-1"),
            environment("branch-1", INLINE_BELOW_BYTES),
        );
        let first = connector.tunnel(PATIENCE).await.unwrap();
        let near = first.open(spec()).unwrap();
        let far = old.accept().await;
        let acceptor = old.acceptor;
        let drained = tokio::spawn(async move { acceptor.drain().await });
        first.unusable().await;
        let second = connector.tunnel(PATIENCE).await.unwrap();
        assert!(first.is_up(), "its stream still runs");
        assert_eq!(connector.tunnels().len(), 2);
        let near_too = second.open(spec()).unwrap();
        let far_too = new.accept().await;
        use_and_finish(near_too, far_too).await;
        use_and_finish(near, far).await;
        drained.await.unwrap();
        assert_eq!(first.ended().await, EndCause::Drained);
        assert!(second.is_up());
    });
}

#[test]
fn opens_that_wait_for_credit_fail_when_the_tunnel_drains() {
    on_runtime(async {
        let mut hq = environment("hq", INLINE_BELOW_BYTES);
        hq.limits.streams_max = 1;
        let mut pair = pair_of(environment("branch-1", INLINE_BELOW_BYTES), hq).await;
        let tunnel = pair.tunnel().await;
        let near = tunnel.open(spec()).unwrap();
        let far = pair.server.accept().await;
        let mut waiting = tunnel.open(spec()).unwrap();
        tunnel.go_away(Reason::GoingAway);
        assert_eq!(waiting.opened().await, Err(Reason::GoingAway));
        assert_eq!(waiting.end().summary().await, None);
        use_and_finish(near, far).await;
        assert_eq!(tunnel.ended().await, EndCause::Drained);
    });
}

#[test]
fn opens_wait_for_credit_and_those_that_are_abandoned_end() {
    on_runtime(async {
        let mut hq = environment("hq", INLINE_BELOW_BYTES);
        hq.limits.streams_max = 1;
        let mut pair = pair_of(environment("branch-1", INLINE_BELOW_BYTES), hq).await;
        let tunnel = pair.tunnel().await;
        let near = tunnel.open(spec()).unwrap();
        let far = pair.server.accept().await;
        for _ in 0..100 {
            let abandoned = tunnel.open(spec()).unwrap();
            let end = abandoned.end();
            drop(abandoned);
            assert_eq!(end.summary().await, None);
        }
        let waiting = tunnel.open(spec()).unwrap();
        use_and_finish(near, far).await;
        let far = pair.server.accept().await;
        use_and_finish(waiting, far).await;
    });
}

/// A client whose certificate is always due.
struct Renewing {
    tls: ClientTls,
    renewals: AtomicUsize,
}

impl ClientIdentity for Renewing {
    fn tls(&self) -> ClientTls {
        self.tls.clone()
    }

    fn is_invite(&self) -> bool {
        false
    }

    fn check_server(&self, _chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        Ok(PeerIdentity {
            name: "hq".to_owned(),
            invite: false,
        })
    }

    fn begin_renewal(&self) -> Result<Option<Bytes>, String> {
        Ok(Some(Bytes::from_static(b"a request")))
    }

    fn finish_renewal(&self, answer: Renewed) -> Result<bool, String> {
        assert!(matches!(answer, Renewed::Refused { .. }));
        self.renewals.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }
}

#[test]
fn a_renewed_certificate_leaves_the_streams_alone() {
    on_runtime(async {
        let authority = Authority::new();
        let mut server = Server::start(&authority, environment("hq", INLINE_BELOW_BYTES)).await;
        let identity = Arc::new(Renewing {
            tls: authority.client("branch-1").tls(),
            renewals: AtomicUsize::new(0),
        });
        let branch = environment("branch-1", INLINE_BELOW_BYTES);
        let connector = connect(&[server.address], identity.clone(), branch);
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let mut near = tunnel.open(spec()).unwrap();
        let far = server.accept().await;
        near.opened().await.unwrap();
        while identity.renewals.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        use_and_finish(near, far).await;
        assert!(tunnel.is_up());
        assert_eq!(
            identity.renewals.load(Ordering::SeqCst),
            1,
            "the next look is an hour away"
        );
    });
}

#[test]
fn what_was_delivered_before_a_close_stays_readable() {
    on_runtime(async {
        let mut pair = pair("branch-1", 0).await;
        let tunnel = pair.tunnel().await;
        let (mut near_send, near_recv) = tunnel.open(spec()).unwrap().split();
        let (far_send, mut far_recv) = pair.server.accept().await.split();
        send(&mut near_send, payload(10_000)).await.unwrap();
        // Its Finish comes behind the far side's Acks of what it has delivered.
        let first = far_recv.recv().await.unwrap().unwrap();
        far_send.finish();
        assert_eq!(receive_all(near_recv).await, b"");
        tunnel.close(EndCause::Closed("a test".to_owned()));
        let mut received = first.to_vec();
        let ended = loop {
            match far_recv.recv().await {
                Ok(data) => received.extend_from_slice(&data.expect("no clean end")),
                Err(ended) => break ended,
            }
        };
        assert_eq!(ended, StreamError::Ended(Reason::TunnelLost));
        assert_eq!(received, payload(10_000));
    });
}
