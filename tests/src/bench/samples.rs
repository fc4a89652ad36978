//! What is moved as software: an archive of files that are on the machine anyway, or of those that were named.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use std::io::Read;

/// Directories with programs, libraries and sources, on Debian and others.
const DIRECTORIES: [&str; 3] = ["/usr/include", "/usr/lib", "/usr/share/doc"];

/// Two different archives of `bytes` each: one for each direction, since a history serves both.
pub(super) fn software(paths: &[PathBuf], bytes: usize) -> Result<[Bytes; 2]> {
    let mut paths = paths.to_vec();
    if paths.is_empty() {
        paths.extend(
            DIRECTORIES
                .map(PathBuf::from)
                .into_iter()
                .filter(|path| path.exists()),
        );
    }
    let mut child = Command::new("tar")
        .args(["--create", "--sort=name", "--file=-", "--"])
        .args(&paths)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run tar")?;
    let mut archive = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(2 * bytes as u64).read_to_end(&mut archive)?;
    }
    // It has more to say than was asked for.
    let _ended = child.kill();
    child.wait()?;
    if archive.len() < 2 * bytes {
        bail!(
            "the archive of {paths:?} has {} bytes and {} are needed: name more by --software",
            archive.len(),
            2 * bytes
        );
    }
    let mut archive = Bytes::from(archive);
    let down = archive.split_off(bytes);
    Ok([archive, down])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn both_archives_have_the_length_asked_for_and_differ() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), vec![b'a'; 5000]).unwrap();
        std::fs::write(directory.path().join("b"), vec![b'b'; 5000]).unwrap();
        let paths = [directory.path().to_owned()];
        let [up, down] = software(&paths, 4000).unwrap();
        assert_eq!((up.len(), down.len()), (4000, 4000));
        assert_ne!(up, down);
        assert!(software(&paths, 1 << 20).is_err());
    }
}
