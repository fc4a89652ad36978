//! Files that are kept open, so that reading a page need not walk to its file each time: bounded for the whole program, however many
//! logs there are.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files kept open. Opening one costs less than reading a page from it, so this need not hold the busy part of every log.
pub(super) const HANDLES_MAX: usize = 128;

/// The open files, by path.
#[derive(Debug, Default)]
pub(super) struct Handles {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<PathBuf, Kept>,
    clock: u64,
    /// Counts removals and renamings: what was opened before one may be another file than the path names after it.
    changes: u64,
}

#[derive(Debug)]
struct Kept {
    file: Arc<File>,
    writable: bool,
    used: u64,
}

/// What [`Handles::get`] says of a file that is not kept; to be given to [`Handles::keep`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Absent {
    changes: u64,
}

impl Handles {
    /// The open file at `path`, if it is kept and may be written where that is wanted.
    pub fn get(&self, path: &Path, writable: bool) -> Result<Arc<File>, Absent> {
        let mut state = self.lock();
        state.clock += 1;
        let clock = state.clock;
        match state.open.get_mut(path) {
            Some(kept) if kept.writable || !writable => {
                kept.used = clock;
                Ok(Arc::clone(&kept.file))
            }
            _ => Err(Absent {
                changes: state.changes,
            }),
        }
    }

    /// Keeps a file that was opened after [`Handles::get`] had not found it, unless names changed meanwhile.
    pub fn keep(&self, path: &Path, file: &Arc<File>, writable: bool, absent: Absent) {
        let mut state = self.lock();
        if state.changes != absent.changes {
            return;
        }
        if state.open.len() >= HANDLES_MAX
            && let Some(oldest) = state
                .open
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(path, _)| path.clone())
        {
            state.open.remove(&oldest);
        }
        let used = state.clock;
        state.open.insert(
            path.to_owned(),
            Kept {
                file: Arc::clone(file),
                writable,
                used,
            },
        );
    }

    /// The names at and below `path` change: to be called after they did.
    pub fn forget(&self, path: &Path) {
        let mut state = self.lock();
        state.changes += 1;
        state.open.retain(|kept, _| !kept.starts_with(path));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn the_least_used_goes_when_there_are_too_many() {
        let handles = Handles::default();
        let path = |n: usize| PathBuf::from(format!("a/{n}"));
        for n in 0..HANDLES_MAX {
            let absent = handles.get(&path(n), false).unwrap_err();
            handles.keep(&path(n), &file(), false, absent);
        }
        handles.get(&path(0), false).unwrap();
        let absent = handles.get(Path::new("b"), false).unwrap_err();
        handles.keep(Path::new("b"), &file(), false, absent);
        assert_eq!(handles.lock().open.len(), HANDLES_MAX);
        assert!(handles.get(&path(0), false).is_ok());
        assert!(handles.get(&path(1), false).is_err());
    }

    #[test]
    fn a_file_that_was_opened_before_its_name_changed_is_not_kept() {
        let handles = Handles::default();
        let absent = handles.get(Path::new("a/x"), true).unwrap_err();
        handles.forget(Path::new("a"));
        handles.keep(Path::new("a/x"), &file(), true, absent);
        let absent = handles.get(Path::new("a/x"), true).unwrap_err();
        handles.keep(Path::new("a/x"), &file(), true, absent);
        assert!(handles.get(Path::new("a/x"), true).is_ok());
        handles.forget(Path::new("a"));
        assert!(handles.get(Path::new("a/x"), false).is_err());
    }

    #[test]
    fn a_file_open_for_reading_is_not_given_to_a_writer() {
        let handles = Handles::default();
        let absent = handles.get(Path::new("x"), false).unwrap_err();
        handles.keep(Path::new("x"), &file(), false, absent);
        assert!(handles.get(Path::new("x"), false).is_ok());
        assert!(handles.get(Path::new("x"), true).is_err());
    }
}
