//! Lines that are lost: cut, silent, or dialed anew while the server still believes in the old one.

use std::time::Duration;

use tunnel::handle::EndCause;

use crate::identities::Authority;
use crate::support::{
    INLINE_BELOW_BYTES, Line, PATIENCE, Server, connect, environment, on_runtime, payload, receive,
    receive_all, send, send_all, spec,
};

/// Three of them make a line dead. Two are waited for an answer, which a busy machine shall give within that time.
const HEARTBEAT: Duration = Duration::from_secs(2);

#[test]
fn a_line_that_is_cut_in_mid_transfer_resets_both_sides_and_leaves_nothing() {
    on_runtime(async {
        let authority = Authority::new();
        let mut server = Server::start(&authority, environment("hq", INLINE_BELOW_BYTES)).await;
        let line = Line::to(server.address).await;
        let client = environment("branch-1", INLINE_BELOW_BYTES);
        let budget = client.budget.clone();
        let connector = connect(&[line.address], authority.client("branch-1"), client);
        for round in 0..3 {
            let tunnel = connector.tunnel(PATIENCE).await.unwrap();
            let mut senders = Vec::new();
            let mut receivers = Vec::new();
            let mut ends = Vec::new();
            for _ in 0..10 {
                let near = tunnel.open(spec()).unwrap();
                let far = server.accept().await;
                ends.extend([near.end(), far.end()]);
                for (from, to) in [(near, far)] {
                    let (mut from_send, mut from_recv) = from.split();
                    let (_to_send, mut to_recv) = to.split();
                    senders.push(tokio::spawn(async move {
                        while send(&mut from_send, payload(100_000)).await.is_ok() {}
                        assert!(receive(&mut from_recv).await.is_err());
                    }));
                    let first = to_recv.recv().await.unwrap().unwrap();
                    to_recv.consumed(first.len());
                    receivers.push(tokio::spawn(async move {
                        let _keep = _to_send;
                        assert!(receive(&mut to_recv).await.is_err(), "no clean end");
                    }));
                }
            }
            line.cut();
            for task in senders.into_iter().chain(receivers) {
                task.await.unwrap();
            }
            for end in ends {
                assert_eq!(end.summary().await, None, "round {round}");
            }
            assert!(matches!(tunnel.ended().await, EndCause::LinkLost(_)));
            assert!(tunnel.open(spec()).is_err() || !tunnel.is_up());
        }
        // The next tunnel works, and nothing is left of the others.
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        server.has_tunnels(1).await;
        let (send_half, _recv) = tunnel.open(spec()).unwrap().split();
        let (_send, far_recv) = server.accept().await.split();
        let sender = tokio::spawn(send_all(send_half, payload(1_000_000)));
        assert_eq!(receive_all(far_recv).await, payload(1_000_000));
        sender.await.unwrap();
        drop(tunnel);
        connector.reconnect("a test");
        drop(connector);
        while budget.snapshot().used_bytes.iter().sum::<usize>() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_silent_line_is_noticed_by_both_sides() {
    on_runtime(async {
        let authority = Authority::new();
        let mut hq = environment("hq", INLINE_BELOW_BYTES);
        hq.heartbeat = HEARTBEAT;
        let mut server = Server::start(&authority, hq).await;
        let line = Line::to(server.address).await;
        let mut branch = environment("branch-1", INLINE_BELOW_BYTES);
        branch.heartbeat = HEARTBEAT;
        let connector = connect(&[line.address], authority.client("branch-1"), branch);
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let (_send, mut recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, mut far_recv) = server.accept().await.split();
        line.silence();
        assert!(receive(&mut recv).await.is_err());
        assert!(receive(&mut far_recv).await.is_err());
        let cause = tunnel.ended().await;
        assert!(cause.to_string().contains("three heartbeats"), "{cause}");
        // Later connections are carried: the branch is back.
        connector.tunnel(PATIENCE).await.unwrap();
    });
}

#[test]
fn an_idle_line_that_is_alive_is_not_given_up() {
    on_runtime(async {
        let authority = Authority::new();
        let mut hq = environment("hq", INLINE_BELOW_BYTES);
        hq.heartbeat = HEARTBEAT;
        let server = Server::start(&authority, hq).await;
        let mut branch = environment("branch-1", INLINE_BELOW_BYTES);
        branch.heartbeat = HEARTBEAT;
        let connector = connect(&[server.address], authority.client("branch-1"), branch);
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        // Pings and pongs are all that is sent; without them it would be dead by then.
        tokio::time::sleep(HEARTBEAT * 4).await;
        assert!(tunnel.is_up());
    });
}

#[test]
fn a_client_that_dials_anew_supersedes_its_dead_tunnel() {
    on_runtime(async {
        let authority = Authority::new();
        let mut hq = environment("hq", INLINE_BELOW_BYTES);
        // It would not notice by itself.
        hq.heartbeat = PATIENCE;
        let mut server = Server::start(&authority, hq).await;
        let line = Line::to(server.address).await;
        let mut branch = environment("branch-1", INLINE_BELOW_BYTES);
        branch.heartbeat = HEARTBEAT;
        let connector = connect(&[line.address], authority.client("branch-1"), branch);
        let first = connector.tunnel(PATIENCE).await.unwrap();
        let (_send, _recv) = first.open(spec()).unwrap().split();
        let (_far_send, mut far_recv) = server.accept().await.split();
        line.silence();
        first.ended().await;
        let second = connector.tunnel(PATIENCE).await.unwrap();
        assert!(receive(&mut far_recv).await.is_err());
        server.has_tunnels(1).await;
        let (send_half, _recv) = second.open(spec()).unwrap().split();
        let (_send, far_recv) = server.accept().await.split();
        send_all(send_half, payload(10_000)).await;
        assert_eq!(receive_all(far_recv).await, payload(10_000));
    });
}

#[test]
fn opens_that_race_with_the_end_of_a_tunnel_all_get_an_answer() {
    on_runtime(async {
        let authority = Authority::new();
        let server = Server::start(&authority, environment("hq", INLINE_BELOW_BYTES)).await;
        let branch = environment("branch-1", INLINE_BELOW_BYTES);
        let connector = connect(&[server.address], authority.client("branch-1"), branch);
        for _ in 0..4 {
            let tunnel = connector.tunnel(PATIENCE).await.unwrap();
            let opener = tunnel.clone();
            let opening = tokio::task::spawn_blocking(move || {
                let mut streams = Vec::new();
                while let Ok(stream) = opener.open(spec()) {
                    streams.push(stream);
                    // However late the end comes, there shall be memory for all: one that is refused has another end.
                    if streams.len() > 300 {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                streams
            });
            connector.reconnect("a test");
            for mut stream in opening.await.unwrap() {
                assert!(stream.opened().await.is_err());
                assert_eq!(stream.end().summary().await, None);
            }
        }
    });
}
