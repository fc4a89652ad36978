//! Who may use a SOCKS5 or HTTP service: names and passwords, which stand in files of their own.

use std::path::PathBuf;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::identity::{IdentityError, read_private};

/// The longest password: what SOCKS5 can say (RFC 1929).
const MAX_PASSWORD_BYTES: usize = 255;
/// The largest file of one.
const MAX_FILE_BYTES: u64 = 1 << 10;

/// The users of one service; never empty.
pub struct Users(Vec<(String, Vec<u8>)>);

impl Users {
    /// Reads the passwords. `None` when no user is named, so that everybody may use the service.
    ///
    /// # Errors
    /// A file is unreadable, readable by others, or holds no password.
    pub fn load(files: &[(String, PathBuf)]) -> Result<Option<Self>, IdentityError> {
        let read = |(name, path): &(String, PathBuf)| {
            let content = read_private(path, MAX_FILE_BYTES)?;
            let line = content.strip_suffix(b"\n").unwrap_or(&content);
            let password = line.strip_suffix(b"\r").unwrap_or(line);
            if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
                return Err(IdentityError::BadPassword { path: path.clone() });
            }
            Ok((name.clone(), password.to_vec()))
        };
        let users = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(users).filter(|users| !users.is_empty()).map(Self))
    }

    /// Whether this is the name of a user with that user's password. How long it takes tells neither.
    pub fn allow(&self, name: &[u8], password: &[u8]) -> bool {
        let presented = (digest(&SHA256, name), digest(&SHA256, password));
        self.0.iter().fold(false, |found, (name, password)| {
            let same_name = verify_slices_are_equal(
                presented.0.as_ref(),
                digest(&SHA256, name.as_bytes()).as_ref(),
            );
            let same_password =
                verify_slices_are_equal(presented.1.as_ref(), digest(&SHA256, password).as_ref());
            found | (same_name.is_ok() & same_password.is_ok())
        })
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_user_needs_the_own_password() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            (name.to_owned(), path)
        };
        let users = [
            file("alice", b"wonder land\r\n"),
            file("bob", "größe".as_bytes()),
        ];
        let users = Users::load(&users).unwrap().unwrap();
        assert!(users.allow(b"alice", b"wonder land"));
        assert!(users.allow(b"bob", "größe".as_bytes()));
        for (name, password) in [
            ("alice", "größe"),
            ("alice", "wonder land\n"),
            ("alice", ""),
            ("", ""),
            ("carol", "wonder land"),
        ] {
            assert!(
                !users.allow(name.as_bytes(), password.as_bytes()),
                "{name} {password}"
            );
        }
        assert_eq!(format!("{users:?}"), "[\"alice\", \"bob\"]");
    }

    #[test]
    fn no_users_is_not_nobody_and_bad_files_are_refused() {
        assert!(Users::load(&[]).unwrap().is_none());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let load = || {
            Users::load(&[("alice".to_owned(), path.clone())])
                .unwrap_err()
                .to_string()
        };
        assert!(load().contains("cannot read"));
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for content in ["", "\n", &"x".repeat(256)] {
            std::fs::write(&path, content).unwrap();
            assert!(load().contains("holds no password"), "{content:?}");
        }
    }
}
