//! git: clone from its own daemon, and push to it.

use std::path::Path;
use std::process::Command;

use wanproxy_tests::payload::Payload;

use crate::server::Server;
use crate::stage::{Ground, assert_repeat, found, succeed};

const FILE_BYTES: usize = 1 << 20;
const VERSIONS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes_the_same_commits() {
    let Some([program]) = found("git", ["git"]) else {
        return;
    };
    let Some(ground) = Ground::lay("git") else {
        return;
    };
    let path = succeed(git(&ground, &program, "", &["--exec-path"])).await;
    let path = String::from_utf8(path).unwrap();
    if !Path::new(path.trim()).join("git-daemon").exists() {
        wanproxy_tests::skip("git", "it is installed without its daemon");
        return;
    }
    let work = ground.path("work");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::create_dir_all(ground.path("served")).unwrap();
    succeed(git(
        &ground,
        &program,
        &work,
        &["init", "--quiet", "--initial-branch=main"],
    ))
    .await;
    for version in 0..VERSIONS {
        commit(&ground, &program, &work, version).await;
    }
    for name in ["sample", "pushed-1", "pushed-2"] {
        let served = ground.path(&format!("served/{name}"));
        succeed(git(
            &ground,
            &program,
            "",
            &["clone", "--quiet", "--bare", &work, &served],
        ))
        .await;
        // One pack, so that each clone sends the same bytes.
        succeed(git(&ground, &program, &served, &["repack", "-adq"])).await;
    }
    let address = ground.far_address();
    let mut daemon = ground.far(Path::new(path.trim()).join("git-daemon"));
    daemon
        .args(["--reuseaddr", "--export-all", "--enable=receive-pack"])
        .arg(format!("--listen={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .arg(format!("--base-path={}", ground.path("served")))
        .envs(settings(&ground));
    let _daemon = Server::start(&ground, daemon, address).await;
    let mut stage = ground.pair(&[("git", address)]).await;
    let url = format!("git://{}", stage.listener("git"));

    let direct = stage.ground.path("direct");
    let args = [
        "clone",
        "--quiet",
        &format!("git://{address}/sample"),
        &direct,
    ];
    let command = git(&stage.ground, &program, "", &args);
    stage.direct("clone", command).await;
    let head = revision(&stage.ground, &program, &direct).await;
    for turn in ["first", "again"] {
        let clone = stage.ground.path(turn);
        let args = ["clone", "--quiet", &format!("{url}/sample"), &clone];
        let command = git(&stage.ground, &program, "", &args);
        let (_, wan) = stage.through(&format!("clone, {turn}"), command).await;
        succeed(git(&stage.ground, &program, &clone, &["fsck", "--full"])).await;
        assert_eq!(revision(&stage.ground, &program, &clone).await, head);
        if turn == "again" {
            assert_repeat("clone", VERSIONS * FILE_BYTES as u64, wan);
        }
    }

    commit(&stage.ground, &program, &work, VERSIONS).await;
    let head = revision(&stage.ground, &program, &work).await;
    for (turn, name) in [("first", "pushed-1"), ("again", "pushed-2")] {
        let command = git(
            &stage.ground,
            &program,
            &work,
            &["push", "--quiet", &format!("{url}/{name}"), "main"],
        );
        let (_, wan) = stage.through(&format!("push, {turn}"), command).await;
        let served = stage.ground.path(&format!("served/{name}"));
        succeed(git(&stage.ground, &program, &served, &["fsck", "--full"])).await;
        assert_eq!(revision(&stage.ground, &program, &served).await, head);
        if turn == "again" {
            assert_repeat("push", FILE_BYTES as u64, wan);
        }
    }
    stage.report();
}

async fn commit(ground: &Ground, program: &Path, work: &str, version: u64) {
    let bytes = Payload::random(version).bytes(0, FILE_BYTES);
    std::fs::write(Path::new(work).join("file"), bytes).unwrap();
    succeed(git(ground, program, work, &["add", "."])).await;
    let message = format!("version {version}");
    succeed(git(
        ground,
        program,
        work,
        &["commit", "--quiet", "--message", &message],
    ))
    .await;
}

async fn revision(ground: &Ground, program: &Path, directory: &str) -> Vec<u8> {
    succeed(git(ground, program, directory, &["rev-parse", "main"])).await
}

/// Git in `directory` (or the ground's own), with nobody's settings but these.
fn git(ground: &Ground, program: &Path, directory: &str, args: &[&str]) -> Command {
    let mut command = ground.near(program);
    let directory = if directory.is_empty() {
        ground.path("")
    } else {
        directory.to_owned()
    };
    command
        .current_dir(directory)
        .args(args)
        .envs(settings(ground));
    command
}

fn settings(ground: &Ground) -> Vec<(String, String)> {
    let pairs = [
        ("safe.directory", "*"),
        ("user.name", "test"),
        ("user.email", "test@example.com"),
        ("pack.threads", "1"),
        ("gc.auto", "0"),
        ("receive.autogc", "false"),
    ];
    let mut all = vec![
        ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
        ("HOME".to_owned(), ground.path("")),
        ("GIT_CONFIG_COUNT".to_owned(), pairs.len().to_string()),
    ];
    for (number, (key, value)) in pairs.iter().enumerate() {
        all.push((format!("GIT_CONFIG_KEY_{number}"), (*key).to_owned()));
        all.push((format!("GIT_CONFIG_VALUE_{number}"), (*value).to_owned()));
    }
    all
}
