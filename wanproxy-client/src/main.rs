//! The client edge of wanproxy: it stands at a branch, listens for applications and carries their connections to the server edge.

mod check;
mod cli;
mod estimate;
mod history;
mod join;
mod listener;
mod run;
mod status;
mod transparent_rules;

use std::process::ExitCode;

use cli::{Cli, Command};

/// Gives what bulk frees to what it takes next: see "Copies of a byte" in docs/architecture.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    edge::cli::run(|cli: Cli| match cli.command {
        Command::Join(args) => join::join(&args),
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::status(&args),
        Command::Check(args) => check::check(&args),
        Command::History(command) => history::history(&command),
        Command::Estimate(args) => estimate::estimate(&args),
        Command::TransparentRules(args) => transparent_rules::transparent_rules(&args),
        Command::Man(args) => edge::cli::manual::<Cli>(&args.dir),
        Command::Completions(args) => edge::cli::completions::<Cli>(args.shell),
    })
}
