//! Where histories keep their files: a private directory behind a trait, so that tests can fail, tear and forget every operation.

mod aside;
mod directory;
mod gate;
mod handles;
mod lock;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use aside::{aside, clear_name, remove_any, set_aside};
pub use aside::{open_to_write, replace};
pub use directory::{Directory, OpenError};

use rustix::io::Errno;

/// Names that [`Storage::list`] gives at most: far above the files of a log of 1 TiB (two a segment of 64 MiB).
pub const LIST_MAX: usize = 1 << 16;

/// One private directory. Paths are relative to it and made of plain names; what is not there is [`io::ErrorKind::NotFound`].
///
/// Nothing survives a crash of the machine for sure but what was synced: bytes by [`StorageFile::sync`], names by [`Storage::sync_dir`].
pub trait Storage: Send + Sync + fmt::Debug {
    /// Makes a directory; fine if it is there.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidData`] for more than [`LIST_MAX`] names.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Opens a regular file, never through a link.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] if it is not a regular file.
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames a file or a directory; a file that has the name already is replaced in one step.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file (or a link). Who has it open may go on reading it.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// What the system says; a part may be gone then.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable; the empty path is the directory itself.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Leaves the directory to another program: from here on nothing is written through this one, and what is tried fails with
    /// [`io::ErrorKind::ReadOnlyFilesystem`]; reading goes on. Waits for what is being written.
    fn release(&self) {}
}

/// Whether an error says nothing about the file: it may well be good, and there the next time.
pub(crate) fn is_passing(cause: &io::Error) -> bool {
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::INTR,
        Errno::AGAIN,
        Errno::ACCESS,
        Errno::PERM,
        Errno::ROFS,
    ];
    cause
        .raw_os_error()
        .is_some_and(|code| passing.contains(&Errno::from_raw_os_error(code)))
}

/// Whether an error says that the medium does not give the bytes.
pub(crate) fn is_unreadable(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// To be read; it must be there.
    Read,
    /// To be read and written; it is made if it is not there.
    Write,
}

/// An open file. Several threads may use it at once.
pub trait StorageFile: Send + Sync + fmt::Debug {
    /// Reads from `offset` until `out` is full or the file ends: how many bytes were read.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error, any part of them may be there.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes durable what was written. After an error, whatever was written since the last success may be lost, and must be written again
    /// before it is synced again: a system may report a failed write once only.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or fills it up with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_length(&self, length: u64) -> io::Result<()>;
}
