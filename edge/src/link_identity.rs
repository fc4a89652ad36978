//! What the tunnel asks of an edge's identity, answered from [`crate::identity`]: the one place where both meet.
//!
//! The present identity is swapped as a whole on reload and after a renewal; links that are up keep theirs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tunnel::environment::{ClientIdentity, PeerIdentity, Renewed, ServerIdentity};
use tunnel::tls::{ClientTls, Credentials, ServerTls, TlsError};

use crate::config::IdentityConfig;
use crate::identity::{
    Authority, Identity, IdentityError, Peer, PeerCheck, Renewal, Revocations, Role,
};

/// Why an identity cannot be used for links.
#[derive(Debug, thiserror::Error)]
pub enum LinkIdentityError {
    /// Its files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS does not take it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn credentials(identity: &Identity) -> Credentials {
    Credentials {
        chain: identity.chain.clone(),
        key: identity.key.clone_key(),
        roots: identity.roots.clone(),
    }
}

fn leaf<'a>(chain: &'a [CertificateDer<'static>]) -> Result<&'a CertificateDer<'static>, String> {
    chain
        .first()
        .ok_or_else(|| "the peer sent no certificate".to_owned())
}

fn peer_identity(peer: &Peer) -> PeerIdentity {
    PeerIdentity {
        name: peer.name.to_string(),
        invite: peer.invite.is_some(),
    }
}

/// A client edge's identity as its tunnel uses it.
pub struct ClientLinkIdentity {
    present: ArcSwap<ClientPresent>,
    /// Between the request for a certificate and its answer.
    renewal: Mutex<Option<Renewal>>,
}

struct ClientPresent {
    config: IdentityConfig,
    identity: Identity,
    tls: ClientTls,
    check: PeerCheck,
}

impl ClientPresent {
    fn load(config: &IdentityConfig) -> Result<Self, LinkIdentityError> {
        let identity = Identity::load(config, Role::Client, SystemTime::now())?;
        Ok(Self {
            tls: ClientTls::new(&credentials(&identity))?,
            check: PeerCheck::new(Role::Server, None, config.pins.clone()),
            config: config.clone(),
            identity,
        })
    }
}

impl ClientLinkIdentity {
    /// Reads and checks the identity's files. Blocks on them.
    ///
    /// # Errors
    /// See [`Identity::load`].
    pub fn load(config: &IdentityConfig) -> Result<Self, LinkIdentityError> {
        Ok(Self {
            present: ArcSwap::from_pointee(ClientPresent::load(config)?),
            renewal: Mutex::new(None),
        })
    }

    /// Reads everything again; on an error the old identity stays in use. Blocks on files.
    ///
    /// # Errors
    /// See [`Identity::load`].
    pub fn reload(&self, config: &IdentityConfig) -> Result<(), LinkIdentityError> {
        self.present
            .store(Arc::new(ClientPresent::load(config)?));
        Ok(())
    }

    /// What the present certificate says: name, expiry.
    #[must_use]
    pub fn own(&self) -> Peer {
        self.present.load().identity.own.clone()
    }
}

impl ClientIdentity for ClientLinkIdentity {
    fn tls(&self) -> ClientTls {
        self.present.load().tls.clone()
    }

    fn check_server(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        let present = self.present.load();
        let peer = present
            .check
            .check(leaf(chain)?, SystemTime::now())
            .map_err(|refusal| refusal.to_string())?;
        Ok(peer_identity(&peer))
    }

    fn begin_renewal(&self) -> Result<Option<Bytes>, String> {
        let present = self.present.load();
        if !present.identity.own.needs_renewal(SystemTime::now()) {
            return Ok(None);
        }
        let renewal =
            Renewal::begin(&present.config, &present.identity).map_err(|e| e.to_string())?;
        let request = Bytes::copy_from_slice(renewal.csr_der());
        *self.renewal.lock().unwrap_or_else(PoisonError::into_inner) = Some(renewal);
        Ok(Some(request))
    }

    fn finish_renewal(&self, answer: Renewed) -> Result<bool, String> {
        let renewal = self
            .renewal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(renewal) = renewal else {
            return Err("the server answered a request that was not made".to_owned());
        };
        let chain: Vec<CertificateDer<'_>> = match &answer {
            Renewed::Issued(chain) => chain.iter().map(|der| der.as_ref().into()).collect(),
            Renewed::Refused { message, .. } => return Err(message.clone()),
        };
        renewal
            .finish(&chain, SystemTime::now())
            .map_err(|e| e.to_string())?;
        let config = self.present.load().config.clone();
        self.reload(&config).map_err(|e| e.to_string())?;
        Ok(true)
    }
}

/// A server edge's identity and authority as its tunnels use them.
pub struct ServerLinkIdentity {
    present: ArcSwap<ServerPresent>,
}

struct ServerPresent {
    identity: Identity,
    tls: ServerTls,
    check: PeerCheck,
    revocations: Arc<Revocations>,
    authority: Option<Authority>,
}

impl ServerPresent {
    fn load(config: &IdentityConfig) -> Result<Self, LinkIdentityError> {
        let identity = Identity::load(config, Role::Server, SystemTime::now())?;
        let revocations = Arc::new(Revocations::load(&config.authority_directory())?);
        let authority = match &config.ca_key {
            Some(ca_key) => Some(Authority::open(&config.ca, ca_key)?),
            None => None,
        };
        Ok(Self {
            tls: ServerTls::new(&credentials(&identity))?,
            check: PeerCheck::new(
                Role::Client,
                Some(revocations.clone()),
                config.pins.clone(),
            ),
            identity,
            revocations,
            authority,
        })
    }
}

impl ServerLinkIdentity {
    /// Reads and checks the identity's, the authority's and the revocations' files. Blocks on them.
    ///
    /// # Errors
    /// See [`Identity::load`], [`Authority::open`] and [`Revocations::load`].
    pub fn load(config: &IdentityConfig) -> Result<Self, LinkIdentityError> {
        Ok(Self {
            present: ArcSwap::from_pointee(ServerPresent::load(config)?),
        })
    }

    /// Reads everything again; on an error the old identity stays in use. Blocks on files.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&self, config: &IdentityConfig) -> Result<(), LinkIdentityError> {
        self.present
            .store(Arc::new(ServerPresent::load(config)?));
        Ok(())
    }

    /// What the present certificate says: name, expiry.
    #[must_use]
    pub fn own(&self) -> Peer {
        self.present.load().identity.own.clone()
    }

    /// Reads the revocations again; true when they have changed. Blocks on one small file.
    ///
    /// # Errors
    /// The file is unreadable or damaged; what was known before stays in force.
    pub fn reload_revocations(&self) -> Result<bool, IdentityError> {
        self.present.load().revocations.reload()
    }

    /// Why the holder of `chain`, who has a tunnel, would be refused now; `None` when it would not.
    #[must_use]
    pub fn would_refuse(&self, chain: &[CertificateDer<'static>]) -> Option<String> {
        self.check_client(chain).err()
    }
}

impl ServerIdentity for ServerLinkIdentity {
    fn tls(&self) -> ServerTls {
        self.present.load().tls.clone()
    }

    fn check_client(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        let present = self.present.load();
        let peer = present
            .check
            .check(leaf(chain)?, SystemTime::now())
            .map_err(|refusal| refusal.to_string())?;
        Ok(peer_identity(&peer))
    }

    fn sign(&self, chain: &[CertificateDer<'static>], request: &[u8]) -> Renewed {
        let present = self.present.load();
        let refused = |message: String| Renewed::Refused { status: 1, message };
        let Some(authority) = &present.authority else {
            return refused("this server issues no certificates ([identity] has no ca_key)".to_owned());
        };
        let leaf = match leaf(chain) {
            Ok(leaf) => leaf,
            Err(message) => return refused(message),
        };
        match authority.sign_renewal(leaf, request, SystemTime::now()) {
            Ok(chain) => Renewed::Issued(
                chain
                    .iter()
                    .map(|certificate| Bytes::copy_from_slice(certificate))
                    .collect(),
            ),
            Err(error) => {
                tracing::warn!(%error, "a certificate was not issued");
                refused(error.to_string())
            }
        }
    }
}
