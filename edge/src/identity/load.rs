//! An edge's own identity, read from its files and checked as a whole.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{Peer, Role, is_issued_by, parse, validity};
use super::error::IdentityError;
use super::files::{self, MAX_PEM_BYTES};
use crate::config::IdentityConfig;

/// What an edge presents and whom it trusts.
pub struct Identity {
    /// Its certificate chain, own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The authorities whose certificates it accepts.
    pub roots: Vec<CertificateDer<'static>>,
    /// What its own certificate says: name, role, serial, expiry.
    pub own: Peer,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// Certificates in one file; a chain here has one or two.
const MAX_CERTIFICATES: usize = 16;

impl Identity {
    /// Reads and checks the files of `[identity]` for an edge of this role.
    ///
    /// A renewal that a crash interrupted between its two files is completed here.
    ///
    /// # Errors
    /// Unreadable, damaged or world-readable files; an expired or not yet valid certificate; a key or an authority that does not
    /// belong to it; the other role.
    pub fn load(
        config: &IdentityConfig,
        role: Role,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let roots = certificates(&config.ca, &files::read(&config.ca, MAX_PEM_BYTES)?)?;
        let chain = certificates(
            &config.certificate,
            &files::read(&config.certificate, MAX_PEM_BYTES)?,
        )?;
        let key = matching_key(config, &chain)?;
        let own = check_chain(&config.certificate, &config.ca, &chain, &roots, now)?;
        if own.role != role {
            return Err(IdentityError::WrongRole {
                certificate: config.certificate.clone(),
                found: own.role.as_str(),
                expected: role.as_str(),
            });
        }
        Ok(Self {
            chain,
            key: PrivateKeyDer::from(key),
            roots,
            own,
        })
    }
}

/// Checks that every certificate is signed by the next, the last by an authority, and that all are valid now.
pub(crate) fn check_chain(
    file: &Path,
    ca_file: &Path,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<Peer, IdentityError> {
    let leaf = chain
        .first()
        .ok_or_else(|| IdentityError::damaged(file, "it holds no certificate"))?;
    let own = Peer::from_certificate(leaf)
        .map_err(|error| IdentityError::damaged(file, error.to_string()))?;
    let mut signed = chain
        .iter()
        .zip(chain.iter().skip(1))
        .all(|(certificate, issuer)| is_issued_by(certificate, issuer));
    let root = chain
        .last()
        .and_then(|last| roots.iter().find(|root| is_issued_by(last, root)));
    signed &= root.is_some();
    if !signed {
        return Err(IdentityError::WrongAuthority {
            certificate: file.to_owned(),
            ca: ca_file.to_owned(),
        });
    }
    check_time(file, chain.iter(), now, &renewal_advice(&own))?;
    check_time(
        ca_file,
        root.into_iter(),
        now,
        "run `wanproxy-server init` in a new directory and invite all clients again",
    )?;
    Ok(own)
}

fn renewal_advice(own: &Peer) -> String {
    match own.role {
        Role::Server => "run `wanproxy-server renew server --dir DIR`".to_owned(),
        Role::Client => {
            format!(
                "run `wanproxy-server renew {} --dir DIR` at the server and `wanproxy-client join` with what it writes",
                own.name
            )
        }
    }
}

fn check_time<'a>(
    file: &Path,
    certificates: impl Iterator<Item = &'a CertificateDer<'static>>,
    now: SystemTime,
    advice: &str,
) -> Result<(), IdentityError> {
    for certificate in certificates {
        let (from, until) = validity(certificate)
            .map_err(|error| IdentityError::damaged(file, error.to_string()))?;
        if now > until {
            return Err(IdentityError::Expired {
                path: file.to_owned(),
                expired: until,
                advice: advice.to_owned(),
            });
        }
        if now < from {
            return Err(IdentityError::NotYetValid {
                path: file.to_owned(),
                from,
            });
        }
    }
    Ok(())
}

/// The key in the key's file or, when a crash came between the two files of a renewal, the one waiting beside it.
fn matching_key(
    config: &IdentityConfig,
    chain: &[CertificateDer<'static>],
) -> Result<KeyPair, IdentityError> {
    let fits = |key: &KeyPair| chain.first().is_some_and(|leaf| is_key_of(key, leaf));
    let key = key_pair(
        &config.key,
        &files::read_private(&config.key, MAX_PEM_BYTES)?,
    )?;
    if fits(&key) {
        return Ok(key);
    }
    let pending = pending_key_file(&config.key);
    if pending.exists() {
        let key = key_pair(&pending, &files::read_private(&pending, MAX_PEM_BYTES)?)?;
        if fits(&key) {
            files::rename(&pending, &config.key)?;
            return Ok(key);
        }
    }
    Err(IdentityError::KeyMismatch {
        key: config.key.clone(),
        certificate: config.certificate.clone(),
    })
}

/// Where a new key waits for its certificate.
pub(crate) fn pending_key_file(key: &Path) -> PathBuf {
    let mut name = key.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    key.with_file_name(name)
}

/// All certificates of a PEM text; at least one.
pub(crate) fn certificates(
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::damaged(file, format!("it is not PEM ({error})")))?;
    if found.is_empty() || found.len() > MAX_CERTIFICATES {
        return Err(IdentityError::damaged(
            file,
            format!(
                "it holds {} certificates",
                if found.is_empty() { "no" } else { "too many" }
            ),
        ));
    }
    for certificate in &found {
        parse(certificate).map_err(|error| IdentityError::damaged(file, error.to_string()))?;
    }
    Ok(found)
}

/// The private key of a PEM text.
pub(crate) fn key_pair(file: &Path, pem: &[u8]) -> Result<KeyPair, IdentityError> {
    let der = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| IdentityError::damaged(file, "it holds no private key in PEM"))?;
    KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| IdentityError::damaged(file, "its key is not an ECDSA P-256 key"))
}

/// Is this the certificate's key?
pub(crate) fn is_key_of(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    parse(certificate)
        .is_ok_and(|certificate| certificate.public_key().raw == key.subject_public_key_info())
}
