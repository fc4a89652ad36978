//! The server's commands as an administrator runs them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn server(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_wanproxy-server"))
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
    let said = server(args);
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!(said.out, "", "{args:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(
        said.err.starts_with("wanproxy-server: ") && said.err.contains(part),
        "expected {part}\n   found {}",
        said.err
    );
}

fn done(args: &[&str]) -> String {
    let said = server(args);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}");
    said.out
}

/// A directory with an authority in `hq`.
struct House(tempfile::TempDir);

impl House {
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        done(&[
            "init",
            "--dir",
            &house.hq(),
            "--address",
            "hq.example.com:7443",
            "--allow",
            "10.0.0.0/8:*",
            "--allow",
            "[::1]:22",
        ]);
        house
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn hq(&self) -> String {
        self.path("hq")
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("hq/server.toml")
    }
}

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &str, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn init_makes_what_check_accepts() {
    let house = House::new();
    let said = done(&["check", "--config", house.config().to_str().unwrap()]);
    for part in [
        "server.toml is valid.",
        "This edge is \"server\"",
        "It would accept tunnels at [::]:7443",
        "Clients named * could reach 10.0.0.0/8:*, [::1]:22",
        "It would renew its clients' certificates.",
        "http://127.0.0.1:9901/",
    ] {
        assert!(said.contains(part), "expected {part}\n{said}");
    }
    assert_eq!(mode(&house.hq()), 0o700);
    for file in ["ca.key", "edge.key", "server.toml"] {
        assert_eq!(mode(&house.path(&format!("hq/{file}"))), 0o600, "{file}");
    }
}

#[test]
fn init_refuses_what_it_would_overwrite_and_what_it_cannot_read() {
    let house = House::new();
    let address = ["--address", "hq:7443"];
    let init = |dir: &str, more: &[&str]| {
        [&["init", "--dir", dir], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let refuse = |args: Vec<String>, code, part: &str| {
        refused(
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            code,
            part,
        )
    };
    let before = std::fs::read(house.path("hq/ca.key")).unwrap();
    refuse(init(&house.hq(), &address), 1, "holds an authority already");
    assert_eq!(std::fs::read(house.path("hq/ca.key")).unwrap(), before);
    std::fs::write(house.path("file"), "").unwrap();
    refuse(init(&house.path("file"), &address), 1, "cannot read");
    std::fs::create_dir(house.path("used")).unwrap();
    std::fs::write(house.path("used/x"), "").unwrap();
    refuse(
        init(&house.path("used"), &address),
        1,
        "is not empty (it holds x)",
    );
    for (more, part) in [
        (vec!["--address", "hq"], "is not HOST:PORT"),
        (
            vec!["--address", "hq:7443", "--allow", "10.0.0.0/8"],
            "names no ports",
        ),
        (
            vec!["--address", "hq:7443", "--alow", "x"],
            "a similar argument exists: '--allow'",
        ),
        (vec![], "--address <HOST:PORT>"),
    ] {
        refuse(init(&house.path("new"), &more), 2, part);
    }
    assert!(!Path::new(&house.path("new")).exists());
}

#[test]
fn an_invite_goes_to_a_private_file_or_to_stdout() {
    let house = House::new();
    let out = house.path("branch-1.invite");
    let said = done(&["invite", "branch-1", "--dir", &house.hq(), "--out", &out]);
    assert!(
        said.contains("works once") && said.contains(&format!("wanproxy-client join {out}")),
        "{said}"
    );
    assert_eq!(mode(&out), 0o600);
    assert!(
        std::fs::read_to_string(&out)
            .unwrap()
            .starts_with("wanproxy invite 1\n# ")
    );
    assert!(
        done(&[
            "invite",
            "branch-2",
            "--dir",
            &house.hq(),
            "--valid",
            "2days"
        ])
        .starts_with("wanproxy invite 1\n")
    );
    let list = done(&["list", "--dir", &house.hq()]);
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let found: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (*row.first().unwrap(), *row.get(1).unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("NAME", "STATE"),
            ("server", "active"),
            ("branch-1", "invited"),
            ("branch-2", "invited")
        ]
    );
    // NAME STATE DAY TIME UTC LEFT SERIAL
    assert_eq!(
        rows.iter()
            .skip(1)
            .map(|row| *row.get(5).unwrap())
            .collect::<Vec<_>>(),
        ["364", "0", "1"]
    );
}

#[test]
fn wrong_invites_are_refused() {
    let house = House::new();
    let hq = house.hq();
    std::fs::write(house.path("taken"), "mine").unwrap();
    refused(
        &[
            "invite",
            "branch-1",
            "--dir",
            &hq,
            "--out",
            &house.path("taken"),
        ],
        1,
        "exists already and is never overwritten",
    );
    assert_eq!(
        std::fs::read_to_string(house.path("taken")).unwrap(),
        "mine"
    );
    refused(&["invite", "Branch", "--dir", &hq], 2, "is not a name");
    refused(
        &["invite", "server", "--dir", &hq],
        2,
        "the server's own name",
    );
    refused(
        &["invite", "branch-1", "--dir", &hq, "--valid", "31days"],
        2,
        "out of range",
    );
    refused(
        &["invite", "branch-1", "--dir", &hq, "--valid", "500ms"],
        2,
        "out of range",
    );
    refused(
        &["invite", "branch-1", "--dir", &house.path("nowhere")],
        1,
        "wanproxy-server init",
    );
    assert_eq!(done(&["list", "--dir", &hq]).lines().count(), 2);
}

#[test]
fn renew_and_revoke_know_their_names() {
    let house = House::new();
    let hq = house.hq();
    let out = house.path("renewal");
    refused(
        &["renew", "branch-1", "--dir", &hq],
        1,
        "no identity is named \"branch-1\"",
    );
    refused(
        &["revoke", "branch-1", "--dir", &hq],
        1,
        "no identity is named \"branch-1\"",
    );
    refused(&["revoke", "server", "--dir", &hq], 1, "cannot be revoked");
    refused(
        &["renew", "server", "--dir", &hq, "--out", &out],
        2,
        "leave --out away",
    );
    done(&["invite", "branch-1", "--dir", &hq]);
    done(&["renew", "branch-1", "--dir", &hq, "--out", &out]);
    assert!(
        std::fs::read_to_string(&out)
            .unwrap()
            .contains("\nuse: renewal\n")
    );
    let key = std::fs::read(house.path("hq/edge.key")).unwrap();
    let certificate = std::fs::read(house.path("hq/edge.pem")).unwrap();
    assert!(done(&["renew", "server", "--dir", &hq]).contains("valid until"));
    assert_eq!(std::fs::read(house.path("hq/edge.key")).unwrap(), key);
    assert_ne!(
        std::fs::read(house.path("hq/edge.pem")).unwrap(),
        certificate
    );
    assert!(done(&["revoke", "branch-1", "--dir", &hq]).contains("Revoked \"branch-1\" (2 "));
    assert!(done(&["revoke", "branch-1", "--dir", &hq]).contains("nothing that could be revoked"));
    assert!(done(&["list", "--dir", &hq]).contains("revoked"));
    done(&["invite", "branch-1", "--dir", &hq]);
    assert!(done(&["list", "--dir", &hq]).contains("invited"));
}

#[test]
fn invites_of_many_processes_are_all_registered() {
    let house = House::new();
    let children: Vec<_> = (0..12)
        .map(|number| {
            let name = if number % 2 == 0 {
                "shared".to_owned()
            } else {
                format!("branch-{number}")
            };
            Command::new(env!("CARGO_BIN_EXE_wanproxy-server"))
                .args(["invite", &name, "--dir", &house.hq()])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(
        done(&["list", "--dir", &house.hq()]).lines().count(),
        2 + 6 + 1
    );
    assert!(done(&["revoke", "shared", "--dir", &house.hq()]).contains("(6 "));
}

#[test]
fn check_names_each_wrong_thing() {
    let house = House::new();
    let config = house.config();
    let file = config.to_str().unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |from: &str, to: &str, part: &str| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        std::fs::write(&config, changed).unwrap();
        refused(&["check", "--config", file], 2, part);
        std::fs::write(&config, &text).unwrap();
    };
    refused(
        &["check", "--config", &house.path("none")],
        2,
        "cannot read",
    );
    with(
        "[tunnel]",
        "[tunel]",
        "server.toml:3: unknown key \"tunel\" in the top of the file; did you mean \"tunnel\"?",
    );
    with(
        "listen =",
        "heartbeet = 1\nlisten =",
        "unknown key \"heartbeet\" in [tunnel]; did you mean \"heartbeat\"?",
    );
    with("[admin]", "[[listen]]\n[admin]", "[[listen]] needs name");
    with("ca = \"ca.pem\"", "ca = \"none.pem\"", "cannot read");
    with(
        "key = \"edge.key\"",
        "key = \"ca.key\"",
        "is not the key of",
    );
    with(
        "ca_key = \"ca.key\"",
        "ca_key = \"edge.key\"",
        "is not the key of",
    );
    with(
        "[tunnel]",
        "name = \"other\"\n[tunnel]",
        "is for \"server\"",
    );
    with(
        "bind = \"127.0.0.1:9901\"",
        "bind = \"0.0.0.0:9901\"",
        "add token_file",
    );
    with(
        "bind = \"127.0.0.1:9901\"",
        "bind = \"0.0.0.0:9901\"\ntoken_file = \"none\"",
        "cannot read",
    );
    with("[tunnel]", "[tunnel", "server.toml:3: ");
    for key in ["hq/edge.key", "hq/ca.key"] {
        set_mode(&house.path(key), 0o644);
        refused(
            &["check", "--config", file],
            2,
            &format!("chmod 600 {}", house.path(key)),
        );
        set_mode(&house.path(key), 0o600);
    }
    std::fs::write(house.path("hq/revoked"), "damaged").unwrap();
    refused(&["check", "--config", file], 2, "revoked is damaged");
    std::fs::remove_file(house.path("hq/revoked")).unwrap();
    done(&["check", "--config", file]);
}

#[test]
fn damaged_identities_are_named() {
    let house = House::new();
    done(&["invite", "branch-1", "--dir", &house.hq()]);
    let record = house.path("hq/identities/branch-1.toml");
    for content in [
        "",
        "version = 1",
        "\u{0}",
        "name = \"branch-1\"\nversion = 7",
    ] {
        std::fs::write(&record, content).unwrap();
        for command in [
            &["list", "--dir"][..],
            &["invite", "branch-1", "--dir"],
            &["revoke", "branch-1", "--dir"],
        ] {
            refused(
                &[command, &[house.hq().as_str()]].concat(),
                1,
                "branch-1.toml is damaged",
            );
        }
    }
    done(&["invite", "branch-2", "--dir", &house.hq()]);
}

#[test]
fn help_version_and_completions_are_there_and_a_missing_command_is_an_error() {
    let help = done(&["--help"]);
    for command in [
        "init",
        "invite",
        "list",
        "renew",
        "revoke",
        "check",
        "completions",
    ] {
        assert!(help.contains(command), "{command}");
    }
    assert!(done(&["--version"]).starts_with("wanproxy-server 0."));
    assert!(done(&["completions", "bash"]).contains("wanproxy-server"));
    refused(&[], 2, "a command is missing");
    refused(&["lst"], 2, "a similar subcommand exists: 'list'");
}

#[test]
fn manual_pages_are_written_for_the_program_and_its_commands() {
    let directory = tempfile::tempdir().unwrap();
    done(&["man", "--dir", directory.path().to_str().unwrap()]);
    for page in [
        "wanproxy-server.1",
        "wanproxy-server-run.1",
        "wanproxy-server-status.1",
    ] {
        let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".TH wanproxy-server"), "{page}: {text}");
    }
    assert!(!directory.path().join("wanproxy-server-man.1").exists());
    let nowhere = directory.path().join("missing");
    refused(
        &["man", "--dir", nowhere.to_str().unwrap()],
        1,
        "cannot write manual pages into",
    );
}
