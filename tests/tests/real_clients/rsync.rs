//! rsync from and to its own daemon.

use std::path::Path;
use std::process::Command;

use wanproxy_tests::payload::Payload;

use crate::server::Server;
use crate::stage::{Ground, Stage, assert_repeat, assert_same, found};

const FILES: u64 = 20;
const FILE_BYTES: usize = 200_000;

#[tokio::test(flavor = "multi_thread")]
async fn rsync_copies_the_same_files_both_ways() {
    let Some([rsync]) = found("rsync", ["rsync"]) else {
        return;
    };
    let Some(ground) = Ground::lay("rsync") else {
        return;
    };
    let served = ground.path("served");
    for number in 0..FILES {
        let directory = format!("{served}/{}", number % 3);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(format!("{directory}/{number}"), content(number)).unwrap();
    }
    let address = ground.far_address();
    let configuration = format!(
        "address = {}\nport = {}\nuse chroot = no\nuid = 0\ngid = 0\nreverse lookup = no\nlog file = {}\n[files]\npath = {served}\nread only = no\n",
        address.ip(),
        address.port(),
        ground.path("rsyncd.log")
    );
    std::fs::write(ground.path("rsyncd.conf"), configuration).unwrap();
    let mut daemon = ground.far(&rsync);
    daemon.args([
        "--daemon",
        "--no-detach",
        "--config",
        &ground.path("rsyncd.conf"),
    ]);
    let _daemon = Server::start(&ground, daemon, address).await;
    let mut stage = ground.pair(&[("rsync", address)]).await;

    let bytes = FILES * FILE_BYTES as u64;
    let url = format!("rsync://{}/files", stage.listener("rsync"));
    let copy = stage.ground.path("direct");
    let command = sync(&stage, &rsync, &format!("rsync://{address}/files/"), &copy);
    stage.direct("download", command).await;
    assert_tree("direct", &copy);
    for turn in ["first", "again"] {
        let copy = stage.ground.path(turn);
        let command = sync(&stage, &rsync, &format!("{url}/"), &copy);
        let (_, wan) = stage.through(&format!("download, {turn}"), command).await;
        assert_tree(turn, &copy);
        if turn == "again" {
            assert_repeat("download", bytes, wan);
        }
    }
    // Up again what came down.
    let from = format!("{}/", stage.ground.path("first"));
    let command = sync(&stage, &rsync, &from, &format!("{url}/copy/"));
    let (_, wan) = stage.through("upload of the same", command).await;
    assert_tree("uploaded", &stage.ground.path("served/copy"));
    assert_repeat("upload", bytes, wan);
    stage.report();
}

fn sync(stage: &Stage, rsync: &Path, from: &str, to: &str) -> Command {
    let mut command = stage.ground.near(rsync);
    command.args(["--archive", "--whole-file", from, to]);
    command
}

fn content(number: u64) -> Vec<u8> {
    Payload::random(number).bytes(0, FILE_BYTES)
}

fn assert_tree(what: &str, directory: &str) {
    for number in 0..FILES {
        let file = std::fs::read(format!("{directory}/{}/{number}", number % 3)).unwrap();
        assert_same(&format!("{what}, file {number}"), &file, &content(number));
    }
}
