//! The commands `history stats | verify | clear` of both programs: an edge that runs is asked through its admin endpoint, and for one that
//! does not its directory is opened here.

mod check;
mod running;
mod stopped;
mod text;

use std::path::{Path, PathBuf};

pub use check::check;
use clap::{Args, Subcommand};
use tunnel::histories::Lean;

use crate::admin::Endpoint;
use crate::cli::{self, Failure};
use crate::config::{AdminConfig, HistoryConfig};

/// What to do with histories.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Show what is remembered, by peer and domain.
    Stats(HistoryOptions),
    /// Read everything that is remembered on disk, and forget what is damaged. Fails when something was.
    Verify(HistoryOptions),
    /// Forget what is remembered. Nothing is lost by it but savings.
    Clear(ClearOptions),
}

/// Whose histories.
#[derive(Debug, Args)]
pub struct HistoryOptions {
    /// The configuration; that of `run` when it is not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `history clear`.
#[derive(Debug, Args)]
pub struct ClearOptions {
    #[command(flatten)]
    /// Whose histories.
    pub whose: HistoryOptions,
    /// Only what is shared with this peer.
    #[arg(long, value_name = "NAME")]
    pub peer: Option<String>,
}

/// What the commands need of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The configuration's file, for messages.
    pub file: &'a Path,
    /// `[history]`.
    pub history: &'a HistoryConfig,
    /// `[admin]`.
    pub admin: Option<&'a AdminConfig>,
    /// Which side it is.
    pub lean: Lean,
}

impl HistoryCommand {
    fn options(&self) -> &HistoryOptions {
        match self {
            Self::Stats(options) | Self::Verify(options) => options,
            Self::Clear(options) => &options.whose,
        }
    }

    /// The configuration that is meant.
    pub fn file(&self, default: &str) -> PathBuf {
        self.options()
            .config
            .clone()
            .unwrap_or_else(|| default.into())
    }

    /// Does it, and prints what came of it.
    ///
    /// # Errors
    /// The directory cannot be used or is in use by a program that cannot be asked; or something was damaged.
    pub fn run(&self, subject: Subject<'_>) -> Result<(), Failure> {
        // Where nothing is to be asked, the directory still says whether a program has it.
        let endpoint = Endpoint::of(subject.file, subject.admin);
        if let Ok(endpoint) = &endpoint
            && endpoint.is_there()
        {
            return running::run(self, endpoint);
        }
        let unasked = endpoint.map_or_else(
            |why| why.to_string(),
            |endpoint| {
                format!(
                    "its admin endpoint at {} does not answer",
                    endpoint.address()
                )
            },
        );
        match &subject.history.directory {
            Some(directory) => stopped::run(self, directory, subject.lean, &unasked),
            None => Err(Failure::Failed(format!(
                "{} names no [history] directory, so histories are in the memory of a running edge, and {unasked}",
                subject.file.display()
            ))),
        }
    }
}

/// Prints `text`, or `json` where that was asked for.
fn print(
    options: &HistoryOptions,
    text: impl FnOnce() -> String,
    json: &str,
) -> Result<(), Failure> {
    if options.json {
        cli::print(&format!("{}\n", json.trim_end()))
    } else {
        cli::print(&text())
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))
}
