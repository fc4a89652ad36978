//! What changes under a running edge: its policy, who may come in, the line and the server itself.

use bytes::Bytes;
use wanproxy_tests::fetch::{Request, fetch};
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{Content, HttpOrigin};
use wanproxy_tests::payload::{Checker, Payload};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_policy_and_leaves_allowed_connections_alone() {
    let (echo, kept) = (origin::echo().unwrap(), origin::echo().unwrap());
    let builder = Pair::builder()
        .forward("echo", echo.address())
        .forward("kept", kept.address())
        .allow("127.0.0.1:*");
    let pair = builder.start().await.unwrap();
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
    let mut refused = TcpStream::connect(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    let answer = timeout(LIMIT, refused.read(&mut [0; 1]))
        .await
        .expect("neither refused nor answered");
    assert!(matches!(answer, Err(_) | Ok(0)), "{answer:?}");
    assert_eq!(echoed(&mut open, b"untouched").await, b"untouched");

    // And back again.
    std::fs::write(&config, &original).unwrap();
    pair.server().signal(Signal::HUP).unwrap();
    eventually("the echo is allowed again", async || {
        let mut connection = TcpStream::connect(pair.client().address("echo").unwrap())
            .await
            .unwrap();
        let _refused = connection.write_all(b"c").await;
        match connection.read_u8().await {
            Ok(b'c') => Ok(()),
            other => Err(other),
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
        let mut connection = TcpStream::connect(pair.client().address("echo").unwrap())
            .await
            .unwrap();
        let _lost = connection.write_all(b"x").await;
        connection.read_u8().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_clients_first_connection_waits_for_its_own_certificate() {
    let (pair, echo) = start("", "").await;
    let directory = pair.join("branch-2").await.unwrap();
    let listener = format!(
        "[[listen]]\nname = \"echo\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\n",
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
    let mut checker = Checker::of_bytes(body.clone());
    fetch(entrance, &Request::get("/file"), |chunk| {
        checker.feed(chunk).unwrap()
    })
    .await
    .unwrap();
    checker.finish().unwrap();

    line.cut();
    let before = line.bytes();
    eventually("the file comes again over a new tunnel", async || {
        let mut checker = Checker::of_bytes(body.clone());
        fetch(entrance, &Request::get("/file"), |chunk| {
            checker.feed(chunk).unwrap()
        })
        .await?;
        checker.finish().map_err(std::io::Error::other)
    })
    .await;
    let cost = line.bytes().since(&before).total();
    assert!(
        cost < body.len() as u64 / 10,
        "{cost} bytes: the histories were not taken up again"
    );
}
