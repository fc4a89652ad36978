//! The programs' commands other than `run`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::Programs;

/// What a command said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

/// Runs `program` to its end.
///
/// # Errors
/// When it cannot be started. A failure of the command itself is in its exit code.
pub async fn run_command(
    program: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Output> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Makes the server's identity in `directory`. The address goes into invites only and is replaced later.
pub(super) async fn init(programs: &Programs, directory: &Path, allow: &[String]) -> Result<()> {
    let mut args = words(&["init", "--address", "127.0.0.1:7443", "--dir"], directory);
    for rule in allow {
        args.extend(["--allow".into(), rule.into()]);
    }
    must(programs.server(), args).await
}

/// Invites `name` and joins as `name` in `directory`.
pub(super) async fn join(
    programs: &Programs,
    server: &Path,
    name: &str,
    directory: &Path,
) -> Result<()> {
    let invite = directory.with_extension("invite");
    let mut args = words(&["invite", name, "--dir"], server);
    args.extend(["--out".into(), invite.clone().into()]);
    must(programs.server(), args).await?;
    must(
        programs.client(),
        [
            "join".into(),
            invite.into(),
            "--dir".into(),
            directory.into(),
        ],
    )
    .await
}

fn words(words: &[&str], last: &Path) -> Vec<std::ffi::OsString> {
    words.iter().map(Into::into).chain([last.into()]).collect()
}

async fn must(program: &Path, args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<()> {
    let args: Vec<_> = args.into_iter().collect();
    let output = run_command(program, &args).await?;
    if output.code != Some(0) {
        let said = super::process::last_lines(&output.stderr);
        bail!(
            "{} {:?} failed (exit code {:?}): {said}",
            program.display(),
            args,
            output.code
        );
    }
    Ok(())
}
