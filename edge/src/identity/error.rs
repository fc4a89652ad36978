//! What can be wrong with credentials and with the authority, each as one line that says what to do.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::name::EdgeName;

/// A failure of anything in [`crate::identity`] but a renewal over the tunnel. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused something.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, `lock`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file that must not be overwritten is there.
    #[error("{} exists already and is never overwritten; choose another place or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file is larger than anything that belongs there.
    #[error("{} is larger than {limit_bytes} bytes; restore it from a backup", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// Others may read a private file.
    #[error("{} can be read by others; run: chmod 600 {}", path.display(), path.display())]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// Others may write to a directory of credentials.
    #[error("{} can be written by others; run: chmod 700 {}", path.display(), path.display())]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {what}; restore it from a backup or make the identity anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate's time is over.
    #[error("{} expired on {}; {advice}", path.display(), date(*expired))]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        expired: SystemTime,
        /// How to get a new one.
        advice: String,
    },
    /// A certificate's time has not come.
    #[error("{} is valid only from {}; set this machine's clock", path.display(), date(*from))]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// From when.
        from: SystemTime,
    },
    /// Key and certificate belong to different identities.
    #[error("{} is not the key of {}; restore both from the same backup", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate comes from another authority.
    #[error("{} was not issued by the authority in {}; use the ca.pem that came with it", certificate.display(), ca.display())]
    WrongAuthority {
        /// The certificate's file.
        certificate: PathBuf,
        /// The authority's file.
        ca: PathBuf,
    },
    /// The certificate is that of the other kind of edge.
    #[error("{} belongs to a {found}, and this is a {expected}; name the right file in [identity]", certificate.display())]
    WrongRole {
        /// The certificate's file.
        certificate: PathBuf,
        /// `client` or `server`.
        found: &'static str,
        /// `client` or `server`.
        expected: &'static str,
    },
    /// The configuration expects another name than the certificate has.
    #[error("{} is for \"{found}\", and the configuration says name = \"{expected}\"; correct one of them", certificate.display())]
    WrongName {
        /// The certificate's file.
        certificate: PathBuf,
        /// The certificate's name.
        found: EdgeName,
        /// The configured name.
        expected: EdgeName,
    },
    /// `init` on a directory that has an authority.
    #[error("{} holds an authority already; use `wanproxy-server invite NAME --dir {}`, or choose another --dir", path.display(), path.display())]
    AlreadyInitialised {
        /// The directory.
        path: PathBuf,
    },
    /// `init` on a directory with something in it.
    #[error("{} is not empty (it holds {found}); choose an empty or a new --dir", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// A command of the authority on a directory without one.
    #[error("{} holds no authority; run `wanproxy-server init --dir {} --address HOST:PORT` first", path.display(), path.display())]
    NoAuthority {
        /// The directory.
        path: PathBuf,
    },
    /// No identity has this name.
    #[error("no identity is named \"{name}\"; `wanproxy-server list --dir {}` shows all", directory.display())]
    UnknownName {
        /// The name.
        name: EdgeName,
        /// The authority's directory.
        directory: PathBuf,
    },
    /// One name has more live certificates and invites than [`super::MAX_LIVE_ENTRIES`].
    #[error(
        "\"{name}\" has too many live certificates or invites ({most}); revoke it, then invite it again"
    )]
    TooManyEntries {
        /// The name.
        name: EdgeName,
        /// The limit.
        most: usize,
    },
    /// `revoke` of the server itself.
    #[error(
        "the server's own certificate cannot be revoked; if its key is lost, run init in a new directory and invite all clients again"
    )]
    RevokeServer,
    /// The file given to `join` is something else.
    #[error("{} is not a wanproxy invite; give the file that `wanproxy-server invite` wrote", path.display())]
    NotAnInvite {
        /// The file.
        path: PathBuf,
    },
    /// The invite was written by a version that this one does not know.
    #[error("{} is an invite of version {version}, and this program knows version {known}; use the same version on both sides", path.display())]
    InviteVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
        /// The one that is known.
        known: u32,
    },
    /// The invite was cut or changed.
    #[error("{} is damaged ({what}); copy it again, whole", path.display())]
    InviteDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// `join` into a directory that has joined with this invite.
    #[error("{} was joined with this very invite already; there is nothing left to do but `wanproxy-client run`", path.display())]
    InviteUsedHere {
        /// The directory.
        path: PathBuf,
    },
    /// `join` with a renewal into a directory of somebody else.
    #[error("this invite renews \"{invited}\" and {} belongs to another identity; choose the directory of \"{invited}\"", path.display())]
    InviteForOther {
        /// The directory.
        path: PathBuf,
        /// Whom the invite is for.
        invited: EdgeName,
    },
    /// The file of the admin token holds something else.
    #[error("{} holds no token of 16 or more visible characters; run: head -c 24 /dev/urandom | base64 > {}", path.display(), path.display())]
    BadToken {
        /// The file.
        path: PathBuf,
    },
    /// The file of a user's password holds something else.
    #[error("{} holds no password; write one line of 1 to 255 bytes into it", path.display())]
    BadPassword {
        /// The file.
        path: PathBuf,
    },
    /// The cryptography library refused something.
    #[error("cannot {action}: {cause}")]
    Crypto {
        /// What was tried.
        action: &'static str,
        /// What the library said.
        cause: String,
    },
}

impl IdentityError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io {
            action,
            path,
            cause,
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn crypto(action: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |cause| Self::Crypto {
            action,
            cause: cause.to_string(),
        }
    }
}

/// A moment as people read it: `2026-11-22 03:10 UTC`.
pub fn date(time: SystemTime) -> String {
    let rfc3339 = humantime::format_rfc3339_seconds(time).to_string();
    match (rfc3339.get(..10), rfc3339.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => rfc3339,
    }
}
