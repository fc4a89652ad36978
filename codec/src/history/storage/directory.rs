//! The real storage: a directory of this machine. Every step to a file goes by one plain name from an open directory, and never
//! through a link, so nothing outside the directory can be reached.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::gate::Gate;
use super::handles::Handles;
use super::lock::{LOCK_NAME, Lock, Tried};
use super::{LIST_MAX, Open, Storage, StorageFile};

/// Permissions that nobody but the owner may have.
const OPEN_TO_OTHERS: u32 = 0o077;

/// How deep a directory that is removed may be: ours are not, but others may have been put there. Each level takes a descriptor.
const DEPTH_MAX: usize = 16;

/// A directory, locked for this program.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
    handles: Handles,
    gate: Gate,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another program has it open.
    #[error("{} is in use by another program{}", .path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, as far as it says so.
        pid: Option<u32>,
    },
    /// It belongs to another user.
    #[error("{} belongs to user {owner}, not to the user that runs this program ({user})", .path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
        /// The id of this program's user.
        user: u32,
    },
    /// Others than its owner may enter it.
    #[error("{path} is open to other users (mode {mode:03o}): chmod 700 {path}", path = .path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system does not let us.
    #[error("cannot open {}: {cause}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

impl Directory {
    /// Opens a directory for this program alone; it is made, for its owner only, if it is not there.
    ///
    /// # Errors
    /// [`OpenError`]: in use, not ours, open to others, or what the system says.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |cause: io::Error| OpenError::Io {
            path: path.to_owned(),
            cause,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|cause| match cause.kind() {
                // What is there is none, and "exists" says nothing to anybody.
                io::ErrorKind::AlreadyExists => io(Errno::NOTDIR.into()),
                _ => io(cause),
            })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io(errno.into()))?;
        // Asked of the open directory, so that nobody exchanges it between the question and its use.
        let stat = rustix::fs::fstat(&root).map_err(|errno| io(errno.into()))?;
        let user = rustix::process::geteuid().as_raw();
        if stat.st_uid != user {
            return Err(OpenError::Owner {
                path: path.to_owned(),
                owner: stat.st_uid,
                user,
            });
        }
        let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
        if mode & OPEN_TO_OTHERS != 0 {
            return Err(OpenError::OpenToOthers {
                path: path.to_owned(),
                mode,
            });
        }
        let lock = Lock::acquire(&root).map_err(|cause| OpenError::Io {
            path: path.join(LOCK_NAME),
            cause,
        })?;
        match lock {
            Tried::Held(lock) => Ok(Self {
                root,
                handles: Handles::default(),
                gate: Gate::new(lock),
            }),
            Tried::Taken(pid) => Err(OpenError::InUse {
                path: path.to_owned(),
                pid,
            }),
        }
    }

    /// The open directory that holds the last name of `path`, and that name.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(Step<'_>, &'p OsStr)> {
        let mut at = Step::Root(self.root.as_fd());
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else {
                break;
            };
            if components.peek().is_none() {
                return Ok((at, name));
            }
            at = Step::Below(open_directory(at.as_fd(), name)?);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path that does not name a file in the directory",
        ))
    }

    fn opened(&self, file: Arc<File>) -> OpenFile {
        OpenFile {
            file,
            gate: self.gate.clone(),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return open_directory(self.root.as_fd(), OsStr::new("."));
        }
        let (parent, name) = self.parent(path)?;
        open_directory(parent.as_fd(), name)
    }
}

/// A directory on the way to a file.
enum Step<'d> {
    Root(BorrowedFd<'d>),
    Below(OwnedFd),
}

impl AsFd for Step<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

impl Storage for Directory {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let _inside = self.gate.enter()?;
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(parent.as_fd(), name, Mode::RWXU) {
            // Whatever has the name must be a directory, not a link to one.
            Err(Errno::EXIST) => open_directory(parent.as_fd(), name).map(drop),
            made => Ok(made?),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let directory = self.directory(path)?;
        let mut names = Vec::new();
        each_name(directory.as_fd(), |name| {
            if names.len() == LIST_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "more files than a log can have",
                ));
            }
            // Our own names are ASCII; what is not ours need not be understood.
            if let Ok(name) = std::str::from_utf8(name) {
                names.push(name.to_owned());
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn StorageFile>> {
        let writable = mode == Open::Write;
        let _inside = writable.then(|| self.gate.enter()).transpose()?;
        let absent = match self.handles.get(path, writable) {
            Ok(file) => return Ok(Arc::new(self.opened(file))),
            Err(absent) => absent,
        };
        let (parent, name) = self.parent(path)?;
        let flags = match mode {
            Open::Read => OFlags::RDONLY,
            Open::Write => OFlags::RDWR | OFlags::CREATE,
        };
        // A pipe that somebody put there must not hold us up.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(parent.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let file = Arc::new(File::from(file));
        self.handles.keep(path, &file, writable, absent);
        Ok(Arc::new(self.opened(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _inside = self.gate.enter()?;
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let renamed =
            rustix::fs::renameat(from_parent.as_fd(), from_name, to_parent.as_fd(), to_name);
        self.handles.forget(from);
        self.handles.forget(to);
        Ok(renamed?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let _inside = self.gate.enter()?;
        let (parent, name) = self.parent(path)?;
        let removed = rustix::fs::unlinkat(parent.as_fd(), name, AtFlags::empty());
        self.handles.forget(path);
        Ok(removed?)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let _inside = self.gate.enter()?;
        let (parent, name) = self.parent(path)?;
        let removed = remove_tree(parent.as_fd(), name, DEPTH_MAX);
        self.handles.forget(path);
        removed
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.directory(path)?)?)
    }

    fn release(&self) {
        self.gate.close();
    }
}

#[derive(Debug)]
struct OpenFile {
    file: Arc<File>,
    gate: Gate,
}

impl StorageFile for OpenFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = out.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _inside = self.gate.enter()?;
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // The length is synced with the bytes; only times are not.
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let _inside = self.gate.enter()?;
        self.file.set_len(length)
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn each_name(
    directory: BorrowedFd<'_>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            take(name)?;
        }
    }
    Ok(())
}

fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    let directory = open_directory(parent, name)?;
    loop {
        // As many at a time as may be listed.
        let mut names = Vec::new();
        each_name(directory.as_fd(), |name| {
            if names.len() < LIST_MAX {
                names.push(OsStr::from_bytes(name).to_owned());
            }
            Ok(())
        })?;
        if names.is_empty() {
            return Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?);
        }
        for name in names {
            match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
                // What Linux and what POSIX say of a directory.
                Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {
                    remove_tree(directory.as_fd(), &name, depth - 1)?;
                }
                removed => removed?,
            }
        }
    }
}

#[cfg(test)]
mod tests;
