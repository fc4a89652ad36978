//! The server edge's configuration.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::credentials::IdentityConfig;
use super::document::{Document, Keys, Section};
use super::error::ConfigError;
use super::listen::{self, ListenConfig};
use super::network::Network;
use super::policy::Rule;
use super::resources::{MemoryConfig, PoolsConfig};
use super::sections::{
    AdminConfig, CodecConfig, HistoryConfig, LogConfig, SharedSections, Side, parent,
};
use super::target::parse_bind;
use super::units::{Rate, Size, duration_between};
use super::{
    DEFAULT_CONNECT_WAIT, DEFAULT_DRAIN_TIMEOUT, DEFAULT_HEARTBEAT, DEFAULT_RESUME_WINDOW,
    MAX_CONNECT_WAIT, MAX_DRAIN_TIMEOUT, MAX_HEARTBEAT, MAX_RESUME_WINDOW, MIN_HEARTBEAT,
    credential_files, read_file,
};
use crate::identity::{EdgeName, NamePattern, revocations_file};

/// All that a server edge is told. Built by [`ServerConfig::load`] or [`ServerConfig::parse`] only, so every value is in range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The name that the operator expects this edge to have; the certificate says which it has.
    pub name: Option<EdgeName>,
    /// `[tunnel]`.
    pub tunnel: ServerTunnelConfig,
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
    /// `[[client]]`, in the order of the file: the first that matches a client's name counts.
    pub client: Vec<ClientPolicyConfig>,
    /// `[[listen]]`: reverse services, each with the client behind which its target is.
    pub listen: Vec<ListenConfig>,
    /// `[admin]`.
    pub admin: Option<AdminConfig>,
    /// `[log]`.
    pub log: LogConfig,
}

/// `[tunnel]` of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerTunnelConfig {
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// A link on which nothing arrived for so long is asked for a sign of life.
    pub heartbeat: Duration,
    /// How long streams outlive the loss of the line; the other edge's counts too. Zero: not at all.
    pub resume_window: Duration,
    /// How long a new connection to a reverse listener waits for its client's tunnel before it is refused.
    pub connect_wait: Duration,
    /// How long running streams may take to finish on SIGTERM.
    pub drain_timeout: Duration,
}

/// One `[[client]]`: what clients of that name may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientPolicyConfig {
    /// Whom it speaks of.
    pub name: NamePattern,
    /// What they may reach. Nothing that is not here.
    pub allow: Vec<Rule>,
    /// What they may not reach although it is allowed.
    pub deny: Vec<Rule>,
    /// Networks whose addresses its connections may come from, where its listeners preserve the source.
    pub source: Vec<Network>,
    /// Streams open at a time.
    pub max_streams: NonZeroU32,
    /// Streams opened in a second.
    pub new_streams_per_second: NonZeroU32,
    /// What the streams of each of them may carry together, each direction on its own.
    pub rate: Option<Rate>,
    /// Room that each of them has reserved in the histories; `None`: a part of what is left when it first comes.
    pub history: Option<Size>,
}

const TOP: Keys = Keys {
    offered: &[
        "name", "tunnel", "identity", "history", "codec", "pools", "memory", "client", "listen",
        "admin", "log",
    ],
    later: &[],
};
const TUNNEL: Keys = Keys {
    offered: &[
        "listen",
        "heartbeat",
        "resume_window",
        "connect_wait",
        "drain_timeout",
    ],
    later: &[],
};
const CLIENT: Keys = Keys {
    offered: &[
        "name",
        "allow",
        "deny",
        "source",
        "max_streams",
        "new_streams_per_second",
        "rate",
        "history",
    ],
    later: &[],
};

/// `[[client]]` sections; the list is walked for each tunnel.
const MAX_CLIENTS: usize = 4_096;
/// Rules in one `allow` or `deny`; the list is walked for each stream.
pub(crate) const MAX_RULES: usize = 4_096;
/// Streams per tunnel (DESIGN, section 6).
const MAX_STREAMS: u64 = 65_536;
pub(crate) const DEFAULT_MAX_STREAMS: u32 = 10_000;
/// More than a core can accept.
const MAX_NEW_STREAMS_PER_SECOND: u64 = 1_000_000;
pub(crate) const DEFAULT_NEW_STREAMS_PER_SECOND: u32 = 1_000;

impl ServerConfig {
    /// Reads a file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// Unreadable, larger than [`super::MAX_FILE_BYTES`], or anything that [`ServerConfig::parse`] refuses.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_file(file)?, file)
    }

    /// The files that it names and that are read with it: credentials, revocations and the token.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = credential_files(&self.identity, self.admin.as_ref());
        files.push(revocations_file(&self.identity.authority_directory()));
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
        let name = top.parse("name", str::parse)?;
        let advice = "write listen = \"[::]:7443\"";
        let tunnel = top
            .section("tunnel", &TUNNEL)?
            .ok_or_else(|| top.missing("[tunnel]", advice))?;
        let tunnel = ServerTunnelConfig {
            listen: tunnel.require("listen", advice, parse_bind)?,
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
        let shared = SharedSections::read(&top, Side::Server, &parent(file))?;
        Ok(Self {
            name,
            tunnel,
            identity: shared.identity,
            history: shared.history,
            codec: shared.codec,
            pools: shared.pools,
            memory: shared.memory,
            client: clients(&top)?,
            listen: listen::read(&top, &parent(file), Side::Server)?,
            admin: shared.admin,
            log: shared.log,
        })
    }
}

fn clients(top: &Section<'_>) -> Result<Vec<ClientPolicyConfig>, ConfigError> {
    let mut clients: Vec<ClientPolicyConfig> = Vec::new();
    for section in top.sections("client", MAX_CLIENTS, &CLIENT)? {
        let name: NamePattern = section.require("name", "write name = \"branch-*\"", str::parse)?;
        if clients.iter().any(|client| client.name == name) {
            return Err(section.conflict(
                "name",
                format!("\"{name}\" stands above already, and the first one counts; join the two"),
            ));
        }
        let number = |key: &str, most: u64, default: u32| -> Result<NonZeroU32, ConfigError> {
            let number = section
                .integer(key, 1..=most)?
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(default);
            Ok(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
        };
        clients.push(ClientPolicyConfig {
            name,
            allow: section.list("allow", MAX_RULES, str::parse)?,
            deny: section.list("deny", MAX_RULES, str::parse)?,
            source: section.list("source", MAX_RULES, str::parse)?,
            max_streams: number("max_streams", MAX_STREAMS, DEFAULT_MAX_STREAMS)?,
            new_streams_per_second: number(
                "new_streams_per_second",
                MAX_NEW_STREAMS_PER_SECOND,
                DEFAULT_NEW_STREAMS_PER_SECOND,
            )?,
            rate: section.parse("rate", str::parse)?,
            history: section.parse("history", str::parse)?,
        });
    }
    Ok(clients)
}
