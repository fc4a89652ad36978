//! What a pair is made of, and the order in which it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use super::config::Listener;
use super::{CLIENT_NAME, EdgeProcess, Pair, Programs, Show, commands, config};
use crate::free_port;
use crate::line::{Line, LineConfig};
use crate::packets::{FAR, PacketLine, Place};

/// The tunnel is up long before this, or never.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two looks whether it is up.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Where the edges run, and where the server takes tunnels.
#[derive(Clone, Debug)]
struct Places {
    client: Place,
    server: Place,
    tunnel: Ipv4Addr,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            client: Place::default(),
            server: Place::default(),
            tunnel: Ipv4Addr::LOCALHOST,
        }
    }
}

/// Chooses the listeners, the line and the configuration of a [`Pair`].
#[derive(Clone, Debug, Default)]
pub struct PairBuilder {
    listeners: Vec<Listener>,
    line: Option<LineConfig>,
    places: Places,
    allow: Vec<String>,
    server_toml: String,
    client_toml: String,
    show_build: bool,
    client_environment: Vec<(String, PathBuf)>,
    server_environment: Vec<(String, PathBuf)>,
}

impl PairBuilder {
    /// A listener `name` of the client edge that leads to `target`.
    #[must_use]
    pub fn forward(self, name: &str, target: SocketAddr) -> Self {
        self.listener(name, "forward", Some(target.to_string()))
    }

    /// A SOCKS5 listener of the client edge, called `socks5`.
    #[must_use]
    pub fn socks5(self) -> Self {
        self.listener("socks5", "socks5", None)
    }

    /// An HTTP proxy of the client edge, called `proxy`.
    #[must_use]
    pub fn http(self) -> Self {
        self.listener("proxy", "http", None)
    }

    fn listener(mut self, name: &str, kind: &'static str, target: Option<String>) -> Self {
        self.listeners.push(Listener {
            name: name.to_owned(),
            kind,
            target,
        });
        self
    }

    /// An emulated line between the edges, which also counts the bytes.
    #[must_use]
    pub const fn line(mut self, line: LineConfig) -> Self {
        self.line = Some(line);
        self
    }

    /// The ends of a line of packets: the client edge runs in the first namespace, the server edge in the second. Applications connect by
    /// [`EdgeProcess::connect`]; targets must stand in the second namespace.
    #[must_use]
    pub fn across(mut self, line: &PacketLine) -> Self {
        self.places = Places {
            client: line.near().place(),
            server: line.far().place(),
            tunnel: FAR,
        };
        self
    }

    /// A target that clients may reach. Without any, all of 127.0.0.1 and ::1 is allowed.
    #[must_use]
    pub fn allow(mut self, rule: &str) -> Self {
        self.allow.push(rule.to_owned());
        self
    }

    /// TOML merged into `server.toml`: tables are merged, `[[client]]` entries come before the one that is there.
    #[must_use]
    pub fn server_toml(mut self, extra: &str) -> Self {
        self.server_toml = extra.to_owned();
        self
    }

    /// TOML merged into `client.toml`, in the same way.
    #[must_use]
    pub fn client_toml(mut self, extra: &str) -> Self {
        self.client_toml = extra.to_owned();
        self
    }

    /// Starts the client edge with this further environment.
    #[must_use]
    pub fn client_environment(mut self, environment: Vec<(String, PathBuf)>) -> Self {
        self.client_environment = environment;
        self
    }

    /// Starts the server edge with this further environment.
    #[must_use]
    pub fn server_environment(mut self, environment: Vec<(String, PathBuf)>) -> Self {
        self.server_environment = environment;
        self
    }

    /// Lets cargo show its progress while it builds the programs.
    #[must_use]
    pub const fn show_build(mut self) -> Self {
        self.show_build = true;
        self
    }

    /// Builds the programs if needed, makes the identities and starts everything. Returns when both edges listen and the
    /// tunnel between them is up.
    ///
    /// # Errors
    /// When anything of it fails, with what the failing program logged.
    pub async fn start(self) -> Result<Pair> {
        let show = if self.show_build {
            Show::Progress
        } else {
            Show::Nothing
        };
        let programs = tokio::task::spawn_blocking(move || Programs::find(show)).await??;
        let directory = tempfile::Builder::new()
            .prefix("wanproxy-")
            .tempdir()
            .context("no temporary directory")?;
        let server_directory = directory.path().join("server");
        let client_directory = directory.path().join(CLIENT_NAME);
        let allow = if self.allow.is_empty() {
            default_allow()
        } else {
            self.allow
        };

        commands::init(&programs, &server_directory, &allow).await?;
        // Not one that the system chooses: somebody else could be given it while the server is started again.
        let port = self.places.server.run(free_port)?;
        let tunnel = (self.places.tunnel, port).into();
        config::write_server(&server_directory, tunnel, &self.server_toml)?;
        let server = EdgeProcess::start_in(
            self.places.server.with_environment(self.server_environment),
            programs.server(),
            &server_directory.join("server.toml"),
        )
        .await?;
        let tunnel = server.tunnel_address()?;

        let line = self
            .line
            .map(|line| Line::start(tunnel, line))
            .transpose()
            .context("cannot start the line")?;
        let entrance = line.as_ref().map_or(tunnel, Line::address);
        commands::join(&programs, &server_directory, CLIENT_NAME, &client_directory).await?;
        config::write_client(
            &client_directory,
            entrance,
            &self.listeners,
            &self.client_toml,
        )?;
        let client = EdgeProcess::start_in(
            self.places.client.with_environment(self.client_environment),
            programs.client(),
            &client_directory.join("client.toml"),
        )
        .await?;
        has_tunnel(&client).await?;
        Ok(Pair {
            client,
            server,
            line,
            programs,
            directory,
        })
    }
}

/// Waits until the client edge has a tunnel, so that what is counted and timed is not its beginning.
pub(super) async fn has_tunnel(client: &EdgeProcess) -> Result<()> {
    let deadline = Instant::now() + TUNNEL_TIMEOUT;
    while !client.is_ready().await {
        if Instant::now() > deadline {
            bail!(
                "no tunnel within {TUNNEL_TIMEOUT:?}; the client logged: {}",
                client.last_log_lines()
            );
        }
        sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

fn default_allow() -> Vec<String> {
    ["127.0.0.1:*", "[::1]:*"].map(str::to_owned).to_vec()
}
