//! What an administrator does with an authority: invite, list, renew, revoke.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::authority::Authority;
use super::certificate::{Peer, Role, Serial};
use super::error::IdentityError;
use super::files::{self, Lock, MAX_PEM_BYTES};
use super::invite::{self, Contents};
use super::issue::{EDGE_LIFE, Subject, issue, new_key};
use super::load::{certificates, key_pair};
use super::name::EdgeName;
use super::store::{InviteEntry, Record, Revoked, from_unix_s, unix_s};

/// How an identity stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// An invite is open, and no certificate was given yet.
    Invited,
    /// It holds a certificate that is valid.
    Active,
    /// All that it held is over.
    Expired,
    /// What it held last was revoked.
    Revoked,
}

impl State {
    /// The state as `list` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// One row of `list`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name.
    pub name: EdgeName,
    /// Server or client.
    pub role: Role,
    /// How it stands.
    pub state: State,
    /// When the certificate or the invite that the state speaks of ends.
    pub expires: SystemTime,
    /// Its serial.
    pub serial: Serial,
}

/// An invite that was just registered.
pub struct NewInvite {
    /// The whole text of the invite, with a private key in it.
    pub text: String,
    /// Until when it can be used.
    pub expires: SystemTime,
    /// The name holds a valid certificate already: whoever joins now shares the identity.
    pub was_active: bool,
}

impl Authority {
    /// Makes an invite for `name`, valid for `life`, and registers it.
    ///
    /// With `out` the text is written to that file, which must not exist; when that fails, nothing is registered.
    /// With `renews` it replaces the credentials of a client that joined before, and the name must be known.
    ///
    /// # Errors
    /// Too many open invites, an unknown name to renew, or files that cannot be read or written.
    pub fn invite(
        &self,
        name: &EdgeName,
        life: Duration,
        renews: bool,
        out: Option<&Path>,
        now: SystemTime,
    ) -> Result<NewInvite, IdentityError> {
        let server = self.address()?;
        let _lock = Lock::acquire(&self.directory)?;
        let revoked = self.store.load_revoked()?;
        let known = self.store.load(name)?;
        if renews && known.is_none() {
            return Err(IdentityError::UnknownName {
                name: name.clone(),
                directory: self.directory.clone(),
            });
        }
        let mut record = known.unwrap_or_else(|| Record::new(name));
        let was_active =
            row(name, &record, &revoked, now).is_some_and(|row| row.state == State::Active);
        record.make_room(name, &revoked, now)?;
        let id = format!("{:032x}", rand::random::<u128>());
        let key = new_key()?;
        let issued = issue(
            &self.issuer,
            &Subject::Invite { name, id: &id },
            &key,
            life,
            now,
        )?;
        let text = invite::write(&Contents {
            name,
            server: &server,
            id: &id,
            renews,
            ca_pem: &self.ca_pem,
            certificate_pem: &issued.pem,
            key_pem: &key.serialize_pem(),
            expires: issued.not_after,
        });
        record.invite.push(InviteEntry {
            id,
            serial: issued.serial.to_string(),
            expires_unix_s: unix_s(issued.not_after),
            exchanged_for: None,
        });
        // Registered before it leaves: a revocation must find every invite that anybody may hold.
        self.store.save(name, &record)?;
        if let Some(out) = out
            && let Err(error) = files::write_new(out, text.as_bytes())
        {
            record.invite.pop();
            self.store.save(name, &record)?;
            return Err(error);
        }
        Ok(NewInvite {
            text,
            expires: issued.not_after,
            was_active,
        })
    }

    /// All identities: the server first, then the clients by name.
    ///
    /// # Errors
    /// A record or the server's certificate cannot be read.
    pub fn list(&self, now: SystemTime) -> Result<Vec<Listed>, IdentityError> {
        let file = self.directory.join("edge.pem");
        let chain = certificates(&file, &files::read(&file, MAX_PEM_BYTES)?)?;
        let leaf = chain
            .first()
            .ok_or_else(|| IdentityError::damaged(&file, "it holds no certificate"))?;
        let own = Peer::from_certificate(leaf)
            .map_err(|error| IdentityError::damaged(&file, error.to_string()))?;
        let state = if own.not_after > now {
            State::Active
        } else {
            State::Expired
        };
        let mut rows = vec![Listed {
            name: own.name,
            role: own.role,
            state,
            expires: own.not_after,
            serial: own.serial,
        }];
        let revoked = self.store.load_revoked()?;
        for name in self.store.names()? {
            if let Some(record) = self.store.load(&name)? {
                rows.extend(row(&name, &record, &revoked, now));
            }
        }
        Ok(rows)
    }

    /// Revokes every certificate and open invite of a name. Returns how many; 0 when there was nothing left to revoke.
    ///
    /// # Errors
    /// An unknown name, the server's own, or files that cannot be read or written.
    pub fn revoke(&self, name: &EdgeName, now: SystemTime) -> Result<usize, IdentityError> {
        if *name == EdgeName::server() {
            return Err(IdentityError::RevokeServer);
        }
        let _lock = Lock::acquire(&self.directory)?;
        let unknown = || IdentityError::UnknownName {
            name: name.clone(),
            directory: self.directory.clone(),
        };
        let record = self.store.load(name)?.ok_or_else(unknown)?;
        let mut revoked = self.store.load_revoked()?;
        let mut count = 0;
        for (serial, expires_unix_s) in record.entries() {
            if from_unix_s(expires_unix_s) > now
                && revoked.insert(serial, name.to_string()).is_none()
            {
                count += 1;
            }
        }
        if count != 0 {
            self.store.save_revoked(&revoked)?;
        }
        Ok(count)
    }

    /// Gives the server a new certificate for the key that it has, so that pins on it stay right. Returns its expiry.
    ///
    /// # Errors
    /// The server's key or the directory cannot be read or written.
    pub fn renew_server(&self, now: SystemTime) -> Result<SystemTime, IdentityError> {
        let _lock = Lock::acquire(&self.directory)?;
        let key_file = self.directory.join("edge.key");
        let key = key_pair(&key_file, &files::read_private(&key_file, MAX_PEM_BYTES)?)?;
        let issued = issue(
            &self.issuer,
            &Subject::Server(&EdgeName::server()),
            &key,
            EDGE_LIFE,
            now,
        )?;
        files::replace(&self.directory.join("edge.pem"), issued.pem.as_bytes())?;
        Ok(issued.not_after)
    }
}

impl Record {
    /// Serial and expiry of all that this name was given.
    fn entries(&self) -> impl Iterator<Item = (Serial, u64)> {
        let invites = self
            .invite
            .iter()
            .map(|entry| (&entry.serial, entry.expires_unix_s));
        let certificates = self
            .certificate
            .iter()
            .map(|entry| (&entry.serial, entry.expires_unix_s));
        invites
            .chain(certificates)
            .filter_map(|(serial, expires)| Some((Serial::parse(serial)?, expires)))
    }
}

/// How a name stands: by its best certificate, else its best open invite, else by what it held last.
fn row(name: &EdgeName, record: &Record, revoked: &Revoked, now: SystemTime) -> Option<Listed> {
    let state_of = |serial: &Serial, expires_unix_s: u64, live: State| {
        if revoked.contains_key(serial) {
            State::Revoked
        } else if from_unix_s(expires_unix_s) <= now {
            State::Expired
        } else {
            live
        }
    };
    let certificates = record
        .certificate
        .iter()
        .map(|entry| (&entry.serial, entry.expires_unix_s, State::Active));
    // An invite that was exchanged for a certificate has done its work and says nothing more.
    let invites = record
        .invite
        .iter()
        .filter(|entry| entry.exchanged_for.is_none())
        .map(|entry| (&entry.serial, entry.expires_unix_s, State::Invited));
    let rows = certificates
        .chain(invites)
        .filter_map(|(serial, expires, live)| {
            let serial = Serial::parse(serial)?;
            Some((state_of(&serial, expires, live), expires, serial))
        });
    let rank = |state: State| match state {
        State::Active => 3,
        State::Invited => 2,
        State::Revoked => 1,
        State::Expired => 0,
    };
    rows.max_by_key(|(state, expires, _)| (rank(*state), *expires))
        .map(|(state, expires, serial)| Listed {
            name: name.clone(),
            role: Role::Client,
            state,
            expires: from_unix_s(expires),
            serial,
        })
}
