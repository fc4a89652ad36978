//! wrk against nginx, and iperf3 both ways.

use serde_json::Value;

use wanproxy_tests::eventually;
use wanproxy_tests::payload::Payload;

use crate::server::Server;
use crate::stage::{Ground, found};
use crate::web::Web;

const FILE_BYTES: usize = 10_000;
const IPERF_BYTES: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn wrk_sees_no_error() {
    let Some([wrk, nginx, openssl]) = found("wrk", ["wrk", "nginx", "openssl"]) else {
        return;
    };
    let Some(ground) = Ground::lay("wrk") else {
        return;
    };
    std::fs::create_dir(ground.path("root")).unwrap();
    std::fs::write(
        ground.path("root/file"),
        Payload::text(8).bytes(0, FILE_BYTES),
    )
    .unwrap();
    let web = Web::start(&ground, &nginx, &openssl).await;
    let mut stage = ground.pair(&[("http", web.http1)]).await;
    for server in [web.http1, stage.listener("http")] {
        let mut command = stage.ground.near(&wrk);
        command.args([
            "-t1",
            "-c16",
            "-d3s",
            "--timeout",
            "60s",
            &format!("http://{server}/file"),
        ]);
        let said = if server == web.http1 {
            stage.direct("3 s of requests", command).await
        } else {
            stage.through("3 s of requests", command).await.0
        };
        let said = String::from_utf8(said).unwrap();
        let requests = said
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .and_then(|(count, _)| count.parse::<u64>().ok());
        assert!(requests.is_some_and(|count| count > 0), "{said}");
        assert!(
            !said.contains("Socket errors") && !said.contains("Non-2xx"),
            "{said}"
        );
    }
    stage.report();
}

#[tokio::test(flavor = "multi_thread")]
async fn iperf3_counts_every_byte_both_ways() {
    let Some([iperf]) = found("iperf3", ["iperf3"]) else {
        return;
    };
    let Some(ground) = Ground::lay("iperf3") else {
        return;
    };
    let address = ground.far_address();
    let mut command = ground.far(&iperf);
    command.args([
        "--server",
        "--forceflush",
        "--bind",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
    ]);
    let iperf_server = Server::start(&ground, command, address).await;
    let mut stage = ground.pair(&[("iperf", address)]).await;
    // The first one was to see whether it answers.
    let mut served = 1;
    for reverse in [false, true] {
        for server in [address, stage.listener("iperf")] {
            listens_again(&iperf_server, served).await;
            served += 1;
            let mut command = stage.ground.near(&iperf);
            command
                .args(["--json", "--bytes", &IPERF_BYTES.to_string()])
                .args([
                    "--client",
                    &server.ip().to_string(),
                    "--port",
                    &server.port().to_string(),
                ]);
            if reverse {
                command.arg("--reverse");
            }
            let what = if reverse { "8 MiB down" } else { "8 MiB up" };
            let said = if server == address {
                stage.direct(what, command).await
            } else {
                stage.through(what, command).await.0
            };
            let said: Value = serde_json::from_slice(&said).unwrap();
            assert_eq!(said.get("error"), None);
            let sent = said["end"]["sum_sent"]["bytes"].as_u64().unwrap();
            let received = said["end"]["sum_received"]["bytes"].as_u64().unwrap();
            // Through the pair, what iperf3 says at the end may overtake on its connection what it has sent on the other one.
            let counts = server == address || reverse;
            assert!(
                sent >= IPERF_BYTES && (received > 0 || !counts),
                "{what}: {sent} sent, {received} received"
            );
        }
    }
    stage.report();
}

/// Waits until iperf3 listens again after so many clients: it serves one at a time, refuses others meanwhile, and then closes the socket
/// that it listened at and opens another one. Its client does not wait for that.
async fn listens_again(server: &Server, served: usize) {
    eventually("iperf3 listens again", async || {
        let said = server.said();
        if said.matches("Server listening on ").count() > served {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
}
