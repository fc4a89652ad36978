//! Transparent interception in a network of namespaces: a host on the branch's LAN, its router with the client edge, the line, the server
//! edge, and a target behind it. The rules are those that the program prints. Needs root.

#![expect(clippy::unwrap_used, reason = "tests")]

mod branch;
mod caught;
mod loops;
mod source;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use wanproxy_tests::eventually;

use branch::{Branch, TARGET, V4};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end.
fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that must succeed, and returns what it printed.
fn must(command: &mut Command) -> Vec<u8> {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Whether the program is there.
fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
