//! Private files that survive a crash: made with mode 0600, never through a link, never over another file, whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use super::error::IdentityError;

/// The largest PEM file that is read: a chain of a few certificates takes some KiB.
pub(crate) const MAX_PEM_BYTES: u64 = 256 << 10;

/// Makes a directory (and its parents) that only its owner enters; one that exists must not be writable by others.
pub(crate) fn create_directory(path: &Path) -> Result<(), IdentityError> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(IdentityError::io("create", path))?;
    let mode = std::fs::metadata(path)
        .map_err(IdentityError::io("read", path))?
        .permissions()
        .mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(IdentityError::WritableByOthers {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Writes a file that is not there yet.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let temporary = write_temporary(path, content)?;
    // A link, unlike a rename, refuses to replace what is there.
    let linked = std::fs::hard_link(&temporary, path);
    let _gone = std::fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_directory(path),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Err(IdentityError::Exists {
            path: path.to_owned(),
        }),
        Err(cause) => Err(IdentityError::io("write", path)(cause)),
    }
}

/// Replaces a file, or writes a new one, in one step.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let temporary = write_temporary(path, content)?;
    rename(&temporary, path).inspect_err(|_| {
        let _gone = std::fs::remove_file(&temporary);
    })
}

/// Renames a file over another, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    std::fs::rename(from, to).map_err(IdentityError::io("write", to))?;
    sync_directory(to)
}

/// Reads a whole file of at most `limit_bytes`.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, IdentityError> {
    read_open(
        File::open(path).map_err(IdentityError::io("read", path))?,
        path,
        limit_bytes,
    )
}

/// Reads a whole text file of at most `limit_bytes`; `None` when it is not there.
pub(crate) fn read_text_if_there(
    path: &Path,
    limit_bytes: u64,
) -> Result<Option<String>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(IdentityError::io("read", path)(cause)),
    };
    let content = read_open(file, path, limit_bytes)?;
    String::from_utf8(content)
        .map(Some)
        .map_err(|_| IdentityError::damaged(path, "it is not text"))
}

/// Where a service manager has put this program's credentials (`LoadCredential=`).
pub(crate) fn credentials_directory() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    directory.is_absolute().then_some(directory)
}

/// Reads a private file, which only its owner may read.
pub(crate) fn read_private(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, IdentityError> {
    let credentials = credentials_directory();
    let is_credential = credentials.is_some_and(|directory| path.starts_with(directory));
    read_private_of(path, is_credential, limit_bytes)
}

/// A credential is root's and lent to the service by an access list or its group, either of which shows as a right of the group to read.
fn read_private_of(
    path: &Path,
    is_credential: bool,
    limit_bytes: u64,
) -> Result<Vec<u8>, IdentityError> {
    let open_to_others = if is_credential { 0o037 } else { 0o077 };
    let file = File::open(path).map_err(IdentityError::io("read", path))?;
    // Asked of the open file, so that nobody changes it between the question and the reading.
    let mode = file
        .metadata()
        .map_err(IdentityError::io("read", path))?
        .permissions()
        .mode();
    if mode & open_to_others != 0 {
        return Err(IdentityError::ReadableByOthers {
            path: path.to_owned(),
        });
    }
    read_open(file, path, limit_bytes)
}

/// Holds the authority's directory against other processes until it is dropped.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process holds the lock; holders only read and write a few small files.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(IdentityError::io("lock", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| IdentityError::io("lock", &path)(errno.into()))?;
        Ok(Self { _file: file })
    }
}

fn read_open(file: File, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, IdentityError> {
    let mut content = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut content)
        .map_err(IdentityError::io("read", path))?;
    if content.len() as u64 > limit_bytes {
        return Err(IdentityError::TooLarge {
            path: path.to_owned(),
            limit_bytes,
        });
    }
    Ok(content)
}

/// Writes a file beside `path` that nobody else can have made, and syncs it.
fn write_temporary(path: &Path, content: &[u8]) -> Result<PathBuf, IdentityError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => Ok(temporary),
        Err(cause) => {
            let _gone = std::fs::remove_file(&temporary);
            Err(IdentityError::io("write", path)(cause))
        }
    }
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn sync_directory(file: &Path) -> Result<(), IdentityError> {
    let directory = crate::config::parent(file);
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(IdentityError::io("write", &directory))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_new_file_is_private_and_never_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_new(&path, b"one").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            write_new(&path, b"two"),
            Err(IdentityError::Exists { .. })
        ));
        assert_eq!(read_private(&path, 10).unwrap(), b"one");
        assert_eq!(names(directory.path()), ["key"]);
    }

    #[test]
    fn a_credential_may_be_read_by_its_group_and_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edge.key");
        std::fs::write(&path, b"one").unwrap();
        for (mode, is_credential, good) in [
            (0o400, false, true),
            (0o440, false, false),
            (0o440, true, true),
            (0o444, true, false),
            (0o460, true, false),
            (0o441, true, false),
        ] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).unwrap();
            let read = read_private_of(&path, is_credential, 10);
            assert_eq!(read.is_ok(), good, "{mode:o} {is_credential}");
        }
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (
            directory.path().join("key"),
            directory.path().join("elsewhere"),
        );
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(
            write_new(&path, b"secret"),
            Err(IdentityError::Exists { .. })
        ));
        assert!(!elsewhere.exists());
        replace(&path, b"secret").unwrap();
        assert!(!elsewhere.exists());
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("taken")).unwrap();
        assert!(replace(&directory.path().join("taken"), b"x").is_err());
        assert!(write_new(&directory.path().join("no/such/file"), b"x").is_err());
        assert_eq!(names(directory.path()), ["taken"]);
    }

    #[test]
    fn private_files_are_refused_when_others_may_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_new(&path, b"x").unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let message = read_private(&path, 10).unwrap_err().to_string();
            assert!(
                message.ends_with(&format!("chmod 600 {}", path.display())),
                "{message}"
            );
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        read_private(&path, 10).unwrap();
    }

    #[test]
    fn reading_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_new(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(
            read(&path, 4),
            Err(IdentityError::TooLarge { limit_bytes: 4, .. })
        ));
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        create_directory(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(
            create_directory(&path),
            Err(IdentityError::WritableByOthers { .. })
        ));
    }
}
