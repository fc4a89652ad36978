//! A line of packets, a pair across it, and the cost of what is done on them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wanproxy_tests::packets::{FAR, From, PacketLine, Settings};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::skip;

/// The line: fast enough for programs built without optimisation, far enough that round trips count.
const RATE_BITS_PER_S: u64 = 200_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A client that has not ended by then hangs, even on a machine that is busy compiling.
const CLIENT_LIMIT: Duration = Duration::from_secs(170);

/// A transfer that is repeated costs less than this part of the bytes that it carries.
const REPEAT_PART: u64 = 20;

/// Where programs are that the `PATH` of an ordinary user leaves out.
const MORE_PLACES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Debian keeps the server programs of each version of PostgreSQL here.
const POSTGRES: &str = "/usr/lib/postgresql";

/// Two namespaces with a line between them: servers stand in the far one, clients and the client edge in the near one.
pub struct Ground {
    client: String,
    line: PacketLine,
    directory: TempDir,
}

/// A [`Ground`] with a pair across its line.
pub struct Stage {
    // The pair ends before the line.
    pub pair: Pair,
    pub ground: Ground,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    time: Duration,
    line_bytes: u64,
    tunnel_bytes: Option<u64>,
}

/// The paths of `programs`; `None` when one is missing, which has been said.
pub fn found<const N: usize>(client: &str, programs: [&str; N]) -> Option<[PathBuf; N]> {
    let mut paths = programs.map(PathBuf::from);
    for path in &mut paths {
        let Some(at) = find(path) else {
            skip(client, &format!("{} is not installed", path.display()));
            return None;
        };
        *path = at;
    }
    Some(paths)
}

fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir(POSTGRES).into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(MORE_PLACES.map(PathBuf::from))
        .chain(versions.map(|version| version.path().join("bin")))
        .map(|place| place.join(program))
        .find(|path| path.is_file())
}

impl Ground {
    /// `None` where no line can be made, which has been said.
    pub fn lay(client: &str) -> Option<Self> {
        if let Err(reason) = PacketLine::possible() {
            skip(client, &reason);
            return None;
        }
        Some(Self {
            client: client.to_owned(),
            line: PacketLine::start(Settings::line(RATE_BITS_PER_S, ROUND_TRIP), 5).unwrap(),
            directory: tempfile::tempdir().unwrap(),
        })
    }

    /// For what the servers and clients keep; gone with the ground.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        self.directory().join(name).to_str().unwrap().to_owned()
    }

    /// `program` beside the clients.
    pub fn near(&self, program: impl AsRef<Path>) -> Command {
        clean(self.line.near().command(program.as_ref()))
    }

    /// `program` beside the servers.
    pub fn far(&self, program: impl AsRef<Path>) -> Command {
        clean(self.line.far().command(program.as_ref()))
    }

    /// An address for a server that cannot choose a port itself. Nobody but this test opens sockets in that namespace.
    pub fn far_address(&self) -> SocketAddr {
        self.listen_far().local_addr().unwrap()
    }

    /// The same beside the clients, on loopback.
    pub fn near_address(&self) -> SocketAddr {
        let listener = self.line.near().run(|| TcpListener::bind("127.0.0.1:0"));
        listener.unwrap().local_addr().unwrap()
    }

    /// A listener beside the servers.
    pub fn listen_far(&self) -> TcpListener {
        let listener = self.line.far().run(|| TcpListener::bind((FAR, 0)));
        listener.unwrap()
    }

    /// Connects from beside the clients.
    pub fn connect_near(&self, address: SocketAddr) -> anyhow::Result<TcpStream> {
        self.line.near().run(|| TcpStream::connect(address))
    }

    /// Whether something beside the servers takes connections there.
    pub fn answers_far(&self, address: SocketAddr) -> bool {
        self.line.far().run(|| TcpStream::connect(address)).is_ok()
    }

    /// Starts a pair with a listener for each of these targets, a SOCKS5 listener and an HTTP proxy.
    pub async fn pair(self, forwards: &[(&str, SocketAddr)]) -> Stage {
        let builder = Pair::builder()
            .across(&self.line)
            .allow(&format!("{FAR}:*"))
            .socks5()
            .http();
        let builder = forwards.iter().fold(builder, |builder, (name, target)| {
            builder.forward(name, *target)
        });
        Stage {
            pair: builder.start().await.unwrap(),
            ground: self,
            rows: Vec::new(),
        }
    }

    fn line_bytes(&self) -> u64 {
        let sides = [From::Near, From::Far];
        sides
            .map(|from| self.line.counters(from).carried_bytes)
            .iter()
            .sum()
    }
}

impl Stage {
    /// Address of a listener of the client edge.
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.pair.client().address(name).unwrap()
    }

    /// Runs a client that goes over the line without the tunnel, to its success. What it printed.
    pub async fn direct(&mut self, what: &str, command: Command) -> Vec<u8> {
        self.measured(&format!("{what}, direct"), command, false)
            .await
            .0
    }

    /// The same for one that goes through the tunnel; also the bytes that the client edge sent to the line and got from it.
    pub async fn through(&mut self, what: &str, command: Command) -> (Vec<u8>, u64) {
        self.measured(&format!("{what}, tunnel"), command, true)
            .await
    }

    async fn measured(&mut self, what: &str, command: Command, tunnel: bool) -> (Vec<u8>, u64) {
        let wan = self.wan_bytes().await;
        let line = self.ground.line_bytes();
        let start = Instant::now();
        let output = succeed(command).await;
        let time = start.elapsed();
        let tunnel_bytes = self.wan_bytes().await - wan;
        self.rows.push(Row {
            what: what.to_owned(),
            time,
            line_bytes: self.ground.line_bytes() - line,
            tunnel_bytes: tunnel.then_some(tunnel_bytes),
        });
        (output, tunnel_bytes)
    }

    async fn wan_bytes(&self) -> u64 {
        let status = self.pair.client().status_json().await.unwrap();
        status["savings"]["wan_bytes"].as_u64().unwrap()
    }

    /// Prints what everything cost.
    pub fn report(&self) {
        let mut table = format!(
            "\n{} over {} Mbit/s, {} ms:\n{:<44}{:>9}{:>16}{:>16}\n",
            self.ground.client,
            RATE_BITS_PER_S / 1_000_000,
            ROUND_TRIP.as_millis(),
            "what",
            "time",
            "bytes on line",
            "WAN by status"
        );
        for row in &self.rows {
            let tunnel = row
                .tunnel_bytes
                .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
            writeln!(
                table,
                "{:<44}{:>7.2} s{:>16}{tunnel:>16}",
                row.what,
                row.time.as_secs_f64(),
                row.line_bytes
            )
            .unwrap();
        }
        // Not by eprintln!, which the harness keeps to itself when a test succeeds.
        let _nobody_listens = std::io::stderr().write_all(table.as_bytes());
    }
}

/// A transfer of `bytes` that the tunnel has seen before cost `wan_bytes`.
pub fn assert_repeat(what: &str, bytes: u64, wan_bytes: u64) {
    assert!(
        wan_bytes < bytes / REPEAT_PART,
        "{what}: {bytes} bytes once more cost {wan_bytes} on the line, not less than a {REPEAT_PART}th"
    );
}

/// Both are the same; else the offset of the first difference is named.
pub fn assert_same(what: &str, got: &[u8], wanted: &[u8]) {
    let differs = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert!(
        got.len() == wanted.len() && differs.is_none(),
        "{what}: {} bytes instead of {}, first difference at {differs:?}",
        got.len(),
        wanted.len()
    );
}

/// Runs it to its end, which must be a success. What it printed.
pub async fn succeed(command: Command) -> Vec<u8> {
    let shown = format!("{command:?}");
    let output = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CLIENT_LIMIT, output)
        .await
        .unwrap_or_else(|_| panic!("still running after {CLIENT_LIMIT:?}: {shown}"))
        .unwrap();
    assert!(
        output.status.success(),
        "{shown}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    output.stdout
}

/// Nothing of the surroundings' proxies and settings reaches it.
fn clean(mut command: Command) -> Command {
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
        "no_proxy",
        "NO_PROXY",
    ] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
    command
}
