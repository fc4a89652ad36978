//! What a certificate says: whose it is, until when, and by whom it was issued.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::issue::EDGE_LIFE;
use super::name::EdgeName;
use crate::config::Pin;

/// Which of the two programs an identity is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `NAME.client.wanproxy`, for TLS client authentication.
    Client,
    /// `NAME.server.wanproxy`, for TLS server authentication.
    Server,
}

impl Role {
    /// The role as people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// What follows the name in a certificate.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Client => ".client.wanproxy",
            Self::Server => ".server.wanproxy",
        }
    }
}

/// What follows an invite's id in its certificate.
pub(crate) const INVITE_SUFFIX: &str = ".invite.wanproxy";

/// The name that every server's certificate carries, whatever it is called.
pub const ANY_SERVER: &str = "server.wanproxy";

/// A certificate's serial number, in lower-case hex without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(String);

impl Serial {
    /// The serial of these bytes, most significant first.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(hex.trim_start_matches('0').to_owned())
    }

    /// Reads what [`fmt::Display`] wrote; `None` when it is no such thing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // RFC 5280, section 4.1.2.2: at most 20 octets.
        const MAX_SERIAL_DIGITS: usize = 40;
        let good = !text.is_empty()
            && text.len() <= MAX_SERIAL_DIGITS
            && !text.starts_with('0')
            && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Who presented a certificate. Says nothing about whether an authority vouches for it: TLS checks that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The edge's name.
    pub name: EdgeName,
    /// Which program it runs.
    pub role: Role,
    /// The certificate's serial number.
    pub serial: Serial,
    /// The invite's id, when this is the short-lived certificate of an invite.
    pub invite: Option<String>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub pin: Pin,
}

/// Why a certificate is not one of an edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no X.509 certificate.
    #[error("it is not an X.509 certificate")]
    NotX509,
    /// It carries no name of an edge, or more than one.
    #[error("it carries no single wanproxy name")]
    NoName,
    /// Its key usage does not fit its name.
    #[error("its extended key usage does not fit a {0}")]
    WrongUsage(&'static str),
}

impl Peer {
    /// Reads an end-entity certificate.
    ///
    /// # Errors
    /// No certificate of an edge.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let parsed = parse(certificate)?;
        let (role, name, invite) = names(&parsed).ok_or(CertificateError::NoName)?;
        let usage = parsed
            .extended_key_usage()
            .ok()
            .flatten()
            .is_some_and(|usage| match role {
                Role::Client => usage.value.client_auth,
                Role::Server => usage.value.server_auth,
            });
        if !usage {
            return Err(CertificateError::WrongUsage(role.as_str()));
        }
        Ok(Self {
            name,
            role,
            serial: Serial::from_bytes(parsed.raw_serial()),
            invite,
            not_before: moment(parsed.validity().not_before),
            not_after: moment(parsed.validity().not_after),
            pin: pin_of(parsed.public_key().raw),
        })
    }

    /// Should this edge ask for a new certificate? Yes with an invite's, or with less than a third of its life left. What was renewed is valid
    /// from when its first one was, which is no part of its life.
    pub fn needs_renewal(&self, now: SystemTime) -> bool {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
            .min(EDGE_LIFE);
        let left = self.not_after.duration_since(now).unwrap_or_default();
        self.invite.is_some() || left < life / 3
    }
}

/// Parses one certificate with nothing behind it.
pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CertificateError::NotX509),
    }
}

/// Was `certificate` signed by the key of `issuer`, which is an authority?
pub(crate) fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok(certificate), Ok(issuer)) = (parse(certificate), parse(issuer)) else {
        return false;
    };
    issuer.is_ca()
        && certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

/// From when and until when a certificate is valid.
pub(crate) fn validity(
    certificate: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime), CertificateError> {
    let parsed = parse(certificate)?;
    Ok((
        moment(parsed.validity().not_before),
        moment(parsed.validity().not_after),
    ))
}

/// The pin of a key, from the DER of its SubjectPublicKeyInfo.
pub(crate) fn pin_of(spki_der: &[u8]) -> Pin {
    sha256(spki_der)
}

/// A SHA-256, in the form in which pins are written.
pub(crate) fn sha256(bytes: &[u8]) -> Pin {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut copy = [0; 32];
    for (to, from) in copy.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    Pin::from_bytes(copy)
}

/// The one name of an edge among the certificate's names, and an invite's id.
fn names(certificate: &X509Certificate<'_>) -> Option<(Role, EdgeName, Option<String>)> {
    let alternatives = certificate.subject_alternative_name().ok()??;
    let mut found = None;
    let mut invite = None;
    for general in &alternatives.value.general_names {
        let GeneralName::DNSName(dns) = general else {
            continue;
        };
        if *dns == ANY_SERVER {
            continue;
        }
        if let Some(id) = dns.strip_suffix(INVITE_SUFFIX) {
            if !is_invite_id(id) || invite.replace(id.to_owned()).is_some() {
                return None;
            }
            continue;
        }
        for role in [Role::Client, Role::Server] {
            if let Some(name) = dns.strip_suffix(role.suffix())
                && found.replace((role, name.parse().ok()?)).is_some()
            {
                return None;
            }
        }
    }
    let (role, name) = found?;
    Some((role, name, invite))
}

/// An invite's id: 16 random bytes as 32 hex digits.
pub(crate) fn is_invite_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn moment(time: ASN1Time) -> SystemTime {
    // Times before 1970 cannot be told from 1970, which is as long past.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
