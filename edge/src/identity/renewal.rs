//! The client's side of a renewal: a new key and a signing request out, a certificate in.
//!
//! The new key is on the disk, as `KEY.new`, before anybody is asked to sign it, and the same key is used until an answer has come: an answer
//! that gets lost is asked for again. When it comes, the certificate's file is replaced first and the key's file second. A crash between
//! the two leaves a certificate whose key is `KEY.new`; [`Identity::load`] knows that and completes the step.

use std::path::PathBuf;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;

use super::certificate::{Role, parse};
use super::error::IdentityError;
use super::files::{self, MAX_PEM_BYTES};
use super::issue::new_key;
use super::load::{Identity, check_chain, is_key_of, key_pair, pending_key_file};
use super::name::EdgeName;
use super::template;
use crate::config::IdentityConfig;

/// A renewal that was begun. Blocks on files; call it from a thread that may block.
pub struct Renewal {
    config: IdentityConfig,
    name: EdgeName,
    roots: Vec<CertificateDer<'static>>,
    key: KeyPair,
    csr_der: Vec<u8>,
}

/// Why a certificate that came as an answer is not used.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It is not for the key that was asked for, or for another name, role or authority, or not valid now.
    #[error("the server's answer to the renewal cannot be used: {0}")]
    Unusable(String),
    /// The files could not be written; the old ones still work.
    #[error("{0}")]
    Files(#[from] IdentityError),
}

impl Renewal {
    /// Begins a renewal of `identity`, or takes up the one that was begun before.
    ///
    /// # Errors
    /// The new key cannot be made or written.
    pub fn begin(config: &IdentityConfig, identity: &Identity) -> Result<Self, IdentityError> {
        let pending = pending_key_file(&config.key);
        let key = match pending_key(&pending, identity) {
            Some(key) => key,
            None => {
                let key = new_key()?;
                files::replace(&pending, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, identity.own.name.as_str());
        let csr = params
            .serialize_request(&key)
            .map_err(IdentityError::crypto("make a signing request"))?;
        Ok(Self {
            config: config.clone(),
            name: identity.own.name.clone(),
            roots: identity.roots.clone(),
            key,
            csr_der: csr.der().to_vec(),
        })
    }

    /// The signing request (PKCS #10, DER) to send.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// Installs the chain that came as an answer and returns the identity that is now on the disk.
    ///
    /// # Errors
    /// The chain is not what was asked for; nothing is changed. Or the files cannot be written; then the old or the new identity works.
    pub fn finish(
        self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Identity, InstallError> {
        let chain: Vec<CertificateDer<'static>> = chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let unusable = |what: String| InstallError::Unusable(what);
        for certificate in &chain {
            parse(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let file = PathBuf::from("the new certificate");
        let own = check_chain(&file, &self.config.ca, &chain, &self.roots, now)
            .map_err(|error| unusable(error.to_string()))?;
        if own.name != self.name || own.role != Role::Client || own.invite.is_some() {
            return Err(unusable(format!(
                "it is for another identity, \"{}\"",
                own.name
            )));
        }
        if !chain.first().is_some_and(|leaf| is_key_of(&self.key, leaf)) {
            return Err(unusable("it is for another key".to_owned()));
        }
        let pem: String = chain
            .iter()
            .map(|certificate| template::pem("CERTIFICATE", certificate))
            .collect();
        files::replace(&self.config.certificate, pem.as_bytes())?;
        files::rename(&pending_key_file(&self.config.key), &self.config.key)?;
        Ok(Identity::load(&self.config, Role::Client, now)?)
    }
}

/// The key of a renewal that was begun before, unless it is unreadable or in use already.
fn pending_key(file: &std::path::Path, identity: &Identity) -> Option<KeyPair> {
    let key = key_pair(file, &files::read_private(file, MAX_PEM_BYTES).ok()?).ok()?;
    let in_use = identity
        .chain
        .first()
        .is_some_and(|leaf| is_key_of(&key, leaf));
    (!in_use && !key.subject_public_key_info().is_empty()).then_some(key)
}
