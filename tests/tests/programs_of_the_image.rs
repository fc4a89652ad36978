//! The small programs that the container image holds beside the two edges.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

const ORIGIN: &str = env!("CARGO_BIN_EXE_wanproxy-origin");
const HELLO: &str = env!("CARGO_BIN_EXE_wanproxy-hello");
const FIRST_START: &str = env!("CARGO_BIN_EXE_wanproxy-first-start");

/// An origin that ends with its test, whatever becomes of that.
struct Origin(Child);

impl Origin {
    fn start(directory: &Path) -> (Self, String) {
        Self::run("origin", "--directory", directory.as_os_str())
    }

    fn relay(target: &str) -> (Self, String) {
        Self::run("relay", "--relay", target.as_ref())
    }

    fn run(name: &str, option: &str, value: &OsStr) -> (Self, String) {
        let mut child = Command::new(ORIGIN)
            .arg(option)
            .arg(value)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        let origin = Self(child);
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening ")
            .and_then(|rest| rest.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix(" http "));
        let address = address.unwrap_or_else(|| panic!("not a listening line: {line}"));
        (origin, address.to_owned())
    }

    fn terminate(&mut self) -> ExitStatus {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(killed.unwrap().success());
        self.0.wait().unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _waited_already = self.0.wait();
    }
}

/// What a check says. It waits five seconds for its answer; a busy machine that takes longer is asked again.
fn check(url: &str) -> Output {
    for _ in 0..12 {
        let mut command = Command::new(ORIGIN);
        let output = command.args(["--check", url]).output().unwrap();
        if !String::from_utf8_lossy(&output.stderr).contains("did not answer in") {
            return output;
        }
    }
    panic!("{url} does not answer at all");
}

fn first_start(file: &Path, command: &[&str]) -> Output {
    Command::new(FIRST_START)
        .arg(file)
        .args(command)
        .output()
        .unwrap()
}

#[test]
fn the_origin_serves_its_directory_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("sample"), "hello").unwrap();
    let (mut origin, address) = Origin::start(directory.path());
    for path in ["/", "/sample"] {
        let output = check(&format!("http://{address}{path}"));
        assert!(output.status.success(), "{path}: {output:?}");
    }
    let missing = check(&format!("http://{address}/missing"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("404"));
    // The first process of a container is not ended by a signal that it does not handle.
    assert_eq!(origin.terminate().code(), Some(0));
    let gone = check(&format!("http://{address}/"));
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn a_relay_passes_on_what_an_origin_serves() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("sample"), "hello").unwrap();
    let (mut origin, address) = Origin::start(directory.path());
    let (mut relay, near) = Origin::relay(&address);
    let there = check(&format!("http://{near}/sample"));
    assert!(there.status.success(), "{there:?}");
    let missing = check(&format!("http://{near}/missing"));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("404"));
    assert_eq!(origin.terminate().code(), Some(0));
    assert_eq!(
        check(&format!("http://{near}/sample")).status.code(),
        Some(1)
    );
    assert_eq!(relay.terminate().code(), Some(0));
}

#[test]
fn whoever_starts_the_demo_is_told_where_the_dashboard_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admin.token");
    let made = Command::new(HELLO).arg("token").arg(&file).status();
    assert!(made.unwrap().success());
    let token = std::fs::read_to_string(&file).unwrap();
    let mut say = Command::new(HELLO);
    say.args(["say", "--line", "10Mbit/s", "--token"])
        .arg(&file)
        .args(["--dashboard", "9900", "--http", "8080"])
        .args(["--socks", "1080", "--direct", ""]);
    let said = String::from_utf8(say.output().unwrap().stdout).unwrap();
    let link = format!("http://127.0.0.1:9900/login#{}\n", token.trim());
    assert!(said.contains(&link), "{said}");
    assert!(said.contains("docker compose port direct 8081"), "{said}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(say.status().unwrap().code(), Some(1));
}

#[test]
fn a_first_start_happens_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("made");
    let path = file.to_str().unwrap();
    // `mkdir`, like the commands this is for, refuses to be repeated.
    let first = first_start(&file, &["mkdir", path]);
    assert!(first.status.success(), "{first:?}");
    assert!(file.is_dir());
    let second = first_start(&file, &["mkdir", path]);
    assert!(second.status.success(), "{second:?}");
}

#[test]
fn a_first_start_that_fails_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("never made");
    assert_eq!(first_start(&file, &["false"]).status.code(), Some(1));
    let unknown = first_start(&file, &["/no/such/program"]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("cannot start /no/such/program"), "{said}");
    let nothing = Command::new(FIRST_START).arg(&file).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}
