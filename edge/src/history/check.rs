//! What `check` says of `[history] directory`.

use std::io;
use std::path::Path;

use tunnel::histories::{OpenDirectory, OpenError};

use crate::cli::Failure;
use crate::config::{HistoryConfig, Size};
use crate::lifecycle::size_on_disk;
use crate::os;

/// Looks whether histories could be kept in the configured directory; one sentence about it. None is made.
///
/// # Errors
/// They could not.
pub fn check(history: &HistoryConfig) -> Result<Option<String>, Failure> {
    let Some(directory) = &history.directory else {
        return Ok(None);
    };
    let shown = directory.display();
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!("[history] directory cannot be used: {error}"))
    };
    match std::fs::symlink_metadata(directory) {
        Ok(_) => match OpenDirectory::open(directory) {
            Ok(opened) => {
                let held_bytes = opened.held_bytes();
                let size = rounded(size_on_disk(history, directory, held_bytes));
                let held = rounded(held_bytes);
                Ok(Some(format!(
                    "{shown} holds {held} of histories and could take {size}."
                )))
            }
            Err(error @ OpenError::InUse { .. }) => Ok(Some(format!(
                "{error}; unless that is this very edge, histories would be in memory."
            ))),
            Err(error) => Err(unusable(&error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = existing_above(directory);
            os::is_writable(above)
                .map_err(|cause| unusable(&format!("cannot make {shown}: {cause}")))?;
            let size = rounded(size_on_disk(history, above, 0));
            Ok(Some(format!(
                "{shown} would be made and could take {size}."
            )))
        }
        Err(cause) => Err(unusable(&format!("cannot open {shown}: {cause}"))),
    }
}

/// The nearest directory above that exists.
fn existing_above(path: &Path) -> &Path {
    let named = |above: &&Path| !above.as_os_str().is_empty();
    path.ancestors()
        .skip(1)
        .filter(named)
        .find(|above| above.exists())
        .unwrap_or(Path::new("."))
}

/// For people: whole mebibytes.
fn rounded(bytes: u64) -> Size {
    Size::from_bytes(bytes >> 20 << 20)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::ClientConfig;

    fn config(directory: &Path) -> HistoryConfig {
        let text =
            "[tunnel]\nserver = [\"hq:1\"]\n[history]\ndirectory = \"history\"\nsize = \"1GiB\"\n";
        ClientConfig::parse(text, &directory.join("client.toml"))
            .unwrap()
            .history
    }

    #[test]
    fn a_directory_is_looked_at_and_none_is_made() {
        let above = tempfile::tempdir().unwrap();
        let history = config(above.path());
        let directory = history.directory.clone().unwrap();
        let line = check(&history).unwrap().unwrap();
        assert!(
            line.ends_with("would be made and could take 1GiB."),
            "{line}"
        );
        assert!(!directory.exists());
        drop(OpenDirectory::open(&directory).unwrap());
        let line = check(&history).unwrap().unwrap();
        assert!(
            line.ends_with("holds 0B of histories and could take 1GiB."),
            "{line}"
        );
        let held = OpenDirectory::open(&directory).unwrap();
        let line = check(&history).unwrap().unwrap();
        let pid = std::process::id().to_string();
        assert!(line.contains("in use") && line.contains(&pid), "{line}");
        drop(held);
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = check(&history).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::write(&directory, "a file").unwrap();
        let error = check(&history).unwrap_err();
        assert!(matches!(error, Failure::Usage(_)), "{error}");
    }

    #[test]
    fn a_missing_directory_is_made_below_the_nearest_that_exists() {
        assert_eq!(existing_above(Path::new("/no/such/place")), Path::new("/"));
        assert_eq!(existing_above(Path::new("history")), Path::new("."));
    }
}
