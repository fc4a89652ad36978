//! A client's credentials: its TLS side, its check of the server, and the renewal of its certificate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use codec::frame::Renewed;
use rustls_pki_types::CertificateDer;
use tunnel::environment::{ClientIdentity, PeerIdentity};
use tunnel::tls::ClientTls;

use super::{CredentialsError, check_name, for_tls};
use crate::config::IdentityConfig;
use crate::identity::{EdgeName, Identity, PeerCheck, Renewal, Role};

/// The credentials of a running client edge.
pub struct ClientCredentials {
    present: ArcSwap<Present>,
    /// Begun, and not answered yet.
    renewal: Mutex<Option<Renewal>>,
}

struct Present {
    config: IdentityConfig,
    identity: Identity,
    tls: ClientTls,
    check: PeerCheck,
}

impl Present {
    fn new(config: IdentityConfig, identity: Identity) -> Result<Self, CredentialsError> {
        let tls = ClientTls::new(&for_tls(&identity))?;
        let check = PeerCheck::new(Role::Server, None, config.pins.clone());
        Ok(Self {
            config,
            identity,
            tls,
            check,
        })
    }
}

/// Credentials that were read and checked, and are not in use yet.
pub struct NewClientCredentials(Present);

impl ClientCredentials {
    /// Reads the files of `[identity]`. `expected` is the name that the configuration gives this edge.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn load(
        config: &IdentityConfig,
        expected: Option<&EdgeName>,
    ) -> Result<Self, CredentialsError> {
        Ok(Self {
            present: ArcSwap::from_pointee(Self::read(config, expected)?.0),
            renewal: Mutex::default(),
        })
    }

    /// Reads the files without using them yet.
    ///
    /// # Errors
    /// As of [`load`](Self::load).
    pub fn read(
        config: &IdentityConfig,
        expected: Option<&EdgeName>,
    ) -> Result<NewClientCredentials, CredentialsError> {
        let identity = Identity::load(config, Role::Client, SystemTime::now())?;
        check_name(&identity, config, expected)?;
        Ok(NewClientCredentials(Present::new(
            config.clone(),
            identity,
        )?))
    }

    /// Uses what was read, from the next link on.
    pub fn replace(&self, new: NewClientCredentials) {
        self.present.store(Arc::new(new.0));
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

impl ClientIdentity for ClientCredentials {
    fn tls(&self) -> ClientTls {
        self.present.load().tls.clone()
    }

    fn is_invite(&self) -> bool {
        self.present.load().identity.own.invite.is_some()
    }

    fn check_server(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        let leaf = chain.first().ok_or("the server showed no certificate")?;
        let peer = self
            .present
            .load()
            .check
            .check(leaf, SystemTime::now())
            .map_err(|error| error.to_string())?;
        Ok(PeerIdentity {
            name: peer.name.to_string(),
            invite: false,
        })
    }

    fn begin_renewal(&self) -> Result<Option<Bytes>, String> {
        let present = self.present.load_full();
        if !present.identity.own.needs_renewal(SystemTime::now()) {
            return Ok(None);
        }
        let renewal = Renewal::begin(&present.config, &present.identity)
            .map_err(|error| error.to_string())?;
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
            return Ok(false);
        };
        let chain: Vec<CertificateDer<'static>> = match answer {
            Renewed::Issued(chain) => chain
                .iter()
                .map(|certificate| certificate.to_vec().into())
                .collect(),
            Renewed::Refused { message, .. } => {
                return Err(format!("the server refuses: {message}"));
            }
        };
        let identity = renewal
            .finish(&chain, SystemTime::now())
            .map_err(|error| error.to_string())?;
        let config = self.present.load().config.clone();
        let present = Present::new(config, identity).map_err(|error| error.to_string())?;
        tracing::info!(name = %present.identity.own.name, serial = %present.identity.own.serial, "a new certificate is in place");
        self.present.store(Arc::new(present));
        Ok(true)
    }
}
