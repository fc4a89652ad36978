//! `run` of the client, from outside and without a server.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use edge::identity::{Authority, init, join};
use tempfile::TempDir;

/// A client's directory, joined to a server that does not run.
struct Joined {
    _directory: TempDir,
    file: PathBuf,
}

fn joined(rest: &str) -> Joined {
    let directory = tempfile::tempdir().unwrap();
    let (server, client) = (
        directory.path().join("server"),
        directory.path().join("client"),
    );
    let (invite, now) = (directory.path().join("invite"), SystemTime::now());
    // Bound and not listening: nobody answers there.
    init(&server, &"127.0.0.1:1".parse().unwrap(), &[], now).unwrap();
    let authority = Authority::open_directory(&server).unwrap();
    authority
        .invite(
            &"branch-1".parse().unwrap(),
            Duration::from_secs(3_600),
            false,
            Some(&invite),
            now,
        )
        .unwrap();
    join(&invite, &client, now).unwrap();
    let file = client.join("client.toml");
    std::fs::write(
        &file,
        format!("[tunnel]\nserver = [\"127.0.0.1:1\"]\nconnect_wait = \"100ms\"\n{rest}"),
    )
    .unwrap();
    Joined {
        _directory: directory,
        file,
    }
}

/// A running edge; killed when dropped.
struct Edge {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Edge {
    fn start(joined: &Joined, flags: &[&str]) -> Self {
        Self::start_by(
            Command::new(env!("CARGO_BIN_EXE_wanproxy-client")),
            joined,
            flags,
        )
    }

    fn start_by(mut command: Command, joined: &Joined, flags: &[&str]) -> Self {
        command
            .arg("run")
            .arg("--config")
            .arg(&joined.file)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self {
            child,
            stdout: BufReader::new(stdout),
            stderr: BufReader::new(stderr),
        }
    }

    /// The next `listening` line: name, kind, address.
    fn listening(&mut self) -> (String, String, SocketAddr) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "listening", "{line}");
        (
            words[1].to_owned(),
            words[2].to_owned(),
            words[3].parse().unwrap(),
        )
    }

    /// Reads the log up to a line with these words.
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

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

const SERVICES: &str = "[[listen]]\nname = \"files\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"10.0.0.5:445\"\n[admin]\nbind = \"127.0.0.1:0\"\n";

#[test]
fn it_says_what_it_listens_on_serves_its_admin_pages_and_ends_on_sigterm() {
    let joined = joined(SERVICES);
    let mut edge = Edge::start(&joined, &["--socks5", "127.0.0.1:0"]);
    let (files, socks5, admin) = (edge.listening(), edge.listening(), edge.listening());
    assert_eq!((&*files.0, &*files.1), ("files", "forward"));
    assert_eq!((&*socks5.0, &*socks5.1), ("socks5-1", "socks5"));
    assert_eq!((&*admin.0, &*admin.1), ("admin", "admin"));
    assert!(get(admin.2, "/healthz").starts_with("HTTP/1.0 200"));
    let ready = get(admin.2, "/readyz");
    assert!(
        ready.starts_with("HTTP/1.0 503") && ready.contains("no tunnel is up"),
        "{ready}"
    );
    assert!(get(admin.2, "/api/status").contains("\"state\":\"connecting\""));
    assert!(get(admin.2, "/metrics").contains("wanproxy_config_reload_success 1\n"));
    edge.signal("-TERM");
    assert_eq!(edge.exit_code(), Some(0));
}

#[test]
fn without_a_tunnel_connections_are_refused_after_their_wait() {
    let joined = joined(SERVICES);
    let mut edge = Edge::start(&joined, &["--socks5", "127.0.0.1:0"]);
    let (files, socks5) = (edge.listening().2, edge.listening().2);
    // The reset may come before the system has said that the connection is there.
    let error = TcpStream::connect(files)
        .and_then(|mut socket| socket.read(&mut [0; 1]))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut socket = TcpStream::connect(socks5).unwrap();
    socket
        .write_all(b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50")
        .unwrap();
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, [5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_reload_takes_new_services_and_keeps_the_old_configuration_when_the_new_one_is_wrong() {
    let joined = joined(SERVICES);
    let mut edge = Edge::start(&joined, &[]);
    let (_files, admin) = (edge.listening(), edge.listening().2);
    let good = std::fs::read_to_string(&joined.file).unwrap();

    std::fs::write(&joined.file, good.replace("[[listen]]", "[[listem]]")).unwrap();
    edge.signal("-HUP");
    let line = edge.logs("stays as it was");
    assert!(line.contains("listem"), "{line}");
    assert!(get(admin, "/metrics").contains("wanproxy_config_reload_success 0\n"));
    assert!(get(admin, "/api/status").contains("\"name\":\"files\""));

    let more = "[[listen]]\nname = \"more\"\nkind = \"socks5\"\nbind = \"127.0.0.1:0\"\n";
    std::fs::write(&joined.file, format!("{good}{more}")).unwrap();
    edge.signal("-HUP");
    edge.logs("was read anew");
    let status = get(admin, "/api/status");
    assert!(
        status.contains("\"name\":\"more\"") && status.contains("\"name\":\"files\""),
        "{status}"
    );
    assert!(get(admin, "/metrics").contains("wanproxy_config_reload_success 1\n"));
}

#[test]
fn an_address_in_use_and_a_wrong_configuration_are_one_line_each() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let service = SERVICES.replace(
        "bind = \"127.0.0.1:0\"\ntarget",
        &format!("bind = \"{address}\"\ntarget"),
    );
    for (rest, code, words) in [
        (
            service,
            1,
            format!("cannot listen on {address} for \"files\""),
        ),
        ("[listen]\n".to_owned(), 2, "client.toml:4".to_owned()),
    ] {
        let joined = joined(&rest);
        let mut edge = Edge::start(&joined, &[]);
        let mut log = String::new();
        edge.stderr.read_to_string(&mut log).unwrap();
        assert_eq!(edge.exit_code(), Some(code), "{log}");
        let line = log.lines().last().unwrap();
        assert!(
            line.starts_with("wanproxy-client: ") && line.contains(&words),
            "{log}"
        );
    }
}

/// The client without `CAP_NET_ADMIN` and `CAP_NET_RAW`, whoever runs this test.
fn unprivileged() -> Command {
    let program = env!("CARGO_BIN_EXE_wanproxy-client");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    if effective.trim().trim_start_matches('0').is_empty() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin,-net_raw", program]);
    command
}

#[test]
fn tproxy_without_the_capability_is_one_line_that_says_what_to_do() {
    let service = |method| {
        format!(
            "[[listen]]\nname = \"lan\"\nkind = \"transparent\"\nbind = \"127.0.0.1:0\"\nmethod = \"{method}\"\n"
        )
    };
    let tproxy = joined(&service("tproxy"));
    let mut edge = Edge::start_by(unprivileged(), &tproxy, &[]);
    let mut log = String::new();
    edge.stderr.read_to_string(&mut log).unwrap();
    assert_eq!(edge.exit_code(), Some(1), "{log}");
    let line = log.lines().last().unwrap();
    for part in ["\"lan\"", "CAP_NET_ADMIN", "setcap", "\"redirect\""] {
        assert!(line.contains(part), "{log}");
    }

    // The other method needs none, and a reload that asks for it changes nothing.
    let redirect = joined(&service("redirect"));
    let mut edge = Edge::start_by(unprivileged(), &redirect, &[]);
    let (name, kind, _) = edge.listening();
    assert_eq!((&*name, &*kind), ("lan", "transparent"));
    let text = std::fs::read_to_string(&redirect.file).unwrap();
    std::fs::write(&redirect.file, text.replace("redirect", "tproxy")).unwrap();
    edge.signal("-HUP");
    let line = edge.logs("stays as it was");
    assert!(line.contains("CAP_NET_ADMIN"), "{line}");
}

#[test]
fn a_connection_that_no_rule_redirected_is_refused() {
    let joined = joined("");
    let mut edge = Edge::start(&joined, &["--transparent", "127.0.0.1:0"]);
    let (name, _, address) = edge.listening();
    assert_eq!(name, "transparent-1");
    let error = TcpStream::connect(address)
        .and_then(|mut socket| socket.read(&mut [0; 1]))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = edge.logs("connection refused");
    assert!(
        line.contains("loop_to_listener") || line.contains("not_redirected"),
        "{line}"
    );
}

#[test]
fn rules_are_printed_for_services_that_have_a_port() {
    let rules = |joined: &Joined, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wanproxy-client"));
        command.arg("transparent-rules").arg("--config");
        let output = command.arg(&joined.file).args(flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            said,
        )
    };
    let none = joined(SERVICES);
    let (code, printed, said) = rules(&none, &[]);
    assert_eq!((code, &*printed), (Some(2), ""), "{said}");
    assert!(said.contains("add a [[listen]]"), "{said}");
    let flags = ["--transparent", "[::]:7080", "--lan", "lan0"];
    let (code, printed, said) = rules(&none, &flags);
    assert_eq!((code, &*said), (Some(0), ""));
    for part in [
        "table inet wanproxy {\n",
        "iifname != { \"lan0\" } return",
        "ip daddr 127.0.0.1 tcp dport 1 return",
        "meta nfproto ipv6 meta l4proto tcp redirect to :7080",
        "udp dport 443 reject",
    ] {
        assert!(printed.contains(part), "no {part} in {printed}");
    }
    let (code, _, said) = rules(&none, &["--transparent", "[::]:0"]);
    assert_eq!(code, Some(2), "{said}");
}
