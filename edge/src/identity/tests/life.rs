//! From `init` to `revoke`: what the commands do when all is right.

use super::*;

#[test]
fn an_identity_lives_from_invite_to_revocation() {
    let house = House::new();
    let server = ServerConfig::load(&house.path("server/server.toml")).unwrap();
    let own = Identity::load(&server.identity, Role::Server, house.now)
        .unwrap()
        .own;
    assert_eq!((own.name.as_str(), own.role), ("server", Role::Server));

    let invite = house.invite("branch-1");
    assert_eq!(house.state("branch-1"), State::Invited);
    let joined = join(&invite, &house.path("branch-1"), house.now).unwrap();
    assert_eq!(
        (
            joined.name.as_str(),
            joined.server.to_string().as_str(),
            joined.renewed
        ),
        ("branch-1", "hq.example.com:7443", false)
    );
    let config = house.config("branch-1");
    let invited = Identity::load(&config, Role::Client, house.now).unwrap();
    assert!(invited.own.invite.is_some() && invited.own.needs_renewal(house.now));

    let active = house.renew(&config, &invited, house.now);
    assert!(active.own.invite.is_none() && !active.own.needs_renewal(house.now));
    assert_ne!(active.own.pin, invited.own.pin);
    assert!(!pending_key_file(&config.key).exists());
    assert_eq!(house.state("branch-1"), State::Active);

    let later = house.now + 300 * DAY;
    assert!(active.own.needs_renewal(later));
    let renewed = house.renew(&config, &active, later);
    assert!(renewed.own.not_after > active.own.not_after);

    let revocations = Arc::new(Revocations::load(&server.identity.authority_directory()).unwrap());
    let check = PeerCheck::new(Role::Client, Some(Arc::clone(&revocations)), Vec::new());
    assert_eq!(check.check(leaf(&renewed), later).unwrap(), renewed.own);
    assert!(!revocations.reload().unwrap());
    // The invite and both certificates.
    assert_eq!(
        house
            .authority()
            .revoke(&"branch-1".parse().unwrap(), house.now)
            .unwrap(),
        3
    );
    assert!(revocations.reload().unwrap());
    for identity in [&invited, &active, &renewed] {
        assert!(matches!(
            check.check(leaf(identity), house.now),
            Err(PeerRefusal::Revoked { .. })
        ));
    }
    assert_eq!(house.state("branch-1"), State::Revoked);
    assert_eq!(
        house
            .authority()
            .revoke(&"branch-1".parse().unwrap(), house.now)
            .unwrap(),
        0
    );

    // A revoked name can be invited again, and nothing old comes back to life.
    std::fs::remove_dir_all(house.path("branch-1")).unwrap();
    let again = Identity::load(&house.active("branch-1"), Role::Client, house.now).unwrap();
    revocations.reload().unwrap();
    check.check(leaf(&again), house.now).unwrap();
    check.check(leaf(&active), house.now).unwrap_err();
    assert_eq!(house.state("branch-1"), State::Active);
}

#[test]
fn what_was_renewed_while_the_clock_was_ahead_is_good_when_it_is_right_again() {
    let house = House::new();
    let config = house.active("branch-1");
    let active = Identity::load(&config, Role::Client, house.now).unwrap();
    let ahead = house.now + 300 * DAY;
    let renewed = house.renew(&config, &active, ahead);
    assert_ne!(renewed.own.serial, active.own.serial);
    assert_eq!(renewed.own.not_before, active.own.not_before);
    let again = Identity::load(&config, Role::Client, house.now).unwrap();
    assert_eq!(again.own, renewed.own);
    // Its life is that of any other, however long ago its first one began.
    let third = 365 * DAY / 3;
    assert!(!again.own.needs_renewal(again.own.not_after - third));
    assert!(again.own.needs_renewal(again.own.not_after - third + DAY));
}

#[test]
fn everything_private_is_private() {
    let house = House::new();
    house.join("branch-1");
    for directory in ["server", "branch-1", "server/identities"] {
        assert_eq!(mode(&house.path(directory)), 0o700, "{directory}");
    }
    for file in [
        "server/ca.key",
        "server/edge.key",
        "server/identities/branch-1.toml",
        "branch-1/edge.key",
        "branch-1/client.toml",
    ] {
        assert_eq!(mode(&house.path(file)), 0o600, "{file}");
    }
}

#[test]
fn a_renewal_replaces_the_credentials_and_not_the_configuration() {
    let house = House::new();
    let config = house.active("branch-1");
    house.active("branch-2");
    let late = house.now + 400 * DAY;
    assert!(load(&config, late).contains("expired"));
    let file = house.path("renewal");
    let authority = house.authority();
    authority
        .invite(&"branch-1".parse().unwrap(), DAY, true, Some(&file), late)
        .unwrap();
    std::fs::write(
        house.path("branch-1/client.toml"),
        "# mine\n[tunnel]\nserver = [\"hq:1\"]\n",
    )
    .unwrap();
    let other = join(&file, &house.path("branch-2"), late).unwrap_err();
    assert!(
        matches!(other, IdentityError::InviteForOther { .. }),
        "{other}"
    );
    let joined = join(&file, &house.path("branch-1"), late).unwrap();
    assert!(joined.renewed);
    let identity = Identity::load(&house.config("branch-1"), Role::Client, late).unwrap();
    assert!(identity.own.invite.is_some());
    assert!(
        std::fs::read_to_string(house.path("branch-1/client.toml"))
            .unwrap()
            .starts_with("# mine")
    );
    house.renew(&config, &identity, late);
    let unknown = authority
        .invite(&"nobody".parse().unwrap(), DAY, true, None, late)
        .err()
        .unwrap();
    assert!(
        unknown
            .to_string()
            .contains("no identity is named \"nobody\"")
    );
}

#[test]
fn the_server_renews_itself_with_the_key_it_has() {
    let house = House::new();
    let config = ServerConfig::load(&house.path("server/server.toml"))
        .unwrap()
        .identity;
    let before = Identity::load(&config, Role::Server, house.now)
        .unwrap()
        .own;
    let late = house.now + 400 * DAY;
    let message = Identity::load(&config, Role::Server, late)
        .unwrap_err()
        .to_string();
    assert!(message.contains("renew server"), "{message}");
    house.authority().renew_server(late).unwrap();
    let after = Identity::load(&config, Role::Server, late).unwrap().own;
    assert_eq!(after.pin, before.pin);
    assert_ne!(after.serial, before.serial);
    assert!(matches!(
        house.authority().revoke(&EdgeName::server(), late),
        Err(IdentityError::RevokeServer)
    ));
}

#[test]
fn an_invite_that_cannot_be_written_is_not_registered() {
    let house = House::new();
    let taken = house.path("taken");
    std::fs::write(&taken, "mine").unwrap();
    let error = house
        .authority()
        .invite(
            &"branch-1".parse().unwrap(),
            DAY,
            false,
            Some(&taken),
            house.now,
        )
        .err()
        .unwrap();
    assert!(matches!(error, IdentityError::Exists { .. }));
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    assert_eq!(house.authority().list(house.now).unwrap().len(), 1);
}

#[test]
fn invites_at_once_are_all_registered() {
    let house = House::new();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let house = &house;
            // Half of them for one and the same name, each with an authority of its own, as processes have.
            let name = if number % 2 == 0 {
                "shared".to_owned()
            } else {
                format!("branch-{number}")
            };
            scope.spawn(move || house.invite(&name));
        }
    });
    assert_eq!(house.authority().list(house.now).unwrap().len(), 1 + 8 + 1);
    assert_eq!(
        house
            .authority()
            .revoke(&"shared".parse().unwrap(), house.now)
            .unwrap(),
        8
    );
}

#[test]
fn pins_and_roles_are_checked() {
    let house = House::new();
    let one = Identity::load(&house.active("branch-1"), Role::Client, house.now).unwrap();
    let two = Identity::load(&house.active("branch-2"), Role::Client, house.now).unwrap();
    let pinned = PeerCheck::new(Role::Client, None, vec![one.own.pin]);
    pinned.check(leaf(&one), house.now).unwrap();
    assert!(matches!(
        pinned.check(leaf(&two), house.now),
        Err(PeerRefusal::NotPinned { .. })
    ));
    let servers = PeerCheck::new(Role::Server, None, Vec::new());
    assert!(matches!(
        servers.check(leaf(&one), house.now),
        Err(PeerRefusal::WrongRole("client"))
    ));
    assert!(matches!(
        pinned.check(leaf(&one), house.now + 400 * DAY),
        Err(PeerRefusal::Expired { .. })
    ));
}

#[test]
fn rustls_accepts_these_chains_for_their_roles_and_no_others() {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::server::WebPkiClientVerifier;

    let house = House::new();
    let config = ServerConfig::load(&house.path("server/server.toml")).unwrap();
    let server = Identity::load(&config.identity, Role::Server, house.now).unwrap();
    let invited = Identity::load(&house.join("branch-1"), Role::Client, house.now).unwrap();
    let active = Identity::load(&house.active("branch-2"), Role::Client, house.now).unwrap();
    let stranger = House::new();
    let foreign = Identity::load(&stranger.active("branch-1"), Role::Client, house.now).unwrap();

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for root in &server.roots {
        roots.add(root.clone()).unwrap();
    }
    let roots = Arc::new(roots);
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .unwrap();
    let now = UnixTime::since_unix_epoch(house.now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let as_client = |identity: &Identity| clients.verify_client_cert(leaf(identity), &[], now);
    let as_server = |identity: &Identity, name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        servers.verify_server_cert(leaf(identity), &[], &name, &[], now)
    };
    as_client(&invited).unwrap();
    as_client(&active).unwrap();
    as_client(&server).unwrap_err();
    as_client(&foreign).unwrap_err();
    as_server(&server, ANY_SERVER).unwrap();
    as_server(&server, "server.server.wanproxy").unwrap();
    as_server(&server, "other.server.wanproxy").unwrap_err();
    as_server(&active, "branch-2.client.wanproxy").unwrap_err();
}
