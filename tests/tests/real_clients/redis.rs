//! redis-benchmark, and values that come back whole.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::server::Server;
use crate::stage::{Ground, Stage, assert_repeat, assert_same, found, succeed};

const REQUESTS: u32 = 2000;
const VALUE_BYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn redis_answers_every_request_of_its_benchmark() {
    let programs = ["redis-server", "redis-benchmark", "redis-cli"];
    let Some([server, benchmark, cli]) = found("redis", programs) else {
        return;
    };
    let Some(ground) = Ground::lay("redis") else {
        return;
    };
    let address = ground.far_address();
    let mut command = ground.far(&server);
    command
        .args([
            "--bind",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
        ])
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
            "--dir",
            &ground.path(""),
        ]);
    let _server = Server::start(&ground, command, address).await;
    let mut stage = ground.pair(&[("redis", address)]).await;
    let way = stage.listener("redis");

    for (what, server) in [
        ("2,000 SET and 2,000 GET", address),
        ("2,000 SET and 2,000 GET", way),
    ] {
        succeed(ask(&stage, &cli, address, &["CONFIG", "RESETSTAT"])).await;
        let mut command = to(&stage, &benchmark, server);
        command.args([
            "-n",
            &REQUESTS.to_string(),
            "-c",
            "50",
            "-d",
            "100",
            "-t",
            "set,get",
            "--csv",
        ]);
        let said = if server == way {
            stage.through(what, command).await.0
        } else {
            stage.direct(what, command).await
        };
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.contains("\"SET\"") && said.contains("\"GET\""),
            "{said}"
        );
        let counted = succeed(ask(&stage, &cli, address, &["INFO", "commandstats"])).await;
        let counted = String::from_utf8(counted).unwrap();
        for command in ["set", "get"] {
            let wanted = format!("cmdstat_{command}:calls={REQUESTS},");
            assert!(counted.contains(&wanted), "{wanted} is not in {counted}");
        }
    }

    // A value of bytes that do not compress, made by the server; it must come through as it comes directly.
    let fill = format!(
        "math.randomseed(7) local t = {{}} for i = 1, {VALUE_BYTES} do t[i] = string.char(math.random(33, 126)) end \
         redis.call('SET', 'value', table.concat(t)) return 'made'"
    );
    succeed(ask(&stage, &cli, address, &["EVAL", &fill, "0"])).await;
    let get = ["GET", "value"];
    let command = ask(&stage, &cli, address, &get);
    let direct = stage.direct("GET of 1 MiB", command).await;
    assert!(direct.len() >= VALUE_BYTES);
    for turn in ["first", "again"] {
        let command = ask(&stage, &cli, way, &get);
        let (got, wan) = stage
            .through(&format!("GET of 1 MiB, {turn}"), command)
            .await;
        assert_same(turn, &got, &direct);
        if turn == "again" {
            assert_repeat("GET", VALUE_BYTES as u64, wan);
        }
    }
    stage.report();
}

fn to(stage: &Stage, program: &Path, server: SocketAddr) -> Command {
    let mut command = stage.ground.near(program);
    command.args([
        "-h",
        &server.ip().to_string(),
        "-p",
        &server.port().to_string(),
    ]);
    command
}

fn ask(stage: &Stage, cli: &Path, server: SocketAddr, words: &[&str]) -> Command {
    let mut command = to(stage, cli, server);
    command.arg("-e").args(words);
    command
}
