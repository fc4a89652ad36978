//! The server's side of a renewal: a client's signing request in, a certificate out.

use std::time::SystemTime;

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::authority::Authority;
use super::certificate::{Peer, Role, Serial, is_issued_by, pin_of};
use super::error::{IdentityError, date};
use super::files::Lock;
use super::issue::{EDGE_LIFE, Subject, issue_since};
use super::store::{CertificateEntry, Record, from_unix_s, unix_s};
use crate::config::Pin;

/// The largest signing request in bytes (protocol.md, Renew); one for P-256 takes about 300.
pub const MAX_REQUEST_BYTES: usize = 8 << 10;

/// Why a client gets no certificate. `Display` is one line, fit to be sent to it.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The request is no PKCS #10 request, too long, or not signed by the key in it.
    #[error("the signing request is not valid: {0}")]
    BadRequest(&'static str),
    /// The request's key is not ECDSA P-256.
    #[error("the signing request is not for an ECDSA P-256 key")]
    KeyType,
    /// The peer's certificate is not a client's of this authority.
    #[error("this certificate is not a client's of this authority; join with a new invite")]
    NotAClient,
    /// The peer's certificate is over.
    #[error("this certificate expired on {}; ask for a new invite", date(*.0))]
    Expired(SystemTime),
    /// The peer's certificate was revoked.
    #[error("revoked; ask for a new invite")]
    Revoked,
    /// The invite was exchanged for another key.
    #[error(
        "used invite: it was exchanged for another key on another machine or before a restore; ask for a new invite"
    )]
    UsedInvite,
    /// The authority does not know the invite.
    #[error("unknown invite; ask for a new one")]
    UnknownInvite,
    /// The authority's own files. Not for the peer to read in detail.
    #[error("the server cannot renew certificates now; see its log")]
    Authority(#[source] IdentityError),
}

impl Authority {
    /// Gives the peer that presented `peer_certificate` a certificate for the key of its signing request: its chain, own certificate first.
    ///
    /// The name comes from the peer's certificate, whatever the request says. An invite is exchanged for one key only; whoever asks again
    /// with the same key, because the answer got lost, gets the same certificate again. Blocks on files.
    ///
    /// # Errors
    /// See [`RenewError`]; what is refused changes nothing.
    pub fn sign_renewal(
        &self,
        peer_certificate: &CertificateDer<'_>,
        csr_der: &[u8],
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, RenewError> {
        let peer = Peer::from_certificate(peer_certificate).map_err(|_| RenewError::NotAClient)?;
        if peer.role != Role::Client || !is_issued_by(peer_certificate, &self.ca) {
            return Err(RenewError::NotAClient);
        }
        if peer.not_after < now {
            return Err(RenewError::Expired(peer.not_after));
        }
        let (public_key, pin) = read_request(csr_der)?;

        let _lock = Lock::acquire(&self.directory).map_err(RenewError::Authority)?;
        let revoked = self.store.load_revoked().map_err(RenewError::Authority)?;
        if revoked.contains_key(&peer.serial) {
            return Err(RenewError::Revoked);
        }
        let known = self.store.load(&peer.name).map_err(RenewError::Authority)?;
        let mut record = known.unwrap_or_else(|| Record::new(&peer.name));
        if let Some(id) = &peer.invite {
            exchange(&mut record, id, pin)?;
        }
        if let Some(before) =
            issued_before(&record, pin, |serial| revoked.contains_key(serial), now)
        {
            return Ok(vec![before]);
        }
        record
            .make_room(&peer.name, &revoked, now)
            .map_err(RenewError::Authority)?;
        let issued = issue_since(
            &self.issuer,
            &Subject::Client(&peer.name),
            &public_key,
            EDGE_LIFE,
            now,
            peer.not_before,
        )
        .map_err(RenewError::Authority)?;
        record.certificate.push(CertificateEntry {
            serial: issued.serial.to_string(),
            expires_unix_s: unix_s(issued.not_after),
            key: pin.to_string(),
            pem: issued.pem,
        });
        self.store
            .save(&peer.name, &record)
            .map_err(RenewError::Authority)?;
        Ok(vec![issued.certificate])
    }
}

/// Checks a signing request and takes its key.
fn read_request(csr_der: &[u8]) -> Result<(SubjectPublicKeyInfo, Pin), RenewError> {
    if csr_der.len() > MAX_REQUEST_BYTES {
        return Err(RenewError::BadRequest("it is too long"));
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(csr_der) else {
        return Err(RenewError::BadRequest("it is not PKCS #10"));
    };
    let spki = request.certification_request_info.subject_pki.raw;
    let public_key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| RenewError::KeyType)?;
    if rcgen::PublicKeyData::algorithm(&public_key) != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(RenewError::KeyType);
    }
    request
        .verify_signature()
        .map_err(|_| RenewError::BadRequest("its signature is wrong"))?;
    Ok((public_key, pin_of(spki)))
}

/// Binds an invite to a key, once.
fn exchange(record: &mut Record, id: &str, pin: Pin) -> Result<(), RenewError> {
    let entry = record
        .invite
        .iter_mut()
        .find(|entry| entry.id == id)
        .ok_or(RenewError::UnknownInvite)?;
    let pin = pin.to_string();
    match &entry.exchanged_for {
        Some(before) if *before != pin => Err(RenewError::UsedInvite),
        _ => {
            entry.exchanged_for = Some(pin);
            Ok(())
        }
    }
}

/// The certificate that this key got before, when it still has more than half of its life.
fn issued_before(
    record: &Record,
    pin: Pin,
    is_revoked: impl Fn(&Serial) -> bool,
    now: SystemTime,
) -> Option<CertificateDer<'static>> {
    let pin = pin.to_string();
    let entry = record.certificate.iter().rev().find(|entry| {
        entry.key == pin
            && from_unix_s(entry.expires_unix_s) > now + EDGE_LIFE / 2
            && !Serial::parse(&entry.serial).is_some_and(|serial| is_revoked(&serial))
    })?;
    CertificateDer::from_pem_slice(entry.pem.as_bytes()).ok()
}
