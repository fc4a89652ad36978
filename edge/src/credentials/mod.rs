//! Identities as tunnels ask for them: what the files of `[identity]` hold, ready for TLS, and replaced as a whole on a reload.

mod client;
mod server;

pub use client::ClientCredentials;
pub use server::ServerCredentials;

use tunnel::tls::Credentials;

use crate::cli::Failure;
use crate::config::IdentityConfig;
use crate::identity::{EdgeName, Identity, IdentityError};

/// Why credentials cannot be used; one line.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The files are not as they must be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS does not take them.
    #[error(transparent)]
    Tls(#[from] tunnel::tls::TlsError),
}

impl From<CredentialsError> for Failure {
    /// The configuration names them, so it is the configuration that is wrong.
    fn from(error: CredentialsError) -> Self {
        Self::Usage(error.to_string())
    }
}

fn for_tls(identity: &Identity) -> Credentials {
    Credentials {
        chain: identity.chain.clone(),
        key: identity.key.clone_key(),
        roots: identity.roots.clone(),
    }
}

/// The identity must have the name that the configuration expects, if it expects one.
///
/// # Errors
/// It has another.
pub fn check_name(
    identity: &Identity,
    config: &IdentityConfig,
    expected: Option<&EdgeName>,
) -> Result<(), IdentityError> {
    match expected {
        Some(expected) if *expected != identity.own.name => Err(IdentityError::WrongName {
            certificate: config.certificate.clone(),
            found: identity.own.name.clone(),
            expected: expected.clone(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
