//! A pair of real programs: identities made by their own commands, a server edge and a client edge as processes, and
//! between them a line if one is asked for. Everything stands in a temporary directory and on free loopback ports, and
//! ends when the pair is dropped.

mod builder;
mod commands;
mod config;
mod metrics;
mod process;
mod programs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

pub use builder::PairBuilder;
pub use commands::{Output, run_command};
pub use metrics::Metrics;
pub use process::{EdgeProcess, Signal};
pub use programs::{Programs, Show};

use crate::line::{Line, LineBytes};

/// Name of the client edge that every pair has.
pub const CLIENT_NAME: &str = "branch-1";

/// A running server edge and client edge.
#[derive(Debug)]
pub struct Pair {
    // The order is the order of ending: the client first, so that the server sees it leave.
    client: EdgeProcess,
    server: EdgeProcess,
    line: Option<Line>,
    programs: Programs,
    directory: TempDir,
}

impl Pair {
    /// What to start, with nothing chosen yet.
    #[must_use]
    pub fn builder() -> PairBuilder {
        PairBuilder::default()
    }

    /// The client edge.
    #[must_use]
    pub const fn client(&self) -> &EdgeProcess {
        &self.client
    }

    /// The server edge.
    #[must_use]
    pub const fn server(&self) -> &EdgeProcess {
        &self.server
    }

    /// The client edge, to wait for its exit.
    pub const fn client_mut(&mut self) -> &mut EdgeProcess {
        &mut self.client
    }

    /// The server edge, to wait for its exit.
    pub const fn server_mut(&mut self) -> &mut EdgeProcess {
        &mut self.server
    }

    /// The line between the edges.
    ///
    /// # Errors
    /// When the pair was built without one.
    pub fn line(&self) -> Result<&Line> {
        self.line
            .as_ref()
            .context("this pair has no line: build it with .line(…)")
    }

    /// Bytes that crossed the line, counted by the line.
    ///
    /// # Errors
    /// When the pair was built without a line.
    pub fn wan_bytes(&self) -> Result<LineBytes> {
        Ok(self.line()?.bytes())
    }

    /// The two programs.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The server's directory: CA, certificate, store and `server.toml`.
    #[must_use]
    pub fn server_directory(&self) -> PathBuf {
        self.directory.path().join("server")
    }

    /// The directory of the client edge `name`: credentials and `client.toml`.
    #[must_use]
    pub fn client_directory(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory for whatever a test needs; gone with the pair.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// Ends the client edge (if it still runs) and starts it again with the same configuration file. Listeners on port
    /// 0 get new ports.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart_client(&mut self) -> Result<()> {
        self.client.restart().await
    }

    /// Ends the server edge (if it still runs) and starts it again on the same tunnel port.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart_server(&mut self) -> Result<()> {
        self.server.restart().await
    }

    /// Invites and joins a client edge `name` without starting it: its directory then holds `client.toml`, `ca.pem`,
    /// `edge.pem` and `edge.key`.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn join(&self, name: &str) -> Result<PathBuf> {
        let directory = self.client_directory(name);
        commands::join(&self.programs, &self.server_directory(), name, &directory).await?;
        Ok(directory)
    }

    /// Starts another client edge `name` of the same server, with `extra` merged into its configuration (see
    /// [`PairBuilder::client_toml`]), and waits for its tunnel.
    ///
    /// # Errors
    /// When a command fails, the edge does not start, or no tunnel comes up.
    pub async fn start_client(&self, name: &str, extra: &str) -> Result<EdgeProcess> {
        let directory = self.join(name).await?;
        let client = self.start_joined(&directory, extra).await?;
        builder::has_tunnel(&client).await?;
        Ok(client)
    }

    /// Starts a client edge with the credentials that are in `directory` already, and does not wait for its tunnel.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_joined(&self, directory: &Path, extra: &str) -> Result<EdgeProcess> {
        let server = match &self.line {
            Some(line) => line.address(),
            None => self.server.tunnel_address()?,
        };
        config::write_client(directory, server, &[], extra)?;
        EdgeProcess::start(self.programs.client(), &directory.join("client.toml")).await
    }
}
