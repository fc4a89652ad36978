//! A tunnel that loses its line and finds it again: the streams go on, and only who may carry on with a tunnel does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::frame::{Hello, HelloStatus, Secret};
use tunnel::client::Connector;
use tunnel::environment::Environment;
use tunnel::handle::TunnelHandle;
use tunnel::histories::{Histories, HistoriesConfig, Home, Lean, OpenDirectory};
use tunnel::pool::{JobName, call};

use crate::identities::Authority;
use crate::raw::{RawLink, hello};
use crate::support::{
    INLINE_BELOW_BYTES, Line, PATIENCE, Server, connect, environment, on_runtime, payload, receive,
    receive_all, send_all, spec, until,
};

/// Short enough for a test; three of them make a line dead.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Longer than any test is away.
const WINDOW: Duration = PATIENCE;

fn resumable(name: &str) -> Environment {
    let mut environment = environment(name, INLINE_BELOW_BYTES);
    environment.resume_window = WINDOW;
    environment
}

/// A client, its server, and a line between them that can be lost.
struct Stage {
    authority: Authority,
    client: Environment,
    connector: Connector,
    server: Server,
    line: Line,
}

impl Stage {
    async fn new() -> Self {
        Self::of(resumable("branch-1"), resumable("hq")).await
    }

    async fn of(client: Environment, server: Environment) -> Self {
        let authority = Authority::new();
        let server = Server::start(&authority, server).await;
        let line = Line::to(server.address).await;
        let connector = connect(
            &[line.address],
            authority.client(&client.name),
            client.clone(),
        );
        Self {
            authority,
            client,
            connector,
            server,
            line,
        }
    }

    async fn tunnel(&self) -> TunnelHandle {
        self.connector.tunnel(PATIENCE).await.unwrap()
    }
}

/// Bytes that nothing makes smaller.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(2) + 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    });
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

/// Waits until the tunnel was resumed so often.
async fn resumed(tunnel: &TunnelHandle, times: u64) {
    while tunnel.resumes() < times {
        assert!(tunnel.is_up(), "{}", tunnel.ended().await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn detached(tunnel: &TunnelHandle) {
    tunnel.becomes_attached(false).await;
    assert!(tunnel.is_up(), "{}", tunnel.ended().await);
}

#[test]
fn streams_go_on_over_a_line_that_is_cut_again_and_again() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        // Every connection is lost once it has carried so much.
        stage.line.limit(Some(1_500_000));
        stage.line.cut();
        let mut transfers = Vec::new();
        for n in 0..4 {
            let near = tunnel.open(spec()).unwrap();
            let far = stage.server.accept().await;
            let (near_send, near_recv) = near.split();
            let (far_send, far_recv) = far.split();
            let (up, down) = (noise(2 * n, 1_500_000), noise(2 * n + 1, 1_200_000));
            transfers.push(tokio::spawn(send_all(near_send, up.clone())));
            transfers.push(tokio::spawn(send_all(far_send, down.clone())));
            transfers.push(tokio::spawn(async move {
                assert!(receive_all(far_recv).await == up, "stream {n} up");
            }));
            transfers.push(tokio::spawn(async move {
                assert!(receive_all(near_recv).await == down, "stream {n} down");
            }));
        }
        for transfer in transfers {
            transfer.await.unwrap();
        }
        let cuts = tunnel.resumes();
        assert!(cuts >= 3, "{cuts}");
        assert!(tunnel.is_up());
        let of_peer = stage.client.counters.peer("hq");
        // The line may be lost once more just now, and one of the two counts that before the other.
        until(|| of_peer.resumes.get() == tunnel.resumes()).await;
        assert_eq!(stage.server.acceptor.tunnels().len(), 1, "the same tunnel");
    });
}

#[test]
fn a_black_hole_that_only_the_client_notices_is_left() {
    on_runtime(async {
        let mut client = resumable("branch-1");
        client.heartbeat = HEARTBEAT;
        let mut server = resumable("hq");
        // It would not notice by itself.
        server.heartbeat = PATIENCE;
        let mut stage = Stage::of(client, server).await;
        let tunnel = stage.tunnel().await;
        let (near_send, near_recv) = tunnel.open(spec()).unwrap().split();
        let (far_send, far_recv) = stage.server.accept().await.split();
        let far_tunnel = stage.server.acceptor.tunnels().remove(0);
        stage.line.silence();
        let senders = [
            tokio::spawn(send_all(near_send, payload(2_000_000))),
            tokio::spawn(send_all(far_send, payload(3_000_000))),
        ];
        assert!(receive_all(far_recv).await == payload(2_000_000));
        assert!(receive_all(near_recv).await == payload(3_000_000));
        for sender in senders {
            sender.await.unwrap();
        }
        // A machine that is busy for three heartbeats looks like another black hole, whose end one side counts before the other.
        assert!(tunnel.resumes() >= 1 && far_tunnel.resumes() >= 1);
        assert!(tunnel.is_up() && far_tunnel.is_up());
    });
}

#[test]
fn a_client_is_resumed_from_another_address() {
    on_runtime(async {
        let authority = Authority::new();
        let mut server = Server::start(&authority, resumable("hq")).await;
        let first = Line::to(server.address).await;
        let connector = connect(
            // The second one is the server itself: other addresses at both ends.
            &[first.address, server.address],
            authority.client("branch-1"),
            resumable("branch-1"),
        );
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let before = tunnel.links().first().unwrap().address;
        let (near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, far_recv) = server.accept().await.split();
        let sender = tokio::spawn(send_all(near_send, payload(5_000_000)));
        first.close();
        first.cut();
        assert!(receive_all(far_recv).await == payload(5_000_000));
        sender.await.unwrap();
        assert!(tunnel.is_up() && tunnel.resumes() == 1);
        assert_ne!(tunnel.links().first().unwrap().address, before);
    });
}

#[test]
fn after_the_window_streams_are_reset_on_both_sides() {
    on_runtime(async {
        let [mut client, mut server] = [resumable("branch-1"), resumable("hq")];
        client.resume_window = HEARTBEAT;
        server.resume_window = HEARTBEAT;
        let mut stage = Stage::of(client, server).await;
        let tunnel = stage.tunnel().await;
        let (_near_send, mut near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, mut far_recv) = stage.server.accept().await.split();
        stage.line.close();
        stage.line.cut();
        assert!(receive(&mut near_recv).await.is_err());
        assert!(receive(&mut far_recv).await.is_err());
        let cause = tunnel.ended().await.to_string();
        assert!(cause.contains("was not found again"), "{cause}");
        stage.server.has_tunnels(0).await;
        assert!(stage.connector.tunnel(HEARTBEAT).await.is_none());
    });
}

#[test]
fn new_streams_wait_for_the_line_no_longer_than_asked() {
    on_runtime(async {
        let stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        stage.line.close();
        stage.line.cut();
        detached(&tunnel).await;
        assert!(stage.connector.tunnel(HEARTBEAT).await.is_none());
        assert!(stage.connector.present().is_some(), "it may come back");
        stage.line.open();
        let again = stage.tunnel().await;
        assert_eq!(again.resumes(), 1);
    });
}

#[test]
fn a_restarted_server_says_so_at_once() {
    on_runtime(async {
        let authority = Authority::new();
        let mut server = Server::start(&authority, resumable("hq")).await;
        let line = Line::to(server.address).await;
        let connector = connect(
            &[line.address],
            authority.client("branch-1"),
            resumable("branch-1"),
        );
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let (_near_send, mut near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, _far_recv) = server.accept().await.split();
        let second = Server::start(&authority, resumable("hq")).await;
        line.retarget(second.address);
        line.cut();
        assert!(receive(&mut near_recv).await.is_err());
        let cause = tunnel.ended().await.to_string();
        assert!(cause.contains("unknown tunnel"), "{cause}");
        second.has_tunnels(1).await;
        drop(server);
    });
}

#[test]
fn a_restarted_client_ends_what_it_had() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let (_near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, mut far_recv) = stage.server.accept().await.split();
        let far_tunnel = stage.server.acceptor.tunnels().remove(0);
        stage.line.close();
        stage.line.cut();
        detached(&far_tunnel).await;
        // Another start of the same program.
        let _restarted = connect(
            &[stage.server.address],
            stage.authority.client("branch-1"),
            resumable("branch-1"),
        );
        assert!(receive(&mut far_recv).await.is_err());
        stage.server.has_tunnels(1).await;
    });
}

#[test]
fn a_machine_of_the_same_identity_leaves_others_alone_that_have_their_line() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let (near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, far_recv) = stage.server.accept().await.split();
        let _other = connect(
            &[stage.server.address],
            stage.authority.client("branch-1"),
            resumable("branch-1"),
        );
        stage.server.has_tunnels(2).await;
        send_all(near_send, payload(10_000)).await;
        assert_eq!(receive_all(far_recv).await, payload(10_000));
    });
}

/// A client that lost power is back before the server has noticed anything. Its old tunnel ends, and with it what keeps the histories; that of another
/// machine with the same identity, which answers, does not.
#[test]
fn a_client_that_begins_anew_behind_a_silent_line_ends_what_it_had() {
    on_runtime(async {
        // The server waits five seconds, a heartbeat, for an answer: the other one gives it even if this machine is busy.
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let (_near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, mut far_recv) = stage.server.accept().await.split();
        let begin = |stage: &Stage| {
            let identity = stage.authority.client("branch-1");
            connect(&[stage.server.address], identity, resumable("branch-1"))
        };
        let other = begin(&stage);
        let others_tunnel = other.tunnel(PATIENCE).await.unwrap();
        let (other_send, _other_recv) = others_tunnel.open(spec()).unwrap().split();
        let (_other_far_send, other_far_recv) = stage.server.accept().await.split();
        stage.line.close();
        stage.line.silence();
        let _restarted = begin(&stage);
        // The window is longer than this test may take.
        assert!(receive(&mut far_recv).await.is_err());
        stage.server.has_tunnels(2).await;
        send_all(other_send, payload(10_000)).await;
        assert_eq!(receive_all(other_far_recv).await, payload(10_000));
    });
}

#[test]
fn a_tunnel_that_goes_away_is_not_resumed() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let (_near_send, mut near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, mut far_recv) = stage.server.accept().await.split();
        let acceptor = Arc::new(stage.server.acceptor);
        let draining = acceptor.clone();
        let drained = tokio::spawn(async move { draining.drain().await });
        tunnel.unusable().await;
        stage.line.cut();
        assert!(receive(&mut near_recv).await.is_err());
        assert!(receive(&mut far_recv).await.is_err());
        drained.await.unwrap();
        assert_eq!(tunnel.resumes(), 0);
    });
}

#[test]
fn a_client_that_drains_without_a_line_is_done_at_once() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let (_near_send, mut near_recv) = tunnel.open(spec()).unwrap().split();
        let _far = stage.server.accept().await;
        stage.line.close();
        stage.line.cut();
        detached(&tunnel).await;
        stage.connector.drain().await;
        assert!(receive(&mut near_recv).await.is_err());
    });
}

#[test]
fn another_server_takes_new_streams_while_the_line_to_the_first_is_away() {
    on_runtime(async {
        let authority = Authority::new();
        let mut first = Server::start(&authority, resumable("hq")).await;
        let mut second = Server::start(&authority, resumable("hq")).await;
        let line = Line::to(first.address).await;
        let connector = connect(
            &[line.address, second.address],
            authority.client("branch-1"),
            resumable("branch-1"),
        );
        let tunnel = connector.tunnel(PATIENCE).await.unwrap();
        let (near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, far_recv) = first.accept().await.split();
        let away = Instant::now();
        line.close();
        line.cut();
        detached(&tunnel).await;
        let other = connector.tunnel(PATIENCE).await.unwrap();
        let (other_send, _other_recv) = other.open(spec()).unwrap().split();
        let (_other_far_send, other_far_recv) = second.accept().await.split();
        send_all(other_send, payload(10_000)).await;
        assert_eq!(receive_all(other_far_recv).await, payload(10_000));
        // What runs over the first goes on when its line is back, and then that tunnel is done.
        assert!(tunnel.is_up() && !tunnel.is_attached());
        line.open();
        send_all(near_send, payload(20_000)).await;
        assert_eq!(receive_all(far_recv).await, payload(20_000));
        assert_eq!(tunnel.resumes(), 1);
        drop((_near_recv, _far_send));
        let has_new_streams = || {
            let present = connector.present();
            present.is_some_and(|present| {
                let mut links = present.links().into_iter();
                links.any(|link| link.address == line.address)
            })
        };
        tokio::select! {
            _ = tunnel.ended() => {}
            // Servers that go first are looked for every ten seconds, give or take a quarter: if all this took so long, this tunnel has the
            // new streams again.
            () = until(has_new_streams) => assert!(away.elapsed() > Duration::from_secs(7)),
        }
        assert!(other.is_up());
    });
}

#[test]
fn only_who_proves_that_the_tunnel_is_its_own_carries_on_with_it() {
    on_runtime(async {
        let authority = Authority::new();
        let hq = Environment {
            // What speaks here answers no Ping.
            heartbeat: PATIENCE,
            ..resumable("hq")
        };
        let server = Server::start(&authority, hq).await;
        let client = resumable("branch-1");
        let own = authority.client("branch-1");
        let mut first = RawLink::to(server.address, &*own, &client).await;
        let begun = first.greet(hello()).await;
        let (id, secret) = begun.tunnel.zip(begun.secret).unwrap();
        server.has_tunnels(1).await;
        let tunnel = server.acceptor.tunnels().remove(0);
        drop(first);
        detached(&tunnel).await;
        let another = authority.client("branch-2");
        let resuming = |proof, generation| Hello {
            tunnel: Some(id),
            generation,
            proof: Some(proof),
            ..hello()
        };
        // Another identity, with the right secret.
        let mut link = RawLink::to(server.address, &*another, &client).await;
        let proof = link.proof(&secret, 1);
        let answer = link.greet(resuming(proof, 1)).await;
        assert_eq!(answer.status, HelloStatus::UnknownTunnel);
        // Another start of the program.
        let mut link = RawLink::to(server.address, &*own, &client).await;
        let proof = link.proof(&secret, 1);
        let answer = link
            .greet(Hello {
                instance: [8; 16],
                ..resuming(proof, 1)
            })
            .await;
        assert_eq!(answer.status, HelloStatus::UnknownTunnel);
        // Another tunnel.
        let mut link = RawLink::to(server.address, &*own, &client).await;
        let proof = link.proof(&secret, 1);
        let answer = link
            .greet(Hello {
                tunnel: Some([9; 16]),
                ..resuming(proof, 1)
            })
            .await;
        assert_eq!(answer.status, HelloStatus::UnknownTunnel);
        // A proof of another secret, generation, link index or connection, and none.
        for case in 0..5 {
            let beside = RawLink::to(server.address, &*own, &client).await;
            let mut link = RawLink::to(server.address, &*own, &client).await;
            let right = link.proof(&secret, 1);
            let wrong = match case {
                0 => resuming(link.proof(&Secret([1; 32]), 1), 1),
                1 => resuming(right, 2),
                2 => Hello {
                    link_index: 1,
                    ..resuming(right, 1)
                },
                3 => resuming(beside.proof(&secret, 1), 1),
                _ => Hello {
                    proof: None,
                    ..resuming(right, 1)
                },
            };
            let answer = link.greet(wrong).await;
            assert_eq!(answer.status, HelloStatus::ProofWrong, "{case}");
        }
        assert!(!tunnel.is_attached() && tunnel.resumes() == 0);
        // The right one; and again for the same generation, which is over.
        let mut link = RawLink::to(server.address, &*own, &client).await;
        let proof = link.proof(&secret, 1);
        let answer = link.greet(resuming(proof, 1)).await;
        assert_eq!(answer.status, HelloStatus::Accepted);
        assert_eq!((answer.tunnel, answer.secret), (Some(id), None));
        resumed(&tunnel, 1).await;
        let mut late = RawLink::to(server.address, &*own, &client).await;
        let proof = late.proof(&secret, 1);
        let answer = late.greet(resuming(proof, 1)).await;
        assert_eq!(answer.status, HelloStatus::ProofWrong);
        assert!(tunnel.is_attached(), "the newer link stays");
        // A newer one ends it, though the server knows nothing of its loss.
        let mut newer = RawLink::to(server.address, &*own, &client).await;
        let proof = newer.proof(&secret, 5);
        assert!(newer.greet(resuming(proof, 5)).await.status.is_accepted());
        resumed(&tunnel, 2).await;
        link.closes().await;
        assert!(tunnel.is_attached());
    });
}

/// Its client knows a tunnel from the server's Hello on; the server has it once histories are open, which waits for its disk.
#[test]
fn a_tunnel_that_has_hardly_begun_is_carried_on_with() {
    /// Longer than a tunnel waits for its histories.
    const BUSY: Duration = Duration::from_secs(1);
    on_runtime(async {
        let authority = Authority::new();
        let place = tempfile::tempdir().unwrap();
        let mut environment = resumable("hq");
        environment.histories = Arc::new(Histories::new(HistoriesConfig {
            home: Home::Disk(OpenDirectory::open(&place.path().join("history")).unwrap()),
            ..HistoriesConfig::in_memory(Lean::Sending, 64 << 20)
        }));
        let storage = environment.pools.storage.clone();
        for _ in 0..storage.snapshot().threads {
            let storage = storage.clone();
            tokio::spawn(async move {
                let name = JobName {
                    who: "test".into(),
                    why: "keep busy",
                };
                call(&storage, name, Box::new(|| std::thread::sleep(BUSY))).await
            });
        }
        let server = Server::start(&authority, environment).await;
        let client = resumable("branch-1");
        let own = authority.client("branch-1");
        let mut first = RawLink::to(server.address, &*own, &client).await;
        let begun = first.greet(hello()).await;
        let mut link = RawLink::to(server.address, &*own, &client).await;
        let proof = link.proof(&begun.secret.unwrap(), 1);
        let answer = link
            .greet(Hello {
                tunnel: begun.tunnel,
                generation: 1,
                proof: Some(proof),
                ..hello()
            })
            .await;
        assert_eq!(answer.status, HelloStatus::Accepted, "{}", answer.message);
        assert_eq!(server.acceptor.tunnels().len(), 1);
    });
}

/// Accepted, and the line lost before the client hears of it: the next attempt is of a newer generation.
#[test]
fn a_line_lost_in_the_middle_of_a_handshake_is_no_matter() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let (near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, far_recv) = stage.server.accept().await.split();
        let far_tunnel = stage.server.acceptor.tunnels().remove(0);
        // Each connection of the line carries little more than the one before.
        for carried in (0..9_000).step_by(450) {
            stage.line.limit(Some(carried));
            stage.line.cut();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.line.limit(None);
        stage.line.cut();
        let sender = tokio::spawn(send_all(near_send, payload(1_000_000)));
        assert!(receive_all(far_recv).await == payload(1_000_000));
        sender.await.unwrap();
        assert!(tunnel.is_up() && far_tunnel.is_up());
        assert_eq!(stage.server.acceptor.tunnels().len(), 1);
    });
}

#[test]
fn what_a_resumed_tunnel_sends_again_is_cheap_and_its_histories_are_warm() {
    on_runtime(async {
        let mut stage = Stage::new().await;
        let tunnel = stage.tunnel().await;
        let data = payload(2_000_000);
        let mut costs = Vec::new();
        for round in 0..2 {
            let (near_send, _near_recv) = tunnel.open(spec()).unwrap().split();
            let (_far_send, far_recv) = stage.server.accept().await.split();
            let before = stage.client.counters.peer("hq").wan.to_wan.get();
            let sender = tokio::spawn(send_all(near_send, data.clone()));
            assert!(receive_all(far_recv).await == data);
            sender.await.unwrap();
            costs.push(stage.client.counters.peer("hq").wan.to_wan.get() - before);
            if round == 0 {
                stage.line.cut();
                resumed(&tunnel, 1).await;
            }
        }
        assert!(costs[1] < costs[0] / 10, "{costs:?}");
    });
}

#[test]
fn a_client_that_says_goodbye_is_not_waited_for_however_its_connection_ends() {
    on_runtime(async {
        let authority = Authority::new();
        let server = Server::start(&authority, resumable("hq")).await;
        for _ in 0..20 {
            let own = authority.client("branch-1");
            let mut link = RawLink::to(server.address, &*own, &resumable("branch-1")).await;
            let answer = link.greet(hello()).await;
            assert_eq!(answer.status, HelloStatus::Accepted);
            server.has_tunnels(1).await;
            let tunnel = server.acceptor.tunnels().remove(0);
            link.leaves_rudely().await;
            let cause = tunnel.ended().await.to_string();
            assert_eq!(cause, "the other edge closed the link");
            server.has_tunnels(0).await;
        }
    });
}
