//! The server edge of wanproxy: it stands at headquarters, accepts the tunnels of client edges and connects to what policy lets them reach.

mod check;
mod cli;
mod history;
mod identities;
mod reverse;
mod run;
mod status;

use std::process::ExitCode;

use cli::{Cli, Command};

/// Gives what bulk frees to what it takes next: see "Copies of a byte" in docs/architecture.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    edge::cli::run(|cli: Cli| match cli.command {
        Command::Init(args) => identities::init(&args),
        Command::Invite(args) => identities::invite(&args),
        Command::List(args) => identities::list(&args),
        Command::Renew(args) => identities::renew(&args),
        Command::Revoke(args) => identities::revoke(&args),
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::status(&args),
        Command::Check(args) => check::check(&args),
        Command::History(command) => history::history(&command),
        Command::Man(args) => edge::cli::manual::<Cli>(&args.dir),
        Command::Completions(args) => edge::cli::completions::<Cli>(args.shell),
    })
}
