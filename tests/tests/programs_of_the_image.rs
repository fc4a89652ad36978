//! The small programs that the container image holds beside the two edges.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

const ORIGIN: &str = env!("CARGO_BIN_EXE_wanproxy-origin");
const FIRST_START: &str = env!("CARGO_BIN_EXE_wanproxy-first-start");

/// An origin that ends with its test, whatever becomes of that.
struct Origin(Child);

impl Origin {
    fn start(directory: &Path) -> (Self, String) {
        let mut child = Command::new(ORIGIN)
            .arg("--directory")
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        let origin = Self(child);
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening origin http ");
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

fn check(url: &str) -> Output {
    Command::new(ORIGIN)
        .args(["--check", url])
        .output()
        .unwrap()
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
