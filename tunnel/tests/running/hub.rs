//! A server with a hundred clients at once, each with traffic both ways: none has more of the server's disk than its quota, and all of it stays within the size.

use std::sync::Arc;

use bytes::Bytes;
use tunnel::environment::Environment;
use tunnel::histories::{Histories, HistoriesConfig, Home, Lean, OpenDirectory};

use crate::identities::Authority;
use crate::support::{
    INLINE_BELOW_BYTES, PATIENCE, Server, connect, environment, on_runtime, receive_all, send_all,
    spec, until,
};

const CLIENTS: u64 = 100;

/// What the server's configuration gives each client; one in ten has more.
const QUOTA_BYTES: u64 = 5 << 20;
const LARGE_QUOTA_BYTES: u64 = 8 << 20;

/// Sent each way by each client: more than fits.
const SENT_BYTES: usize = 4 << 20;

fn name(client: u64) -> String {
    format!("branch-{client}")
}

fn quota_of(name: &str) -> u64 {
    if name.ends_with('0') {
        LARGE_QUOTA_BYTES
    } else {
        QUOTA_BYTES
    }
}

/// Bytes of this client alone, that nothing makes smaller.
fn noise(client: u64, way: u64) -> Bytes {
    let mut state = (client * 2 + way).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words
        .take(SENT_BYTES / 8)
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Two hundred ends on one machine may be silent for long.
fn patient(name: &str) -> Environment {
    Environment {
        heartbeat: PATIENCE,
        ..environment(name, INLINE_BELOW_BYTES)
    }
}

fn hub(place: &std::path::Path) -> Environment {
    // Room for all, and none to spare.
    let size_bytes = (0..CLIENTS).map(|client| quota_of(&name(client))).sum();
    let directory = OpenDirectory::open(&place.join("history")).unwrap();
    let histories = Arc::new(Histories::new(HistoriesConfig {
        size_bytes,
        index_bytes: 16 << 20,
        // Half of it may wait to be written: all that a dozen clients send, lest a slow disk makes the server keep less.
        cache_bytes: 256 << 20,
        quota_of: Arc::new(|name| Some(quota_of(name))),
        home: Home::Disk(directory),
        ..HistoriesConfig::in_memory(Lean::Sending, size_bytes)
    }));
    let environment = patient("hq");
    histories.start_keeper(&environment.pools.storage);
    Environment {
        histories,
        ..environment
    }
}

#[test]
fn a_hundred_clients_are_held_to_their_quotas() {
    on_runtime(async {
        let place = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let hub = hub(place.path());
        let histories = Arc::clone(&hub.histories);
        let mut server = Server::start(&authority, hub).await;
        // One program's pools serve all clients, each of which has histories of its own.
        let branch = patient("branch");
        let mut connectors = Vec::new();
        for client in 0..CLIENTS {
            let environment = Environment {
                name: name(client),
                instance: rand::random(),
                histories: Arc::new(Histories::new(HistoriesConfig::in_memory(
                    Lean::Receiving,
                    6 << 20,
                ))),
                ..branch.clone()
            };
            let identity = authority.client(&environment.name);
            connectors.push(connect(&[server.address], identity, environment));
        }
        // Who comes while a hundred directories are opened begins without; here all shall have theirs.
        let in_use = || {
            let reports = histories.reports().into_iter();
            reports.filter(|report| report.is_in_use).count() as u64
        };
        until(|| in_use() >= CLIENTS).await;
        // A dozen at a time send and receive; all tunnels stay up.
        for clients in connectors.chunks(12).zip((0..CLIENTS).step_by(12)) {
            let (connectors, first) = clients;
            let mut transfers = Vec::new();
            for (connector, client) in connectors.iter().zip(first..) {
                let tunnel = connector.tunnel(PATIENCE).await.unwrap();
                let (near_send, near_recv) = tunnel.open(spec()).unwrap().split();
                let (far_send, far_recv) = server.accept().await.split();
                transfers.push(tokio::spawn(async move {
                    let (up, down) = (noise(client, 0), noise(client, 1));
                    let sent = tokio::join!(
                        send_all(near_send, up.clone()),
                        send_all(far_send, down.clone()),
                        receive_all(near_recv),
                        receive_all(far_recv),
                    );
                    assert!(sent.2 == down && sent.3 == up, "{}", name(client));
                }));
            }
            for transfer in transfers {
                transfer.await.unwrap();
            }
            // However slow the disk: what waits to be written is of a dozen clients, and not of those before as well.
            histories.flush_now().unwrap();
        }
        server.has_tunnels(usize::try_from(CLIENTS).unwrap()).await;
        histories.flush_now().unwrap();
        let reports = histories.reports();
        assert_eq!(reports.len() as u64, CLIENTS);
        let mut disk_bytes = 0;
        for report in &reports {
            let quota = quota_of(&report.peer);
            assert!(report.is_on_disk && report.is_in_use, "{report:?}");
            assert!(report.room_bytes <= quota, "{report:?}");
            assert!(
                report.own_bytes + report.mirror_bytes <= quota,
                "{report:?}"
            );
            // Besides what is held there are anchors, the table of checksums and a manifest.
            assert!(report.disk_bytes <= quota + quota / 8, "{report:?}");
            assert!(report.own_bytes >= 512 << 10, "nothing is kept: {report:?}");
            disk_bytes += report.disk_bytes;
        }
        let stats = histories.stats();
        assert!(disk_bytes <= stats.capacity_bytes + stats.capacity_bytes / 8);
        assert!(stats.index_bytes <= 16 << 20, "{stats:?}");
    });
}
