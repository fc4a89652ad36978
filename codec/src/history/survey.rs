//! Which domains a directory holds, as their manifests say: their room is kept before their peers come.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{LogIdentity, LogSide, MANIFEST, Persisted, look};
use super::storage::Storage;
use crate::domain::Place;

/// A domain that an earlier start of the program has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The peer.
    pub peer: String,
    /// The domain's name.
    pub domain: String,
    /// The room that its logs have, in bytes.
    pub capacity_bytes: u64,
    /// What they hold, in bytes.
    pub held_bytes: u64,
}

/// All domains with a manifest that is understood and stands where it belongs. The others are seen to when they are opened.
///
/// # Errors
/// The directory cannot be listed, or the system gives no more files.
pub fn survey(storage: &dyn Storage) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    for name in storage.list(Path::new(""))? {
        if !is_domain(&name) {
            continue;
        }
        let mut found: Option<Found> = None;
        for side in [LogSide::Own, LogSide::Mirror] {
            let Some((identity, state)) = look(storage, &Path::new(&name).join(side.to_string()))?
            else {
                continue;
            };
            let LogIdentity { peer, domain, .. } = identity;
            if Place::dir_name(&peer, &domain) != name {
                continue;
            }
            let Persisted {
                capacity_bytes,
                held,
                ..
            } = state;
            let found = found.get_or_insert(Found {
                peer,
                domain,
                capacity_bytes: 0,
                held_bytes: 0,
            });
            found.capacity_bytes = found.capacity_bytes.saturating_add(capacity_bytes);
            found.held_bytes = found.held_bytes.saturating_add(held.len_bytes());
        }
        all.extend(found);
    }
    // Room is given in this order, which must not depend on the file system's.
    all.sort_by(|a, b| (&a.peer, &a.domain).cmp(&(&b.peer, &b.domain)));
    Ok(all)
}

/// Logs whose manifest is there and is not understood, or that are no directories, by their place in the directory: what is set aside when they are opened.
///
/// # Errors
/// As of [`survey`].
pub fn not_understood(storage: &dyn Storage) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for name in storage.list(Path::new(""))? {
        if !is_domain(&name) {
            continue;
        }
        for side in [LogSide::Own, LogSide::Mirror] {
            let log = Path::new(&name).join(side.to_string());
            let has_one = match storage.list(&log) {
                Ok(names) => names.iter().any(|name| name == MANIFEST),
                Err(cause) => cause.kind() != io::ErrorKind::NotFound,
            };
            if has_one && look(storage, &log)?.is_none() {
                all.push(log);
            }
        }
    }
    all.sort();
    Ok(all)
}

fn is_domain(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Domain, DomainConfig};
    use crate::history::cache::PageCache;
    use crate::history::storage::Directory;

    fn make(storage: &Arc<dyn Storage>, peer: &str) {
        let config = DomainConfig {
            own_capacity_bytes: 4 << 20,
            mirror_capacity_bytes: 2 << 20,
            index_capacity_bytes: 1 << 16,
            epoch: [1; 16],
        };
        let place = Place {
            storage: Arc::clone(storage),
            dir: Place::dir_name(peer, "shared").into(),
            peer: peer.to_owned(),
            name: "shared".to_owned(),
            cache: Arc::new(PageCache::new(1 << 20)),
        };
        let (domain, warnings) = Domain::open(config, place).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert!(domain.flush().error.is_none());
    }

    #[test]
    fn what_is_damaged_or_stands_elsewhere_is_not_counted() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("history");
        let storage: Arc<dyn Storage> = Arc::new(Directory::open(&directory).unwrap());
        assert_eq!(survey(&*storage).unwrap(), []);
        for peer in ["b", "a", "damaged", "copied"] {
            make(&storage, peer);
        }
        let at = |peer: &str| directory.join(Place::dir_name(peer, "shared"));
        for log in ["own", "mirror"] {
            std::fs::write(at("damaged").join(log).join("manifest"), "nothing").unwrap();
        }
        let of = Path::new(&Place::dir_name("damaged", "shared")).to_owned();
        assert_eq!(
            not_understood(&*storage).unwrap(),
            [of.join("mirror"), of.join("own")]
        );
        // Under a name that is another's, and under one that is none.
        std::fs::rename(at("copied"), directory.join("0".repeat(32))).unwrap();
        std::fs::create_dir(directory.join("something")).unwrap();
        std::fs::write(directory.join("f".repeat(32)), "a file").unwrap();
        let found: Vec<(String, u64)> = survey(&*storage)
            .unwrap()
            .into_iter()
            .map(|found| (found.peer, found.capacity_bytes))
            .collect();
        assert_eq!(
            found,
            [("a".to_owned(), 6 << 20), ("b".to_owned(), 6 << 20)]
        );
    }
}
