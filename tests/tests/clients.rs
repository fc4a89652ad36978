//! Real programs through the tunnel: curl and git.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use wanproxy_tests::fetch::Uploaded;
use wanproxy_tests::origin::{Content, HttpOrigin, Server};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::payload::Payload;
use wanproxy_tests::skip;

#[tokio::test(flavor = "multi_thread")]
async fn curl_downloads_and_uploads_through_a_forward() {
    let Some(()) = found("curl", &["--version"]).await else {
        return;
    };
    let files = files().await;
    let url = format!(
        "http://{}/file",
        files.pair.client().address("http").unwrap()
    );
    assert!(
        curl(&["--fail", &url]).await == files.body,
        "the download differs"
    );
    let middle = curl(&["--fail", "--range", "1000-1999999", &url]).await;
    assert!(middle == files.body[1000..2_000_000], "the range differs");

    let file = files.pair.scratch().join("upload");
    std::fs::write(&file, &files.body).unwrap();
    let answer = curl(&["--fail", "--upload-file", file.to_str().unwrap(), &url]).await;
    assert_eq!(
        serde_json::from_slice::<Uploaded>(&answer).unwrap(),
        Uploaded::of(&files.body)
    );
}

/// What has not happened by then never will.
const STALL_LIMIT: Duration = Duration::from_secs(120);

/// A real client that gives up at any point, and tries again: what it left half sent, half said and half remembered is in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn curl_breaks_off_anywhere_again_and_again_and_then_gets_and_puts_everything() {
    let Some(()) = found("curl", &["--version"]).await else {
        return;
    };
    let mut files = files().await;
    let length = files.body.len();
    // Points of every order of magnitude, the same ones in every run.
    let mut seed = 0;
    let mut place = || {
        seed += 1;
        let bytes = Payload::random(seed).bytes(0, 9);
        let any = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        usize::try_from(any).unwrap() % (length >> (bytes[8] % 12)) + 1
    };
    for round in 0..3 {
        let url = format!(
            "http://{}/file",
            files.pair.client().address("http").unwrap()
        );
        for _ in 0..12 {
            let place = place();
            break_off_download(&url, &files.body, place).await;
            break_off_upload(&url, &files.body, place).await;
        }
        let whole = timeout(STALL_LIMIT, curl(&["--fail", &url])).await;
        assert!(
            whole.expect("the download stalled") == files.body,
            "round {round}: the download differs"
        );
        let mut upload = upload(&url, length).spawn().unwrap();
        upload
            .stdin
            .take()
            .unwrap()
            .write_all(&files.body)
            .await
            .unwrap();
        let answer = timeout(STALL_LIMIT, upload.wait_with_output()).await;
        let answer = answer.expect("the upload stalled").unwrap();
        assert_eq!(
            serde_json::from_slice::<Uploaded>(&answer.stdout).unwrap(),
            Uploaded::of(&files.body),
            "round {round}"
        );
        // What was broken off is in histories on disk from here on, and the last of it may be half written.
        break_off_download(&url, &files.body, length / 2).await;
        files.pair.restart_server().await.unwrap();
        files.pair.restart_client().await.unwrap();
    }
}

/// Reads so much of a download, checks it, and ends curl.
async fn break_off_download(url: &str, body: &[u8], place: usize) {
    let mut curl = Command::new("curl")
        .args(["--silent", "--no-buffer", "--noproxy", "*", url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut part = vec![0; place];
    let read = curl.stdout.as_mut().unwrap().read_exact(&mut part);
    timeout(STALL_LIMIT, read)
        .await
        .expect("the download stalled")
        .unwrap();
    assert!(part == body[..place], "the first {place} bytes differ");
    curl.kill().await.unwrap();
}

/// Gives so much of an upload to curl, and ends it.
async fn break_off_upload(url: &str, body: &[u8], place: usize) {
    let mut curl = upload(url, body.len()).spawn().unwrap();
    let write = curl.stdin.as_mut().unwrap().write_all(&body[..place]);
    timeout(STALL_LIMIT, write)
        .await
        .expect("the upload stalled")
        .unwrap();
    curl.kill().await.unwrap();
}

/// Uploads so much of what it reads.
fn upload(url: &str, length: usize) -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "--upload-file",
        "-",
    ])
    .args(["--header", "Transfer-Encoding:", "--header", "Expect:"])
    .args(["--header", &format!("Content-Length: {length}")])
    .arg(url)
    .stdin(Stdio::piped())
    .stdout(Stdio::piped());
    curl
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_downloads_through_socks5() {
    let Some(()) = found("curl", &["--version"]).await else {
        return;
    };
    let files = files().await;
    let proxy = files.pair.client().address("socks5").unwrap().to_string();
    let origin = files.origin.address();
    for option in ["--socks5", "--socks5-hostname"] {
        let url = format!("http://{origin}/file");
        assert!(
            curl(&["--fail", option, &proxy, &url]).await == files.body,
            "{option}: the download differs"
        );
    }
    let named = format!("http://localhost:{}/file", origin.port());
    assert!(
        curl(&["--fail", "--socks5-hostname", &proxy, &named]).await == files.body,
        "the download by name differs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_runs_many_downloads_at_once() {
    let Some(()) = found("curl", &["--version"]).await else {
        return;
    };
    let files = files().await;
    let url = format!(
        "http://{}/file",
        files.pair.client().address("http").unwrap()
    );
    let downloads = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { curl(&["--fail", &url]).await })
    });
    for download in downloads.collect::<Vec<_>>() {
        assert!(download.await.unwrap() == files.body, "a download differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_from_a_git_daemon() {
    let Some(()) = found("git", &["--version"]).await else {
        return;
    };
    let Some(()) = found_daemon().await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("sample");
    make_repository(&repository).await;
    let base = directory.path().to_owned();
    let daemon = Server::start(move |connection| serve_git(connection, base.clone())).unwrap();
    let pair = Pair::builder()
        .forward("git", daemon.address())
        .start()
        .await
        .unwrap();

    let clone = directory.path().join("clone");
    let url = format!("git://{}/sample", pair.client().address("git").unwrap());
    git(
        directory.path(),
        &["clone", "--quiet", &url, clone.to_str().unwrap()],
    )
    .await;
    let head = |path: &Path| {
        let path = path.to_owned();
        async move { git(&path, &["rev-parse", "HEAD"]).await }
    };
    assert_eq!(head(&clone).await, head(&repository).await);
    git(&clone, &["fsck", "--full"]).await;
    for name in ["text", "random"] {
        let file = |directory: &Path| std::fs::read(directory.join(name)).unwrap();
        assert!(file(&clone) == file(&repository), "{name} differs");
    }
}

/// A pair with an HTTP origin behind the listener `http`, a SOCKS5 listener, and a file of four megabytes.
struct Files {
    pair: Pair,
    origin: HttpOrigin,
    body: Bytes,
}

async fn files() -> Files {
    let origin = HttpOrigin::start().unwrap();
    let halves = [
        Payload::text(1).bytes(0, 2 << 20),
        Payload::random(2).bytes(0, 2 << 20),
    ];
    let body = Bytes::from(halves.concat());
    origin.put("/file", Content::Bytes(body.clone()));
    let builder = Pair::builder().forward("http", origin.address()).socks5();
    let pair = builder.start().await.unwrap();
    Files { pair, origin, body }
}

/// What curl prints; it must succeed.
async fn curl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "",
            "--max-time",
            "120",
        ])
        .args(args)
        .env_remove("http_proxy")
        .env_remove("ALL_PROXY")
        .env_remove("all_proxy")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "curl {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// What git prints; it must succeed.
async fn git(directory: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example.com",
            "-c",
            "protocol.version=2",
        ])
        .args(args)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", directory)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn make_repository(directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    git(directory, &["init", "--quiet"]).await;
    for version in 0..3 {
        std::fs::write(
            directory.join("text"),
            Payload::text(version).bytes(0, 500_000),
        )
        .unwrap();
        std::fs::write(
            directory.join("random"),
            Payload::random(version).bytes(0, 500_000),
        )
        .unwrap();
        git(directory, &["add", "."]).await;
        git(
            directory,
            &[
                "commit",
                "--quiet",
                "--message",
                &format!("version {version}"),
            ],
        )
        .await;
    }
}

/// One connection to a git daemon, as inetd would start it: the daemon itself cannot listen on a free port of its choice.
async fn serve_git(connection: TcpStream, base: std::path::PathBuf) -> io::Result<()> {
    let connection = connection.into_std()?;
    connection.set_nonblocking(false)?;
    let output = connection.try_clone()?;
    let mut daemon = Command::new("git")
        .args(["daemon", "--inetd", "--export-all"])
        .arg(format!("--base-path={}", base.display()))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(connection)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(output)))
        .kill_on_drop(true)
        .spawn()?;
    daemon.wait().await?;
    Ok(())
}

/// Says loudly when a program is missing.
async fn found(program: &str, args: &[&str]) -> Option<()> {
    let output = Command::new(program).args(args).output().await;
    if output.is_ok_and(|output| output.status.success()) {
        return Some(());
    }
    skip(program, "it is not installed");
    None
}

/// Git's daemon is a package of its own in some systems.
async fn found_daemon() -> Option<()> {
    let output = Command::new("git").arg("--exec-path").output().await.ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    if Path::new(path.trim()).join("git-daemon").exists() {
        return Some(());
    }
    skip("git clone", "git is installed without its daemon");
    None
}
