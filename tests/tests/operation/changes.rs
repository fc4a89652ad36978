//! What changes under a running edge: its policy, who may come in, the line and the server itself.

use bytes::Bytes;
use wanproxy_tests::fetch::{Request, fetch};
use wanproxy_tests::line::{LineBytes, LineConfig};
use wanproxy_tests::origin::{Content, HttpOrigin};
use wanproxy_tests::payload::{Checker, Payload};

use super::*;

/// A pair with the services `echo` and `kept`, which lead to one of these each.
async fn with_two_echoes() -> (Pair, [Server; 2]) {
    let (echo, kept) = (origin::echo().unwrap(), origin::echo().unwrap());
    let builder = Pair::builder()
        .forward("echo", echo.address())
        .forward("kept", kept.address())
        .allow("127.0.0.1:*");
    (builder.start().await.unwrap(), [echo, kept])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_policy_and_leaves_allowed_connections_alone() {
    let (pair, [_echo, kept]) = with_two_echoes().await;
    let mut open = connected(&pair, "kept").await;
    let config = pair.server().config().to_owned();
    let original = std::fs::read_to_string(&config).unwrap();

    // A file that cannot be read whole changes nothing.
    std::fs::write(&config, format!("{original}\n[tunnell]\n")).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    reload_is(pair.server(), 0.0).await;
    assert_eq!(echoed(&mut open, b"a").await, b"a");
    assert_eq!(echoed(&mut opened(&pair).await, b"b").await, b"b");

    // Nothing new gets to the echo; what goes elsewhere is not touched.
    let denied = original.replace(
        "127.0.0.1:*",
        &format!("127.0.0.1:{}", kept.address().port()),
    );
    assert_ne!(denied, original);
    std::fs::write(&config, &denied).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    reload_is(pair.server(), 1.0).await;
    // A refusal may come before the connection is there.
    let asked = async {
        let mut refused = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
        refused.read(&mut [0; 1]).await
    };
    let answer = timeout(LIMIT, asked)
        .await
        .expect("neither refused nor answered");
    assert!(matches!(answer, Err(_) | Ok(0)), "{answer:?}");
    assert_eq!(echoed(&mut open, b"untouched").await, b"untouched");

    // And back again.
    std::fs::write(&config, &original).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    eventually("the echo is allowed again", async || {
        let mut connection = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
        let _refused = connection.write_all(b"c").await;
        match connection.read_u8().await? {
            b'c' => Ok(()),
            other => Err(std::io::Error::other(format!("{other}, not c"))),
        }
    })
    .await;
    assert_eq!(echoed(&mut open, b"untouched").await, b"untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_turned_away() {
    let (pair, _echo) = start("", "").await;
    let mut open = opened(&pair).await;
    let directory = pair.server_directory();
    let directory = directory.to_str().unwrap();
    let revoked = run_command(
        pair.programs().server(),
        ["revoke", CLIENT_NAME, "--dir", directory],
    )
    .await
    .unwrap();
    assert_eq!(revoked.code, Some(0), "{}", revoked.stderr);
    pair.server().signal(Signal::HUP).unwrap();
    let ended = timeout(LIMIT, open.read(&mut [0; 1]))
        .await
        .expect("its connection goes on");
    assert!(ended.is_err(), "{ended:?}");
    eventually("the client has no tunnel", async || {
        if pair.client().is_ready().await {
            Err("still ready")
        } else {
            Ok(())
        }
    })
    .await;
    // Others are not concerned.
    let other = pair.start_client("branch-2", "").await.unwrap();
    ready(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_a_server_that_was_started_again() {
    let (mut pair, _echo) = start("", "").await;
    let mut before = opened(&pair).await;
    pair.restart_server().await.unwrap();
    let ended = timeout(LIMIT, before.read(&mut [0; 1]))
        .await
        .expect("a connection of the lost tunnel hangs");
    assert!(ended.is_err(), "{ended:?}");
    eventually("the client has a tunnel again", async || {
        let mut connection = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
        let _lost = connection.write_all(b"x").await;
        connection.read_u8().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_clients_first_connection_waits_for_its_own_certificate() {
    let (pair, echo) = start("", "").await;
    let directory = pair.join("branch-2").await.unwrap();
    // What it waits for takes its time on a busy machine.
    let listener = format!(
        "[tunnel]\nconnect_wait = \"2m\"\n[[listen]]\nname = \"echo\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\n",
        echo.address()
    );
    let invite = std::fs::read(directory.join("edge.pem")).unwrap();
    // Not waited for: the connection comes before the tunnel, and the invite's certificate may carry nothing.
    let client = pair.start_joined(&directory, &listener).await.unwrap();
    let mut connection = TcpStream::connect(client.address("echo").unwrap())
        .await
        .unwrap();
    assert_eq!(echoed(&mut connection, b"first").await, b"first");
    assert_ne!(std::fs::read(directory.join("edge.pem")).unwrap(), invite);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_invite_lets_nobody_else_in() {
    let (pair, _echo) = start("", "").await;
    let invited = pair.join("branch-2").await.unwrap();
    let stolen = pair.scratch().join("stolen");
    std::fs::create_dir(&stolen).unwrap();
    for file in std::fs::read_dir(&invited).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), stolen.join(file.file_name())).unwrap();
    }
    let first = pair.start_joined(&invited, "").await.unwrap();
    ready(&first).await;
    let second = pair.start_joined(&stolen, "").await.unwrap();
    eventually("the client is told that its invite was used", async || {
        if second.log().contains("invite") && !second.is_ready().await {
            Ok(())
        } else {
            Err(second.last_log_lines())
        }
    })
    .await;
    assert!(first.is_ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_resume_window_a_cut_resets_connections_and_the_next_tunnel_is_warm() {
    let origin = HttpOrigin::start().unwrap();
    let body = Bytes::from(Payload::random(8).bytes(0, 4 << 20));
    origin.put("/file", Content::Bytes(body.clone()));
    let builder = Pair::builder()
        .forward("http", origin.address())
        .line(LineConfig::unshaped());
    let never = "[tunnel]\nresume_window = \"0s\"\n";
    let builder = builder.server_toml(never).client_toml(never);
    let pair = builder.start().await.unwrap();
    let line = pair.line().unwrap();
    let entrance = pair.client().address("http").unwrap();
    let fetched = async || {
        let mut checker = Checker::of_bytes(body.clone());
        fetch(entrance, &Request::get("/file"), |chunk| {
            checker.feed(chunk).unwrap()
        })
        .await?;
        checker.finish().map_err(std::io::Error::other)
    };
    // What was counted on the line, if it is little.
    let costs_little = |before: &LineBytes| {
        let cost = line.bytes().since(before).total();
        if cost < body.len() as u64 / 10 {
            Ok(())
        } else {
            Err(format!("{cost} bytes"))
        }
    };
    // On a busy disk histories are opened later than a tunnel waits for them.
    eventually("both sides have agreed on their histories", async || {
        let before = line.bytes();
        fetched().await.unwrap();
        costs_little(&before)
    })
    .await;

    // Once more if an old tunnel has held its histories for too long.
    eventually("the histories are taken up again", async || {
        line.cut();
        let before = line.bytes();
        eventually("the file comes again", async || fetched().await).await;
        costs_little(&before)
    })
    .await;
}

/// How often the log says it.
fn count(edge: &EdgeProcess, what: &str) -> usize {
    edge.log().matches(what).count()
}

async fn log_has(edge: &EdgeProcess, what: &str, times: usize) {
    eventually(what, async || match count(edge, what) {
        found if found >= times => Ok(()),
        found => Err(found),
    })
    .await;
}

const READ_ANEW: &str = "the configuration was read anew";
const STAYS: &str = "the configuration stays as it was";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_used_without_a_signal_and_a_broken_one_is_told_once() {
    let (pair, [_echo, kept]) = with_two_echoes().await;
    let server = pair.server();
    let (mut open, mut other) = (connected(&pair, "kept").await, opened(&pair).await);
    assert_eq!(echoed(&mut open, b"a").await, b"a");
    assert_eq!(echoed(&mut other, b"a").await, b"a");
    let config = server.config().to_owned();
    let original = std::fs::read_to_string(&config).unwrap();

    // Half of it was written, and then nothing more for a while.
    let half = &original[..original.rfind("allow = ").unwrap() + 12];
    std::fs::write(&config, half).unwrap();
    reload_is(server, 0.0).await;
    // What the start of a pair writes into the same directory may have been noticed before.
    let anew = count(server, READ_ANEW);
    assert_eq!(echoed(&mut other, b"as before").await, b"as before");
    assert_eq!(echoed(&mut opened(&pair).await, b"new").await, b"new");

    // It is mended, and denies now: what is not allowed any more ends, and what is allowed does not notice.
    let port = format!("127.0.0.1:{}", kept.address().port());
    let denied = original.replace("127.0.0.1:*", &port);
    assert_ne!(denied, original);
    std::fs::write(&config, &denied).unwrap();
    let ended = timeout(LIMIT, other.read(&mut [0; 1])).await;
    assert!(ended.expect("its connection goes on").is_err());
    reload_is(server, 1.0).await;
    assert_eq!(echoed(&mut open, b"untouched").await, b"untouched");
    log_has(server, READ_ANEW, anew + 1).await;
    // While it was broken, it was looked at several times and told once.
    let told = (count(server, STAYS), count(server, READ_ANEW));
    assert_eq!(told, (1, anew + 1));

    // Another file is renamed into its place, as most editors do.
    let next = config.with_extension("next");
    std::fs::write(&next, &original).unwrap();
    std::fs::rename(&next, &config).unwrap();
    log_has(server, READ_ANEW, anew + 2).await;
    assert_eq!(echoed(&mut opened(&pair).await, b"again").await, b"again");
    assert_eq!(echoed(&mut open, b"untouched").await, b"untouched");

    // A file that it names is not there yet; once it is, all is well.
    let token = config.with_file_name("later.token");
    let with_token = original.replacen("[admin]", "[admin]\ntoken_file = \"later.token\"", 1);
    assert_ne!(with_token, original);
    std::fs::write(&config, with_token).unwrap();
    log_has(server, STAYS, 2).await;
    std::fs::write(&token, "0123456789abcdef").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token, private).unwrap();
    log_has(server, READ_ANEW, anew + 3).await;
    assert_eq!(server.page("/api/status").await.unwrap().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_turned_away_without_a_signal() {
    let (pair, _echo) = start("", "").await;
    let mut open = opened(&pair).await;
    assert_eq!(echoed(&mut open, b"a").await, b"a");
    let directory = pair.server_directory();
    let revoke = ["revoke", CLIENT_NAME, "--dir", directory.to_str().unwrap()];
    let revoked = run_command(pair.programs().server(), revoke).await.unwrap();
    assert_eq!(revoked.code, Some(0), "{}", revoked.stderr);
    let ended = timeout(LIMIT, open.read(&mut [0; 1]))
        .await
        .expect("its connection goes on");
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_no_stream_notices() {
    let (pair, _echo) = start("", "").await;
    let mut open = opened(&pair).await;
    assert_eq!(echoed(&mut open, b"a").await, b"a");
    let expiry = async || {
        let metrics = pair.server().metrics().await.unwrap();
        metrics.sum("wanproxy_certificate_expiry_timestamp_seconds", &[])
    };
    let before = expiry().await.unwrap();
    let directory = pair.server_directory();
    // Certificates count in seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let renew = ["renew", "server", "--dir", directory.to_str().unwrap()];
    let renewed = run_command(pair.programs().server(), renew).await.unwrap();
    assert_eq!(renewed.code, Some(0), "{}", renewed.stderr);
    eventually("the new certificate ends later", async || {
        match expiry().await {
            Some(after) if after > before => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(echoed(&mut open, b"untouched").await, b"untouched");
    let other = pair.start_client("branch-2", "").await.unwrap();
    ready(&other).await;
}
