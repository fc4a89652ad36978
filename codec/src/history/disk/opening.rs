//! Opening a log: what is believed of what stands in its directory, and what becomes of the rest.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::DiskLog;
use super::manifest::{self, LogFormat, MANIFEST_MAX_BYTES, MANIFEST_NAME_MAX_BYTES};
use super::segment::Segment;
use super::{LogIdentity, ManifestError, Persisted, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::history::storage::{
    Open, Storage, aside, clear_name, is_passing, is_unreadable, remove_any, set_aside,
};
use crate::ranges::RangeSet;

pub(crate) const MANIFEST: &str = "manifest";
pub(super) const NEW_MANIFEST: &str = "manifest.new";
pub(super) const SEGMENT_EXTENSION: &str = "seg";
const ANCHORS_EXTENSION: &str = "idx";

/// A log that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The log.
    pub log: DiskLog,
    /// What is believed of it. Of what it says to be held, pages may still turn out to be damaged when they are read.
    pub recovered: Persisted,
    /// What stood there before and could not be used was renamed to `NAME.aside`: why.
    pub set_aside: Option<ManifestError>,
}

impl DiskLog {
    /// Opens a log in the directory `dir`, which is made if it is not there.
    ///
    /// A log whose manifest is not understood, or speaks of another log, is set aside, and an empty one takes its place; so is one without a
    /// manifest, but that never held anything. `new_id` (random) and `new_segment_bytes` (a power of two from [`SEGMENT_BYTES_MIN`] to
    /// [`SEGMENT_BYTES_MAX`], see [`super::segment_bytes_for`]) are for an empty log; another keeps its own.
    ///
    /// # Errors
    /// What the system says: then nothing was set aside that may still be good.
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        identity: LogIdentity,
        new_id: [u8; 16],
        new_segment_bytes: u64,
    ) -> io::Result<Opened> {
        if identity.peer.len().max(identity.domain.len()) > MANIFEST_NAME_MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name that does not fit a manifest",
            ));
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            storage.create_dir(parent)?;
        }
        let read = read_manifest(&*storage, &dir.join(MANIFEST))?
            .map(|bytes| manifest::decode(&bytes, &identity));
        let mut aside_since = None;
        let (format, recovered) = match read {
            Some(Ok(read)) => {
                // An earlier run may have failed to: what is believed now must not be taken back by a crash.
                storage.sync_dir(dir)?;
                // What was set aside before has been there for one run at least. It is in nobody's way.
                let _removed = remove_any(&*storage, &aside(dir));
                read
            }
            other => {
                if let Some(Err(why)) = other {
                    set_aside(&*storage, dir)?;
                    aside_since = Some(why);
                }
                let segment_bytes = new_segment_bytes
                    .next_power_of_two()
                    .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
                let format = LogFormat {
                    id: new_id,
                    segment_bytes,
                };
                create(&*storage, dir)?;
                (format, Persisted::default())
            }
        };
        let log = Self::new(storage, dir, identity, format);
        let recovered = log.find_segments(recovered)?;
        Ok(Opened {
            log,
            recovered,
            set_aside: aside_since,
        })
    }

    /// Looks which segments are there, removes what belongs to none, and takes out of what is held whatever is obviously not there.
    fn find_segments(&self, mut recovered: Persisted) -> io::Result<Persisted> {
        let mut present = RangeSet::new();
        let segment_bytes = self.format.segment_bytes;
        let wanted = recovered.floor / segment_bytes..recovered.tail.div_ceil(segment_bytes);
        for name in self.storage.list(&self.dir)? {
            let path = self.dir.join(&name);
            match segment_name(&name) {
                Some((number, SEGMENT_EXTENSION)) if wanted.contains(&number) => {
                    present.insert(self.find_segment(number, path)?);
                }
                // Found with its segment.
                Some((number, _)) if wanted.contains(&number) => {}
                // Left over: above what was persisted, or below the floor when a removal failed. Not worth failing for.
                Some(_) => drop(self.storage.remove_file(&path)),
                None if name == NEW_MANIFEST => drop(self.storage.remove_file(&path)),
                None => {}
            }
        }
        recovered.held = recovered.held.intersect(&present);
        Ok(recovered)
    }

    /// Takes a segment's file over: the positions it reaches. What cannot be opened is not there, and must not be in the way of a new one.
    fn find_segment(&self, number: u64, path: PathBuf) -> io::Result<Range<u64>> {
        let opened = self.storage.open(&path, Open::Read);
        match opened.and_then(|file| file.length()) {
            Ok(length) => {
                let segment = self.insert(Segment::new(self.format, number, path, length));
                segment.anchors.measure(&*self.storage);
                Ok(segment.reach())
            }
            Err(cause) if is_passing(&cause) => Err(cause),
            Err(cause) => {
                if !is_unreadable(&cause) {
                    let _cleared = clear_name(&*self.storage, &path);
                }
                Ok(0..0)
            }
        }
    }
}

/// The number and the extension of a segment's file; `None` for a name that is not one.
fn segment_name(name: &str) -> Option<(u64, &str)> {
    let (number, extension) = name.split_once('.')?;
    let ours = [SEGMENT_EXTENSION, ANCHORS_EXTENSION].contains(&extension)
        && number.bytes().all(|digit| digit.is_ascii_digit());
    let number = number.parse().ok().filter(|_| ours)?;
    // One file has one name.
    (name == format!("{number:010}.{extension}")).then_some((number, extension))
}

/// Makes an empty log's directory, durably.
fn create(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
    storage.create_dir(dir)?;
    let mut at = dir;
    while let Some(parent) = at.parent() {
        storage.sync_dir(parent)?;
        at = parent;
    }
    Ok(())
}

/// What the manifest in a log's directory says, if there is one that is understood. Nothing is changed.
///
/// # Errors
/// The system gives no more files, or is out of memory.
pub(crate) fn look(
    storage: &dyn Storage,
    dir: &Path,
) -> io::Result<Option<(LogIdentity, Persisted)>> {
    let bytes = read_manifest(storage, &dir.join(MANIFEST))?;
    let said = bytes.and_then(|bytes| manifest::decode_any(&bytes).ok());
    Ok(said.map(|(identity, _, state)| (identity, state)))
}

/// The manifest's bytes; none of them, which is no manifest, if it is longer than one or cannot be read. `None` if it is not there.
fn read_manifest(storage: &dyn Storage, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let read = storage.open(path, Open::Read).and_then(|file| {
        let mut bytes = vec![0; MANIFEST_MAX_BYTES + 1];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(if read > MANIFEST_MAX_BYTES { 0 } else { read });
        Ok(bytes)
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) if is_passing(&cause) => Err(cause),
        Err(_) => Ok(Some(Vec::new())),
    }
}
