//! One edge as a process: its sockets, its log, its admin endpoint and its end.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use super::Metrics;
use crate::packets::Place;
use crate::{eventually, fetch};

pub use rustix::process::Signal;

/// An edge that has not said where it listens by then never will, even on a machine that is busy compiling.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a dropped edge may take to end by itself before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines of a log shown in an error message.
const SHOWN_LOG_LINES: usize = 20;

/// Lines of each log shown when a test fails.
const FAILED_LOG_LINES: usize = 60;

/// A running edge. Dropping it ends it, with SIGTERM first.
#[derive(Debug)]
pub struct EdgeProcess {
    place: Place,
    program: PathBuf,
    config: PathBuf,
    /// What follows on its command line.
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Child,
    sockets: Sockets,
}

/// What the edge said on stdout: each socket's name, kind and address.
#[derive(Debug, Default)]
struct Sockets {
    by_name: HashMap<String, (String, At)>,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Address(SocketAddr),
    Path(PathBuf),
}

impl At {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Path(_) => None,
        }
    }
}

impl EdgeProcess {
    /// Starts `program run --config CONFIG` and returns when it has said where it listens: its tunnel (a server), its
    /// admin endpoint, and every listener of the file.
    ///
    /// # Errors
    /// When it cannot be started, or ends or says nothing instead; the last lines of its log are in the message.
    pub async fn start(program: &Path, config: &Path) -> Result<Self> {
        Self::start_in(Place::default(), program, config).await
    }

    /// The same in a place of its own, such as a namespace.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_in(place: Place, program: &Path, config: &Path) -> Result<Self> {
        let log = config.with_extension("log");
        let (child, sockets) = start(&place, program, config, &[], &log).await?;
        Ok(Self {
            arguments: Vec::new(),
            place,
            program: program.to_owned(),
            config: config.to_owned(),
            log,
            child,
            sockets,
        })
    }

    /// Ends it if it still runs, and starts it again. The log goes on.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.end();
        let (child, sockets) = self.start_another().await?;
        self.child = child;
        self.sockets = sockets;
        Ok(())
    }

    /// The same, with these arguments from now on.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart_with(&mut self, arguments: &[&OsStr]) -> Result<()> {
        self.arguments = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        self.restart().await
    }

    /// Starts another process of the same program, configuration and arguments, while this one runs. The other one is this edge from now on, and
    /// this one is returned. Both log to one file.
    ///
    /// # Errors
    /// As [`start`](Self::start); nothing has changed then.
    pub async fn replace(&mut self) -> Result<Self> {
        let (child, sockets) = self.start_another().await?;
        Ok(Self {
            place: self.place.clone(),
            program: self.program.clone(),
            config: self.config.clone(),
            arguments: self.arguments.clone(),
            log: self.log.clone(),
            child: std::mem::replace(&mut self.child, child),
            sockets: std::mem::replace(&mut self.sockets, sockets),
        })
    }

    async fn start_another(&self) -> Result<(Child, Sockets)> {
        let (program, config) = (&self.program, &self.config);
        start(&self.place, program, config, &self.arguments, &self.log).await
    }

    /// Address of the listener called `name`.
    ///
    /// # Errors
    /// When it has none of that name.
    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        let found = self.sockets.by_name.get(name);
        found.and_then(|(_, at)| at.address()).with_context(|| {
            format!(
                "it does not listen at an address as {name:?}; it said {:?}",
                self.sockets.by_name
            )
        })
    }

    /// Path of the Unix socket of the listener called `name`.
    ///
    /// # Errors
    /// When it has none of that name, or that one is at an address.
    pub fn path(&self, name: &str) -> Result<&Path> {
        match self.sockets.by_name.get(name) {
            Some((_, At::Path(path))) => Ok(path),
            found => bail!("{name:?} listens at no Unix socket: {found:?}"),
        }
    }

    /// Connects to the listener called `name`, from where the edge runs.
    ///
    /// # Errors
    /// When it has none of that name, or refuses.
    pub fn connect(&self, name: &str) -> Result<TcpStream> {
        self.connect_to(self.address(name)?)
    }

    fn connect_to(&self, address: SocketAddr) -> Result<TcpStream> {
        let connection = self
            .place
            .run(|| std::net::TcpStream::connect(address))
            .with_context(|| format!("cannot connect to {address}"))?;
        connection.set_nodelay(true)?;
        connection.set_nonblocking(true)?;
        Ok(TcpStream::from_std(connection)?)
    }

    /// Address of its admin endpoint.
    ///
    /// # Errors
    /// When it has none.
    pub fn admin_address(&self) -> Result<SocketAddr> {
        self.of_kind("admin")
    }

    /// Address where a server takes tunnels.
    ///
    /// # Errors
    /// When it takes none.
    pub fn tunnel_address(&self) -> Result<SocketAddr> {
        self.of_kind("tunnel")
    }

    fn of_kind(&self, kind: &str) -> Result<SocketAddr> {
        self.sockets.of_kind(kind).with_context(|| {
            format!(
                "it has no {kind} socket; it said {:?}",
                self.sockets.by_name
            )
        })
    }

    /// Its configuration file, to be changed before a SIGHUP.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Everything it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Lets it read its files as they are now. Twice: the first end of a reload may be that of one which had begun before, as it looks at its
    /// files by itself, too.
    ///
    /// # Errors
    /// When it cannot be sent a signal.
    pub async fn reload(&self) -> Result<()> {
        let reloads = || self.log().matches("was read anew").count();
        for _ in 0..2 {
            let before = reloads();
            self.signal(Signal::HUP)?;
            eventually("the reload is over", async || {
                if reloads() > before {
                    Ok(())
                } else {
                    Err(self.last_log_lines())
                }
            })
            .await;
        }
        Ok(())
    }

    /// The end of its log, on one line.
    #[must_use]
    pub fn last_log_lines(&self) -> String {
        last_lines(&self.log())
    }

    /// Status and body of a page of its admin endpoint.
    ///
    /// # Errors
    /// When the endpoint does not answer.
    pub async fn page(&self, path: &str) -> Result<(u16, String)> {
        let address = self.admin_address()?;
        let mut connection = self.connect_to(address)?;
        Ok(fetch::text_over(&mut connection, &address.to_string(), path).await?)
    }

    /// `/api/status`.
    ///
    /// # Errors
    /// When the endpoint does not answer with 200 and JSON.
    pub async fn status_json(&self) -> Result<serde_json::Value> {
        match self.page("/api/status").await? {
            (200, text) => Ok(serde_json::from_str(&text)?),
            (status, text) => bail!("/api/status answered {status}: {text}"),
        }
    }

    /// `/metrics`.
    ///
    /// # Errors
    /// When the endpoint does not answer with 200 and metrics.
    pub async fn metrics(&self) -> Result<Metrics> {
        match self.page("/metrics").await? {
            (200, text) => Metrics::parse(&text),
            (status, text) => bail!("/metrics answered {status}: {text}"),
        }
    }

    /// Whether `/readyz` says 200.
    pub async fn is_ready(&self) -> bool {
        matches!(self.page("/readyz").await, Ok((200, _)))
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has ended.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("the edge has ended")
    }

    /// Open descriptors of the process, but for files in its history directory: the edge keeps a bounded number of those open, and which and how
    /// many depends on what was read last.
    ///
    /// # Errors
    /// When it has ended.
    pub fn descriptor_count(&self) -> Result<usize> {
        let histories = self.config.with_file_name("history");
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.id()?))?;
        let others = descriptors.filter(|entry| {
            let target = entry
                .as_ref()
                .ok()
                .and_then(|entry| std::fs::read_link(entry.path()).ok());
            target.is_none_or(|target| !target.starts_with(&histories))
        });
        Ok(others.count())
    }

    /// Resident memory of the process, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// Operating-system threads of the process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thread_count(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.id()?))?.count())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(pid(&self.child)?, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        Ok(ended.map_err(|_| anyhow!("still running after {limit:?}"))??)
    }

    /// SIGTERM, and SIGKILL for one that does not obey. Blocks for as long; only for the end of a test.
    fn end(&mut self) {
        if let Ok(id) = pid(&self.child) {
            let _gone = kill_process(id, Signal::TERM);
        }
        let deadline = Instant::now() + END_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _gone = self.child.start_kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(FAILED_LOG_LINES);
            eprintln!(
                "--- the last lines of {}:\n{}",
                self.log.display(),
                lines[last..].join("\n")
            );
        }
    }
}

impl Sockets {
    fn of_kind(&self, kind: &str) -> Option<SocketAddr> {
        self.by_name
            .values()
            .find(|(known, _)| known == kind)
            .and_then(|(_, at)| at.address())
    }

    fn has_kind(&self, kind: &str) -> bool {
        self.by_name.values().any(|(known, _)| known == kind)
    }

    /// Takes a line `listening NAME KIND ADDRESS`.
    fn take(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["listening", name, kind, address] = words[..] else {
            bail!("not a listening line: {line:?}")
        };
        let at = match address.strip_prefix("unix:") {
            Some(path) => At::Path(path.into()),
            None => At::Address(
                address
                    .parse()
                    .with_context(|| format!("no address in {line:?}"))?,
            ),
        };
        self.by_name.insert(name.to_owned(), (kind.to_owned(), at));
        Ok(())
    }

    fn has(&self, expected: &super::config::Expected) -> bool {
        expected.kinds.iter().all(|kind| self.has_kind(kind))
            && expected
                .names
                .iter()
                .all(|name| self.by_name.contains_key(name))
    }
}

async fn start(
    place: &Place,
    program: &Path,
    config: &Path,
    arguments: &[OsString],
    log: &Path,
) -> Result<(Child, Sockets)> {
    let expected = super::config::expected_sockets(config)?;
    let stderr = File::options().create(true).append(true).open(log)?;
    let mut child = Command::from(place.command(program))
        .args(["run", "--config"])
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let stdout = child.stdout.take().context("stdout was not captured")?;
    let listening = tokio::time::timeout(START_TIMEOUT, read_sockets(stdout, &expected)).await;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let said = || {
        last_lines(&String::from_utf8_lossy(
            &std::fs::read(log).unwrap_or_default(),
        ))
    };
    match listening {
        Ok(Ok(sockets)) => Ok((child, sockets)),
        Ok(Err(error)) => {
            let ended = tokio::time::timeout(END_TIMEOUT, child.wait()).await;
            let status = ended
                .ok()
                .and_then(Result::ok)
                .map_or_else(String::new, |status| format!(" ({status})"));
            bail!(
                "{name} did not start{status}: {error:#}; it logged: {}",
                said()
            )
        }
        Err(_) => bail!(
            "{name} did not say where it listens within {START_TIMEOUT:?}; it logged: {}",
            said()
        ),
    }
}

async fn read_sockets(stdout: ChildStdout, expected: &super::config::Expected) -> Result<Sockets> {
    let mut sockets = Sockets::default();
    let mut lines = BufReader::new(stdout).lines();
    while !sockets.has(expected) {
        let line = lines
            .next_line()
            .await?
            .context("it ended before it listened")?;
        sockets.take(&line)?;
    }
    // Goes on reading, so that a program that prints more never meets a closed or a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(sockets)
}

fn pid(child: &Child) -> Result<Pid> {
    let id = child.id().context("the edge has ended")?;
    Pid::from_raw(i32::try_from(id)?).context("not a process id")
}

/// The end of a log, on one line.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return "nothing".to_owned();
    }
    lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join(" | ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_listening_lines_and_nothing_else() {
        let mut sockets = Sockets::default();
        sockets
            .take("listening tunnel tunnel 127.0.0.1:7443")
            .unwrap();
        sockets.take("listening files forward [::1]:8445").unwrap();
        assert_eq!(sockets.of_kind("tunnel").unwrap().port(), 7443);
        let files = At::Address("[::1]:8445".parse().unwrap());
        assert_eq!(sockets.by_name["files"].1, files);
        sockets.take("listening app http unix:/run/app").unwrap();
        assert_eq!(sockets.by_name["app"].1, At::Path("/run/app".into()));
        assert!(sockets.has_kind("http") && sockets.of_kind("http").is_none());
        for bad in [
            "",
            "listening",
            "listening a b",
            "listening a b c",
            "hello a b 127.0.0.1:1",
        ] {
            assert!(sockets.take(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_one_line() {
        assert_eq!(last_lines(" \n"), "nothing");
        assert_eq!(last_lines("a\n\nb\n"), "a | b");
    }
}
