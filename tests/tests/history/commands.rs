//! `history stats | verify | clear`, on edges that run and on edges that do not.

use tokio::net::TcpSocket;
use wanproxy_tests::pair::{Output, run_command};

use super::limits::is_remembered;
use super::*;

/// Which edge is meant.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    fn edge(self, pair: &Pair) -> &EdgeProcess {
        match self {
            Self::Client => pair.client(),
            Self::Server => pair.server(),
        }
    }

    fn program(self, pair: &Pair) -> &Path {
        match self {
            Self::Client => pair.programs().client(),
            Self::Server => pair.programs().server(),
        }
    }

    fn peer(self) -> &'static str {
        match self {
            Self::Client => "server",
            Self::Server => CLIENT_NAME,
        }
    }
}

/// Runs `history WORDS` with the configuration of an edge, which here names the port that the edge was given.
pub(super) async fn command(
    pair: &Pair,
    side: Side,
    words: &[&str],
    admin: Option<SocketAddr>,
) -> Output {
    let config = side.edge(pair).config();
    let mut table: toml::Table = std::fs::read_to_string(config).unwrap().parse().unwrap();
    match admin {
        Some(address) => table["admin"]["bind"] = address.to_string().into(),
        None => {
            table.remove("admin");
        }
    }
    let file = config.with_file_name("asked.toml");
    std::fs::write(&file, toml::to_string(&table).unwrap()).unwrap();
    let arguments = [&["history"], words, &["--config", file.to_str().unwrap()]].concat();
    run_command(side.program(pair), arguments).await.unwrap()
}

pub(super) fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_edge_is_asked() {
    let brisk = "[tunnel]\nheartbeat = \"100ms\"\n";
    let (pair, origin) = measured(brisk, brisk).await;
    let file = File::random(&origin, 70, 4);
    file.cost(&pair).await;
    written(&pair).await;
    for side in [Side::Client, Side::Server] {
        let admin = Some(side.edge(&pair).admin_address().unwrap());
        let stats = command(&pair, side, &["stats"], admin).await;
        assert_eq!(stats.code, Some(0), "{}", stats.stderr);
        assert!(
            stats.stdout.contains(side.peer()) && stats.stdout.contains("in use"),
            "{}",
            stats.stdout
        );
        let page = json(&command(&pair, side, &["stats", "--json"], admin).await);
        let line = &page["domains"][0];
        assert_eq!(line["place"], "disk");
        let held = line["own_bytes"].as_u64().unwrap() + line["mirror_bytes"].as_u64().unwrap();
        assert!(held >= file.len(), "{page}");

        let verified = command(&pair, side, &["verify", "--json"], admin).await;
        assert_eq!(verified.code, Some(0), "{}", verified.stderr);
        let found = json(&verified);
        assert!(
            found["checked_bytes"].as_u64().unwrap() >= file.len(),
            "{found}"
        );
        assert_eq!(found["damaged_pages"], 0);
        assert_eq!(found["damaged_manifests"], Value::Array(Vec::new()));
        let status = side.edge(&pair).status_json().await.unwrap();
        let jobs = status["jobs"].as_array().unwrap();
        let done = |job: &&Value| job["why"] == "verify" && job["state"] == "finished";
        assert_eq!(jobs.iter().filter(done).count(), 1, "{status}");
        assert!(jobs.iter().any(|job| job["why"] == "keep"), "{status}");
    }
    file.is_warm(&pair).await;
    for side in [Side::Client, Side::Server] {
        let admin = Some(side.edge(&pair).admin_address().unwrap());
        let cleared = command(&pair, side, &["clear", "--peer", "nobody"], admin).await;
        assert_eq!(cleared.code, Some(0), "{}", cleared.stderr);
        assert_eq!(cleared.stdout, "nothing was remembered\n");
    }
    file.is_warm(&pair).await;
    // The tunnel uses them, and both sides have to give up what there is.
    let admin = Some(pair.client().admin_address().unwrap());
    eventually("both have forgotten", async || {
        let cleared = command(&pair, Side::Client, &["clear"], admin).await;
        assert_eq!(cleared.code, Some(0), "{}", cleared.stderr);
        assert!(
            cleared.stdout.contains("server shared"),
            "{}",
            cleared.stdout
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        let again = file.cost(&pair).await;
        if again >= file.len() {
            Ok(())
        } else {
            Err(again)
        }
    })
    .await;
    // What came while one side was still giving up what it had is not kept.
    is_remembered(&file, &pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_stopped_edge_is_opened() {
    let (mut pair, origin) = measured("", "").await;
    let file = File::random(&origin, 71, 4);
    file.cost(&pair).await;
    stop_written(&mut pair).await;
    for side in [Side::Client, Side::Server] {
        let stats = command(&pair, side, &["stats", "--json"], None).await;
        assert_eq!(stats.code, Some(0), "{}", stats.stderr);
        let line = &json(&stats)["domains"][0];
        assert_eq!(line["peer"], side.peer());
        let held = line["own_bytes"].as_u64().unwrap() + line["mirror_bytes"].as_u64().unwrap();
        assert!(held >= file.len(), "{line}");
        let verified = command(&pair, side, &["verify"], None).await;
        assert_eq!(verified.code, Some(0), "{}", verified.stderr);
        assert!(
            verified.stdout.ends_with("nothing is damaged.\n"),
            "{}",
            verified.stdout
        );
    }
    // Looking changes nothing.
    restart_both(&mut pair).await;
    file.is_warm(&pair).await;
    stop_both(&mut pair).await;
    let [server, _] = directories(&pair);
    let segment = files(&server)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let verified = command(&pair, Side::Server, &["verify"], None).await;
    assert_eq!(verified.code, Some(1), "{}", verified.stdout);
    assert!(
        verified.stdout.contains("1 page of 64 KiB was damaged"),
        "{}",
        verified.stdout
    );
    // It is forgotten for good.
    let verified = command(&pair, Side::Server, &["verify"], None).await;
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    restart_both(&mut pair).await;
    let cost = file.cost(&pair).await;
    assert!(
        cost < file.len() / 10,
        "more than the page was lost: {cost} bytes"
    );
    stop_both(&mut pair).await;
    a_damaged_manifest_is_named(&pair).await;
    for side in [Side::Client, Side::Server] {
        let cleared = command(&pair, side, &["clear"], None).await;
        assert_eq!(cleared.code, Some(0), "{}", cleared.stderr);
        let stats = command(&pair, side, &["stats"], None).await;
        assert!(
            stats.stdout.contains("nothing is remembered"),
            "{}",
            stats.stdout
        );
    }
    restart_both(&mut pair).await;
    let again = file.cost(&pair).await;
    assert!(again >= file.len(), "it was remembered: {again} bytes");
    stop_both(&mut pair).await;
    for directory in directories(&pair) {
        std::fs::remove_dir_all(directory).unwrap();
    }
    // Who reads JSON finds the same keys where there is nothing yet.
    for (word, key) in [
        ("stats", "domains"),
        ("verify", "damaged_pages"),
        ("clear", "cleared"),
    ] {
        let nothing = command(&pair, Side::Server, &[word, "--json"], None).await;
        assert_eq!(nothing.code, Some(0), "{}", nothing.stderr);
        assert!(json(&nothing).get(key).is_some(), "{}", nothing.stdout);
    }
}

/// A stopped server whose own log has a manifest with a bit turned around.
async fn a_damaged_manifest_is_named(pair: &Pair) {
    let verify = async || json(&command(pair, Side::Server, &["verify", "--json"], None).await);
    assert_eq!(
        verify().await["damaged_manifests"],
        Value::Array(Vec::new())
    );
    let [server, _] = directories(pair);
    let manifest = files(&server)
        .into_iter()
        .find(|path| path.ends_with("own/manifest"))
        .unwrap();
    let mut bytes = std::fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let verified = command(pair, Side::Server, &["verify", "--json"], None).await;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    let found = json(&verified);
    assert_eq!(found["damaged_pages"], 0);
    let named = manifest.strip_prefix(&server).unwrap().to_str().unwrap();
    assert_eq!(found["damaged_manifests"], serde_json::json!([named]));
    assert!(
        verified
            .stderr
            .contains(&server.join(named).parent().unwrap().display().to_string()),
        "{}",
        verified.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_is_named() {
    let (pair, _origin) = measured("", "").await;
    for side in [Side::Client, Side::Server] {
        let pid = side.edge(&pair).id().unwrap().to_string();
        for word in ["stats", "verify", "clear"] {
            let refused = command(&pair, side, &[word], None).await;
            assert_eq!(refused.code, Some(1), "{}", refused.stdout);
            assert!(
                refused.stderr.contains(&pid) && refused.stderr.contains("[admin]"),
                "{}",
                refused.stderr
            );
            assert_eq!(refused.stderr.lines().count(), 1);
        }
        // Nobody listens where it is asked, and nobody else gets that port meanwhile.
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let nowhere = taken.local_addr().unwrap();
        let refused = command(&pair, side, &["stats"], Some(nowhere)).await;
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains(&pid) && refused.stderr.contains("does not answer"),
            "{}",
            refused.stderr
        );
    }
}
