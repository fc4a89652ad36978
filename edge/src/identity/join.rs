//! `join`: an invite becomes a client's directory, without any network.

use std::path::Path;
use std::time::SystemTime;

use super::authority::write_all_or_nothing;
use super::certificate::Peer;
use super::error::IdentityError;
use super::files::{self, MAX_PEM_BYTES};
use super::invite::{Invite, MAX_INVITE_BYTES};
use super::load::{certificates, pending_key_file};
use super::name::EdgeName;
use super::template;
use crate::config::Target;

/// What `join` did.
#[derive(Debug)]
pub struct Joined {
    /// The client's name.
    pub name: EdgeName,
    /// Where it will connect to.
    pub server: Target,
    /// Until when it must have connected once.
    pub expires: SystemTime,
    /// The credentials of a client that joined before were replaced; its configuration was not touched.
    pub renewed: bool,
}

/// The files that `join` writes; the configuration last: a directory that has one is whole.
const FILES: [&str; 4] = ["edge.key", "edge.pem", "ca.pem", "client.toml"];

/// Writes `client.toml` and the credentials of an invite into a directory.
///
/// # Errors
/// The file is no invite, damaged, expired, of another version, or was used here before; or a file of the same name is there.
/// Then the directory is left as it was.
pub fn join(
    invite_file: &Path,
    directory: &Path,
    now: SystemTime,
) -> Result<Joined, IdentityError> {
    let no_invite = || IdentityError::NotAnInvite {
        path: invite_file.to_owned(),
    };
    let bytes = files::read(invite_file, MAX_INVITE_BYTES).map_err(|error| match error {
        IdentityError::TooLarge { .. } => no_invite(),
        other => other,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| no_invite())?;
    let invite = Invite::parse(&text, invite_file)?;
    if invite.peer.not_after < now {
        let advice = format!(
            "ask for a new one, by `wanproxy-server invite {} --dir DIR`",
            invite.name
        );
        return Err(IdentityError::Expired {
            path: invite_file.to_owned(),
            expired: invite.peer.not_after,
            advice,
        });
    }
    let holder = holder(directory);
    if holder
        .as_ref()
        .is_some_and(|holder| holder.peer.invite.as_deref() == Some(invite.id.as_str()))
    {
        return Err(IdentityError::InviteUsedHere {
            path: directory.to_owned(),
        });
    }
    let mut joined = Joined {
        name: invite.name.clone(),
        server: invite.server.clone(),
        expires: invite.peer.not_after,
        renewed: false,
    };
    if invite.renews
        && let Some(holder) = holder
    {
        if holder.peer.name != invite.name || !holder.roots.contains(&invite.ca) {
            return Err(IdentityError::InviteForOther {
                path: directory.to_owned(),
                invited: invite.name,
            });
        }
        // The order of a renewal over the tunnel, for the same reason: each step leaves a pair that works.
        let key = directory.join("edge.key");
        files::replace(&pending_key_file(&key), invite.key_pem.as_bytes())?;
        files::replace(
            &directory.join("edge.pem"),
            invite.certificate_pem.as_bytes(),
        )?;
        files::rename(&pending_key_file(&key), &key)?;
        joined.renewed = true;
        return Ok(joined);
    }
    for name in FILES {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(IdentityError::Exists { path });
        }
    }
    files::create_directory(directory)?;
    let config = template::client_toml(&invite.name, &invite.server);
    let contents = [
        invite.key_pem,
        invite.certificate_pem,
        invite.ca_pem,
        config,
    ];
    let contents: Vec<(&str, String)> = FILES.into_iter().zip(contents).collect();
    write_all_or_nothing(directory, &contents)?;
    Ok(joined)
}

/// Whose directory this is.
struct Holder {
    peer: Peer,
    roots: Vec<rustls_pki_types::CertificateDer<'static>>,
}

/// Whose directory this is, when its files can be read.
fn holder(directory: &Path) -> Option<Holder> {
    let read = |name: &str| {
        let file = directory.join(name);
        certificates(&file, &files::read(&file, MAX_PEM_BYTES).ok()?).ok()
    };
    let peer = Peer::from_certificate(read("edge.pem")?.first()?).ok()?;
    Some(Holder {
        peer,
        roots: read("ca.pem")?,
    })
}
