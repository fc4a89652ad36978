//! `run` and `status` of the server, from outside and without a client.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::SystemTime;

use edge::identity::init;
use tempfile::TempDir;

struct Made {
    _directory: TempDir,
    file: PathBuf,
}

fn made(rest: &str) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let server = directory.path().join("server");
    init(
        &server,
        &"127.0.0.1:7443".parse().unwrap(),
        &[],
        SystemTime::now(),
    )
    .unwrap();
    let file = server.join("server.toml");
    std::fs::write(
        &file,
        format!("[tunnel]\nlisten = \"127.0.0.1:0\"\n[identity]\nca_key = \"ca.key\"\n{rest}"),
    )
    .unwrap();
    Made {
        _directory: directory,
        file,
    }
}

fn wanproxy(arguments: &[&str], made: &Made) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wanproxy-server"));
    command.args(arguments).arg("--config").arg(&made.file);
    command
}

/// A running edge; killed when dropped.
struct Edge {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Edge {
    fn start(made: &Made) -> Self {
        let mut child = wanproxy(&["run"], made)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self {
            child,
            stdout: BufReader::new(stdout),
            stderr: BufReader::new(stderr),
        }
    }

    fn listening(&mut self, name: &str) -> SocketAddr {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.strip_prefix(&format!("listening {name} {name} "))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn logs(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.stderr.read_line(&mut line).unwrap() > 0,
                "the log ended without {words:?}"
            );
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(
            Command::new("kill")
                .arg(name)
                .arg(self.child.id().to_string())
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, head: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {head}\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

const ADMIN: &str = "[admin]\nbind = \"127.0.0.1:0\"\n";

#[test]
fn it_is_ready_when_it_listens_and_ends_on_sigterm() {
    let made = made(ADMIN);
    let mut edge = Edge::start(&made);
    let (tunnel, admin) = (edge.listening("tunnel"), edge.listening("admin"));
    assert!(TcpStream::connect(tunnel).is_ok());
    assert!(get(admin, "/readyz HTTP/1.0").starts_with("HTTP/1.0 200"));
    let metrics = get(admin, "/metrics HTTP/1.0");
    assert!(
        metrics.contains("wanproxy_build_info{version=") && metrics.contains("\nprocess_open_fds "),
        "{metrics}"
    );
    let expiry = metrics
        .lines()
        .find_map(|line| line.strip_prefix("wanproxy_certificate_expiry_timestamp_seconds "))
        .unwrap();
    assert!(expiry.parse::<u64>().unwrap() > 1_700_000_000);
    edge.signal("-INT");
    assert_eq!(edge.child.wait().unwrap().code(), Some(0));
}

#[test]
fn status_shows_it_with_the_token_of_its_configuration() {
    let made = made(&format!("{ADMIN}token_file = \"admin.token\"\n"));
    let write_token = |name: &str, secret: &str| {
        let file = made.file.with_file_name(name);
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write_token("admin.token", "0123456789abcdef0123456789abcdef\n");
    let mut edge = Edge::start(&made);
    edge.listening("tunnel");
    let bind = edge.listening("admin");
    assert!(get(bind, "/healthz HTTP/1.0").starts_with("HTTP/1.0 401"));

    // Asked by a configuration that names the port, and a token of its own: the edge reads its files anew by itself when they change.
    let text = std::fs::read_to_string(&made.file).unwrap();
    let asking = made.file.with_file_name("asking.toml");
    let text = text
        .replace(ADMIN, &format!("[admin]\nbind = \"{bind}\"\n"))
        .replace("admin.token", "asking.token");
    std::fs::write(&asking, text).unwrap();
    write_token("asking.token", "0123456789abcdef0123456789abcdef\n");
    let ask = |flags: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wanproxy-server"));
        command.arg("status").arg("--config").arg(&asking);
        command.args(flags).output().unwrap()
    };
    let output = ask(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("wanproxy-server server (version ")
    );
    let output = ask(&["--json"]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("{\"edge\":\"server\",\"name\":\"server\",")
    );

    write_token("asking.token", "another-secret-another-secret\n");
    let output = ask(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("401 Unauthorized")
    );
    write_token("admin.token", "another-secret-another-secret\n");
    edge.signal("-HUP");
    edge.logs("was read anew");
    assert_eq!(ask(&[]).status.code(), Some(0));
}

#[test]
fn a_wrong_new_configuration_leaves_the_old_one_in_force() {
    let made = made(ADMIN);
    let mut edge = Edge::start(&made);
    edge.listening("tunnel");
    let admin = edge.listening("admin");
    std::fs::write(&made.file, "[tunnel]\nlisten = \"nowhere\"\n").unwrap();
    edge.signal("-HUP");
    let line = edge.logs("stays as it was");
    assert!(line.contains("nowhere"), "{line}");
    assert!(get(admin, "/metrics HTTP/1.0").contains("wanproxy_config_reload_success 0\n"));
    assert!(get(admin, "/readyz HTTP/1.0").starts_with("HTTP/1.0 200"));
}

#[test]
fn logs_are_json_when_asked_for() {
    let made = made("[log]\nformat = \"json\"\n");
    let mut edge = Edge::start(&made);
    edge.listening("tunnel");
    let line = edge.logs("server edge started");
    assert!(
        line.starts_with("{\"timestamp\":\"")
            && line.contains("\"level\":\"INFO\"")
            && line.contains("\"message\":\"server edge started\""),
        "{line}"
    );
}

#[test]
fn a_missing_key_and_a_taken_address_are_one_line_each() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let made_one = made("");
    std::fs::remove_file(made_one.file.with_file_name("edge.key")).unwrap();
    let made_two = made(&format!("[admin]\nbind = \"{address}\"\n"));
    for (made, code, words) in [
        (made_one, 2, "edge.key".to_owned()),
        (
            made_two,
            1,
            format!("cannot listen on {address} for the admin endpoint"),
        ),
    ] {
        let output = wanproxy(&["run"], &made).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{log}");
        let line = log.lines().last().unwrap();
        assert!(
            line.starts_with("wanproxy-server: ") && line.contains(&words),
            "{log}"
        );
        assert!(output.stdout.is_empty());
    }
}
