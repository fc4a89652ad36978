//! What the system says about a disk.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

/// What users without privileges may still write to the file system that `path` is on, in bytes.
///
/// # Errors
/// What the system said; there may be nothing at `path`.
pub fn free_disk_bytes(path: &Path) -> io::Result<u64> {
    let figures = statvfs(path)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

/// May this program make files in the directory `path`?
///
/// # Errors
/// What the system said: why not.
pub fn is_writable(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_says_what_is_free_and_a_path_that_is_not_there_is_an_error() {
        assert!(free_disk_bytes(Path::new("/")).is_ok());
        for missing in [Path::new("/no/such/directory"), Path::new("")] {
            assert!(free_disk_bytes(missing).is_err());
            assert!(is_writable(missing).is_err());
        }
        assert!(is_writable(&std::env::temp_dir()).is_ok());
    }
}
