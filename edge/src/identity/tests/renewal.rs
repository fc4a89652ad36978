//! Keys exchanged over the tunnel: once, for one key, and through crashes.

use super::*;

#[test]
fn an_invite_is_exchanged_for_one_key_only() {
    let house = House::new();
    let invite = house.invite("branch-1");
    join(&invite, &house.path("a"), house.now).unwrap();
    join(&invite, &house.path("b"), house.now).unwrap();
    let (a, b) = (house.config("a"), house.config("b"));
    let invited = Identity::load(&a, Role::Client, house.now).unwrap();
    let first = Renewal::begin(&a, &invited).unwrap();
    let chain = house
        .authority()
        .sign_renewal(leaf(&invited), first.csr_der(), house.now)
        .unwrap();

    // The answer got lost: the same key, and so the same certificate, even by a new process.
    let repeated = Renewal::begin(&a, &invited).unwrap();
    assert_eq!(
        house
            .authority()
            .sign_renewal(leaf(&invited), repeated.csr_der(), house.now)
            .unwrap(),
        chain
    );

    let other = Renewal::begin(&b, &Identity::load(&b, Role::Client, house.now).unwrap()).unwrap();
    let refused = house
        .authority()
        .sign_renewal(leaf(&invited), other.csr_der(), house.now)
        .unwrap_err();
    assert!(
        matches!(refused, RenewError::UsedInvite) && refused.to_string().starts_with("used invite")
    );
    repeated.finish(&chain, house.now).unwrap();
}

#[test]
fn two_exchanges_at_once_have_one_winner() {
    let house = House::new();
    let invited = Identity::load(&house.join("branch-1"), Role::Client, house.now).unwrap();
    let authority = house.authority();
    let won = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let csr = CertificateParams::default()
                        .serialize_request(&KeyPair::generate().unwrap())
                        .unwrap();
                    authority
                        .sign_renewal(leaf(&invited), csr.der(), house.now)
                        .is_ok()
                })
            })
            .collect();
        tries
            .into_iter()
            .map(|one| u32::from(one.join().unwrap()))
            .sum::<u32>()
    });
    assert_eq!(won, 1);
}

#[test]
fn requests_that_are_not_right_are_refused() {
    let house = House::new();
    let config = house.join("branch-1");
    let invited = Identity::load(&config, Role::Client, house.now).unwrap();
    let authority = house.authority();
    let ask = |csr: &[u8]| authority.sign_renewal(leaf(&invited), csr, house.now);
    let request = |key: &KeyPair| {
        CertificateParams::default()
            .serialize_request(key)
            .unwrap()
            .der()
            .to_vec()
    };
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        assert!(matches!(
            ask(&request(&KeyPair::generate_for(algorithm).unwrap())),
            Err(RenewError::KeyType)
        ));
    }
    let good = request(&KeyPair::generate().unwrap());
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(ask(&forged), Err(RenewError::BadRequest(_))));
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(ask(&longer), Err(RenewError::BadRequest(_))));
    for length in 0..good.len() {
        assert!(ask(good.get(..length).unwrap()).is_err(), "{length}");
    }
    assert!(matches!(
        ask(&vec![0x30; MAX_REQUEST_BYTES + 1]),
        Err(RenewError::BadRequest("it is too long"))
    ));
    // None of these has used the invite up.
    ask(&good).unwrap();

    let server = ServerConfig::load(&house.path("server/server.toml")).unwrap();
    let server = Identity::load(&server.identity, Role::Server, house.now).unwrap();
    assert!(matches!(
        authority.sign_renewal(leaf(&server), &good, house.now),
        Err(RenewError::NotAClient)
    ));
    let stranger = House::new();
    let other = Identity::load(&stranger.join("branch-1"), Role::Client, house.now).unwrap();
    assert!(matches!(
        authority.sign_renewal(leaf(&other), &good, house.now),
        Err(RenewError::NotAClient)
    ));
    assert!(matches!(
        authority.sign_renewal(leaf(&invited), &good, house.now + 2 * DAY),
        Err(RenewError::Expired(_))
    ));
    authority
        .revoke(&"branch-1".parse().unwrap(), house.now)
        .unwrap();
    assert!(matches!(ask(&good), Err(RenewError::Revoked)));
    std::fs::remove_file(house.path("server/identities/branch-1.toml")).unwrap();
    std::fs::remove_file(house.path("server/revoked")).unwrap();
    assert!(matches!(ask(&good), Err(RenewError::UnknownInvite)));
}

#[test]
fn the_name_comes_from_the_certificate_and_not_from_the_request() {
    let house = House::new();
    let config = house.join("branch-1");
    let invited = Identity::load(&config, Role::Client, house.now).unwrap();
    let wish = CertificateParams::new(vec![
        "branch-2.client.wanproxy".to_owned(),
        "server.wanproxy".to_owned(),
    ])
    .unwrap();
    let csr = wish
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap();
    let chain = house
        .authority()
        .sign_renewal(leaf(&invited), csr.der(), house.now)
        .unwrap();
    let peer = Peer::from_certificate(chain.first().unwrap()).unwrap();
    assert_eq!((peer.name.as_str(), peer.role), ("branch-1", Role::Client));
}

#[test]
fn a_client_that_asks_without_end_is_stopped() {
    let house = House::new();
    let config = house.active("branch-1");
    let active = Identity::load(&config, Role::Client, house.now).unwrap();
    let authority = house.authority();
    let mut given = 1;
    let refused = loop {
        let csr = CertificateParams::default()
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap();
        match authority.sign_renewal(leaf(&active), csr.der(), house.now) {
            Ok(_) => given += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(given, MAX_LIVE_ENTRIES);
    assert!(matches!(
        refused,
        RenewError::Authority(IdentityError::TooManyEntries { .. })
    ));
}

#[test]
fn a_crash_between_the_two_files_of_a_renewal_leaves_a_working_pair() {
    let house = House::new();
    let config = house.join("branch-1");
    let invited = Identity::load(&config, Role::Client, house.now).unwrap();
    let renewal = Renewal::begin(&config, &invited).unwrap();
    // Before any answer: the old pair works, and the next process takes the same key.
    let pending = std::fs::read(pending_key_file(&config.key)).unwrap();
    Identity::load(&config, Role::Client, house.now).unwrap();
    let renewal_again = Renewal::begin(&config, &invited).unwrap();
    assert_eq!(
        std::fs::read(pending_key_file(&config.key)).unwrap(),
        pending
    );
    // The certificate is there and the key is not yet.
    let chain = house
        .authority()
        .sign_renewal(leaf(&invited), renewal.csr_der(), house.now)
        .unwrap();
    let pem = super::template::pem("CERTIFICATE", chain.first().unwrap());
    files::replace(&config.certificate, pem.as_bytes()).unwrap();
    let healed = Identity::load(&config, Role::Client, house.now).unwrap();
    assert!(healed.own.invite.is_none() && !pending_key_file(&config.key).exists());
    assert_eq!(std::fs::read(&config.key).unwrap(), pending);
    drop(renewal_again);
    // The next renewal does not take the key that is in use now.
    Renewal::begin(&config, &healed).unwrap();
    assert_ne!(
        std::fs::read(pending_key_file(&config.key)).unwrap(),
        pending
    );
    // A pending key that is damaged is made anew.
    std::fs::write(pending_key_file(&config.key), "damaged").unwrap();
    Renewal::begin(&config, &healed).unwrap();
}

#[test]
fn an_answer_that_was_not_asked_for_changes_nothing() {
    let house = House::new();
    let config = house.join("branch-1");
    let invited = Identity::load(&config, Role::Client, house.now).unwrap();
    let before = (
        std::fs::read(&config.certificate).unwrap(),
        std::fs::read(&config.key).unwrap(),
    );
    let other = Identity::load(&house.active("branch-2"), Role::Client, house.now).unwrap();
    let stranger = House::new();
    let foreign = Identity::load(&stranger.active("branch-1"), Role::Client, house.now).unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap();
    let other_key = house
        .authority()
        .sign_renewal(leaf(&invited), csr.der(), house.now)
        .unwrap();
    for chain in [
        &other.chain,
        &foreign.chain,
        &invited.chain,
        &other_key,
        &Vec::new(),
        &vec![vec![0x30].into()],
    ] {
        let renewal = Renewal::begin(&config, &invited).unwrap();
        assert!(matches!(
            renewal.finish(chain, house.now),
            Err(InstallError::Unusable(_))
        ));
    }
    assert_eq!(
        (
            std::fs::read(&config.certificate).unwrap(),
            std::fs::read(&config.key).unwrap()
        ),
        before
    );
}
