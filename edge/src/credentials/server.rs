//! A server's credentials: its TLS side, its check of clients, and its authority.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use codec::frame::Renewed;
use rustls_pki_types::CertificateDer;
use tunnel::environment::{PeerIdentity, ServerIdentity};
use tunnel::tls::ServerTls;

use super::{CredentialsError, check_name, for_tls};
use crate::config::IdentityConfig;
use crate::identity::{Authority, EdgeName, Identity, PeerCheck, RenewError, Revocations, Role};

/// What the wire says when a certificate is not issued; only 0 has a meaning of its own.
const STATUS_REFUSED: u8 = 1;

/// The credentials of a running server edge.
pub struct ServerCredentials {
    present: ArcSwap<Present>,
}

struct Present {
    identity: Identity,
    tls: ServerTls,
    check: PeerCheck,
    authority: Option<Authority>,
    /// When they were read, and found to be valid.
    read_at: SystemTime,
}

/// Credentials that were read and checked, and are not in use yet.
pub struct NewServerCredentials(Present);

impl ServerCredentials {
    /// Reads the files of `[identity]`, and the revocations beside the authority's. `expected` is the name that the configuration
    /// gives this edge.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn load(
        config: &IdentityConfig,
        expected: Option<&EdgeName>,
    ) -> Result<Self, CredentialsError> {
        Ok(Self {
            present: ArcSwap::from_pointee(Self::read(config, expected)?.0),
        })
    }

    /// Reads the files without using them yet.
    ///
    /// # Errors
    /// As of [`load`](Self::load).
    pub fn read(
        config: &IdentityConfig,
        expected: Option<&EdgeName>,
    ) -> Result<NewServerCredentials, CredentialsError> {
        let read_at = SystemTime::now();
        let identity = Identity::load(config, Role::Server, read_at)?;
        check_name(&identity, config, expected)?;
        let tls = ServerTls::new(&for_tls(&identity))?;
        let revocations = Revocations::load(&config.authority_directory())?;
        let check = PeerCheck::new(
            Role::Client,
            Some(Arc::new(revocations)),
            config.pins.clone(),
        );
        let authority = config
            .ca_key
            .as_ref()
            .map(|key| Authority::open(&config.ca, key))
            .transpose()?;
        Ok(NewServerCredentials(Present {
            identity,
            tls,
            check,
            authority,
            read_at,
        }))
    }

    /// Uses what was read, from the next link on.
    pub fn replace(&self, new: NewServerCredentials) {
        self.present.store(Arc::new(new.0));
    }

    /// Why the client that has shown this chain would not be let in, if so. Judged as of the moment in which these credentials were read: where the date is
    /// wrong for a while, either they are not used or nobody is sent away by it.
    pub fn refusal(&self, chain: &[CertificateDer<'static>]) -> Option<String> {
        let present = self.present.load();
        present.judge(chain, present.read_at).err()
    }

    /// This edge's name.
    pub fn name(&self) -> EdgeName {
        self.present.load().identity.own.name.clone()
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.present.load().identity.own.not_after
    }
}

impl Present {
    fn judge(
        &self,
        chain: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<PeerIdentity, String> {
        let leaf = chain.first().ok_or("you showed no certificate")?;
        let peer = self
            .check
            .check(leaf, now)
            .map_err(|error| error.to_string())?;
        Ok(PeerIdentity {
            name: peer.name.to_string(),
            invite: peer.invite.is_some(),
        })
    }
}

impl ServerIdentity for ServerCredentials {
    fn tls(&self) -> ServerTls {
        self.present.load().tls.clone()
    }

    fn check_client(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        self.present.load().judge(chain, SystemTime::now())
    }

    fn sign(&self, chain: &[CertificateDer<'static>], request: &[u8]) -> Renewed {
        let refused = |message: String| Renewed::Refused {
            status: STATUS_REFUSED,
            message,
        };
        let present = self.present.load_full();
        let (Some(authority), Some(leaf)) = (&present.authority, chain.first()) else {
            return refused("this server issues no certificates; ask for a new invite".to_owned());
        };
        match authority.sign_renewal(leaf, request, SystemTime::now()) {
            Ok(chain) => Renewed::Issued(
                chain
                    .iter()
                    .map(|certificate| Bytes::copy_from_slice(certificate))
                    .collect(),
            ),
            Err(error) => {
                if let RenewError::Authority(cause) = &error {
                    tracing::error!(error = %cause, "a certificate could not be issued");
                }
                refused(error.to_string())
            }
        }
    }
}
