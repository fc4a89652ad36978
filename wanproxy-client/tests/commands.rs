//! The client's commands as somebody at a branch runs them. Invites are made through the library, as the server's program makes them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use edge::identity::{self, Authority};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What a command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn client(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_wanproxy-client"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command that must be refused with this exit code, in one line that holds `part`.
fn refused(args: &[&str], code: i32, part: &str) {
    let said = client(args);
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!(said.out, "", "{args:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(
        said.err.starts_with("wanproxy-client: ") && said.err.contains(part),
        "expected {part}\n   found {}",
        said.err
    );
}

fn done(args: &[&str]) -> String {
    let said = client(args);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
    said.out
}

/// A directory with an authority in `hq`.
struct House(tempfile::TempDir);

impl House {
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        identity::init(
            &house.0.path().join("hq"),
            &"hq.example.com:7443".parse().unwrap(),
            &[],
            SystemTime::now(),
        )
        .unwrap();
        house
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn invite(&self, name: &str, file: &str, renews: bool, when: SystemTime) -> String {
        let file = self.path(file);
        let authority = Authority::open_directory(&self.0.path().join("hq")).unwrap();
        authority
            .invite(
                &name.parse().unwrap(),
                DAY,
                renews,
                Some(Path::new(&file)),
                when,
            )
            .unwrap();
        file
    }

    /// Joins as branch-1 and returns the configuration's path.
    fn join(&self) -> PathBuf {
        let invite = self.invite("branch-1", "invite", false, SystemTime::now());
        done(&["join", &invite, "--dir", &self.path("branch")]);
        self.0.path().join("branch/client.toml")
    }
}

#[test]
fn join_makes_what_check_accepts() {
    let house = House::new();
    let config = house.join();
    let file = config.to_str().unwrap();
    let said = done(&["check", "--config", file]);
    for part in [
        "client.toml is valid.",
        "This edge is \"branch-1\", with an invite's key",
        "a tunnel to hq.example.com:7443",
        "listen for no application yet",
        "http://127.0.0.1:9900/",
    ] {
        assert!(said.contains(part), "expected {part}\n{said}");
    }
    let said = done(&[
        "check",
        "--config",
        file,
        "--forward",
        "8445=10.0.0.5:445",
        "--forward",
        "0=a:1",
        "--socks5",
        "127.0.0.1:1080",
    ]);
    for part in [
        "Service forward-1 would forward connections to 10.0.0.5:445 from 127.0.0.1:8445",
        "Service forward-2 would",
        "Service socks5-1 would serve SOCKS5 from 127.0.0.1:1080",
    ] {
        assert!(said.contains(part), "expected {part}\n{said}");
    }
    for name in ["edge.key", "edge.pem", "ca.pem", "client.toml"] {
        let mode = std::fs::metadata(config.with_file_name(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn join_refuses_what_it_cannot_use() {
    let house = House::new();
    let invite = house.invite("branch-1", "invite", false, SystemTime::now());
    let text = std::fs::read_to_string(&invite).unwrap();
    let branch = house.path("branch");
    let changed = house.path("changed");
    let refuse = |content: &str, part: &str| {
        std::fs::write(&changed, content).unwrap();
        refused(&["join", &changed, "--dir", &branch], 1, part);
        assert!(!Path::new(&branch).exists());
    };
    refuse("no invite", "is not a wanproxy invite");
    refuse(&"x".repeat(1 << 20), "is not a wanproxy invite");
    refuse(
        &text.replace("hq.example.com", "evil.example.com"),
        "is damaged",
    );
    refuse(text.lines().next().unwrap(), "is damaged");
    refuse(
        &text.replace("invite 1", "invite 9"),
        "an invite of version 9",
    );
    let expired = house.invite("branch-2", "expired", false, SystemTime::now() - 2 * DAY);
    refused(&["join", &expired, "--dir", &branch], 1, "expired on 20");
    refused(
        &["join", &house.path("none"), "--dir", &branch],
        1,
        "cannot read",
    );
    refused(&["join", &invite], 2, "--dir <DIR>");
    done(&["join", &invite, "--dir", &branch]);
    refused(
        &["join", &invite, "--dir", &branch],
        1,
        "joined with this very invite already",
    );
    let other = house.invite("branch-3", "other", false, SystemTime::now());
    refused(
        &["join", &other, "--dir", &branch],
        1,
        "exists already and is never overwritten",
    );
}

#[test]
fn a_renewal_replaces_credentials_only() {
    let house = House::new();
    let config = house.join();
    let text = std::fs::read_to_string(&config)
        .unwrap()
        .replace("heartbeat = \"5s\"", "heartbeat = \"7s\"");
    std::fs::write(&config, &text).unwrap();
    let key = std::fs::read(config.with_file_name("edge.key")).unwrap();
    let renewal = house.invite("branch-1", "renewal", true, SystemTime::now());
    let said = done(&["join", &renewal, "--dir", &house.path("branch")]);
    assert!(
        said.starts_with("Replaced the credentials of \"branch-1\""),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
    assert_ne!(
        std::fs::read(config.with_file_name("edge.key")).unwrap(),
        key
    );
    done(&["check", "--config", config.to_str().unwrap()]);
}

#[test]
fn check_names_each_wrong_thing() {
    let house = House::new();
    let config = house.join();
    let file = config.to_str().unwrap();
    let key = config.with_file_name("edge.key");
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |from: &str, to: &str, part: &str| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        std::fs::write(&config, changed).unwrap();
        refused(&["check", "--config", file], 2, part);
        std::fs::write(&config, &text).unwrap();
    };
    with(
        "[tunnel]",
        "[tunnel]\nheartbeet = 1",
        "client.toml:5: unknown key \"heartbeet\" in [tunnel]; did you mean \"heartbeat\"?",
    );
    with(
        "[tunnel]",
        "[tunnel]\nlinks = 0",
        "client.toml:5: links in [tunnel]: \"0\" is no number of links; write \"auto\" or a number from 1 to 8",
    );
    with(
        "branch-1",
        "branch-2",
        "is for \"branch-1\", and the configuration says name = \"branch-2\"",
    );
    with("7443", "port", "is not HOST:PORT");
    with(
        "# [[listen]]\n# name = \"files\"",
        "[[listen]]\nname = \"files\"",
        "[[listen]] needs kind",
    );
    with("edge.pem", "ca.pem", "is not the key of");
    refused(
        &["check", "--config", &house.path("none")],
        2,
        "name another file with --config",
    );
    refused(
        &["check", "--config", file, "--forward", "8445"],
        2,
        "is not BIND=TARGET",
    );
    refused(
        &["check", "--config", file, "--socks5", "unix:run/x"],
        2,
        "is not unix:/PATH",
    );
    refused(
        &[
            "check",
            "--config",
            file,
            "--socks5",
            "1080",
            "--forward",
            "1080=a:1",
        ],
        2,
        "is taken by another service",
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    refused(
        &["check", "--config", file],
        2,
        &format!("chmod 600 {}", key.display()),
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    let stranger = House::new();
    let foreign = stranger.join();
    std::fs::copy(
        foreign.with_file_name("ca.pem"),
        config.with_file_name("ca.pem"),
    )
    .unwrap();
    refused(
        &["check", "--config", file],
        2,
        "was not issued by the authority in",
    );
    std::fs::copy(house.path("hq/ca.pem"), config.with_file_name("ca.pem")).unwrap();
    std::fs::copy(house.path("hq/edge.pem"), config.with_file_name("edge.pem")).unwrap();
    std::fs::copy(house.path("hq/edge.key"), &key).unwrap();
    refused(
        &["check", "--config", file],
        2,
        "belongs to a server, and this is a client",
    );
}

#[test]
fn help_version_and_completions_are_there_and_a_missing_command_is_an_error() {
    let help = done(&["--help"]);
    for command in ["join", "check", "completions"] {
        assert!(help.contains(command), "{command}");
    }
    assert!(done(&["--version"]).starts_with("wanproxy-client 0."));
    for shell in ["bash", "zsh", "fish"] {
        assert!(done(&["completions", shell]).contains("wanproxy-client"));
    }
    refused(&[], 2, "a command is missing");
    refused(&["joim"], 2, "a similar subcommand exists: 'join'");
}

#[test]
fn manual_pages_are_written_for_the_program_and_its_commands() {
    let directory = tempfile::tempdir().unwrap();
    done(&["man", "--dir", directory.path().to_str().unwrap()]);
    for page in [
        "wanproxy-client.1",
        "wanproxy-client-run.1",
        "wanproxy-client-status.1",
    ] {
        let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".TH wanproxy-client"), "{page}: {text}");
    }
    assert!(!directory.path().join("wanproxy-client-man.1").exists());
    let nowhere = directory.path().join("missing");
    refused(
        &["man", "--dir", nowhere.to_str().unwrap()],
        1,
        "cannot write manual pages into",
    );
}
