//! The command line of the server edge.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use edge::cli::{Failure, Shell};
use edge::config::{DEFAULT_SERVER_FILE, Rule, ServerConfig, Target, ValueError, duration_between};
use edge::history::HistoryCommand;
use edge::identity::{EdgeName, parse_client_name};

/// The server edge of wanproxy: accepts the tunnels of branches and connects to what policy lets them reach.
#[derive(Debug, Parser)]
#[command(name = "wanproxy-server", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an authority, the server's certificate and server.toml in a new or empty directory. Never overwrites.
    Init(InitArgs),
    /// Write a file with which one client can join, once.
    Invite(InviteArgs),
    /// List all identities with their state and expiry.
    List(DirArgs),
    /// Renew an identity: `server` gets a new certificate at once; for a client an invite is written that replaces its credentials by `join`.
    ///
    /// Clients renew their certificates by themselves while they are connected; this is for one that was away for too long.
    Renew(RenewArgs),
    /// Revoke all certificates and open invites of a client. Its name can be invited again.
    Revoke(RevokeArgs),
    /// Accept tunnels until a signal ends it: SIGTERM drains, a second one ends at once, SIGHUP reloads.
    Run(RunArgs),
    /// Show what a running server does. Fails when it is not reachable.
    Status(StatusArgs),
    /// Check a configuration and its credentials, and say what would be done with them.
    Check(ConfigArgs),
    /// Show, verify or clear what is remembered, of an edge that runs or of one that does not.
    #[command(subcommand)]
    History(HistoryCommand),
    /// Print completions for a shell, to be sourced by it.
    Completions(CompletionsArgs),
    /// Write the manual pages of this program into a directory.
    #[command(hide = true)]
    Man(ManArgs),
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The directory to make, or an empty one.
    #[arg(long)]
    pub dir: PathBuf,
    /// Where clients will find this server, like hq.example.com:7443.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Target,
    /// What clients may reach, like 10.0.0.0/8:* or git.example.com:22,443. Can be repeated.
    #[arg(long, value_name = "RULE")]
    pub allow: Vec<Rule>,
}

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// The client's name, like branch-1.
    #[arg(value_parser = parse_client_name)]
    pub name: EdgeName,
    #[command(flatten)]
    pub dir: DirArgs,
    #[command(flatten)]
    pub file: InviteFileArgs,
}

/// Arguments of `renew`.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// The name of a client, or `server`.
    pub name: EdgeName,
    #[command(flatten)]
    pub dir: DirArgs,
    #[command(flatten)]
    pub file: InviteFileArgs,
}

/// Where an invite goes, and for how long it is good.
#[derive(Debug, Args)]
pub struct InviteFileArgs {
    /// Write the invite to this new file, readable by its owner only; without it, to stdout.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How long the invite can be used, up to 30days.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = invite_life)]
    pub valid: Duration,
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The client's name.
    pub name: EdgeName,
    #[command(flatten)]
    pub dir: DirArgs,
}

/// Which authority.
#[derive(Debug, Args)]
pub struct DirArgs {
    /// The directory that `init` made.
    #[arg(long)]
    pub dir: PathBuf,
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SERVER_FILE)]
    pub config: PathBuf,
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
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SERVER_FILE)]
    pub config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Go on showing it, each second anew, until Ctrl-C. Where standard output is no terminal: a line a second.
    #[arg(long)]
    pub watch: bool,
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
    /// Reads the configuration.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn load(&self) -> Result<ServerConfig, Failure> {
        Ok(ServerConfig::load(&self.config)?)
    }
}

/// An invite lies around as a file with a key in it: long enough to carry it somewhere, not longer.
fn invite_life(text: &str) -> Result<Duration, ValueError> {
    // Certificates count in seconds.
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30 * 24 * 3_600);
    duration_between(text, LEAST, MOST)
}
