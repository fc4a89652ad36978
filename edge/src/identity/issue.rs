//! Makes keys and certificates: ECDSA P-256 with SHA-256, and nothing else.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::certificate::{ANY_SERVER, INVITE_SUFFIX, Role, Serial};
use super::error::IdentityError;
use super::name::EdgeName;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Life of an authority; replacing it means inviting all clients again.
pub(crate) const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3_652);
/// Life of a server's and a client's certificate; clients renew theirs after two thirds of it.
pub(crate) const EDGE_LIFE: Duration = DAY.saturating_mul(365);
/// How far another machine's clock may lag behind without refusing a fresh certificate.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

/// A certificate that was just made.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) serial: Serial,
    pub(crate) not_after: SystemTime,
}

/// Whose certificate to make.
pub(crate) enum Subject<'a> {
    Server(&'a EdgeName),
    Client(&'a EdgeName),
    Invite { name: &'a EdgeName, id: &'a str },
}

/// A new private key.
pub(crate) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::crypto("make a key"))
}

/// A new authority: its self-signed certificate as PEM, and what issues from it.
pub(crate) fn new_authority(
    key: KeyPair,
    now: SystemTime,
) -> Result<(String, Issuer<'static, KeyPair>), IdentityError> {
    let (mut params, _serial) = params(now, AUTHORITY_LIFE);
    // Two authorities never share a name, so that a certificate of one is not mistaken for one of the other.
    params.distinguished_name.push(
        DnType::CommonName,
        format!("wanproxy authority {:08x}", rand::random::<u32>()),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .map_err(IdentityError::crypto("sign the authority's certificate"))?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

/// A certificate for an edge's public key.
pub(crate) fn issue(
    issuer: &Issuer<'_, KeyPair>,
    subject: &Subject<'_>,
    public_key: &impl PublicKeyData,
    life: Duration,
    now: SystemTime,
) -> Result<Issued, IdentityError> {
    issue_since(issuer, subject, public_key, life, now, now)
}

/// The same, valid from `since` at the latest: what takes an older certificate's place is good whenever that one was. Else one that was renewed
/// while the clock was ahead would be good for nothing once the clock is right again.
pub(crate) fn issue_since(
    issuer: &Issuer<'_, KeyPair>,
    subject: &Subject<'_>,
    public_key: &impl PublicKeyData,
    life: Duration,
    now: SystemTime,
    since: SystemTime,
) -> Result<Issued, IdentityError> {
    let (mut params, serial) = params(now, life);
    params.not_before = params.not_before.min(OffsetDateTime::from(since));
    let (name, role) = match subject {
        Subject::Server(name) => (name, Role::Server),
        Subject::Client(name) | Subject::Invite { name, .. } => (name, Role::Client),
    };
    let mut names = vec![format!("{name}{}", role.suffix())];
    match subject {
        Subject::Server(_) => names.insert(0, ANY_SERVER.to_owned()),
        Subject::Invite { id, .. } => names.push(format!("{id}{INVITE_SUFFIX}")),
        Subject::Client(_) => {}
    }
    params
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    for dns in names {
        params.subject_alt_names.push(rcgen::SanType::DnsName(
            dns.try_into()
                .map_err(IdentityError::crypto("name the certificate"))?,
        ));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match role {
        Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    let certificate = params
        .signed_by(public_key, issuer)
        .map_err(IdentityError::crypto("sign a certificate"))?;
    Ok(Issued {
        pem: certificate.pem(),
        certificate: certificate.into(),
        serial,
        not_after: now + life,
    })
}

/// An empty set of parameters with a random serial and a time.
fn params(now: SystemTime, life: Duration) -> (CertificateParams, Serial) {
    let mut serial: [u8; 16] = rand::random();
    // A serial is positive, and its hex has always 32 digits: the top bits are 01.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
    params.not_after = OffsetDateTime::from(now + life);
    (params, Serial::from_bytes(&serial))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::certificate::{Peer, is_issued_by, parse, pin_of};
    use super::*;

    #[test]
    fn certificates_say_whose_they_are() {
        let now = SystemTime::now();
        let (ca_pem, issuer) = new_authority(new_key().unwrap(), now).unwrap();
        let ca: CertificateDer<'static> =
            rustls_pki_types::pem::PemObject::from_pem_slice(ca_pem.as_bytes()).unwrap();
        assert!(parse(&ca).unwrap().is_ca());
        let key = new_key().unwrap();
        let name: EdgeName = "branch-1".parse().unwrap();
        let id = "0123456789abcdef".repeat(2);
        let life = Duration::from_secs(3_600);

        let invite = issue(
            &issuer,
            &Subject::Invite {
                name: &name,
                id: &id,
            },
            &key,
            life,
            now,
        )
        .unwrap();
        let peer = Peer::from_certificate(&invite.certificate).unwrap();
        assert_eq!(
            (&peer.name, peer.role, &peer.serial, peer.invite.as_deref()),
            (&name, Role::Client, &invite.serial, Some(id.as_str()))
        );
        assert_eq!(peer.pin, pin_of(&key.subject_public_key_info()));
        assert!(peer.needs_renewal(now));
        assert!(is_issued_by(&invite.certificate, &ca));

        let server = issue(&issuer, &Subject::Server(&name), &key, life, now).unwrap();
        let peer = Peer::from_certificate(&server.certificate).unwrap();
        assert_eq!(
            (&peer.name, peer.role, peer.invite),
            (&name, Role::Server, None)
        );

        let (other_pem, _) = new_authority(new_key().unwrap(), now).unwrap();
        let other: CertificateDer<'static> =
            rustls_pki_types::pem::PemObject::from_pem_slice(other_pem.as_bytes()).unwrap();
        assert!(!is_issued_by(&invite.certificate, &other));
        assert!(!is_issued_by(&invite.certificate, &invite.certificate));
        assert!(Peer::from_certificate(&ca).is_err());
        assert!(Peer::from_certificate(&CertificateDer::from(vec![0x30, 0x00])).is_err());
    }

    #[test]
    fn a_certificate_wants_renewal_in_its_last_third() {
        let now = SystemTime::now();
        let (_, issuer) = new_authority(new_key().unwrap(), now).unwrap();
        let name: EdgeName = "branch-1".parse().unwrap();
        let issued = issue(
            &issuer,
            &Subject::Client(&name),
            &new_key().unwrap(),
            EDGE_LIFE,
            now,
        )
        .unwrap();
        let peer = Peer::from_certificate(&issued.certificate).unwrap();
        let third = peer.not_after - EDGE_LIFE / 3;
        assert!(!peer.needs_renewal(third - Duration::from_secs(1)));
        assert!(peer.needs_renewal(third + Duration::from_secs(1)));
        assert!(peer.needs_renewal(peer.not_after + DAY));
    }
}
