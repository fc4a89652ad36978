//! What stands under one of our names and cannot be what we put there (a directory, a link, a pipe) is set aside, so that it is in nobody's way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::{Open, Storage, StorageFile};

/// Opens a file to be written. What has its name and is no regular file is set aside.
///
/// # Errors
/// What the system says.
pub fn open_to_write(storage: &dyn Storage, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
    match storage.open(path, Open::Write) {
        Err(cause) if is_no_file(&cause) => {
            set_aside(storage, path)?;
            storage.open(path, Open::Write)
        }
        opened => opened,
    }
}

/// Renames a file to a name of ours in one step. A directory that has the name is set aside.
///
/// # Errors
/// What the system says.
pub fn replace(storage: &dyn Storage, from: &Path, to: &Path) -> io::Result<()> {
    match storage.rename(from, to) {
        Err(cause) if is_no_file(&cause) => {
            set_aside(storage, to)?;
            storage.rename(from, to)
        }
        renamed => renamed,
    }
}

/// Renames what has a name to `NAME.aside`. What was set aside before goes.
pub(crate) fn set_aside(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    let aside = aside(path);
    remove_any(storage, &aside)?;
    storage.rename(path, &aside)
}

/// Removes a file or a link, if one has the name; a directory is set aside.
pub(crate) fn clear_name(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) if is_no_file(&cause) => set_aside(storage, path),
        removed => removed,
    }
}

/// Removes what has a name, if anything has.
pub(crate) fn remove_any(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => storage.remove_dir_all(path),
        removed => removed,
    }
}

pub(crate) fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".aside");
    path.with_file_name(name)
}

/// Whether an error says that what has the name is no regular file.
fn is_no_file(cause: &io::Error) -> bool {
    let refusals = [Errno::ISDIR, Errno::LOOP, Errno::NXIO];
    match cause.raw_os_error() {
        Some(code) => refusals.contains(&Errno::from_raw_os_error(code)),
        // Of [`Storage::open`].
        None => cause.kind() == io::ErrorKind::InvalidInput,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::super::Directory;
    use super::*;

    #[test]
    fn whatever_has_the_name_makes_way_and_is_not_touched() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("history");
        let storage = Directory::open(&root).unwrap();
        let (name, victim) = (Path::new("file"), outside.path().join("victim"));
        let write = || open_to_write(&storage, name).unwrap().write_at(b"ours", 0);
        let is_ours = || assert_eq!(std::fs::read(root.join(name)).unwrap(), b"ours");
        std::fs::write(&victim, b"theirs").unwrap();
        std::fs::create_dir_all(root.join("file/below")).unwrap();
        write().unwrap();
        is_ours();
        assert!(root.join("file.aside/below").is_dir());
        std::fs::remove_file(root.join(name)).unwrap();
        symlink(&victim, root.join(name)).unwrap();
        storage.rename(name, name).unwrap();
        write().unwrap();
        is_ours();
        // The directory went, and the link is there instead of it.
        assert!(root.join("file.aside").is_symlink());
        std::fs::create_dir(root.join("place")).unwrap();
        replace(&storage, name, Path::new("place")).unwrap();
        assert_eq!(std::fs::read(root.join("place")).unwrap(), b"ours");
        assert_eq!(std::fs::read(&victim).unwrap(), b"theirs");
    }

    #[test]
    fn an_error_that_says_nothing_of_it_moves_nothing() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("history");
        let storage = Directory::open(&root).unwrap();
        std::fs::write(root.join("file"), b"ours").unwrap();
        storage.release();
        assert!(open_to_write(&storage, Path::new("file")).is_err());
        assert!(root.join("file").is_file() && !root.join("file.aside").exists());
    }
}
