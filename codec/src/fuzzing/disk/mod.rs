//! A disk in memory that fails, fills up, tears and forgets, for tests of everything that stands on [`Storage`].
//!
//! It keeps what was written and what is durable apart. Until a file is synced, each change of it may survive a crash or not, in any
//! order and torn at sectors; until a directory is synced, so may each change of a name in it. A sync that fails forgets what it should have made
//! durable, as systems do, though it can still be read until the crash.

mod nodes;
mod random;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodes::{Directory, File, Node, Nodes, ROOT};
use random::Random;
use rustix::io::Errno;

use crate::storage::{Open, Storage, StorageFile};

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Operations that fail, counted from 0 as [`MemoryDisk::operations`] does. A write that fails has written half.
    pub failing: Range<u64>,
    /// Bytes that all files together may have.
    pub space_bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Nodes,
    faults: Faults,
    operations: u64,
    /// Counts crashes: what was opened before one is of no use after it.
    life: u64,
}

#[derive(Debug)]
struct OpenFile {
    disk: MemoryDisk,
    node: u64,
    life: u64,
}

impl MemoryDisk {
    /// How many operations there were, failed ones included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The machine loses power: what was not synced survives as `seed` decides. Whatever was open is not any more, and nothing fails any longer.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = Random(seed);
        for node in state.nodes.all() {
            match node {
                Node::File(file) => file.crash(&mut random),
                Node::Directory(directory) => directory.crash(&mut random),
            }
        }
        state.life += 1;
        state.faults = Faults::default();
    }

    /// Another disk with what can be read of this one, all of it durable: a copied or a saved directory.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut nodes = self.state().nodes.clone();
        for node in nodes.all() {
            match node {
                Node::File(file) => file.settle(),
                Node::Directory(directory) => directory.settle(),
            }
        }
        let state = State {
            nodes,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The files, by path.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().nodes.files()
    }

    /// Bytes of a file; `None` if it is not there.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.nodes.get(state.nodes.find(path).ok()?) {
            Some(Node::File(file)) => Some(file.bytes().to_vec()),
            _ => None,
        }
    }

    /// Changes a file behind everybody's back, durably. Nothing if it is not there.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Ok(node) = state.nodes.find(path)
            && let Some(Node::File(file)) = state.nodes.get_mut(node)
        {
            file.damage(change);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation: the disk, if it does not fail.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let (state, fails) = self.counted();
        if fails { Err(broken()) } else { Ok(state) }
    }

    fn counted(&self) -> (MutexGuard<'_, State>, bool) {
        let mut state = self.state();
        let fails = state.faults.failing.contains(&state.operations);
        state.operations += 1;
        (state, fails)
    }
}

fn broken() -> io::Error {
    Errno::IO.into()
}

impl Storage for MemoryDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        match state.nodes.find(path) {
            Ok(node) => match state.nodes.get(node) {
                Some(Node::Directory(_)) => Ok(()),
                _ => Err(Errno::NOTDIR.into()),
            },
            Err(_) => state
                .nodes
                .create(path, Node::Directory(Directory::default()))
                .map(drop),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.operation()?;
        Ok(state.nodes.directory(path)?.names())
    }

    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.operation()?;
        let node = match state.nodes.find(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && mode == Open::Write => {
                state.nodes.create(path, Node::File(File::default()))?
            }
            found => found?,
        };
        if !matches!(state.nodes.get(node), Some(Node::File(_))) {
            return Err(Errno::ISDIR.into());
        }
        Ok(Arc::new(OpenFile {
            disk: self.clone(),
            node,
            life: state.life,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?.nodes.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        let node = state.nodes.find(path)?;
        match state.nodes.get(node) {
            Some(Node::File(_)) => state.nodes.remove(path),
            _ => Err(Errno::ISDIR.into()),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        let node = state.nodes.find(path)?;
        match state.nodes.get(node) {
            Some(Node::Directory(_)) if node != ROOT => state.nodes.remove(path),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operation()?;
        state.nodes.directory(path)?.settle();
        Ok(())
    }
}

impl OpenFile {
    /// Counts an operation and does it on the file, told whether it fails.
    fn with<R>(&self, act: impl FnOnce(&mut File, bool) -> io::Result<R>) -> io::Result<R> {
        let (mut state, fails) = self.disk.counted();
        if state.life != self.life {
            return Err(broken());
        }
        match state.nodes.get_mut(self.node) {
            Some(Node::File(file)) => act(file, fails),
            _ => Err(broken()),
        }
    }

    /// Bytes by which the file may still grow.
    fn room_bytes(&self) -> u64 {
        let state = self.disk.state();
        let all = state.faults.space_bytes.unwrap_or(u64::MAX);
        all.saturating_sub(state.nodes.bytes())
    }
}

impl StorageFile for OpenFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|file, fails| {
            if fails {
                return Err(broken());
            }
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = file.bytes().get(from..).unwrap_or_default();
            let read = rest.len().min(out.len());
            for (to, from) in out.iter_mut().zip(rest) {
                *to = *from;
            }
            Ok(read)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.room_bytes();
        self.with(|file, fails| {
            let most = (file.bytes().len() as u64).saturating_add(room);
            let fits = usize::try_from(most.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (written, result) = if fails {
                (bytes.len() / 2, Err(broken()))
            } else if bytes.len() > fits {
                (fits, Err(Errno::NOSPC.into()))
            } else {
                (bytes.len(), Ok(()))
            };
            let written = bytes.get(..written.min(fits)).unwrap_or_default();
            file.write(offset, written);
            result
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|file, fails| {
            if fails {
                file.forget_changes();
                return Err(broken());
            }
            file.settle_changes();
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|file, fails| {
            if fails {
                Err(broken())
            } else {
                Ok(file.bytes().len() as u64)
            }
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|file, fails| {
            if fails {
                return Err(broken());
            }
            file.set_length(length);
            Ok(())
        })
    }
}
