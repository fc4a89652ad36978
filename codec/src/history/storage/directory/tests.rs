//! The real directory, with what others may put into it.
#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory for tests, and a place outside of it.
struct Place {
    outside: tempfile::TempDir,
    root: PathBuf,
    directory: Directory,
}

fn place() -> Place {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("a/history");
    let directory = Directory::open(&root).unwrap();
    Place {
        outside,
        root,
        directory,
    }
}

fn write(directory: &Directory, path: &str, bytes: &[u8]) -> io::Result<()> {
    directory
        .open(Path::new(path), Open::Write)?
        .write_at(bytes, 0)
}

fn read(directory: &Directory, path: &str) -> io::Result<Vec<u8>> {
    let file = directory.open(Path::new(path), Open::Read)?;
    let mut bytes = vec![0; 100];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[test]
fn everything_in_it_is_private() {
    let Place {
        outside: _outside,
        root,
        directory,
    } = place();
    directory.create_dir(Path::new("x")).unwrap();
    directory.create_dir(Path::new("x")).unwrap();
    write(&directory, "x/file", b"bytes").unwrap();
    directory.sync_dir(Path::new("x")).unwrap();
    directory.sync_dir(Path::new("")).unwrap();
    assert_eq!((mode(&root), mode(&root.join("x"))), (0o700, 0o700));
    assert_eq!(mode(&root.join("x/file")), 0o600);
    assert_eq!(mode(&root.join("lock")), 0o600);
    assert_eq!(read(&directory, "x/file").unwrap(), b"bytes");
}

#[test]
fn one_that_is_open_to_others_is_refused_with_what_to_do() {
    let outside = tempfile::tempdir().unwrap();
    for open in [0o750, 0o701, 0o720] {
        std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(open)).unwrap();
        let message = Directory::open(outside.path()).unwrap_err().to_string();
        let path = outside.path().display();
        assert_eq!(
            message,
            format!("{path} is open to other users (mode {open:03o}): chmod 700 {path}")
        );
    }
    std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o700)).unwrap();
    Directory::open(outside.path()).unwrap();
}

#[test]
fn a_second_one_is_told_who_has_it() {
    let Place {
        outside: _outside,
        root,
        directory,
    } = place();
    let refused = Directory::open(&root).unwrap_err();
    let pid = std::process::id();
    assert_eq!(
        refused.to_string(),
        format!(
            "{} is in use by another program (process {pid})",
            root.display()
        )
    );
    drop(directory);
    Directory::open(&root).unwrap();
}

#[test]
fn a_lock_that_is_a_link_is_not_written_through() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("history");
    drop(Directory::open(&root).unwrap());
    std::fs::remove_file(root.join("lock")).unwrap();
    symlink(outside.path().join("elsewhere"), root.join("lock")).unwrap();
    assert!(matches!(Directory::open(&root), Err(OpenError::Io { .. })));
    assert!(!outside.path().join("elsewhere").exists());
}

#[test]
fn nothing_is_reached_through_a_link_or_a_strange_path() {
    let Place {
        outside,
        root,
        directory,
    } = place();
    let elsewhere = outside.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("file"), b"secret").unwrap();
    symlink(&elsewhere, root.join("dir")).unwrap();
    symlink(elsewhere.join("file"), root.join("file")).unwrap();
    for path in [
        "dir/file",
        "file",
        "../elsewhere/file",
        "/etc/passwd",
        "",
        ".",
    ] {
        for mode in [Open::Read, Open::Write] {
            let opened = directory.open(Path::new(path), mode);
            assert!(opened.is_err(), "{path}");
        }
    }
    assert!(directory.create_dir(Path::new("dir")).is_err());
    assert!(directory.create_dir(Path::new("dir/new")).is_err());
    assert!(directory.list(Path::new("dir")).is_err());
    assert!(directory.remove_dir_all(Path::new("dir")).is_err());
    assert!(directory.remove_file(Path::new("dir/file")).is_err());
    assert_eq!(std::fs::read(elsewhere.join("file")).unwrap(), b"secret");
    // The links themselves can go.
    directory.remove_file(Path::new("file")).unwrap();
    write(&directory, "file", b"ours").unwrap();
    assert_eq!(std::fs::read(elsewhere.join("file")).unwrap(), b"secret");
}

#[test]
fn what_is_no_regular_file_is_refused_and_holds_nobody_up() {
    let Place {
        outside: _outside,
        root,
        directory,
    } = place();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    directory.create_dir(Path::new("dir")).unwrap();
    for mode in [Open::Read, Open::Write] {
        assert!(directory.open(Path::new("pipe"), mode).is_err());
        assert!(directory.open(Path::new("dir"), mode).is_err());
    }
}

#[test]
fn a_name_means_another_file_once_it_was_removed_or_renamed() {
    let Place {
        outside: _outside,
        directory,
        ..
    } = place();
    directory.create_dir(Path::new("x")).unwrap();
    write(&directory, "x/one", b"1").unwrap();
    let held = directory.open(Path::new("x/one"), Open::Read).unwrap();
    directory.remove_file(Path::new("x/one")).unwrap();
    let mut byte = [0];
    assert_eq!((held.read_at(&mut byte, 0).unwrap(), byte), (1, *b"1"));
    assert_eq!(
        read(&directory, "x/one").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    write(&directory, "x/one", b"2").unwrap();
    write(&directory, "x/two", b"3").unwrap();
    directory
        .rename(Path::new("x/two"), Path::new("x/one"))
        .unwrap();
    assert_eq!(read(&directory, "x/one").unwrap(), b"3");
    directory.rename(Path::new("x"), Path::new("y")).unwrap();
    assert!(read(&directory, "x/one").is_err());
    assert_eq!(read(&directory, "y/one").unwrap(), b"3");
    assert_eq!(directory.list(Path::new("y")).unwrap(), ["one"]);
    directory.create_dir(Path::new("y/z")).unwrap();
    write(&directory, "y/z/file", b"").unwrap();
    directory.remove_dir_all(Path::new("y")).unwrap();
    assert_eq!(directory.list(Path::new("")).unwrap(), ["lock"]);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_ends_there() {
    let Place {
        outside: _outside,
        root,
        directory,
    } = place();
    write(&directory, "file", &[7; 100_000]).unwrap();
    let file = directory.open(Path::new("file"), Open::Read).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(root.join("file"))
        .unwrap()
        .set_len(70_000)
        .unwrap();
    let mut bytes = vec![0; 65_536];
    assert_eq!(file.read_at(&mut bytes, 65_536).unwrap(), 70_000 - 65_536);
    assert_eq!(file.read_at(&mut bytes, 100_000).unwrap(), 0);
}

#[test]
fn a_directory_that_was_left_to_another_program_can_be_read_and_not_written() {
    let Place {
        outside: _outside,
        root,
        directory,
    } = place();
    directory.create_dir(Path::new("x")).unwrap();
    write(&directory, "x/file", b"bytes").unwrap();
    let file = directory.open(Path::new("x/file"), Open::Write).unwrap();
    assert!(matches!(
        Directory::open(&root),
        Err(OpenError::InUse { .. })
    ));
    directory.release();
    let successor = Directory::open(&root).unwrap();
    let refused = [
        file.write_at(b"more", 0),
        file.set_length(0),
        write(&directory, "x/new", b"new"),
        write(&directory, "x/file", b"old"),
        directory.create_dir(Path::new("y")),
        directory.rename(Path::new("x/file"), Path::new("x/other")),
        directory.remove_file(Path::new("x/file")),
        directory.remove_dir_all(Path::new("x")),
    ];
    for error in refused {
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(read(&directory, "x/file").unwrap(), b"bytes");
    write(&successor, "x/file", b"BYTES").unwrap();
    assert_eq!(read(&directory, "x/file").unwrap(), b"BYTES");
    // Twice is no harm, and does not take the successor's lock.
    directory.release();
    assert!(matches!(
        Directory::open(&root),
        Err(OpenError::InUse { .. })
    ));
}
