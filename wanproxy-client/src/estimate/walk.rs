//! Finds the files under a PATH, always in the same order.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What stands somewhere under a PATH.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file.
    File {
        /// Where.
        path: PathBuf,
        /// Its length as it is now.
        bytes: u64,
    },
    /// A symbolic link in a directory: not followed, since it would lead out of it, round in circles, or to a file that is counted already.
    Symlink,
    /// Neither file nor directory: to open it could wait for ever, or do something.
    Special {
        /// Where.
        path: PathBuf,
        /// Its kind, with an article.
        what: &'static str,
    },
    /// The system does not say what is there, or in it.
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Everything under a PATH except directories themselves: depth first, by the bytes of names. Holds the names of the directories it is in, and no more.
#[derive(Debug)]
pub(super) struct Walk {
    /// The PATH itself, which is followed if it is a link: somebody has named it.
    root: Option<PathBuf>,
    /// What is still to be visited, the next one last.
    pending: Vec<PathBuf>,
    /// A directory's listing broke off; told before what it gave.
    broken: Option<Found>,
}

impl Walk {
    /// Visits `path` and what is under it.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            root: Some(path.to_owned()),
            pending: Vec::new(),
            broken: None,
        }
    }

    /// Puts what is in a directory before all that is pending.
    fn enter(&mut self, directory: &Path) -> io::Result<()> {
        let mut names = Vec::new();
        let mut listed = Ok(());
        for entry in fs::read_dir(directory)? {
            match entry {
                Ok(entry) => names.push(entry.path()),
                Err(error) => {
                    listed = Err(error);
                    break;
                }
            }
        }
        names.sort_unstable_by(|one, other| other.file_name().cmp(&one.file_name()));
        self.pending.append(&mut names);
        listed
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(broken) = self.broken.take() {
                return Some(broken);
            }
            let (path, metadata) = match self.root.take() {
                Some(root) => {
                    let metadata = fs::metadata(&root);
                    (root, metadata)
                }
                None => {
                    let path = self.pending.pop()?;
                    let metadata = fs::symlink_metadata(&path);
                    (path, metadata)
                }
            };
            let metadata = match metadata {
                Ok(metadata) => metadata,
                Err(error) => return Some(Found::Unreadable { path, error }),
            };
            let kind = metadata.file_type();
            if kind.is_file() {
                let bytes = metadata.len();
                return Some(Found::File { path, bytes });
            }
            if kind.is_symlink() {
                return Some(Found::Symlink);
            }
            if !kind.is_dir() {
                let what = special(kind);
                return Some(Found::Special { path, what });
            }
            if let Err(error) = self.enter(&path) {
                self.broken = Some(Found::Unreadable { path, error });
            }
        }
    }
}

fn special(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "neither file nor directory"
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_tree_is_walked_in_the_order_of_its_names() {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        for directory in ["b", "b/deep", "empty"] {
            fs::create_dir(at(directory)).unwrap();
        }
        for file in ["c", "b/2", "b/deep/x", "b/10", "a"] {
            fs::write(at(file), file).unwrap();
        }
        symlink(tree.path(), at("b/circle")).unwrap();
        let _socket = UnixListener::bind(at("b/socket")).unwrap();
        let words: Vec<String> = Walk::new(tree.path())
            .map(|found| match found {
                Found::File { path, bytes } => {
                    format!(
                        "{} {bytes}",
                        path.strip_prefix(tree.path()).unwrap().display()
                    )
                }
                Found::Symlink => "symlink".to_owned(),
                Found::Special { what, .. } => what.to_owned(),
                Found::Unreadable { error, .. } => panic!("{error}"),
            })
            .collect();
        let expected = [
            "a 1",
            "b/10 4",
            "b/2 3",
            "symlink",
            "b/deep/x 8",
            "a socket",
            "c 1",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_path_that_is_named_is_followed_and_a_missing_one_told() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("file"), "12345").unwrap();
        symlink("file", tree.path().join("link")).unwrap();
        let of = |name: &str| Walk::new(&tree.path().join(name)).collect::<Vec<_>>();
        assert!(matches!(
            of("link").as_slice(),
            [Found::File { bytes: 5, .. }]
        ));
        assert!(matches!(of("none").as_slice(), [Found::Unreadable { .. }]));
    }
}
