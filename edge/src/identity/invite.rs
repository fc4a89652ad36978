//! The invite: one text file with all that a new client needs.
//!
//! ```text
//! wanproxy invite 1
//! # for people: what this is, until when, what to do with it
//! name: branch-1
//! server: hq.example.com:7443
//! id: 32 hex digits
//! use: join            (or: renewal)
//! three PEM blocks: the authority's certificate, the short-lived certificate, its private key
//! checksum: SHA-256 of all lines before, each ended by one line feed
//! ```
//! Blanks at line ends, carriage returns and lines around it, as mail adds them, do not matter.

use std::path::Path;
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use super::certificate::{Peer, Role, is_invite_id, is_issued_by};
use super::error::{IdentityError, date};
use super::load::{certificates, is_key_of, key_pair};
use super::name::{EdgeName, parse_client_name};
use crate::config::Target;

/// The largest invite in bytes; one takes about 3 KiB.
pub(crate) const MAX_INVITE_BYTES: u64 = 64 << 10;
const VERSION: u32 = 1;
const FIRST_LINE: &str = "wanproxy invite ";

/// An invite, checked as a whole.
pub(crate) struct Invite {
    pub(crate) name: EdgeName,
    pub(crate) server: Target,
    pub(crate) id: String,
    /// Replaces the credentials of a client that joined before.
    pub(crate) renews: bool,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) ca_pem: String,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    pub(crate) peer: Peer,
}

/// What goes into an invite.
pub(crate) struct Contents<'a> {
    pub(crate) name: &'a EdgeName,
    pub(crate) server: &'a Target,
    pub(crate) id: &'a str,
    pub(crate) renews: bool,
    pub(crate) ca_pem: &'a str,
    pub(crate) certificate_pem: &'a str,
    pub(crate) key_pem: &'a str,
    pub(crate) expires: SystemTime,
}

/// Writes an invite.
pub(crate) fn write(contents: &Contents<'_>) -> String {
    let Contents {
        name,
        server,
        id,
        renews,
        ca_pem,
        certificate_pem,
        key_pem,
        expires,
    } = contents;
    let (purpose, word) = if *renews {
        ("renews the certificate of", "renewal")
    } else {
        ("lets a machine join as", "join")
    };
    let body = format!(
        "{FIRST_LINE}{VERSION}\n\
         # This {purpose} client \"{name}\" of {server}.\n\
         # It works once, until {}. Keep it secret: it holds a private key. On the client run:\n\
         #   wanproxy-client join THIS_FILE --dir /etc/wanproxy\n\
         name: {name}\nserver: {server}\nid: {id}\nuse: {word}\n{ca_pem}{certificate_pem}{key_pem}",
        date(*expires)
    );
    let checksum = checksum(&body);
    format!("{body}checksum: {checksum}\n")
}

impl Invite {
    /// Reads an invite; `path` is what errors call it.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, IdentityError> {
        let damaged = |what: &str| IdentityError::InviteDamaged {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let mut lines = text
            .trim_start_matches('\u{feff}')
            .lines()
            .map(str::trim_end)
            .skip_while(|line| !line.starts_with(FIRST_LINE));
        let first = lines.next().ok_or_else(|| IdentityError::NotAnInvite {
            path: path.to_owned(),
        })?;
        let version = first.strip_prefix(FIRST_LINE).unwrap_or_default();
        if version != VERSION.to_string() {
            return Err(IdentityError::InviteVersion {
                path: path.to_owned(),
                version: version.escape_default().to_string(),
                known: VERSION,
            });
        }
        let mut body = format!("{first}\n");
        let mut written = None;
        for line in lines {
            if let Some(checksum) = line.strip_prefix("checksum: ") {
                written = Some(checksum);
                break;
            }
            body.push_str(line);
            body.push('\n');
        }
        let written = written.ok_or_else(|| damaged("its end is missing"))?;
        if written != checksum(&body) {
            return Err(damaged("its checksum does not fit"));
        }
        let field = |name: &str| {
            body.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .ok_or_else(|| damaged("a field is missing"))
        };
        let name = parse_client_name(field("name")?).map_err(|_| damaged("its name is not one"))?;
        let server = field("server")?
            .parse()
            .map_err(|_| damaged("its server is not HOST:PORT"))?;
        let id = field("id")?.to_owned();
        let renews = match field("use")? {
            "join" => false,
            "renewal" => true,
            _ => return Err(damaged("its use is not known")),
        };
        let in_invite = |error: IdentityError| match error {
            IdentityError::Damaged { what, .. } => damaged(&what),
            other => other,
        };
        let found = certificates(path, body.as_bytes()).map_err(in_invite)?;
        let key = key_pair(path, body.as_bytes()).map_err(in_invite)?;
        let [ca, certificate] = found.as_slice() else {
            return Err(damaged("it does not hold two certificates"));
        };
        let peer =
            Peer::from_certificate(certificate).map_err(|error| damaged(&error.to_string()))?;
        let fits = peer.name == name
            && peer.role == Role::Client
            && peer.invite.as_deref() == Some(id.as_str())
            && is_invite_id(&id)
            && is_issued_by(certificate, ca)
            && is_key_of(&key, certificate);
        if !fits {
            return Err(damaged("its parts do not belong together"));
        }
        Ok(Self {
            name,
            server,
            id,
            renews,
            ca_pem: super::template::pem("CERTIFICATE", ca),
            ca: ca.clone(),
            certificate_pem: super::template::pem("CERTIFICATE", certificate),
            key_pem: KeyPair::serialize_pem(&key),
            peer,
        })
    }
}

fn checksum(body: &str) -> String {
    super::certificate::sha256(body.as_bytes()).to_string()
}
