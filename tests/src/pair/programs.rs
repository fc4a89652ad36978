//! Where the two programs are: built through cargo when a cargo runs us, else beside our own executable.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The executables of both edges.
#[derive(Clone, Debug)]
pub struct Programs {
    client: PathBuf,
    server: PathBuf,
}

/// What becomes of cargo's own progress output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// It goes to stderr, for someone who waits.
    Progress,
    /// It is kept for the error message.
    Nothing,
}

impl Programs {
    /// Builds both programs once a process, in the profile and target directory of the running executable: `cargo run`
    /// and `cargo test` do not build the programs of other packages by themselves. Blocks while cargo works.
    ///
    /// # Errors
    /// When cargo fails (its last lines are in the message), or when there is no cargo and no program beside this
    /// executable.
    pub fn find(show: Show) -> Result<Self> {
        static FOUND: OnceLock<Result<Programs, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| find(show).map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(|message| anyhow!(message))
    }

    /// The client edge's executable.
    #[must_use]
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// The server edge's executable.
    #[must_use]
    pub fn server(&self) -> &Path {
        &self.server
    }
}

fn find(show: Show) -> Result<Programs> {
    let executable = std::env::current_exe().context("cannot tell where this executable is")?;
    let place = Place::of(&executable).context("this executable stands in no directory")?;
    match std::env::var_os("CARGO") {
        Some(cargo) => build(Path::new(&cargo), &place, show)?,
        None => {
            for name in ["wanproxy-client", "wanproxy-server"] {
                ensure!(
                    place.program(name).exists(),
                    "no {name} beside {}: start this through cargo, or build it there (cargo build -p {name})",
                    executable.display()
                );
            }
        }
    }
    Ok(Programs {
        client: place.program("wanproxy-client"),
        server: place.program("wanproxy-server"),
    })
}

/// The place of an executable within a cargo target directory.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Holds the executables of its profile.
    directory: PathBuf,
}

impl Place {
    /// Test programs stand in `deps`, one level below the others.
    fn of(executable: &Path) -> Option<Self> {
        let directory = executable.parent()?;
        let directory = if directory.ends_with("deps") {
            directory.parent()?
        } else {
            directory
        };
        Some(Self {
            directory: directory.to_owned(),
        })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory
            .join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    }

    /// The options that make cargo build into this directory: `TARGET_DIR[/TRIPLE]/PROFILE`. Cargo marks a target
    /// directory that it has made by one file, and any by another.
    fn cargo_options(&self) -> Option<Vec<std::ffi::OsString>> {
        let profile = match self.directory.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        let mut options: Vec<std::ffi::OsString> = vec!["--profile".into(), profile.into()];
        let mut target = self.directory.parent()?;
        let is_target = |file: &str| target.join(file).exists();
        if !is_target("CACHEDIR.TAG") && !is_target(".rustc_info.json") {
            let triple = target.file_name()?;
            options.extend(["--target".into(), triple.to_owned()]);
            target = target.parent()?;
        }
        options.extend(["--target-dir".into(), target.as_os_str().to_owned()]);
        Some(options)
    }
}

fn build(cargo: &Path, place: &Place, show: Show) -> Result<()> {
    let options = place
        .cargo_options()
        .with_context(|| format!("{} is no target directory", place.directory.display()))?;
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--locked",
            "-p",
            "wanproxy-client",
            "-p",
            "wanproxy-server",
        ])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if show == Show::Progress {
            Stdio::inherit()
        } else {
            Stdio::piped()
        });
    // What cargo says about this package would look like a change of the build scripts' surroundings.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ]
        .iter()
        .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", cargo.display()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "cargo could not build the two programs ({}): {}",
            output.status,
            super::process::last_lines(&text)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn options_lead_back_to_the_directory_of_the_executable() {
        for mark in ["CACHEDIR.TAG", ".rustc_info.json"] {
            lead_back(mark);
        }
    }

    fn lead_back(mark: &str) {
        let target = tempfile::tempdir().unwrap();
        std::fs::write(target.path().join(mark), "").unwrap();
        let options = |inside: &str| {
            let place = Place::of(&target.path().join(inside)).unwrap();
            let words = place.cargo_options().unwrap();
            words
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let here = target.path().display();
        assert_eq!(
            options("debug/deps/transfer-1234"),
            format!("--profile dev --target-dir {here}")
        );
        assert_eq!(
            options("release/wanproxy-demo"),
            format!("--profile release --target-dir {here}")
        );
        assert_eq!(
            options("x86_64-unknown-linux-gnu/release/wanproxy-demo"),
            format!("--profile release --target x86_64-unknown-linux-gnu --target-dir {here}")
        );
    }
}
