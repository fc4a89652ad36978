//! What the command lines of both programs share: one-line errors, exit codes, completions, manual pages.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as UsageErrorKind;
pub use clap_complete::Shell;

use crate::config::ConfigError;
use crate::identity::IdentityError;

/// Why a command did not do what it was asked; its message is one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command line or the configuration is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// The exit code of the program.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }

    /// Credentials that a configuration names and that cannot be used.
    pub fn of_configured(error: IdentityError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Parses the command line and does `work`, and says what went wrong in one line on stderr. For use as a program's whole `main`.
pub fn run<T: Parser>(work: impl FnOnce(T) -> Result<(), Failure>) -> ExitCode {
    let program = T::command().get_name().to_owned();
    let parsed = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(Outcome::Shown) => return ExitCode::SUCCESS,
        Err(Outcome::Refused(failure)) => return report(&program, &failure),
    };
    match work(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&program, &failure),
    }
}

/// Writes to stdout. A reader that has seen enough is no failure.
///
/// # Errors
/// Stdout cannot be written to, for instance because a disk is full.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes the completions of a program for a shell to stdout.
///
/// # Errors
/// Stdout cannot be written to.
pub fn completions<T: Parser>(shell: Shell) -> Result<(), Failure> {
    let mut command = T::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes the manual pages of a program and of its commands into a directory, which must exist.
///
/// # Errors
/// The directory cannot be written to.
pub fn manual<T: Parser>(directory: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(T::command(), directory).map_err(|error| {
        Failure::Failed(format!(
            "cannot write manual pages into {}: {error}",
            directory.display()
        ))
    })
}

enum Outcome {
    /// Help or the version was asked for and shown.
    Shown,
    Refused(Failure),
}

fn parse<T: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<T, Outcome> {
    T::try_parse_from(arguments).map_err(|error| match error.kind() {
        UsageErrorKind::DisplayHelp | UsageErrorKind::DisplayVersion => match error.print() {
            Err(cause) if cause.kind() != ErrorKind::BrokenPipe => {
                Outcome::Refused(Failure::Failed(format!("cannot write to stdout: {cause}")))
            }
            _ => Outcome::Shown,
        },
        UsageErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let commands: Vec<String> = T::command()
                .get_subcommands()
                .map(|command| command.get_name().to_owned())
                .collect();
            Outcome::Refused(Failure::Usage(format!(
                "a command is missing: {}; see --help",
                commands.join(", ")
            )))
        }
        _ => Outcome::Refused(Failure::Usage(one_line(&error.to_string()))),
    })
}

/// What clap says over several lines, without the usage, as one.
fn one_line(message: &str) -> String {
    let paragraphs: Vec<String> = message
        .split("\n\n")
        .map(|paragraph| {
            paragraph
                .lines()
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .take_while(|paragraph| {
            !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
        })
        .collect();
    let line = paragraphs.join("; ");
    format!(
        "{}; see --help",
        line.strip_prefix("error: ").unwrap_or(&line)
    )
}

fn report(program: &str, failure: &Failure) -> ExitCode {
    // Nobody is left to tell when stderr is closed.
    let _ok = writeln!(std::io::stderr(), "{program}: {failure}");
    failure.exit_code()
}

#[cfg(test)]
mod tests {
    use clap::Subcommand;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "example", version, arg_required_else_help = true)]
    struct Example {
        #[command(subcommand)]
        command: Option<Action>,
    }

    #[derive(Debug, Subcommand)]
    enum Action {
        Join {
            #[arg(long)]
            dir: u8,
        },
    }

    fn message(arguments: &[&str]) -> String {
        match parse::<Example>(
            std::iter::once("example")
                .chain(arguments.iter().copied())
                .map(OsString::from),
        ) {
            Err(Outcome::Refused(failure)) => {
                assert!(matches!(failure, Failure::Usage(_)));
                failure.to_string()
            }
            Err(Outcome::Shown) => panic!("shown"),
            Ok(parsed) => panic!("{parsed:?}"),
        }
    }

    #[test]
    fn a_wrong_command_line_is_one_line() {
        assert_eq!(message(&[]), "a command is missing: join; see --help");
        assert_eq!(
            message(&["join"]),
            "the following required arguments were not provided: --dir <DIR>; see --help"
        );
        assert_eq!(
            message(&["joim"]),
            "unrecognized subcommand 'joim'; tip: a similar subcommand exists: 'join'; see --help"
        );
        assert!(
            message(&["join", "--dir", "x"]).starts_with("invalid value 'x' for '--dir <DIR>': ")
        );
    }
}
