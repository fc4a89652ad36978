//! Whom an edge accepts as its peer, beyond what TLS checks: role, revocations and pins.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;

use super::certificate::{CertificateError, Peer, Role};
use super::error::{IdentityError, date};
use super::store::{Revoked, Store};
use crate::config::Pin;

/// The revoked serials of an authority. Reading is lock-free; [`Revocations::reload`] swaps the whole set.
#[derive(Debug)]
pub struct Revocations {
    store: Store,
    revoked: ArcSwap<Revoked>,
}

impl Revocations {
    /// Reads the revocations beside the authority's key; none when there is no such file.
    ///
    /// # Errors
    /// The file is unreadable or damaged: to go on without it would let the revoked in.
    pub fn load(authority_directory: &Path) -> Result<Self, IdentityError> {
        let store = Store::new(authority_directory);
        let revoked = ArcSwap::from_pointee(store.load_revoked()?);
        Ok(Self { store, revoked })
    }

    /// Reads the file again and returns whether anything changed.
    ///
    /// # Errors
    /// The file is unreadable or damaged; what was known before stays in force.
    pub fn reload(&self) -> Result<bool, IdentityError> {
        let revoked = self.store.load_revoked()?;
        let changed = **self.revoked.load() != revoked;
        self.revoked.store(Arc::new(revoked));
        Ok(changed)
    }

    /// Was this certificate revoked?
    pub fn is_revoked(&self, peer: &Peer) -> bool {
        self.revoked.load().contains_key(&peer.serial)
    }

    /// The file, for whoever watches it.
    pub fn file(&self) -> PathBuf {
        self.store.revoked_file()
    }
}

/// What an edge asks of a peer's certificate after TLS has verified its chain and its time. Cheap, no I/O.
#[derive(Clone, Debug)]
pub struct PeerCheck {
    role: Role,
    revocations: Option<Arc<Revocations>>,
    pins: Vec<Pin>,
}

/// Why a peer is refused although its chain is right. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Not a certificate of an edge.
    #[error("the peer's certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// A client where a server is expected, or the other way round.
    #[error("the peer is a {0}, which is the wrong side")]
    WrongRole(&'static str),
    /// It was revoked.
    #[error("the certificate of \"{name}\" (serial {serial}) was revoked")]
    Revoked {
        /// Whose.
        name: String,
        /// Its serial.
        serial: String,
    },
    /// It is over. TLS has checked that at the handshake; a long-lived tunnel may ask again.
    #[error("the certificate of \"{name}\" expired on {expired}")]
    Expired {
        /// Whose.
        name: String,
        /// When.
        expired: String,
    },
    /// Its key is not one of the pinned.
    #[error("the key of \"{name}\" ({pin}) is not one of the pins in [identity]")]
    NotPinned {
        /// Whose.
        name: String,
        /// Its key's hash.
        pin: String,
    },
}

impl PeerCheck {
    /// A check for peers of this role. No pins means that any key will do.
    pub fn new(role: Role, revocations: Option<Arc<Revocations>>, pins: Vec<Pin>) -> Self {
        Self {
            role,
            revocations,
            pins,
        }
    }

    /// Says who the peer is, or why it is refused.
    ///
    /// # Errors
    /// See [`PeerRefusal`].
    pub fn check(
        &self,
        certificate: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<Peer, PeerRefusal> {
        let peer = Peer::from_certificate(certificate)?;
        self.check_peer(&peer, now)?;
        Ok(peer)
    }

    /// Asks the same of a peer that was accepted before, after revocations or pins have changed.
    ///
    /// # Errors
    /// See [`PeerRefusal`].
    pub fn check_peer(&self, peer: &Peer, now: SystemTime) -> Result<(), PeerRefusal> {
        let name = || peer.name.to_string();
        if peer.role != self.role {
            return Err(PeerRefusal::WrongRole(peer.role.as_str()));
        }
        if peer.not_after < now {
            return Err(PeerRefusal::Expired {
                name: name(),
                expired: date(peer.not_after),
            });
        }
        if self
            .revocations
            .as_ref()
            .is_some_and(|revocations| revocations.is_revoked(peer))
        {
            return Err(PeerRefusal::Revoked {
                name: name(),
                serial: peer.serial.to_string(),
            });
        }
        if !self.pins.is_empty() && !self.pins.contains(&peer.pin) {
            return Err(PeerRefusal::NotPinned {
                name: name(),
                pin: peer.pin.to_string(),
            });
        }
        Ok(())
    }
}
