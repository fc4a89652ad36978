//! The life of an identity from `init` to `revoke`, and each thing that can be wrong on the way.
#![expect(clippy::unwrap_used, reason = "tests")]

mod life;
mod renewal;
mod wrong;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::files;
use super::load::pending_key_file;
use super::*;
use crate::config::{ClientConfig, IdentityConfig, Rule, ServerConfig};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// An authority in `server/`, and whoever joins in a directory of its own name.
struct House {
    root: tempfile::TempDir,
    now: SystemTime,
}

impl House {
    fn new() -> Self {
        let house = Self {
            root: tempfile::tempdir().unwrap(),
            now: SystemTime::now(),
        };
        let allow: Rule = "10.0.0.0/8:*".parse().unwrap();
        init(
            &house.path("server"),
            &"hq.example.com:7443".parse().unwrap(),
            &[allow],
            house.now,
        )
        .unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn authority(&self) -> Authority {
        Authority::open_directory(&self.path("server")).unwrap()
    }

    fn invite(&self, name: &str) -> PathBuf {
        let file = self.path(&format!("{name}.{:08x}.invite", rand::random::<u32>()));
        self.authority()
            .invite(&name.parse().unwrap(), DAY, false, Some(&file), self.now)
            .unwrap();
        file
    }

    fn join(&self, name: &str) -> IdentityConfig {
        join(&self.invite(name), &self.path(name), self.now).unwrap();
        self.config(name)
    }

    fn config(&self, name: &str) -> IdentityConfig {
        ClientConfig::load(&self.path(name).join("client.toml"))
            .unwrap()
            .identity
    }

    /// Joins and exchanges the invite for a certificate.
    fn active(&self, name: &str) -> IdentityConfig {
        let config = self.join(name);
        let identity = Identity::load(&config, Role::Client, self.now).unwrap();
        self.renew(&config, &identity, self.now);
        config
    }

    fn renew(&self, config: &IdentityConfig, identity: &Identity, now: SystemTime) -> Identity {
        let renewal = Renewal::begin(config, identity).unwrap();
        let chain = self
            .authority()
            .sign_renewal(leaf(identity), renewal.csr_der(), now)
            .unwrap();
        renewal.finish(&chain, now).unwrap()
    }

    fn state(&self, name: &str) -> State {
        self.authority()
            .list(self.now)
            .unwrap()
            .into_iter()
            .find(|row| row.name.as_str() == name)
            .unwrap()
            .state
    }
}

fn leaf(identity: &Identity) -> &rustls_pki_types::CertificateDer<'static> {
    identity.chain.first().unwrap()
}

fn load(config: &IdentityConfig, now: SystemTime) -> String {
    let message = Identity::load(config, Role::Client, now)
        .unwrap_err()
        .to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
