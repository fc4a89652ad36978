//! Each thing that can be wrong with files, and that nothing is ever overwritten.

use super::*;

#[test]
fn init_never_overwrites() {
    let house = House::new();
    let again = |directory: &Path| {
        init(directory, &"hq:1".parse().unwrap(), &[], house.now)
            .unwrap_err()
            .to_string()
    };
    let before = std::fs::read(house.path("server/ca.key")).unwrap();
    assert!(
        again(&house.path("server"))
            .contains("holds an authority already; use `wanproxy-server invite NAME")
    );
    assert_eq!(std::fs::read(house.path("server/ca.key")).unwrap(), before);
    std::fs::create_dir(house.path("used")).unwrap();
    std::fs::write(house.path("used/notes"), "").unwrap();
    assert!(again(&house.path("used")).contains("is not empty (it holds notes)"));
    std::fs::create_dir_all(house.path("fresh/lost+found")).unwrap();
    init(
        &house.path("fresh"),
        &"hq:1".parse().unwrap(),
        &[],
        house.now,
    )
    .unwrap();
    assert!(Authority::open_directory(&house.path("nowhere")).is_err());
}

#[test]
fn each_wrong_credential_has_its_own_line() {
    let house = House::new();
    let config = house.active("branch-1");
    let other = house.active("branch-2");
    let stranger = House::new();
    let foreign = stranger.active("branch-1");

    let message = load(&config, house.now + 366 * DAY);
    assert!(
        message.contains("expired on") && message.contains("renew branch-1"),
        "{message}"
    );
    assert!(load(&config, house.now - DAY).contains("set this machine's clock"));
    assert!(
        load(
            &IdentityConfig {
                key: other.key.clone(),
                ..config.clone()
            },
            house.now
        )
        .contains("is not the key of")
    );
    assert!(
        load(
            &IdentityConfig {
                ca: foreign.ca.clone(),
                ..config.clone()
            },
            house.now
        )
        .contains("was not issued by the authority")
    );
    assert!(
        load(
            &IdentityConfig {
                ca: config.key.clone(),
                ..config.clone()
            },
            house.now
        )
        .contains("holds no certificates")
    );
    assert!(
        load(
            &IdentityConfig {
                certificate: house.path("none"),
                ..config.clone()
            },
            house.now
        )
        .starts_with("cannot read")
    );
    let server = ServerConfig::load(&house.path("server/server.toml"))
        .unwrap()
        .identity;
    assert!(load(&server, house.now).contains("belongs to a server, and this is a client"));

    std::fs::set_permissions(&config.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(&config, house.now).ends_with(&format!("chmod 600 {}", config.key.display())));
    std::fs::set_permissions(&config.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&config.key, "not a key").unwrap();
    assert!(load(&config, house.now).contains("is damaged: it holds no private key"));
    files::replace(
        &config.key,
        KeyPair::generate_for(&PKCS_ED25519)
            .unwrap()
            .serialize_pem()
            .as_bytes(),
    )
    .unwrap();
    assert!(load(&config, house.now).contains("not an ECDSA P-256 key"));
    std::fs::write(
        &config.certificate,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    assert!(load(&config, house.now).contains("not an X.509 certificate"));
}

#[test]
fn join_refuses_what_is_no_good_invite_and_leaves_nothing() {
    let house = House::new();
    let invite = house.invite("branch-1");
    let text = std::fs::read_to_string(&invite).unwrap();
    let file = house.path("copy");
    let refuse = |content: &str, now: SystemTime| {
        std::fs::write(&file, content).unwrap();
        let message = join(&file, &house.path("refused"), now)
            .unwrap_err()
            .to_string();
        assert!(
            !message.contains('\n') && !house.path("refused").exists(),
            "{message}"
        );
        message
    };
    for content in ["", "hello", "\u{0}\u{1}"] {
        assert!(refuse(content, house.now).contains("is not a wanproxy invite"));
    }
    assert!(
        refuse(&text.replace("invite 1", "invite 2"), house.now)
            .contains("version 2, and this program knows version 1")
    );
    assert!(
        refuse(&text.replace("branch-1", "branch-2"), house.now).contains("checksum does not fit")
    );
    assert!(refuse(&text.replace("checksum", "x"), house.now).contains("its end is missing"));
    let expired = refuse(&text, house.now + 2 * DAY);
    assert!(
        expired.contains("expired on") && expired.contains("invite branch-1"),
        "{expired}"
    );
    let mut lines: Vec<&str> = text.lines().collect();
    lines.pop();
    for count in 0..lines.len() {
        refuse(
            &lines
                .iter()
                .take(count)
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
            house.now,
        );
    }
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(
        join(&file, &house.path("refused"), house.now)
            .unwrap_err()
            .to_string()
            .contains("is not a wanproxy invite")
    );
    assert!(
        join(&house.path("none"), &house.path("refused"), house.now)
            .unwrap_err()
            .to_string()
            .starts_with("cannot read")
    );

    // What mail does to a text does not matter.
    let mailed = format!(
        "Hello,\r\nhere it is:\r\n\r\n{}\r\n--\r\n",
        text.replace('\n', "  \r\n")
    );
    std::fs::write(&file, mailed).unwrap();
    join(&file, &house.path("branch-1"), house.now).unwrap();
}

#[test]
fn join_never_overwrites() {
    let house = House::new();
    let invite = house.invite("branch-1");
    join(&invite, &house.path("branch-1"), house.now).unwrap();
    let again = join(&invite, &house.path("branch-1"), house.now).unwrap_err();
    assert!(matches!(again, IdentityError::InviteUsedHere { .. }));
    let other = join(
        &house.invite("branch-2"),
        &house.path("branch-1"),
        house.now,
    )
    .unwrap_err();
    assert!(matches!(other, IdentityError::Exists { .. }));
    std::fs::create_dir(house.path("half")).unwrap();
    std::fs::write(house.path("half/client.toml"), "mine").unwrap();
    assert!(matches!(
        join(&invite, &house.path("half"), house.now),
        Err(IdentityError::Exists { .. })
    ));
    assert_eq!(std::fs::read_dir(house.path("half")).unwrap().count(), 1);
}

#[test]
fn damage_in_the_authoritys_files_is_named() {
    let house = House::new();
    house.invite("branch-1");
    std::fs::write(house.path("server/revoked"), "4a4b").unwrap();
    assert!(
        house
            .authority()
            .list(house.now)
            .unwrap_err()
            .to_string()
            .contains("revoked is damaged")
    );
    assert!(Revocations::load(&house.path("server")).is_err());
    std::fs::remove_file(house.path("server/revoked")).unwrap();
    for (file, content) in [
        ("authority.toml", "version = 9\naddress = \"a:1\""),
        ("authority.toml", "version = 1\naddress = \"a\""),
        ("authority.toml", "?"),
    ] {
        std::fs::write(house.path("server").join(file), content).unwrap();
        let message = house
            .authority()
            .invite(&"branch-2".parse().unwrap(), DAY, false, None, house.now)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("authority.toml is damaged") && !message.contains('\n'),
            "{message}"
        );
    }
    std::fs::set_permissions(
        house.path("server/ca.key"),
        std::fs::Permissions::from_mode(0o604),
    )
    .unwrap();
    let message = Authority::open_directory(&house.path("server"))
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("chmod 600"), "{message}");
}
