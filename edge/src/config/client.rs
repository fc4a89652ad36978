//! The client edge's configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::accept::AcceptConfig;
use super::credentials::IdentityConfig;
use super::document::{Document, Keys};
use super::error::ConfigError;
use super::listen::{self, ForwardFlag, ListenConfig};
use super::paths::PathsConfig;
use super::resources::{MemoryConfig, PoolsConfig};
use super::sections::{
    AdminConfig, CodecConfig, HistoryConfig, LogConfig, SharedSections, Side, parent,
};
use super::units::duration_between;
use super::unix::Bind;
use super::{
    DEFAULT_CONNECT_WAIT, DEFAULT_DRAIN_TIMEOUT, DEFAULT_HEARTBEAT, DEFAULT_RESUME_WINDOW,
    MAX_CONNECT_WAIT, MAX_DRAIN_TIMEOUT, MAX_HEARTBEAT, MAX_RESUME_WINDOW, MIN_HEARTBEAT,
    credential_files, read_file,
};
use crate::identity::{EdgeName, parse_client_name};

/// All that a client edge is told. Built by [`ClientConfig::load`] or [`ClientConfig::parse`] only, so every value is in range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The name that the operator expects this edge to have; the certificate says which it has.
    pub name: Option<EdgeName>,
    /// `[tunnel]`.
    pub tunnel: ClientTunnelConfig,
    /// `[identity]`.
    pub identity: IdentityConfig,
    /// `[history]`.
    pub history: HistoryConfig,
    /// `[codec]`.
    pub codec: CodecConfig,
    /// `[pools]`.
    pub pools: PoolsConfig,
    /// `[memory]`.
    pub memory: MemoryConfig,
    /// `[[listen]]` and the flags' services.
    pub listen: Vec<ListenConfig>,
    /// `[[accept]]`: what reverse listeners of the server may reach here. Nothing that is not written.
    pub accept: AcceptConfig,
    /// `[admin]`.
    pub admin: Option<AdminConfig>,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[tunnel]` of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTunnelConfig {
    /// The ways to the server.
    pub paths: PathsConfig,
    /// A link on which nothing arrived for so long is asked for a sign of life.
    pub heartbeat: Duration,
    /// How long streams outlive the loss of the line; the other edge's counts too. Zero: not at all.
    pub resume_window: Duration,
    /// How long a new LAN connection waits for a tunnel before it is refused.
    pub connect_wait: Duration,
    /// How long running streams may take to finish on SIGTERM.
    pub drain_timeout: Duration,
}

const TOP: Keys = Keys {
    offered: &[
        "name", "tunnel", "identity", "history", "codec", "pools", "memory", "listen", "accept",
        "admin", "log",
    ],
    later: &[],
};
const TUNNEL: Keys = Keys {
    offered: &[
        "server",
        "order",
        "links",
        "path",
        "heartbeat",
        "resume_window",
        "connect_wait",
        "drain_timeout",
    ],
    later: &[],
};

impl ClientConfig {
    /// Reads a file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// Unreadable, larger than [`super::MAX_FILE_BYTES`], or anything that [`ClientConfig::parse`] refuses.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_file(file)?, file)
    }

    /// The files that it names and that are read with it: credentials, passwords and the token.
    pub fn files(&self) -> Vec<PathBuf> {
        let passwords = self.listen.iter().flat_map(|service| &service.users);
        let mut files = credential_files(&self.identity, self.admin.as_ref());
        files.extend(passwords.map(|(_, file)| file.clone()));
        files
    }

    /// Reads a text as if it stood in `file`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let document = Document::new(file.display().to_string(), text);
        let table = document.parse()?;
        let top = document.top(&table, &TOP)?;
        let name = top.parse("name", parse_client_name)?;
        let advice = "write server = [\"hq.example.com:7443\"]";
        let tunnel = top
            .section("tunnel", &TUNNEL)?
            .ok_or_else(|| top.missing("[tunnel]", advice))?;
        let tunnel = ClientTunnelConfig {
            paths: PathsConfig::read(&tunnel, name.as_ref(), advice)?,
            heartbeat: tunnel
                .parse("heartbeat", |t| {
                    duration_between(t, MIN_HEARTBEAT, MAX_HEARTBEAT)
                })?
                .unwrap_or(DEFAULT_HEARTBEAT),
            resume_window: tunnel
                .parse("resume_window", |t| {
                    duration_between(t, Duration::ZERO, MAX_RESUME_WINDOW)
                })?
                .unwrap_or(DEFAULT_RESUME_WINDOW),
            connect_wait: tunnel
                .parse("connect_wait", |t| {
                    duration_between(t, Duration::ZERO, MAX_CONNECT_WAIT)
                })?
                .unwrap_or(DEFAULT_CONNECT_WAIT),
            drain_timeout: tunnel
                .parse("drain_timeout", |t| {
                    duration_between(t, Duration::ZERO, MAX_DRAIN_TIMEOUT)
                })?
                .unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        };
        let shared = SharedSections::read(&top, Side::Client, &parent(file))?;
        Ok(Self {
            name,
            tunnel,
            identity: shared.identity,
            history: shared.history,
            codec: shared.codec,
            pools: shared.pools,
            memory: shared.memory,
            listen: listen::read(&top, &parent(file), Side::Client)?,
            accept: AcceptConfig::read(&top)?,
            admin: shared.admin,
            log: shared.log,
        })
    }

    /// Adds the services of `--forward`, `--socks5`, `--http` and `--transparent`, named `forward-1`, `socks5-1` and so on.
    ///
    /// # Errors
    /// A name or an address is taken by a service of the file.
    pub fn add_flags(
        &mut self,
        forward: &[ForwardFlag],
        socks5: &[Bind],
        http: &[Bind],
        transparent: &[SocketAddr],
    ) -> Result<(), ConfigError> {
        listen::add_flags(&mut self.listen, forward, socks5, http, transparent)
    }
}
