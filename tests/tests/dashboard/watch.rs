//! `status --watch`: lines in a pipe, a screen on a terminal, and its end.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::AsyncBufReadExt;

use super::*;

/// The command for `edge`, whose configuration here names port 0.
fn command(pair: &Pair, options: &[&str]) -> Command {
    let edge = pair.client();
    let mut table: toml::Table = std::fs::read_to_string(edge.config())
        .unwrap()
        .parse()
        .unwrap();
    table["admin"]["bind"] = edge.admin_address().unwrap().to_string().into();
    let config: PathBuf = edge.config().with_file_name("watch.toml");
    std::fs::write(&config, toml::to_string(&table).unwrap()).unwrap();
    let mut command = Command::new(pair.programs().client());
    command
        .args(["status", "--watch", "--config"])
        .arg(config)
        .args(options)
        .stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_gets_a_line_a_second_until_the_edge_is_gone() {
    let (mut pair, _origin) = start("").await;
    let traffic = Traffic::start(pair.client().address("files").unwrap());
    for options in [&[][..], &["--json"]] {
        let mut child = tokio::process::Command::from(command(&pair, options))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            let line = lines.next_line().await.unwrap().unwrap();
            if options.is_empty() {
                assert!(
                    line.starts_with("lan ") && line.contains("tunnels up 1 of 1"),
                    "{line}"
                );
                assert!(!line.contains('\x1b'), "{line:?}");
            } else {
                let status: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(status["edge"], "client");
            }
        }
        // Whoever read it has seen enough: no failure.
        drop(lines);
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
    }
    traffic.stop().await;
    let mut child = tokio::process::Command::from(command(&pair, &[]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().unwrap();
    pair.client_mut()
        .signal(wanproxy_tests::pair::Signal::KILL)
        .unwrap();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    assert!(last.starts_with("no answer for "), "{last}");
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("cannot reach the admin endpoint") && error.lines().count() == 1,
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_a_screen_and_itself_back() {
    let (pair, _origin) = start("").await;
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let size = rustix::termios::Winsize {
        ws_row: 20,
        ws_col: 70,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    let mut child: Child = command(&pair, &[]).stdout(other).spawn().unwrap();
    let reader = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::from(terminal);
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        let mut asked = false;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                // A terminal whose other side is closed fails instead of ending.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            let drawn = String::from_utf8_lossy(&text).matches("\x1b[H").count();
            if drawn >= 2 && !asked {
                asked = true;
                let id = Pid::from_child(&child);
                kill_process(id, Signal::INT).unwrap();
            }
        }
        (
            String::from_utf8_lossy(&text).into_owned(),
            child.wait().unwrap(),
        )
    });
    let (text, status) = tokio::time::timeout(Duration::from_secs(60), reader)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(text.starts_with("\x1b[?1049h\x1b[?25l"), "{text:?}");
    assert!(text.ends_with("\x1b[?25h\x1b[?1049l"), "{text:?}");
    assert!(
        text.contains("tunnel server: up") && text.contains("LAN "),
        "{text:?}"
    );
}
