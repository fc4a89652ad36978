//! The command line of the client edge.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use edge::cli::{Failure, Shell};
use edge::config::{Bind, ClientConfig, DEFAULT_CLIENT_FILE, ForwardFlag, Level, Size, parse_bind};
use edge::history::HistoryCommand;

use crate::estimate::EXPLANATION;
use crate::transparent_rules::parse_interface;

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
    Run(RunArgs),
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
    /// Print the rules for nft and ip that bring connections to the transparent services. Changes nothing by itself.
    TransparentRules(TransparentRulesArgs),
    /// Print completions for a shell, to be sourced by it.
    Completions(CompletionsArgs),
    /// Write the manual pages of this program into a directory.
    #[command(hide = true)]
    Man(ManArgs),
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
    /// Also listen at BIND and connect to TARGET, like 127.0.0.1:8445=10.0.0.5:445; either may be unix:/PATH. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND=TARGET")]
    pub forward: Vec<ForwardFlag>,
    /// Also serve SOCKS5 at BIND, like 127.0.0.1:1080 or unix:/PATH. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND")]
    pub socks5: Vec<Bind>,
    /// Also be an HTTP proxy at BIND, like 127.0.0.1:3128 or unix:/PATH. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND")]
    pub http: Vec<Bind>,
    /// Also carry connections that a packet filter redirects to BIND, like [::]:7080. A bare port listens on loopback. Can be repeated.
    #[arg(long, value_name = "BIND", value_parser = parse_bind)]
    pub transparent: Vec<SocketAddr>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Take over from the program that was started with the same PATH, without refusing a connection, and listen there for the next one. A Unix
    /// socket, made if it is not there.
    #[arg(long, value_name = "PATH")]
    pub handover: Option<PathBuf>,
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
    /// Go on showing it, each second anew, until Ctrl-C. Where standard output is no terminal: a line a second.
    #[arg(long)]
    pub watch: bool,
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

/// Arguments of `transparent-rules`.
#[derive(Debug, Args)]
pub struct TransparentRulesArgs {
    /// The configuration, and the flags that `run` is started with.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Catch connections that come in by this interface only. Can be repeated; without it, those of all interfaces.
    #[arg(long, value_name = "INTERFACE", value_parser = parse_interface)]
    pub lan: Vec<String>,
    /// Catch this machine's own connections, too; but for those of the edge, known by their mark.
    #[arg(long)]
    pub local: bool,
    /// With --local: the user id that the edge runs as, where it cannot mark its connections for want of CAP_NET_ADMIN.
    #[arg(long, value_name = "UID", requires = "local")]
    pub uid: Option<u32>,
    /// Rules for this service only. Can be repeated; without it, for all transparent ones.
    #[arg(long, value_name = "NAME")]
    pub service: Vec<String>,
}

/// Arguments of `man`, which is for those who make packages.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// An existing directory.
    #[arg(long)]
    pub dir: PathBuf,
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
        config.add_flags(&self.forward, &self.socks5, &self.http, &self.transparent)?;
        Ok(config)
    }
}
