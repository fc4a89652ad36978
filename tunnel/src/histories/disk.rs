//! Histories in a directory: which are there, under which names, and who has how much room reserved.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::cache::PageCache;
use codec::domain::{Domain, DomainConfig, Place};
use codec::storage::{Directory, Open, Storage, open_to_write, replace};
use codec::survey::{Found, not_understood, survey};

use super::rooms::{Rooms, SMALL_BYTES};
use super::{Key, Lean, QuotaOf, key};

pub use codec::storage::OpenError;

/// The file with the size that rooms were given by, and with each peer's room. Without it rooms are what the manifests say.
const ROOMS_FILE: &str = "rooms";
const NEW_ROOMS_FILE: &str = "rooms.new";

/// The first line of that file.
const ROOMS_HEAD: &str = "wanproxy rooms 1";

/// The longest such file: tens of thousands of peers.
const ROOMS_MAX_BYTES: usize = 4 << 20;

/// A directory that this program has for itself, and what was found in it.
#[derive(Debug)]
pub struct OpenDirectory {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    found: Vec<Found>,
}

impl OpenDirectory {
    /// Opens it, made if it is not there, and looks what it holds. This is file work.
    ///
    /// # Errors
    /// It is in use, or cannot be used.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let storage: Arc<dyn Storage> = Arc::new(Directory::open(path)?);
        Self::on(storage, path).map_err(|cause| OpenError::Io {
            path: path.to_owned(),
            cause,
        })
    }

    /// What `storage` holds; `path` is its name in messages.
    ///
    /// # Errors
    /// Its names cannot be read.
    pub fn on(storage: Arc<dyn Storage>, path: &Path) -> io::Result<Self> {
        Ok(Self {
            found: survey(&*storage)?,
            storage,
            path: path.to_owned(),
        })
    }

    /// Logs in it whose manifest is damaged, by their place in it; they are set aside when they are opened. This is file work.
    pub fn damaged_logs(&self) -> Vec<PathBuf> {
        not_understood(&*self.storage).unwrap_or_default()
    }

    /// The size that it was used with last, for a program that changes nothing about that.
    pub fn saved_size_bytes(&self) -> u64 {
        let rooms = self
            .found
            .iter()
            .fold(0u64, |sum, found| sum.saturating_add(found.capacity_bytes));
        SavedRooms::read(&*self.storage)
            .size_bytes
            .map_or(rooms, |saved| saved.max(rooms))
    }

    /// What histories take in it already.
    pub fn held_bytes(&self) -> u64 {
        self.found.iter().map(|found| found.held_bytes).sum()
    }
}

/// The directory of running histories.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) path: PathBuf,
    cache: Arc<PageCache>,
    /// Histories that an earlier start of the program has left and that were not opened since, and what they take.
    found: Mutex<BTreeMap<Key, u64>>,
    /// Somebody came for whom no room was left, and that was said.
    is_no_room_told: AtomicBool,
}

impl Disk {
    /// Takes the directory over, with the rooms that it has given.
    pub(super) fn new(
        directory: OpenDirectory,
        cache_bytes: u64,
        (lean, size_bytes, small_bytes): (Lean, u64, u64),
        quota_of: &QuotaOf,
    ) -> (Self, Rooms) {
        let OpenDirectory {
            storage,
            path,
            found,
        } = directory;
        let saved = SavedRooms::read(&*storage);
        let mut rooms = Rooms::new(lean, saved.size_bytes.unwrap_or(size_bytes), small_bytes);
        let mut by_peer: BTreeMap<&str, u64> = BTreeMap::new();
        for found in &found {
            let sum = by_peer.entry(&found.peer).or_default();
            *sum = sum.saturating_add(found.capacity_bytes);
        }
        for (peer, in_manifests) in by_peer {
            let room = saved.peers.get(peer).copied().unwrap_or(in_manifests);
            rooms.restore_peer(peer, room, quota_of(peer));
        }
        for found in &found {
            rooms.restore_domain(&found.peer, &found.domain, found.capacity_bytes);
        }
        rooms.resize(size_bytes, |peer| quota_of(peer));
        let disk = Self {
            storage,
            path,
            cache: Arc::new(PageCache::new(cache_bytes)),
            found: Mutex::new(
                found
                    .into_iter()
                    .map(|found| (key(&found.peer, &found.domain), found.held_bytes))
                    .collect(),
            ),
            is_no_room_told: AtomicBool::new(false),
        };
        (disk, rooms)
    }

    /// Memory of pages, cached and not written yet.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.size_bytes() + self.cache.unsaved_bytes()
    }

    /// What a history that was not opened since the start takes.
    pub(super) fn found_bytes(&self, key: &Key) -> u64 {
        self.found().get(key).copied().unwrap_or(0)
    }

    /// The same of all of them.
    pub(super) fn all_found_bytes(&self) -> u64 {
        self.found().values().sum()
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a domain, or makes it. One that cannot be opened lives in memory until the next start.
    pub(super) fn open(&self, key: &Key, config: DomainConfig) -> Arc<Domain> {
        let (peer, name) = key;
        let dir = PathBuf::from(Place::dir_name(peer, name));
        let shown = self.path.join(&dir);
        let place = Place {
            storage: self.storage.clone(),
            dir,
            peer: peer.to_string(),
            name: name.to_string(),
            cache: self.cache.clone(),
        };
        self.found().remove(key);
        match Domain::open(config, place) {
            Ok((domain, set_aside)) => {
                for why in set_aside {
                    tracing::warn!(%peer, domain = %name, "{why}; it starts empty");
                }
                Arc::new(domain)
            }
            Err(error) => {
                tracing::warn!(
                    %peer,
                    domain = %name,
                    directory = %shown.display(),
                    %error,
                    advice = "see to it and start anew",
                    "a history cannot be opened; it lives in memory until the next start"
                );
                Arc::new(Domain::in_memory(DomainConfig {
                    own_capacity_bytes: config.own_capacity_bytes.min(SMALL_BYTES / 2),
                    mirror_capacity_bytes: config.mirror_capacity_bytes.min(SMALL_BYTES / 2),
                    ..config
                }))
            }
        }
    }

    /// Says that a domain gets a little memory instead of room in the directory: a warning for the first one, as a hub may have many.
    pub(super) fn tell_no_room(&self, (peer, name): &Key, bytes: u64) {
        if self.is_no_room_told.swap(true, Ordering::Relaxed) {
            tracing::debug!(%peer, domain = %name, bytes, "no room is left for a history");
        } else {
            tracing::warn!(
                %peer,
                domain = %name,
                bytes,
                directory = %self.path.display(),
                advice = "`history stats` shows who has it; give a larger size, or free it with `history clear --peer NAME`",
                "no room is left for a history; it is small, lives in memory until the next start, and so do those of others that come"
            );
        }
    }

    /// Removes the files of a domain that is not open.
    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        match self
            .storage
            .remove_dir_all(Path::new(&Place::dir_name(&key.0, &key.1)))
        {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.found().remove(key);
                self.storage.sync_dir(Path::new(""))
            }
        }
    }

    /// Notes who has how much room. Not being able to costs nothing now, and at the next start rooms are what the manifests say.
    pub(super) fn save_rooms(&self, rooms: &Rooms) {
        if let Err(error) = SavedRooms::write(&*self.storage, rooms) {
            tracing::debug!(%error, "the rooms of histories cannot be noted");
        }
    }
}

/// What the file of rooms says. A line that makes no sense says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct SavedRooms {
    size_bytes: Option<u64>,
    peers: BTreeMap<String, u64>,
}

impl SavedRooms {
    fn read(storage: &dyn Storage) -> Self {
        let read = || -> io::Result<Vec<u8>> {
            let file = storage.open(Path::new(ROOMS_FILE), Open::Read)?;
            let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length.min(ROOMS_MAX_BYTES)];
            let read = file.read_at(&mut bytes, 0)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        read().map_or_else(
            |_| Self::default(),
            |bytes| Self::parse(&String::from_utf8_lossy(&bytes)),
        )
    }

    fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut lines = text.lines();
        if lines.next() != Some(ROOMS_HEAD) {
            return saved;
        }
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (Some(what), Some(Ok(bytes))) = (words.next(), words.next().map(str::parse)) else {
                continue;
            };
            match (what, words.next()) {
                ("size", None) => saved.size_bytes = Some(bytes),
                ("peer", Some(peer)) => {
                    saved.peers.insert(peer.to_owned(), bytes);
                }
                _ => {}
            }
        }
        saved
    }

    fn text(rooms: &Rooms) -> String {
        let mut text = format!("{ROOMS_HEAD}\nsize {}\n", rooms.size_bytes());
        for (peer, bytes) in rooms.peers() {
            // Writing to a String cannot fail. Names are those of certificates: without line ends.
            let _ok = writeln!(text, "peer {bytes} {peer}");
        }
        text
    }

    fn write(storage: &dyn Storage, rooms: &Rooms) -> io::Result<()> {
        let file = open_to_write(storage, Path::new(NEW_ROOMS_FILE))?;
        file.set_length(0)?;
        file.write_at(Self::text(rooms).as_bytes(), 0)?;
        file.sync()?;
        replace(storage, Path::new(NEW_ROOMS_FILE), Path::new(ROOMS_FILE))?;
        storage.sync_dir(Path::new(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_read_as_they_were_written() {
        let mut rooms = Rooms::new(Lean::Sending, 1 << 30, 0);
        rooms.reserve("branch-1", "shared", None);
        rooms.reserve("branch 2", "shared", Some(64 << 20));
        let saved = SavedRooms::parse(&SavedRooms::text(&rooms));
        assert_eq!(saved.size_bytes, Some(1 << 30));
        assert_eq!(saved.peers.get("branch-1"), Some(&(512 << 20)));
        assert_eq!(saved.peers.get("branch 2"), Some(&(64 << 20)));
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for text in ["", "size 5", "something else\nsize 5\n", "\u{0}\u{1}"] {
            assert_eq!(SavedRooms::parse(text), SavedRooms::default(), "{text:?}");
        }
        let damaged = format!(
            "{ROOMS_HEAD}\nsize x\npeer 5\npeer -1 a\nsize 5 6\npeer 18446744073709551616 b\npeer 7 c\n"
        );
        let saved = SavedRooms::parse(&damaged);
        assert_eq!(saved.size_bytes, None);
        assert_eq!(saved.peers, BTreeMap::from([("c".to_owned(), 7)]));
    }
}
