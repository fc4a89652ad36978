//! Histories are there again after the edges were ended, in whatever way.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// What came right before the end is on disk after it, unless the disk was too slow for that and the edge has said so: then with the next file.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_both_edges_keeps_what_was_sent() {
    let (mut pair, origin) = measured("", "").await;
    let too_slow = |pair: &Pair| {
        let edges = [pair.client(), pair.server()];
        edges
            .map(|edge| logged(edge, "the disk is too slow"))
            .iter()
            .sum::<usize>()
    };
    let mut seed = 100;
    // What came after a restart is kept, too.
    for mebibytes in [8, 4] {
        let file = eventually("the disk is fast enough", async || {
            let file = File::random(&origin, seed, mebibytes);
            seed += 1;
            let cold = file.cost(&pair).await;
            assert!(cold >= file.len(), "it was not new: {cold} bytes");
            let before = too_slow(&pair);
            restart_both(&mut pair).await;
            if too_slow(&pair) == before {
                Ok(file)
            } else {
                Err("it was too slow")
            }
        })
        .await;
        file.is_warm(&pair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_that_are_killed_keep_what_they_had_a_second_before() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 3, 8);
    file.cost(&pair).await;
    written(&pair).await;
    kill_both(&mut pair).await;
    restart_both(&mut pair).await;
    file.is_warm(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_that_are_killed_in_the_midst_of_a_transfer_deliver_exact_bytes_after() {
    let (mut pair, origin) = measured("", "").await;
    let before = File::random(&origin, 4, 8);
    before.cost(&pair).await;
    written(&pair).await;
    let torn = File::random(&origin, 5, 16);
    for _ in 0..3 {
        let mut connection = TcpStream::connect(pair.client().address("http").unwrap())
            .await
            .unwrap();
        let request = format!("GET {} HTTP/1.1\r\nHost: origin\r\n\r\n", torn.path);
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut part = vec![0; 4 << 20];
        connection.read_exact(&mut part).await.unwrap();
        kill_both(&mut pair).await;
        restart_both(&mut pair).await;
    }
    torn.cost(&pair).await;
    torn.is_warm(&pair).await;
    before.is_warm(&pair).await;
}

/// Waits until an edge has noticed that the other one is gone: its old tunnel is not taken for the next one then.
async fn has_lost_its_line(edge: &EdgeProcess) {
    eventually("the line is lost", async || {
        let status = edge.status_json().await.unwrap();
        let tunnels = status["tunnels"].as_array().unwrap();
        if tunnels.iter().any(|tunnel| tunnel["state"] == "up") {
            Err(status)
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_edge_that_is_killed_is_met_by_the_other() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 6, 8);
    file.cost(&pair).await;
    written(&pair).await;
    pair.server().signal(Signal::KILL).unwrap();
    pair.server_mut().exit(STALL_LIMIT).await.unwrap();
    has_lost_its_line(pair.client()).await;
    pair.restart_server().await.unwrap();
    settled(&pair).await;
    file.is_warm(&pair).await;
    pair.client().signal(Signal::KILL).unwrap();
    pair.client_mut().exit(STALL_LIMIT).await.unwrap();
    has_lost_its_line(pair.server()).await;
    pair.restart_client().await.unwrap();
    settled(&pair).await;
    file.is_warm(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_the_directory_is_no_danger() {
    let (mut pair, origin) = measured("", "").await;
    let [server, client] = directories(&pair);
    let (first, second) = (File::random(&origin, 7, 4), File::random(&origin, 8, 4));
    for directory in [client, server] {
        first.cost(&pair).await;
        stop_written(&mut pair).await;
        let snapshot = pair.scratch().join("snapshot");
        copy(&directory, &snapshot);
        restart_both(&mut pair).await;
        second.cost(&pair).await;
        stop_both(&mut pair).await;
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::rename(&snapshot, &directory).unwrap();
        restart_both(&mut pair).await;
        // Both sides agree on the older state, and what came after it comes again.
        first.is_warm(&pair).await;
        second.cost(&pair).await;
        second.is_warm(&pair).await;
        let third = File::random(&origin, 9, 4);
        third.cost(&pair).await;
        third.is_warm(&pair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_client_works_beside_it_and_takes_over_after_it() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 10, 4);
    file.cost(&pair).await;
    stop_both(&mut pair).await;
    let twin = pair.client_directory("twin");
    copy(&pair.client_directory(CLIENT_NAME), &twin);
    restart_both(&mut pair).await;
    let other = pair
        .start_joined(&twin, &listener(&origin).replace("\"http\"", "\"twin\""))
        .await
        .unwrap();
    eventually("the twin has a tunnel", async || {
        if other.is_ready().await {
            Ok(())
        } else {
            Err(other.last_log_lines())
        }
    })
    .await;
    // One of them has the histories, the other goes without; both carry exact bytes.
    for seed in 11..14 {
        let file = File::random(&origin, seed, 2);
        let (one, two) = (
            pair.client().address("http").unwrap(),
            other.address("twin").unwrap(),
        );
        tokio::join!(file.fetch_from(one), file.fetch_from(two));
    }
    file.fetch_from(other.address("twin").unwrap()).await;
    pair.client().signal(Signal::KILL).unwrap();
    pair.client_mut().exit(STALL_LIMIT).await.unwrap();
    eventually("the twin has the histories", async || {
        let server = shared_with(pair.server(), CLIENT_NAME).await;
        let twin = shared_with(&other, "server").await;
        if server["in_use"] == true && twin["in_use"] == true {
            Ok(())
        } else {
            Err(server)
        }
    })
    .await;
    file.fetch_from(other.address("twin").unwrap()).await;
    file.fetch_from(other.address("twin").unwrap()).await;
}
