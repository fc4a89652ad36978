//! What an edge says of itself: status, metrics, logs, and how little it needs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_server_is_not_ready_and_says_so() {
    let (mut pair, _echo) = start("", "").await;
    ready(pair.client()).await;
    pair.server().signal(Signal::KILL).unwrap();
    pair.server_mut().exit(LIMIT).await.unwrap();
    eventually("the client noticed", async || {
        match (
            pair.client().page("/readyz").await.unwrap().0,
            pair.client().page("/healthz").await.unwrap().0,
        ) {
            (503, 200) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let said = status_command(pair.programs().client(), pair.client(), &[]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_is_going_on() {
    let (pair, _echo) = start("", "").await;
    let mut open = opened(&pair).await;
    assert_eq!(echoed(&mut open, &[7; 5000]).await, [7; 5000]);
    let status = pair.client().status_json().await.unwrap();
    for key in [
        "edge",
        "name",
        "version",
        "uptime_seconds",
        "tunnels",
        "services",
        "savings",
        "codec",
        "history",
        "jobs",
    ] {
        assert!(!status[key].is_null(), "no {key} in {status}");
    }
    let tunnel = &status["tunnels"][0];
    for key in [
        "peer",
        "state",
        "links",
        "resumes",
        "lan_bytes",
        "wan_bytes",
        "codec",
    ] {
        assert!(!tunnel[key].is_null(), "no {key} in {tunnel}");
    }
    for key in ["address", "rtt_ms", "sent_bytes", "received_bytes"] {
        assert!(!tunnel["links"][0][key].is_null(), "no {key} in {tunnel}");
    }
    let service = status["services"]
        .as_array()
        .unwrap()
        .iter()
        .find(|service| service["name"] == "echo")
        .unwrap();
    assert_eq!(
        (service["kind"].as_str(), service["open"].as_u64()),
        (Some("forward"), Some(1)),
        "{service}"
    );
    assert!(
        service["lan_bytes_to_wan"].as_u64() >= Some(5000),
        "{service}"
    );
    for edge in [pair.client(), pair.server()] {
        let program = if edge.tunnel_address().is_ok() {
            pair.programs().server()
        } else {
            pair.programs().client()
        };
        let said = status_command(program, edge, &["--json"]).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let value: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(value["edge"], edge.status_json().await.unwrap()["edge"]);
        let said = status_command(program, edge, &[]).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(!said.stdout.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_went_through() {
    let (pair, _echo) = start("", "").await;
    let mut open = opened(&pair).await;
    let sent = vec![3; 200_000];
    assert_eq!(echoed(&mut open, &sent).await, sent);
    // What an application has just got is counted a moment later.
    let metrics = eventually("all bytes are counted", async || {
        let metrics = pair.client().metrics().await.unwrap();
        let lan = |direction| {
            metrics.sum(
                "wanproxy_service_lan_bytes_total",
                &[("service", "echo"), ("direction", direction)],
            )
        };
        if lan("to_wan") >= Some(200_000.0) && lan("from_wan") >= Some(200_000.0) {
            Ok(metrics)
        } else {
            Err(metrics)
        }
    })
    .await;
    assert_eq!(
        metrics.sum("wanproxy_streams_open", &[("service", "echo")]),
        Some(1.0)
    );
    assert_eq!(metrics.sum("wanproxy_tunnel_up", &[]), Some(1.0));
    for name in [
        "wanproxy_service_wan_bytes_total",
        "wanproxy_peer_lan_bytes_total",
        "wanproxy_peer_wan_bytes_total",
        "wanproxy_codec_bytes_total",
        "wanproxy_history_bytes",
        "wanproxy_history_capacity_bytes",
        "wanproxy_pool_jobs",
        "wanproxy_memory_bytes",
        "wanproxy_config_reload_success",
        "wanproxy_certificate_expiry_timestamp_seconds",
        "wanproxy_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        for edge in [pair.client(), pair.server()] {
            let metrics = edge.metrics().await.unwrap();
            assert!(
                metrics.names().contains(name),
                "no {name} in {:?}",
                metrics.names()
            );
        }
    }
    // An application that goes away is counted as a stream that ended.
    drop(open);
    eventually("the stream is counted", async || {
        let metrics = pair.client().metrics().await.unwrap();
        match metrics.sum("wanproxy_streams_total", &[("service", "echo")]) {
            Some(count) if count >= 1.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_endpoint_answers_bad_requests_with_an_error() {
    let (pair, _echo) = start("", "").await;
    assert_eq!(pair.client().page("/nothing/here").await.unwrap().0, 404);
    assert_eq!(pair.server().page("/healthz").await.unwrap().0, 200);
    assert_eq!(pair.server().page("/readyz").await.unwrap().0, 200);
    let mut connection = TcpStream::connect(pair.client().admin_address().unwrap())
        .await
        .unwrap();
    let _reset = connection.write_all(&[0; 100_000]).await;
    let mut answer = Vec::new();
    let _reset = timeout(LIMIT, connection.read_to_end(&mut answer))
        .await
        .expect("garbage is not ended");
    assert_eq!(pair.client().page("/healthz").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_do_not_grow_with_connections() {
    allow_descriptors(4096).unwrap();
    let (pair, _echo) = start("", "").await;
    let mut open = vec![opened(&pair).await];
    let few = (
        pair.client().thread_count().unwrap(),
        pair.server().thread_count().unwrap(),
    );
    for _ in 0..300 {
        open.push(opened(&pair).await);
    }
    let many = (
        pair.client().thread_count().unwrap(),
        pair.server().thread_count().unwrap(),
    );
    // The runtime starts a blocking thread for a file or a name now and then, but none for a connection.
    assert!(
        many.0 <= few.0 + 4 && many.1 <= few.1 + 4,
        "{few:?} threads, then {many:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_is_logged_in_one_line() {
    let (pair, _echo) = start("[log]\nformat = \"json\"\n", "[log]\nformat = \"json\"\n").await;
    let mut open = opened(&pair).await;
    open.shutdown().await.unwrap();
    assert_eq!(open.read(&mut [0; 1]).await.unwrap(), 0);
    for edge in [pair.client(), pair.server()] {
        eventually("the stream is logged", async || {
            let log = edge.log();
            // The last line may not be whole yet.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = whole
                .lines()
                .filter(|line| line.contains("stream") && line.contains("echo"));
            let lines: Vec<serde_json::Value> = lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            if lines.len() == 1 { Ok(()) } else { Err(lines) }
        })
        .await;
    }
}
