//! What stands before each write: it is open while this program has the directory's lock, and closes for good when it gives the lock away.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rustix::io::Errno;

use super::lock::Lock;

/// Shared by a directory and all files opened in it.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<RwLock<Option<Lock>>>);

impl Gate {
    /// An open gate; `lock` is held until it closes.
    pub fn new(lock: Lock) -> Self {
        Self(Arc::new(RwLock::new(Some(lock))))
    }

    /// Lets one write in, for as long as the guard lives.
    ///
    /// # Errors
    /// [`io::ErrorKind::ReadOnlyFilesystem`] once it is closed.
    pub fn enter(&self) -> io::Result<RwLockReadGuard<'_, Option<Lock>>> {
        let guard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() {
            Ok(guard)
        } else {
            Err(Errno::ROFS.into())
        }
    }

    /// Closes it once nobody is inside, and gives up the lock.
    pub fn close(&self) {
        drop(
            self.0
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}
