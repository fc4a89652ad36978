//! Runs a command only the first time: `wanproxy-first-start FILE COMMAND [ARG]...` does nothing when FILE, which the
//! command makes, is there already.
//!
//! `init`, `invite` and `join` never overwrite and so fail when they are repeated. Where containers are started again and
//! again by order of a file, and the image holds no shell to ask first, this asks.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Exit code of a usage error, as the two edges have it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(file), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("wanproxy-first-start: usage: wanproxy-first-start FILE COMMAND [ARG]...");
        return ExitCode::from(USAGE);
    };
    start(Path::new(&file), &program, arguments)
}

/// Becomes the command, and so returns only when there is nothing to do or the command cannot be started.
fn start(file: &Path, program: &OsStr, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match file.try_exists() {
        Ok(true) => {
            eprintln!(
                "wanproxy-first-start: {} is there, nothing to do",
                file.display()
            );
            ExitCode::SUCCESS
        }
        Ok(false) => {
            let error = Command::new(program).args(arguments).exec();
            eprintln!(
                "wanproxy-first-start: cannot start {}: {error}",
                Path::new(program).display()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!(
                "wanproxy-first-start: cannot look for {}: {error}",
                file.display()
            );
            ExitCode::FAILURE
        }
    }
}
