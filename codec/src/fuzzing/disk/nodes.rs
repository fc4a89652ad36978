//! Files and directories, each as it can be read and as it would be after a crash.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::random::Random;

/// The directory that everything is in.
pub(super) const ROOT: u64 = 0;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    now: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    unsynced: Vec<Naming>,
}

#[derive(Debug, Clone)]
enum Naming {
    Set(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

/// All files and directories of a disk. What has no name any more is kept, for whoever has it open.
#[derive(Debug, Clone)]
pub(super) struct Nodes {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]),
            next: ROOT + 1,
        }
    }
}

impl File {
    pub fn bytes(&self) -> &[u8] {
        &self.now
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.change(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub fn set_length(&mut self, length: u64) {
        self.change(Change::Length(
            usize::try_from(length).unwrap_or(usize::MAX),
        ));
    }

    /// What was changed is durable from now on.
    pub fn settle_changes(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.durable);
        }
    }

    /// What was changed will never be durable, though it can be read.
    pub fn forget_changes(&mut self) {
        self.unsynced.clear();
    }

    /// What can be read is durable.
    pub fn settle(&mut self) {
        self.unsynced.clear();
        self.durable.clone_from(&self.now);
    }

    pub fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.now);
        self.settle();
    }

    pub fn crash(&mut self, random: &mut Random) {
        let mut unsynced = std::mem::take(&mut self.unsynced);
        for at in (1..unsynced.len()).rev() {
            unsynced.swap(at, random.index(at + 1));
        }
        for change in unsynced {
            match random.below(3) {
                0 => {}
                1 => change.apply(&mut self.durable),
                _ => change.apply_torn(&mut self.durable, random),
            }
        }
        self.now.clone_from(&self.durable);
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(to, *offset, bytes),
            Self::Length(length) => to.resize(*length, 0),
        }
    }

    /// Some sectors of it.
    fn apply_torn(&self, to: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { offset, bytes } = self else {
            return self.apply(to);
        };
        let mut at = *offset;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (sector, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
            if random.below(2) == 0 {
                write(to, at, sector);
            }
            at += sector.len();
            rest = behind;
        }
    }
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if to.len() < offset + bytes.len() {
        to.resize(offset + bytes.len(), 0);
    }
    if let Some(place) = to.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Directory {
    pub fn names(&self) -> Vec<String> {
        self.now.keys().cloned().collect()
    }

    /// What can be read is durable.
    pub fn settle(&mut self) {
        self.unsynced.clear();
        self.durable.clone_from(&self.now);
    }

    pub fn crash(&mut self, random: &mut Random) {
        for naming in std::mem::take(&mut self.unsynced) {
            if random.below(2) == 0 {
                naming.apply(&mut self.durable);
            }
        }
        self.now.clone_from(&self.durable);
    }

    fn change(&mut self, naming: Naming) {
        naming.apply(&mut self.now);
        self.unsynced.push(naming);
    }
}

impl Naming {
    fn apply(&self, to: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, node) => {
                to.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                to.remove(name);
            }
            Self::Rename(from, name, node) => {
                to.remove(from);
                to.insert(name.clone(), *node);
            }
        }
    }
}

impl Nodes {
    pub fn get(&self, node: u64) -> Option<&Node> {
        self.nodes.get(&node)
    }

    pub fn get_mut(&mut self, node: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&node)
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.values_mut()
    }

    /// Bytes of all files that have a name.
    pub fn bytes(&self) -> u64 {
        let length = |path: PathBuf| match self.get(self.find(&path).ok()?)? {
            Node::File(file) => Some(file.bytes().len() as u64),
            Node::Directory(_) => None,
        };
        self.files().into_iter().filter_map(length).sum()
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = directories.pop() {
            let Some(Node::Directory(directory)) = self.get(node) else {
                continue;
            };
            for (name, &node) in &directory.now {
                match self.get(node) {
                    Some(Node::File(_)) => files.push(path.join(name)),
                    _ => directories.push((path.join(name), node)),
                }
            }
        }
        files.sort();
        files
    }

    pub fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for name in names(path)? {
            match self.get(at) {
                Some(Node::Directory(directory)) => {
                    at = *directory.now.get(name).ok_or(Errno::NOENT)?;
                }
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(at)
    }

    pub fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        let node = self.find(path)?;
        match self.get_mut(node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub fn create(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        let number = self.next;
        let (parent, name) = split(path)?;
        self.directory(parent)?.change(Naming::Set(name, number));
        self.nodes.insert(number, node);
        self.next += 1;
        Ok(number)
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        self.directory(parent)?.change(Naming::Remove(name));
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let ((parent, from), (to_parent, name)) = (split(from)?, split(to)?);
        // Nothing here moves from one directory to another.
        if parent != to_parent {
            return Err(Errno::XDEV.into());
        }
        let replaced = self.find(to).ok().and_then(|node| self.get(node));
        if let Some(Node::Directory(directory)) = replaced
            && !directory.now.is_empty()
        {
            return Err(Errno::NOTEMPTY.into());
        }
        self.directory(parent)?
            .change(Naming::Rename(from, name, node));
        Ok(())
    }
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    path.components()
        .map(|component| match component {
            Component::Normal(name) => name.to_str().ok_or_else(|| Errno::INVAL.into()),
            _ => Err(Errno::INVAL.into()),
        })
        .collect()
}

fn split(path: &Path) -> io::Result<(&Path, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let parent = path.parent().ok_or(Errno::INVAL)?;
    Ok((parent, name.ok_or(Errno::INVAL)?.to_owned()))
}
