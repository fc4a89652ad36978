//! A server that runs for as long as a test: told to end when dropped, and what it said shown when it never answered.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use wanproxy_tests::eventually;
use wanproxy_tests::pair::Signal;

use crate::stage::Ground;

/// One that has not ended by then is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

pub struct Server {
    child: Child,
    log: PathBuf,
    ends_by: Signal,
}

impl Server {
    /// Starts it beside the other servers of `ground` and waits until it takes connections at `address`.
    pub async fn start(ground: &Ground, mut command: Command, address: SocketAddr) -> Self {
        let log: PathBuf = ground.directory().join(format!("{}.log", address.port()));
        let output = File::create(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let shown = format!("{command:?}");
        let mut server = Self {
            child: command.spawn().unwrap(),
            log,
            ends_by: Signal::TERM,
        };
        eventually("a server answers", async || {
            if ground.answers_far(address) {
                return Ok(());
            }
            let said = server.said();
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{shown} ended ({status}): {said}");
            }
            Err(said)
        })
        .await;
        server
    }

    /// All that it has printed so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends by another signal than SIGTERM.
    pub fn ends_by(mut self, signal: Signal) -> Self {
        self.ends_by = signal;
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, self.ends_by);
        }
        let deadline = Instant::now() + END_LIMIT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _gone = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
