//! Whole configurations: the contract's example, each key of a later version, each clash.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::*;

fn client(text: &str) -> Result<ClientConfig, String> {
    ClientConfig::parse(text, Path::new("/etc/wanproxy/client.toml"))
        .map_err(|error| error.to_string())
}

fn server(text: &str) -> Result<ServerConfig, String> {
    ServerConfig::parse(text, Path::new("server.toml")).map_err(|error| error.to_string())
}

const CLIENT: &str = r#"
name = "branch-1"
[tunnel]
server = ["hq.example.com:7443", "192.0.2.9:7443"]
heartbeat = "2s"
resume_window = "90s"
connect_wait = "15s"
drain_timeout = "1m"
[identity]
ca = "ca.pem"
certificate = "/srv/edge.pem"
key = "edge.key"
pins = []
[history]
directory = "history"
size = "20GiB"
[codec]
level = 3
[pools]
codec_threads = 3
crypto_threads = 2
queue = 17
inline_below = 0
[memory]
budget = "512MiB"
[[listen]]
name = "files"
kind = "forward"
bind = "127.0.0.1:8445"
target = "10.0.0.5:445"
dedup = "isolated"
weight = 4
[[listen]]
name = "proxy"
kind = "socks5"
bind = "1080"
[admin]
bind = "127.0.0.1:9900"
token_file = "admin.token"
[log]
level = "debug"
format = "json"
"#;

#[test]
fn every_key_of_a_client_arrives() {
    let config = client(CLIENT).unwrap();
    assert_eq!(config.name.unwrap().as_str(), "branch-1");
    assert_eq!(
        config
            .tunnel
            .server
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["hq.example.com:7443", "192.0.2.9:7443"]
    );
    assert_eq!(config.tunnel.heartbeat, Duration::from_secs(2));
    assert_eq!(config.tunnel.resume_window, Duration::from_secs(90));
    assert_eq!(config.tunnel.connect_wait, Duration::from_secs(15));
    assert_eq!(config.tunnel.drain_timeout, Duration::from_secs(60));
    assert_eq!(config.identity.ca, PathBuf::from("/etc/wanproxy/ca.pem"));
    assert_eq!(config.identity.certificate, PathBuf::from("/srv/edge.pem"));
    assert_eq!(config.history.size, Some(Size::from_bytes(20 << 30)));
    assert_eq!(
        config.history.directory,
        Some(PathBuf::from("/etc/wanproxy/history"))
    );
    assert_eq!(config.codec.level.to_string(), "3");
    assert_eq!(
        (
            config.pools.codec_threads.get(),
            config.pools.crypto_threads.get(),
            config.pools.queue.get()
        ),
        (3, 2, 17)
    );
    assert_eq!(config.pools.inline_below.bytes(), 0);
    assert_eq!(
        config.memory.budget,
        Budget::Bytes(Size::from_bytes(512 << 20))
    );
    let [files, proxy] = config.listen.as_slice() else {
        panic!("two services")
    };
    assert_eq!(
        files.kind,
        ListenKind::Forward("10.0.0.5:445".parse().unwrap())
    );
    assert_eq!((files.dedup, files.weight.get()), (Dedup::Isolated, 4));
    assert_eq!(
        (
            proxy.bind.to_string().as_str(),
            proxy.kind.as_str(),
            proxy.weight.get()
        ),
        ("127.0.0.1:1080", "socks5", 1)
    );
    assert_eq!(
        config.admin.unwrap().token_file,
        Some(PathBuf::from("/etc/wanproxy/admin.token"))
    );
    assert_eq!(
        (config.log.level, config.log.format),
        (LogLevel::Debug, LogFormat::Json)
    );
}

#[test]
fn the_least_client_has_the_contracts_defaults() {
    let config = client("[tunnel]\nserver = [\"hq:7443\"]").unwrap();
    assert_eq!(config.tunnel.heartbeat, Duration::from_secs(5));
    assert_eq!(config.tunnel.resume_window, Duration::from_secs(300));
    assert_eq!(config.tunnel.connect_wait, Duration::from_secs(10));
    assert_eq!(config.tunnel.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.identity.key, PathBuf::from("/etc/wanproxy/edge.key"));
    assert_eq!(config.identity.ca_key, None);
    assert_eq!(config.codec.level, Level::Auto);
    assert_eq!(config.pools.queue.get(), 256);
    assert_eq!(config.pools.inline_below.bytes(), 16 << 10);
    assert_eq!(config.memory.budget, Budget::Percent(25));
    assert!(config.listen.is_empty() && config.admin.is_none() && config.name.is_none());
}

#[test]
fn every_key_of_a_server_arrives() {
    let config = server(
        r#"
[tunnel]
listen = "[::]:7443"
[identity]
ca_key = "keys/ca.key"
[[client]]
name = "branch-*"
allow = ["10.0.0.0/8:*", "git.example.com:22,443"]
deny = ["10.0.9.0/24:*"]
max_streams = 7
new_streams_per_second = 8
[[client]]
name = "*"
"#,
    )
    .unwrap();
    assert_eq!(config.tunnel.listen.to_string(), "[::]:7443");
    assert_eq!(config.identity.ca, PathBuf::from("./ca.pem"));
    assert_eq!(
        config.identity.authority_directory(),
        PathBuf::from("./keys")
    );
    let [branch, all] = config.client.as_slice() else {
        panic!("two clients")
    };
    assert!(branch.name.matches("branch-7"));
    assert_eq!(
        (
            branch.allow.len(),
            branch.deny.len(),
            branch.max_streams.get(),
            branch.new_streams_per_second.get()
        ),
        (2, 1, 7, 8)
    );
    assert_eq!(
        (
            all.allow.len(),
            all.max_streams.get(),
            all.new_streams_per_second.get()
        ),
        (0, 10_000, 1_000)
    );
}

#[test]
fn keys_of_later_versions_are_refused_as_such() {
    let tunnel = "[tunnel]\nserver = [\"hq:7443\"]\n";
    let listen = "[[listen]]\nname = \"a\"\nkind = \"forward\"\nbind = \"1\"\ntarget = \"b:1\"\n";
    for text in [
        format!("{tunnel}links = \"auto\""),
        format!("{tunnel}[[tunnel.path]]\nbind = \"192.0.2.1\""),
        format!("{tunnel}[[accept]]\nallow = []"),
        format!("{tunnel}{listen}rate = \"1Mbit/s\""),
        format!("{tunnel}{listen}proxy_send = \"v1\""),
        format!("{tunnel}[[listen]]\nname = \"a\"\nkind = \"transparent\"\nbind = \"1\""),
        format!("{tunnel}[[listen]]\nname = \"a\"\nkind = \"socks5\"\nbind = \"unix:/run/a\""),
    ] {
        let message = client(&text).unwrap_err();
        assert!(
            message.ends_with("is not supported by this version") && !message.contains('\n'),
            "{message}"
        );
    }
    for key in ["source = []", "rate = \"1Mbit/s\""] {
        let message = server(&format!(
            "[tunnel]\nlisten = \"1\"\n[[client]]\nname = \"*\"\n{key}"
        ))
        .unwrap_err();
        assert!(
            message.ends_with("in [[client]] is not supported by this version"),
            "{message}"
        );
    }
    let message = server(&format!("[tunnel]\nlisten = \"1\"\n{listen}")).unwrap_err();
    assert_eq!(
        message,
        "server.toml:3: listen is not supported by this version"
    );
}

#[test]
fn what_is_missing_or_clashes_is_said_in_one_line() {
    let tunnel = "[tunnel]\nserver = [\"hq:7443\"]\n";
    let one = "[[listen]]\nname = \"a\"\nkind = \"socks5\"\nbind = \"1080\"\n";
    for (text, part) in [
        (
            String::new(),
            "client.toml: the top of the file needs [tunnel]; write server = ",
        ),
        (
            "[tunnel]\nserver = []".to_owned(),
            ":1: [tunnel] needs server",
        ),
        (
            "[tunnel]\nserver = [\"hq\"]".to_owned(),
            ":2: server in [tunnel]: \"hq\" is not HOST:PORT",
        ),
        (
            "[tunnel]\nserver = [\"hq:1\"]\nheartbeat = \"1ms\"".to_owned(),
            ":3: heartbeat in [tunnel]: \"1ms\" is out of range",
        ),
        (
            "[tunnel]\nserver = [\"hq:1\"]\nheartbeet = \"1s\"".to_owned(),
            "unknown key \"heartbeet\" in [tunnel]; did you mean \"heartbeat\"?",
        ),
        (
            format!("{tunnel}{one}{one}"),
            ":8: name in [[listen]]: \"a\" is taken",
        ),
        (
            format!("{tunnel}{one}{}", one.replace("\"a\"", "\"b\"")),
            ":10: bind in [[listen]]: 127.0.0.1:1080 is taken",
        ),
        (
            format!("{tunnel}{one}target = \"b:1\""),
            "target in [[listen]]: a service of kind socks5 has none",
        ),
        (
            format!("{tunnel}{}", one.replace("socks5", "forward")),
            ":3: [[listen]] needs target",
        ),
        (
            format!(
                "{tunnel}{}",
                one.replace("socks5", "http") + "target = \"b:1\"\n"
            ),
            "target in [[listen]]: a service of kind http has none",
        ),
        (
            format!(
                "{tunnel}{}",
                one.replace("socks5", "forward") + "target = \"b:1\"\nusers = { a = \"b\" }\n"
            ),
            "users in [[listen]]: a forward service asks nobody for a password",
        ),
        (
            format!("{tunnel}{one}users = {{ \"a:b\" = \"c\" }}\n"),
            "\"a:b\" is not a user's name",
        ),
        (
            format!("{tunnel}{}", one.replace("socks5", "sock5")),
            "\"sock5\" is not a kind",
        ),
        (
            format!("{tunnel}{}", one.replace("\"a\"", "\"admin\"")),
            "choose another",
        ),
        (
            format!("{tunnel}{one}weight = 0"),
            "0 is out of range; write a whole number from 1 to 1000",
        ),
        (
            format!("{tunnel}[identity]\nca_key = \"x\""),
            "unknown key \"ca_key\" in [identity]",
        ),
        (
            format!("{tunnel}[admin]\nbind = \"0.0.0.0:9900\""),
            "add token_file",
        ),
        (
            format!("{tunnel}[admin]\nbind = \"[::ffff:192.0.2.1]:9900\""),
            "add token_file",
        ),
        (format!("{tunnel}[admin]\n"), "[admin] needs bind"),
        (
            format!("{tunnel}[log]\nlevel = \"loud\""),
            "\"loud\" is not a level",
        ),
        (format!("name = \"Branch\"\n{tunnel}"), "is not a name"),
        (
            format!("name = \"server\"\n{tunnel}"),
            "the server's own name",
        ),
    ] {
        let message = client(&text).unwrap_err();
        assert!(
            message.contains(part) && !message.contains('\n'),
            "expected {part}\n   found {message}"
        );
    }
    let twice = "[[client]]\nname = \"*\"\n";
    let message = server(&format!("[tunnel]\nlisten = \"1\"\n{twice}{twice}")).unwrap_err();
    assert!(
        message.contains("server.toml:6: name in [[client]]: \"*\" stands above already"),
        "{message}"
    );
    let message = server(&format!(
        "[tunnel]\nlisten = \"1\"\n{twice}allow = [\"10.0.0.0/8\"]"
    ))
    .unwrap_err();
    assert!(message.contains("names no ports"), "{message}");
}

#[test]
fn flags_add_services_named_by_kind_and_number() {
    let mut config = client("[tunnel]\nserver = [\"hq:7443\"]").unwrap();
    let forward: Vec<ForwardFlag> = ["0=a:1", "127.0.0.1:0=[::1]:2"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    config
        .add_flags(
            &forward,
            &[parse_bind("1080").unwrap()],
            &[parse_bind("3128").unwrap()],
        )
        .unwrap();
    assert_eq!(
        config
            .listen
            .iter()
            .map(|service| service.name.as_str())
            .collect::<Vec<_>>(),
        ["forward-1", "forward-2", "socks5-1", "http-1"]
    );
    let message = config
        .add_flags(&forward, &[], &[])
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "--forward: name: \"forward-1\" is taken by another service; choose another name"
    );
    for text in ["", "a:1", "x=a:1", "0=a", "0=unix:/a"] {
        assert!(text.parse::<ForwardFlag>().is_err(), "{text}");
    }
}

#[test]
fn sixteen_domains_are_the_most() {
    use std::fmt::Write as _;
    let mut text = "[tunnel]\nserver = [\"hq:7443\"]\n".to_owned();
    for number in 0..15 {
        write!(text, "[[listen]]\nname = \"s{number}\"\nkind = \"socks5\"\nbind = \"0\"\ndedup = \"isolated\"\n").unwrap();
    }
    assert_eq!(client(&text).unwrap().listen.len(), 15);
    text.push_str(
        "[[listen]]\nname = \"x\"\nkind = \"socks5\"\nbind = \"0\"\ndedup = \"isolated\"\n",
    );
    assert!(
        client(&text)
            .unwrap_err()
            .contains("at most 15 services can be isolated")
    );
}

#[test]
fn unreadable_and_oversized_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client.toml");
    let message = ClientConfig::load(&file).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("cannot read {}: ", file.display()))
            && message.contains("--config"),
        "{message}"
    );
    std::fs::write(
        &file,
        "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1),
    )
    .unwrap();
    assert!(matches!(
        ClientConfig::load(&file),
        Err(ConfigError::TooLarge { .. })
    ));
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(matches!(
        ClientConfig::load(&file),
        Err(ConfigError::Unreadable { .. })
    ));
}
