#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use codec::frame::Renewed;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tunnel::environment::{ClientIdentity, PeerIdentity, ServerIdentity};

use super::*;
use crate::config::{ClientConfig, IdentityConfig, ServerConfig};
use crate::identity::{Authority, EdgeName, Role, init, join};

/// A server with its authority, and a client that has joined by an invite.
struct World {
    _directory: TempDir,
    server: PathBuf,
    client: PathBuf,
}

fn name(text: &str) -> EdgeName {
    text.parse().unwrap()
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (server, client) = (
            directory.path().join("server"),
            directory.path().join("client"),
        );
        let now = SystemTime::now();
        init(&server, &"hq.example.com:7443".parse().unwrap(), &[], now).unwrap();
        let world = Self {
            _directory: directory,
            server,
            client,
        };
        let invite = world.server.join("branch-1.invite");
        world
            .authority()
            .invite(
                &name("branch-1"),
                Duration::from_secs(3_600),
                false,
                Some(&invite),
                now,
            )
            .unwrap();
        join(&invite, &world.client, now).unwrap();
        world
    }

    fn authority(&self) -> Authority {
        Authority::open_directory(&self.server).unwrap()
    }

    fn server_config(&self) -> IdentityConfig {
        ServerConfig::load(&self.server.join("server.toml"))
            .unwrap()
            .identity
    }

    fn client_config(&self) -> IdentityConfig {
        ClientConfig::load(&self.client.join("client.toml"))
            .unwrap()
            .identity
    }
}

/// What the client shows now.
fn chain(world: &World) -> Vec<CertificateDer<'static>> {
    Identity::load(&world.client_config(), Role::Client, SystemTime::now())
        .unwrap()
        .chain
}

#[test]
fn an_invite_is_exchanged_once_and_the_new_certificate_is_used() {
    let world = World::new();
    let server = ServerCredentials::load(&world.server_config(), None).unwrap();
    let client = ClientCredentials::load(&world.client_config(), Some(&name("branch-1"))).unwrap();
    let before = chain(&world);
    assert_eq!(
        server.check_client(&before),
        Ok(PeerIdentity {
            name: "branch-1".to_owned(),
            invite: true
        })
    );
    let request = client.begin_renewal().unwrap().unwrap();
    let answer = server.sign(&before, &request);
    assert!(matches!(&answer, Renewed::Issued(chain) if !chain.is_empty()));
    assert!(client.is_invite());
    let invite_ends = client.not_after();
    assert_eq!(client.finish_renewal(answer), Ok(true));
    assert!(client.not_after() > invite_ends && !client.is_invite());
    let after = chain(&world);
    assert_eq!(
        server.check_client(&after),
        Ok(PeerIdentity {
            name: "branch-1".to_owned(),
            invite: false
        })
    );
    assert_eq!(client.begin_renewal(), Ok(None), "it is fresh");
    assert!(matches!(
        server.sign(&before, b"no request"),
        Renewed::Refused { .. }
    ));
    assert_eq!(
        client.finish_renewal(Renewed::Issued(Vec::new())),
        Ok(false),
        "nothing was asked for"
    );
}

#[test]
fn a_revoked_client_is_refused_once_the_credentials_are_read_again() {
    let world = World::new();
    let server = ServerCredentials::load(&world.server_config(), None).unwrap();
    let before = chain(&world);
    world
        .authority()
        .revoke(&name("branch-1"), SystemTime::now())
        .unwrap();
    assert_eq!(server.refusal(&before), None, "not read yet");
    server.replace(ServerCredentials::read(&world.server_config(), None).unwrap());
    let refusal = server.check_client(&before).unwrap_err();
    assert!(refusal.contains("revoked"), "{refusal}");
    assert_eq!(server.refusal(&before), Some(refusal));
    assert!(server.check_client(&[]).is_err());
}

#[test]
fn a_client_is_no_server_and_a_wrong_name_is_told() {
    let world = World::new();
    let client = ClientCredentials::load(&world.client_config(), None).unwrap();
    assert!(client.check_server(&chain(&world)).is_err());
    assert!(client.check_server(&[]).is_err());
    assert_eq!(client.name(), name("branch-1"));
    let error = ClientCredentials::load(&world.client_config(), Some(&name("other")))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("branch-1") && error.contains("other"),
        "{error}"
    );
}
