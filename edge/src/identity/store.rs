//! What an authority remembers: which certificates and invites each name was given, and which serials are revoked.
//!
//! `DIR/identities/NAME.toml` holds one name, `DIR/revoked` one line for each revoked serial. A serial is written down before its
//! certificate leaves the authority, so a revocation always finds it. All is changed under the lock of [`super::files::Lock`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::certificate::{Serial, is_invite_id};
use super::error::IdentityError;
use super::files;
use super::name::EdgeName;

/// Live certificates and invites of one name. Machines that share an identity need a few; a client that asks without end is stopped.
pub const MAX_LIVE_ENTRIES: usize = 32;
/// The largest record: [`MAX_LIVE_ENTRIES`] of each kind take about 100 KiB.
const MAX_RECORD_BYTES: u64 = 1 << 20;
/// The largest list of revocations: some 150,000 lines.
const MAX_REVOKED_BYTES: u64 = 16 << 20;
const VERSION: u32 = 1;

/// The files of an authority's memory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

/// All that one name was given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    name: String,
    #[serde(default)]
    pub(crate) invite: Vec<InviteEntry>,
    #[serde(default)]
    pub(crate) certificate: Vec<CertificateEntry>,
}

/// One invite.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteEntry {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) expires_unix_s: u64,
    /// The pin of the key that it was exchanged for; no other key gets a certificate by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exchanged_for: Option<String>,
}

/// One certificate that a client got for a key of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateEntry {
    pub(crate) serial: String,
    pub(crate) expires_unix_s: u64,
    /// The pin of its key.
    pub(crate) key: String,
    /// The certificate itself, so that a client whose answer got lost is given the same one again.
    pub(crate) pem: String,
}

/// The revoked serials, each with the name that it was issued to.
pub(crate) type Revoked = BTreeMap<Serial, String>;

impl Store {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The file of revoked serials.
    pub(crate) fn revoked_file(&self) -> PathBuf {
        revocations_file(&self.directory)
    }

    fn record_file(&self, name: &EdgeName) -> PathBuf {
        self.records().join(format!("{name}.toml"))
    }

    fn records(&self) -> PathBuf {
        self.directory.join("identities")
    }

    /// The record of a name; `None` when it was never invited.
    pub(crate) fn load(&self, name: &EdgeName) -> Result<Option<Record>, IdentityError> {
        let file = self.record_file(name);
        let Some(text) = files::read_text_if_there(&file, MAX_RECORD_BYTES)? else {
            return Ok(None);
        };
        let record: Record = toml::from_str(&text).map_err(|error| {
            IdentityError::damaged(
                &file,
                error.message().lines().collect::<Vec<_>>().join(", "),
            )
        })?;
        if record.version != VERSION {
            return Err(IdentityError::damaged(
                &file,
                format!("version {} is not known", record.version),
            ));
        }
        let serials_are_good = record
            .serials()
            .all(|serial| Serial::parse(serial).is_some());
        if record.name != name.as_str()
            || !serials_are_good
            || !record.invite.iter().all(|invite| is_invite_id(&invite.id))
        {
            return Err(IdentityError::damaged(
                &file,
                "its name, a serial or an invite is not one",
            ));
        }
        Ok(Some(record))
    }

    /// Writes a record in one step.
    pub(crate) fn save(&self, name: &EdgeName, record: &Record) -> Result<(), IdentityError> {
        files::create_directory(&self.records())?;
        let text = toml::to_string(record).map_err(|error| IdentityError::Crypto {
            action: "write down an identity",
            cause: error.to_string(),
        })?;
        files::replace(&self.record_file(name), text.as_bytes())
    }

    /// All names that have a record, in order.
    pub(crate) fn names(&self) -> Result<Vec<EdgeName>, IdentityError> {
        let directory = self.records();
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(IdentityError::io("read", &directory)(cause)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry
                .map_err(IdentityError::io("read", &directory))?
                .file_name();
            // Temporary files of a crash end in another way.
            if let Some(name) = file
                .to_str()
                .and_then(|file| file.strip_suffix(".toml"))
                .and_then(|name| name.parse().ok())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// All revoked serials. A damaged list is an error: to go on without it would let the revoked in.
    pub(crate) fn load_revoked(&self) -> Result<Revoked, IdentityError> {
        let file = self.revoked_file();
        let text = files::read_text_if_there(&file, MAX_REVOKED_BYTES)?.unwrap_or_default();
        let mut revoked = Revoked::new();
        for (index, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        {
            let mut words = line.split_whitespace();
            match (words.next().and_then(Serial::parse), words.next()) {
                (Some(serial), Some(name)) => revoked.insert(serial, name.to_owned()),
                _ => {
                    return Err(IdentityError::damaged(
                        &file,
                        format!("line {} is no serial and name", index + 1),
                    ));
                }
            };
        }
        // Every line ends; one that does not was cut, and its serial with it.
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(IdentityError::damaged(&file, "its last line was cut"));
        }
        Ok(revoked)
    }

    /// Writes the list of revoked serials in one step.
    pub(crate) fn save_revoked(&self, revoked: &Revoked) -> Result<(), IdentityError> {
        let mut text = "# Serials that this authority has revoked, and the names they were issued to. Written by `wanproxy-server revoke`.\n".to_owned();
        for (serial, name) in revoked {
            text.push_str(&format!("{serial} {name}\n"));
        }
        files::replace(&self.revoked_file(), text.as_bytes())
    }
}

impl Record {
    pub(crate) fn new(name: &EdgeName) -> Self {
        Self {
            version: VERSION,
            name: name.as_str().to_owned(),
            invite: Vec::new(),
            certificate: Vec::new(),
        }
    }

    /// All serials of this name.
    pub(crate) fn serials(&self) -> impl Iterator<Item = &str> {
        let invites = self.invite.iter().map(|invite| invite.serial.as_str());
        invites.chain(
            self.certificate
                .iter()
                .map(|certificate| certificate.serial.as_str()),
        )
    }

    /// Makes room for one more invite and certificate by forgetting what cannot be used any more, when there is much of it.
    pub(crate) fn make_room(
        &mut self,
        name: &EdgeName,
        revoked: &Revoked,
        now: SystemTime,
    ) -> Result<(), IdentityError> {
        let is_live = |serial: &str, expires_unix_s: u64| {
            from_unix_s(expires_unix_s) > now
                && !Serial::parse(serial).is_some_and(|serial| revoked.contains_key(&serial))
        };
        if self.invite.len() >= MAX_LIVE_ENTRIES {
            self.invite
                .retain(|invite| is_live(&invite.serial, invite.expires_unix_s));
        }
        if self.certificate.len() >= MAX_LIVE_ENTRIES {
            self.certificate
                .retain(|certificate| is_live(&certificate.serial, certificate.expires_unix_s));
        }
        if self.invite.len() >= MAX_LIVE_ENTRIES || self.certificate.len() >= MAX_LIVE_ENTRIES {
            return Err(IdentityError::TooManyEntries {
                name: name.clone(),
                most: MAX_LIVE_ENTRIES,
            });
        }
        Ok(())
    }
}

/// Where the authority in `directory` keeps the revoked serials.
pub(crate) fn revocations_file(directory: &Path) -> PathBuf {
    directory.join("revoked")
}

pub(crate) fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

pub(crate) fn from_unix_s(seconds: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn invite(serial: &str, expires_unix_s: u64) -> InviteEntry {
        InviteEntry {
            id: "0".repeat(32),
            serial: serial.to_owned(),
            expires_unix_s,
            exchanged_for: None,
        }
    }

    #[test]
    fn records_come_back_as_they_were_saved() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let name: EdgeName = "branch-1".parse().unwrap();
        assert!(store.load(&name).unwrap().is_none() && store.names().unwrap().is_empty());
        let mut record = Record::new(&name);
        record.invite.push(invite("4a", 7));
        store.save(&name, &record).unwrap();
        let read = store.load(&name).unwrap().unwrap();
        assert_eq!(read.serials().collect::<Vec<_>>(), ["4a"]);
        assert_eq!(store.names().unwrap(), [name]);
    }

    #[test]
    fn damaged_records_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let name: EdgeName = "branch-1".parse().unwrap();
        store.save(&name, &Record::new(&name)).unwrap();
        let file = directory.path().join("identities/branch-1.toml");
        for text in [
            "",
            "version = 2\nname = \"branch-1\"",
            "version = 1\nname = \"branch-2\"",
            "version = 1\nname = \"branch-1\"\nx = 1",
            "version = 1\nname = \"branch-1\"\n[[invite]]\nid = \"../x\"\nserial = \"4a\"\nexpires_unix_s = 1",
            "version = 1\nname = \"branch-1\"\n[[invite]]\nid = \"00000000000000000000000000000000\"\nserial = \"4A\"\nexpires_unix_s = 1",
            "\u{0}",
        ] {
            std::fs::write(&file, text).unwrap();
            let message = store.load(&name).unwrap_err().to_string();
            assert!(
                message.contains("branch-1.toml is damaged") && !message.contains('\n'),
                "{message}"
            );
        }
        std::fs::write(&file, [0xff]).unwrap();
        assert!(store.load(&name).is_err());
        std::fs::write(
            &file,
            "#".repeat(usize::try_from(MAX_RECORD_BYTES).unwrap() + 1),
        )
        .unwrap();
        assert!(matches!(
            store.load(&name),
            Err(IdentityError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_damaged_list_of_revocations_is_never_taken_for_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert!(store.load_revoked().unwrap().is_empty());
        let revoked: Revoked = [(Serial::parse("4a").unwrap(), "branch-1".to_owned())].into();
        store.save_revoked(&revoked).unwrap();
        assert_eq!(store.load_revoked().unwrap(), revoked);
        for text in ["4a", "4a branch-1", "4A branch-1\n", "\u{1}\n"] {
            std::fs::write(store.revoked_file(), text).unwrap();
            assert!(store.load_revoked().is_err(), "{text:?}");
        }
    }

    #[test]
    fn room_is_made_by_forgetting_what_is_over_and_not_by_more() {
        let name: EdgeName = "branch-1".parse().unwrap();
        let now = SystemTime::now();
        let mut record = Record::new(&name);
        record.invite = vec![invite("4a", unix_s(now) - 1); MAX_LIVE_ENTRIES];
        record.make_room(&name, &Revoked::new(), now).unwrap();
        assert!(record.invite.is_empty());
        record.invite = vec![invite("4a", unix_s(now) + 9); MAX_LIVE_ENTRIES];
        assert!(matches!(
            record.make_room(&name, &Revoked::new(), now),
            Err(IdentityError::TooManyEntries { .. })
        ));
        let revoked: Revoked = [(Serial::parse("4a").unwrap(), "branch-1".to_owned())].into();
        record.make_room(&name, &revoked, now).unwrap();
        assert!(record.invite.is_empty());
    }
}
