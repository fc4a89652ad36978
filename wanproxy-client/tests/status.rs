//! `status` of the client, from outside.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use tempfile::TempDir;
use tokio::net::TcpSocket;

struct Config {
    _directory: TempDir,
    file: PathBuf,
}

fn config(rest: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client.toml");
    std::fs::write(
        &file,
        format!("[tunnel]\nserver = [\"127.0.0.1:7443\"]\n{rest}"),
    )
    .unwrap();
    Config {
        _directory: directory,
        file,
    }
}

fn status(config: &Config, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wanproxy-client"));
    command
        .arg("status")
        .arg("--config")
        .arg(&config.file)
        .args(flags)
        .output()
        .unwrap()
}

/// Asserts the exit code, one line on stderr with `words` in it, and nothing on stdout.
#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &str) {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.starts_with("wanproxy-client: ") && error.contains(words),
        "{error}"
    );
    assert!(output.stdout.is_empty());
}

/// Answers one request with `answer`.
fn endpoint(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        socket.write_all(answer.as_bytes()).unwrap();
    });
    address
}

fn admin(bind: impl std::fmt::Display) -> Config {
    config(&format!("[admin]\nbind = \"{bind}\"\n"))
}

const STATUS: &str = r#"{"edge":"client","name":"branch-1","version":"0.1.0","uptime_seconds":5.0,"tunnels":[{"peer":"server","state":"STATE","links":[],"resumes":0,"lan_bytes":0,"wan_bytes":0,"codec":{"copied":0,"compressed":0,"raw":0}}],"services":[],"savings":{"lan_bytes":0,"wan_bytes":0,"ratio":null},"codec":{"copied":0,"compressed":0,"raw":0},"history":{"bytes":0,"capacity_bytes":0,"index_bytes":0,"hit_rate":null},"jobs":[]}"#;

fn answering(state: &str) -> Config {
    admin(endpoint(format!(
        "HTTP/1.0 200 OK\r\n\r\n{}",
        STATUS.replace("STATE", state)
    )))
}

#[test]
fn a_configuration_without_an_endpoint_is_a_usage_error() {
    assert_refused(&status(&config(""), &[]), 2, "has no [admin] section");
    assert_refused(&status(&admin("127.0.0.1:0"), &[]), 2, "has port 0");
    let missing = Config {
        file: PathBuf::from("/nonexistent/client.toml"),
        ..config("")
    };
    assert_refused(&status(&missing, &[]), 2, "/nonexistent/client.toml");
}

#[test]
fn an_edge_that_does_not_run_is_a_failure() {
    // Bound and not listening: nobody answers there, and nobody else gets the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    assert_refused(&status(&admin(address), &[]), 1, "is the edge running?");
}

#[test]
fn what_is_no_edge_is_told() {
    assert_refused(
        &status(&admin(endpoint("SSH-2.0-other\r\n".to_owned())), &[]),
        1,
        "is no admin endpoint of wanproxy",
    );
    assert_refused(
        &status(
            &admin(endpoint("HTTP/1.1 200 OK\r\n\r\n{}".to_owned())),
            &[],
        ),
        1,
        "cannot be read",
    );
    assert_refused(
        &status(
            &admin(endpoint(
                "HTTP/1.1 401 Unauthorized\r\n\r\npresent the token\n".to_owned(),
            )),
            &[],
        ),
        1,
        "401 Unauthorized: present the token",
    );
}

#[test]
fn it_fails_when_no_tunnel_is_up_and_shows_what_there_is() {
    let output = status(&answering("connecting"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("tunnel server: connecting\n")
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "wanproxy-client: no tunnel is up; see the edge's log\n"
    );
}

#[test]
fn it_shows_a_tunnel_that_is_up_for_people_and_for_machines() {
    let output = status(&answering("up"), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("wanproxy-client branch-1 (version 0.1.0), up 5s\ntunnel server: up")
    );
    let output = status(&answering("up"), &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{}\n", STATUS.replace("STATE", "up"))
    );
}
