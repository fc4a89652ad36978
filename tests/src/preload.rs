//! Another date and other names for a pair's programs, without changing the machine's: a small library that is loaded before them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

const SOURCE: &str = include_str!("preload/shim.c");

/// What programs that were started with its [`environment`](Self::environment) believe.
#[derive(Debug)]
pub struct Preload {
    directory: TempDir,
}

impl Preload {
    /// Compiles the library with the C compiler that the workspace needs anyway. The date is right and no name is known.
    ///
    /// # Errors
    /// When there is no compiler, or it fails.
    pub fn build() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("wanproxy-preload-")
            .tempdir()?;
        let preload = Self { directory };
        let source = preload.path("shim.c");
        fs::write(&source, SOURCE)?;
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(preload.path("shim.so"))
            .arg(&source)
            .arg("-ldl")
            .output()
            .context("cannot start cc")?;
        if !output.status.success() {
            bail!("cc: {}", String::from_utf8_lossy(&output.stderr));
        }
        preload.set_date_ahead(0)?;
        preload.set_names(&[])?;
        Ok(preload)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What to start a program with.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, PathBuf)> {
        [
            ("LD_PRELOAD", "shim.so"),
            ("WANPROXY_TEST_DATE", "date"),
            ("WANPROXY_TEST_NAMES", "names"),
        ]
        .map(|(name, file)| (name.to_owned(), self.path(file)))
        .to_vec()
    }

    /// From now on the date is so many seconds ahead of the machine's; behind, if it is negative.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_date_ahead(&self, seconds: i64) -> Result<()> {
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path("date"))?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    /// From now on these names have these addresses.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_names(&self, names: &[(&str, &[&str])]) -> Result<()> {
        let lines = names
            .iter()
            .map(|(name, addresses)| format!("{name} {}\n", addresses.join(" ")));
        let fresh = self.path("names.new");
        fs::write(&fresh, lines.collect::<String>())?;
        Ok(fs::rename(fresh, self.path("names"))?)
    }

    /// How often `name` was asked for.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        let text = fs::read_to_string(self.path("names.asked")).unwrap_or_default();
        text.lines().filter(|line| *line == name).count()
    }
}
