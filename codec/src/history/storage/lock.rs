//! One program at a time: the lock file of a directory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// The lock file's name.
pub(super) const LOCK_NAME: &str = "lock";

/// Bytes that are read of it: a process id in digits.
const PID_MAX_BYTES: usize = 16;

/// Holds the directory against other programs until it is dropped, or this one ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// What came of trying for the lock.
pub(super) enum Tried {
    Held(Lock),
    /// Another has it: what it says to be.
    Taken(Option<u32>),
}

impl Lock {
    /// Tries, and does not wait.
    pub fn acquire(root: &OwnedFd) -> io::Result<Tried> {
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NONBLOCK
            | OFlags::NOCTTY;
        let file = File::from(rustix::fs::openat(
            root,
            LOCK_NAME,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Tried::Taken(holder(&file))),
            Err(errno) => return Err(errno.into()),
        }
        // Only for whoever is refused, so a full disk does not matter.
        let pid = format!("{}\n", std::process::id());
        let _written = file
            .set_len(0)
            .and_then(|()| file.write_all_at(pid.as_bytes(), 0));
        Ok(Tried::Held(Self { _file: file }))
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut text = [0; PID_MAX_BYTES];
    let read = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..read)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}
