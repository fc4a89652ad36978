//! Ends whose histories are in a real directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use codec::cache::PageCache;
use codec::storage::{Directory, Storage};

use super::{End, agree, config};

pub const MIB: u64 = 1 << 20;
pub const BLOCK: usize = 128 << 10;

/// A directory with both ends of a domain in it.
pub struct Desk {
    // Before the directory is removed, its lock goes.
    pub storage: Arc<dyn Storage>,
    pub cache: Arc<PageCache>,
    openings: u8,
    pub dir: tempfile::TempDir,
}

impl Desk {
    pub fn new(cache_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(&dir.path().join("history")).unwrap();
        Self {
            storage: Arc::new(storage),
            cache: Arc::new(PageCache::new(cache_bytes).with_unsaved_max(32 * MIB, 64 * MIB)),
            openings: 0,
            dir,
        }
    }

    pub fn end(&mut self, name: &str, capacity_bytes: u64) -> End {
        self.openings += 1;
        let config = config(capacity_bytes, self.openings);
        End::on_disk(&self.storage, name, config, &self.cache)
    }

    pub fn pair(&mut self, capacity_bytes: u64) -> [End; 2] {
        let ends = ["a", "b"].map(|name| self.end(name, capacity_bytes));
        agree(&ends[0], &ends[1]);
        ends
    }

    pub fn files(&self, of: &str, extension: &str) -> Vec<std::path::PathBuf> {
        let dir = self.dir.path().join("history").join(of);
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        files
    }
}

pub fn flush(end: &End) -> u64 {
    let flush = end.domain.flush();
    assert!(flush.error.is_none(), "{:?}", flush.error);
    flush.pages
}

/// Changes the bit that is so many bytes before the end.
pub fn flip(path: &Path, before_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - before_end;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
