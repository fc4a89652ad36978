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
            .paths
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
fn services_listen_at_unix_sockets_and_lead_to_them() {
    let tunnel = "[tunnel]\nserver = [\"hq:7443\"]\n";
    let listen = |name: &str, rest: &str| format!("[[listen]]\nname = \"{name}\"\n{rest}\n");
    let forward =
        "kind = \"forward\"\nbind = \"unix:/run/in.sock\"\ntarget = \"unix:/run/out.sock\"";
    let proxy = "kind = \"socks5\"\nbind = \"unix:/run/socks.sock\"";
    let text = format!(
        "{tunnel}{}{}[admin]\nbind = \"unix:/run/admin.sock\"\n[[accept]]\nallow = [\"unix:/run/back.sock\"]\n",
        listen("a", forward),
        listen("b", proxy)
    );
    let config = client(&text).unwrap();
    assert_eq!(
        config.listen[0].kind,
        ListenKind::Forward("unix:/run/out.sock".parse().unwrap())
    );
    let lines = config.describe().join("\n");
    for part in [
        "forward connections to unix:/run/out.sock from unix:/run/in.sock, with",
        "serve SOCKS5 from unix:/run/socks.sock, with",
        "could reach unix:/run/back.sock.",
        "Its admin endpoint would be at unix:/run/admin.sock.",
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let transparent = "kind = \"transparent\"\nbind = \"unix:/run/t.sock\"";
    for (text, part) in [
        (
            listen("a", transparent),
            "a packet filter sends connections to an address",
        ),
        (
            listen("a", &proxy.replace("/run", "run")),
            "is not unix:/PATH",
        ),
        (
            listen("a", proxy) + &listen("b", proxy),
            "unix:/run/socks.sock is taken by another service",
        ),
        (
            listen("a", &proxy.replace("run", &"r".repeat(100))),
            "and the system takes 107",
        ),
    ] {
        let message = client(&format!("{tunnel}{text}")).unwrap_err();
        assert!(
            message.contains(part) && !message.contains('\n'),
            "{message}"
        );
    }
}

#[test]
fn a_reverse_listener_names_the_client_behind_which_its_target_is() {
    let tunnel = "[tunnel]\nlisten = \"1\"\nconnect_wait = \"3s\"\n";
    let listen = "[[listen]]\nname = \"a\"\nkind = \"forward\"\nbind = \"2\"\ntarget = \"b:1\"\n";
    let config = server(&format!("{tunnel}{listen}client = \"branch-1\"")).unwrap();
    let [service] = config.listen.as_slice() else {
        panic!("one service")
    };
    assert_eq!(service.client.as_ref().unwrap().as_str(), "branch-1");
    assert_eq!(config.tunnel.connect_wait, Duration::from_secs(3));
    for (text, part) in [
        (
            listen.to_owned(),
            "[[listen]] needs client; write client = \"branch-1\"",
        ),
        (
            format!("{listen}client = \"branch-*\""),
            "\"branch-*\" is not a name",
        ),
        (
            format!("{listen}client = \"server\""),
            "\"server\" is the server's own name",
        ),
        (
            format!("{listen}users = {{ a = \"b\" }}"),
            "unknown key \"users\" in [[listen]]",
        ),
        (
            "[[listen]]\nname = \"a\"\nkind = \"socks5\"\nbind = \"2\"\nclient = \"a\"".to_owned(),
            "write kind = \"forward\"",
        ),
    ] {
        let message = server(&format!("{tunnel}{text}")).unwrap_err();
        assert!(
            message.contains(part) && !message.contains('\n'),
            "{message}"
        );
    }
    // A client's listener has its targets behind the server.
    let message = client(&format!(
        "[tunnel]\nserver = [\"hq:7443\"]\n{listen}client = \"branch-1\""
    ))
    .unwrap_err();
    assert!(message.contains("unknown key \"client\""), "{message}");
}

#[test]
fn rates_and_the_proxy_protocol_are_read_strictly() {
    use crate::proxy_protocol::Version;

    let tunnel = "[tunnel]\nserver = [\"hq:7443\"]\n";
    let listen = "[[listen]]\nname = \"a\"\nkind = \"forward\"\nbind = \"1\"\ntarget = \"b:1\"\n";
    let read = |keys: &str| client(&format!("{tunnel}{listen}{keys}"));
    let config = read("rate = \"2.5MB/s\"\nproxy_accept = true\nproxy_send = \"v2\"").unwrap();
    let [service] = config.listen.as_slice() else {
        panic!("one service")
    };
    assert_eq!(service.rate.unwrap().bits_per_second(), 20_000_000);
    assert_eq!(
        (service.proxy.accept, service.proxy.send),
        (true, Some(Version::V2))
    );
    for (keys, part) in [
        (
            "rate = \"20Mbit\"",
            "\"20Mbit\" is not a rate; write it like \"20Mbit/s\"",
        ),
        ("rate = \"20mbit/s\"", "is not a rate"),
        ("rate = \"0Mbit/s\"", "a rate of 0 would stop everything"),
        ("rate = 20", "expected a string"),
        ("proxy_accept = \"yes\"", "expected true or false"),
        ("proxy_send = \"v3\"", "write \"off\", \"v1\" or \"v2\""),
    ] {
        let message = read(keys).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
    let message = client(&format!(
        "{tunnel}[[listen]]\nname = \"a\"\nkind = \"transparent\"\nbind = \"1\"\nproxy_accept = true"
    ))
    .unwrap_err();
    assert!(message.contains("without a header"), "{message}");
    let config =
        server("[tunnel]\nlisten = \"1\"\n[[client]]\nname = \"*\"\nrate = \"100Mbit/s\"").unwrap();
    let rate = config.client.first().unwrap().rate.unwrap();
    assert_eq!(rate.bits_per_second(), 100_000_000);
}

#[test]
fn what_a_client_accepts_is_one_set_of_rules() {
    let text = "[tunnel]\nserver = [\"hq:7443\"]\n[[accept]]\nallow = [\"192.168.1.9:9100\"]\n[[accept]]\nallow = [\"10.0.0.0/8:*\"]\ndeny = [\"10.0.9.0/24:*\"]\n";
    let config = client(text).unwrap();
    assert_eq!(
        (config.accept.allow.len(), config.accept.deny.len()),
        (2, 1)
    );
    assert!(config.describe().contains(
        &"Reverse listeners of the server could reach 192.168.1.9:9100, 10.0.0.0/8:* except 10.0.9.0/24:*.".to_owned()
    ));
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
            &["1080".parse().unwrap()],
            &["unix:/run/http.sock".parse().unwrap()],
            &[parse_bind("[::]:7080").unwrap()],
        )
        .unwrap();
    assert_eq!(
        config
            .listen
            .iter()
            .map(|service| service.name.as_str())
            .collect::<Vec<_>>(),
        [
            "forward-1",
            "forward-2",
            "socks5-1",
            "http-1",
            "transparent-1"
        ]
    );
    let message = config
        .add_flags(&forward, &[], &[], &[])
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "--forward: name: \"forward-1\" is taken by another service; choose another name"
    );
    for text in ["", "a:1", "x=a:1", "0=a", "0=unix:a"] {
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
