//! The authority of a deployment: the directory that `wanproxy-server init` makes, and what the other commands find in it.
//!
//! ```text
//! DIR/ca.pem  DIR/ca.key          the authority; all else can be made again from these two and the files below
//! DIR/edge.pem  DIR/edge.key      the server's own certificate and key
//! DIR/authority.toml              the address that invites name
//! DIR/identities/NAME.toml        what each client was given
//! DIR/revoked                     serials that nobody accepts any more
//! DIR/server.toml                 the server's configuration
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::error::IdentityError;
use super::files::{self, MAX_PEM_BYTES};
use super::issue::{EDGE_LIFE, Subject, issue, new_authority, new_key};
use super::load::{certificates, key_pair};
use super::name::EdgeName;
use super::store::Store;
use super::template;
use crate::config::{Rule, Target};

/// An authority that can issue certificates. Blocks on files; call it from a thread that may block.
pub struct Authority {
    pub(crate) directory: PathBuf,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) ca_pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) store: Store,
}

/// `authority.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    version: u32,
    address: String,
}

const SETTINGS_FILE: &str = "authority.toml";
const SETTINGS_VERSION: u32 = 1;
/// The largest `authority.toml`: an address, and a comment.
const MAX_SETTINGS_BYTES: u64 = 64 << 10;
/// What a fresh file system may hold without being in use.
const NOT_IN_THE_WAY: &str = "lost+found";

/// Makes an authority, a server's identity and a `server.toml` in a new or an empty directory.
///
/// `address` is where clients will find the server; `allow` are the rules that the configuration starts with.
///
/// # Errors
/// The directory is in use, or cannot be written. Then it is left as it was.
pub fn init(
    directory: &Path,
    address: &Target,
    allow: &[Rule],
    now: SystemTime,
) -> Result<(), IdentityError> {
    refuse_if_in_use(directory)?;
    files::create_directory(directory)?;
    let ca_key = new_key()?;
    let ca_key_pem = ca_key.serialize_pem();
    let (ca_pem, issuer) = new_authority(ca_key, now)?;
    let edge_key = new_key()?;
    let edge = issue(
        &issuer,
        &Subject::Server(&EdgeName::server()),
        &edge_key,
        EDGE_LIFE,
        now,
    )?;
    let settings = format!(
        "# The address that invites name. Change it when the server moves; clients that joined keep theirs in client.toml.\n\
         version = {SETTINGS_VERSION}\naddress = \"{address}\"\n"
    );
    // The configuration comes last: a directory that has one is whole.
    let contents = [
        ("ca.key", ca_key_pem),
        ("ca.pem", ca_pem),
        ("edge.key", edge_key.serialize_pem()),
        ("edge.pem", edge.pem),
        (SETTINGS_FILE, settings),
        ("server.toml", template::server_toml(address, allow)),
    ];
    write_all_or_nothing(directory, &contents)
}

/// Writes new files; when one cannot be written, those before it are removed again.
pub(crate) fn write_all_or_nothing(
    directory: &Path,
    contents: &[(&str, String)],
) -> Result<(), IdentityError> {
    for (index, (name, content)) in contents.iter().enumerate() {
        let written = files::write_new(&directory.join(name), content.as_bytes());
        if let Err(error) = written {
            for (name, _) in contents.iter().take(index) {
                let _gone = std::fs::remove_file(directory.join(name));
            }
            return Err(error);
        }
    }
    Ok(())
}

fn refuse_if_in_use(directory: &Path) -> Result<(), IdentityError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(IdentityError::io("read", directory)(cause)),
    };
    if directory.join("ca.key").exists() && directory.join("server.toml").exists() {
        return Err(IdentityError::AlreadyInitialised {
            path: directory.to_owned(),
        });
    }
    for entry in entries {
        let name = entry
            .map_err(IdentityError::io("read", directory))?
            .file_name();
        if name != NOT_IN_THE_WAY {
            return Err(IdentityError::NotEmpty {
                path: directory.to_owned(),
                found: name.display().to_string(),
            });
        }
    }
    Ok(())
}

impl Authority {
    /// Opens the authority in a directory that [`init`] made.
    ///
    /// # Errors
    /// There is none, or its files are damaged, readable by others, or do not belong together.
    pub fn open_directory(directory: &Path) -> Result<Self, IdentityError> {
        if !directory.join("ca.key").exists() {
            return Err(IdentityError::NoAuthority {
                path: directory.to_owned(),
            });
        }
        Self::open(&directory.join("ca.pem"), &directory.join("ca.key"))
    }

    /// Opens the authority of these two files; invites and revocations stand beside the key.
    ///
    /// # Errors
    /// The files are unreadable, damaged, readable by others, or do not belong together.
    pub fn open(ca: &Path, ca_key: &Path) -> Result<Self, IdentityError> {
        let directory = crate::config::parent(ca_key);
        let ca_pem = files::read(ca, MAX_PEM_BYTES)?;
        let key = key_pair(ca_key, &files::read_private(ca_key, MAX_PEM_BYTES)?)?;
        let mut found = certificates(ca, &ca_pem)?.into_iter();
        let mismatch = || IdentityError::KeyMismatch {
            key: ca_key.to_owned(),
            certificate: ca.to_owned(),
        };
        let own = found
            .find(|certificate| super::load::is_key_of(&key, certificate))
            .ok_or_else(mismatch)?;
        let issuer = Issuer::from_ca_cert_der(&own, key)
            .map_err(|error| IdentityError::damaged(ca, error.to_string()))?;
        let ca_pem = template::pem("CERTIFICATE", &own);
        Ok(Self {
            store: Store::new(&directory),
            directory,
            ca: own,
            ca_pem,
            issuer,
        })
    }

    /// The address that invites name.
    pub(crate) fn address(&self) -> Result<Target, IdentityError> {
        let file = self.directory.join(SETTINGS_FILE);
        let text = files::read_text_if_there(&file, MAX_SETTINGS_BYTES)?.ok_or_else(|| {
            IdentityError::damaged(
                &file,
                "it is missing; write `version = 1` and `address = \"HOST:PORT\"` into it",
            )
        })?;
        let settings: Settings = toml::from_str(&text).map_err(|error| {
            IdentityError::damaged(
                &file,
                error.message().lines().collect::<Vec<_>>().join(", "),
            )
        })?;
        if settings.version != SETTINGS_VERSION {
            return Err(IdentityError::damaged(
                &file,
                format!("version {} is not known", settings.version),
            ));
        }
        settings
            .address
            .parse()
            .map_err(|error: crate::config::ValueError| {
                IdentityError::damaged(&file, error.to_string())
            })
    }
}
