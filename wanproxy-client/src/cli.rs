//! The command line of the client edge.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use edge::cli::{Failure, Shell};
use edge::config::{ClientConfig, DEFAULT_CLIENT_FILE, ForwardFlag, Level, Size, parse_bind};
use edge::history::HistoryCommand;

use crate::estimate::EXPLANATION;

/// The client edge of wanproxy: carries TCP connections of a branch through one tunnel to headquarters.
#[derive(Debug, Parser)]
#[command(name = "wanproxy-client", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this machine a client: write client.toml and credentials from an invite. Works offline and never overwrites.
    Join(JoinArgs),
    /// Carry connections until a signal ends it: SIGTERM drains, a second one ends at once, SIGHUP reloads.
    Run(ConfigArgs),
    /// Show what a running client does. Fails when it is not reachable or no tunnel is up.
    Status(StatusArgs),
    /// Check a configuration and its credentials, and say what would be done with them.
    Check(ConfigArgs),
    /// Show, verify or clear what is remembered, of an edge that runs or of one that does not.
    #[command(subcommand)]
    History(HistoryCommand),
    /// Show what the tunnel would save on these files. Needs no configuration and no network.
    #[command(after_long_help = EXPLANATION)]
    Estimate(EstimateArgs),
    /// Print completions for a shell, to be sourced by it.
    Completions(CompletionsArgs),
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The file that `wanproxy-server invite` wrote.
    pub invite: PathBuf,
    /// Where to write client.toml and the credentials; made when it is not there.
    #[arg(long)]
    pub dir: PathBuf,
}

/// Which configuration, and what to add to it.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CLIENT_FILE)]
    pub config: PathBuf,
    /// Also listen at BIND and connect to TARGET, like 127.0.0.1:8445=10.0.0.5:445. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND=TARGET")]
    pub forward: Vec<ForwardFlag>,
    /// Also serve SOCKS5 at BIND, like 127.0.0.1:1080. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND", value_parser = parse_bind)]
    pub socks5: Vec<SocketAddr>,
    /// Also be an HTTP proxy at BIND, like 127.0.0.1:3128. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND", value_parser = parse_bind)]
    pub http: Vec<SocketAddr>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The configuration, which says where the admin endpoint is.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CLIENT_FILE)]
    pub config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `estimate`.
#[derive(Debug, Args)]
pub struct EstimateArgs {
    /// Files, and directories with all that is in them. The order counts: what came before is what later files are found in.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print JSON; --help names its keys.
    #[arg(long)]
    pub json: bool,
    /// How hard to compress: off, 1 to 19, or auto, which is 1 here: what an edge takes while its line is faster than its cores.
    #[arg(long, default_value = "auto")]
    pub level: Level,
    /// How much is remembered, like 512MiB. Default: half of the memory budget, which is a quarter of this machine's memory.
    #[arg(long, value_name = "SIZE")]
    pub history: Option<Size>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

impl ConfigArgs {
    /// Reads the configuration and adds the services of the flags.
    ///
    /// # Errors
    /// The configuration or a flag is wrong.
    pub fn load(&self) -> Result<ClientConfig, Failure> {
        let mut config = ClientConfig::load(&self.config)?;
        config.add_flags(&self.forward, &self.socks5, &self.http)?;
        Ok(config)
    }
}
