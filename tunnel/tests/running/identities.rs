//! A certificate authority, a server and clients, made in memory.

use std::sync::Arc;

use bytes::Bytes;
use codec::frame::Renewed;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tunnel::environment::{ClientIdentity, PeerIdentity, ServerIdentity};
use tunnel::tls::{ClientTls, Credentials, SERVER_NAME, ServerTls};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            roots: vec![self.issuer.der().clone()],
        }
    }

    pub fn server(&self) -> Arc<TestServer> {
        Arc::new(TestServer(
            ServerTls::new(&self.issue(SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth)).unwrap(),
        ))
    }

    pub fn client(&self, name: &str) -> Arc<TestClient> {
        let credentials = self.issue(
            &format!("{name}.client.wanproxy"),
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        Arc::new(TestClient(ClientTls::new(&credentials).unwrap()))
    }

    /// A client that trusts this authority and shows a certificate of `other`.
    pub fn client_certified_by(&self, name: &str, other: &Self) -> Arc<TestClient> {
        let credentials = Credentials {
            roots: vec![self.issuer.der().clone()],
            ..other.issue(
                &format!("{name}.client.wanproxy"),
                ExtendedKeyUsagePurpose::ClientAuth,
            )
        };
        Arc::new(TestClient(ClientTls::new(&credentials).unwrap()))
    }
}

pub struct TestClient(ClientTls);

impl ClientIdentity for TestClient {
    fn tls(&self) -> ClientTls {
        self.0.clone()
    }

    fn is_invite(&self) -> bool {
        false
    }

    fn check_server(&self, _chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        Ok(PeerIdentity {
            name: "hq".to_owned(),
            invite: false,
        })
    }

    fn begin_renewal(&self) -> Result<Option<Bytes>, String> {
        Ok(None)
    }

    fn finish_renewal(&self, _answer: Renewed) -> Result<bool, String> {
        Ok(false)
    }
}

pub struct TestServer(ServerTls);

impl ServerIdentity for TestServer {
    fn tls(&self) -> ServerTls {
        self.0.clone()
    }

    fn check_client(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, String> {
        // The name is read crudely: enough for a test, where one authority issues all.
        let text = String::from_utf8_lossy(chain[0].as_ref()).into_owned();
        let end = text.find(".client.wanproxy").ok_or("no client name")?;
        let name: String = text[..end]
            .chars()
            .rev()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let name: String = name.chars().rev().collect();
        if name == "revoked" {
            Err("revoked is revoked".to_owned())
        } else {
            Ok(PeerIdentity {
                name,
                invite: false,
            })
        }
    }

    fn sign(&self, _chain: &[CertificateDer<'static>], _request: &[u8]) -> Renewed {
        Renewed::Refused {
            status: 1,
            message: "not in this test".to_owned(),
        }
    }
}
