//! What is deployed with the programs: units for systemd, rules for Prometheus, a dashboard for Grafana. Checked by the programs that read them, where they
//! are, and against what a running pair exports.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{Pair, Programs, Show};
use wanproxy_tests::skip;

/// A file or directory of `deploy/`.
fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A pair with an open connection that has carried a byte to an origin and back.
async fn pair_that_has_carried_a_byte() -> (Pair, (Server, TcpStream)) {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let mut connection = TcpStream::connect(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    connection.write_all(b"?").await.unwrap();
    connection.read_exact(&mut [0]).await.unwrap();
    (pair, (echo, connection))
}

/// Runs a program that must be content; `None`, loudly, where it is not installed.
async fn content(what: &str, command: &mut Command) -> Option<String> {
    let output = match command.output().await {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(what, "the program that checks it is not installed");
            return None;
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{what}: {said}");
    Some(said)
}

#[tokio::test]
async fn promtool_accepts_the_alerts_and_they_fire_as_their_tests_say() {
    let alerts = deploy("prometheus/alerts.yml");
    let mut check = Command::new("promtool");
    content("alert rules", check.args(["check", "rules"]).arg(&alerts)).await;
    let mut test = Command::new("promtool");
    test.args(["test", "rules"])
        .arg(deploy("prometheus/alerts_test.yml"));
    content("tests of the alert rules", &mut test).await;
    // An alert without a test has never been seen to fire.
    let tests = read(deploy("prometheus/alerts_test.yml"));
    for line in read(&alerts).lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
        }
    }
}

/// The names of metrics in an expression: words that begin as ours do.
fn metric_names(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("wanproxy_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// All strings of a document under the key `expr`.
fn expressions(document: &serde_json::Value, found: &mut Vec<String>) {
    match document {
        serde_json::Value::Object(members) => {
            for (key, value) in members {
                match value.as_str() {
                    Some(text) if key == "expr" => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                expressions(item, found);
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_dashboard_and_alerts_is_exported() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read(deploy("grafana/wanproxy.json"))).unwrap();
    let mut expressions_found = Vec::new();
    expressions(&dashboard, &mut expressions_found);
    assert!(expressions_found.len() > 15, "{expressions_found:?}");
    let alerts = read(deploy("prometheus/alerts.yml"));
    expressions_found.extend(
        alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: "))
            .map(str::to_owned),
    );
    let wanted: BTreeSet<String> = expressions_found
        .iter()
        .flat_map(|text| metric_names(text))
        .collect();

    let (pair, _carried) = pair_that_has_carried_a_byte().await;
    for edge in [pair.client(), pair.server()] {
        // The round trip and what was refused have no sample before the first of them; their families are declared all the same.
        let page = edge.page("/metrics").await.unwrap().1;
        let metrics = edge.metrics().await.unwrap();
        let names = metrics.names();
        for name in &wanted {
            let declared = page.contains(&format!("# TYPE {name} "));
            assert!(names.contains(name.as_str()) || declared, "{name}\n{page}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_what_both_edges_export() {
    let (pair, _carried) = pair_that_has_carried_a_byte().await;
    for edge in [pair.client(), pair.server()] {
        let (_, page) = edge.page("/metrics").await.unwrap();
        assert!(
            page.contains("\nwanproxy_pool_jobs_total{") && page.contains("\nwanproxy_pool_jobs{")
        );
        let file = pair.scratch().join("metrics.txt");
        std::fs::write(&file, &page).unwrap();
        let mut check = Command::new("promtool");
        check.args(["check", "metrics"]);
        check.stdin(std::fs::File::open(&file).unwrap());
        let Some(said) = content("metrics", &mut check).await else {
            return;
        };
        assert_eq!(said, "", "{page}");
    }
}

#[tokio::test]
async fn systemd_accepts_the_units_with_and_without_their_drop_ins() {
    let programs = Programs::find(Show::Nothing).unwrap();
    for (name, program) in [
        ("wanproxy-client", programs.client()),
        ("wanproxy-server", programs.server()),
    ] {
        let unit = read(deploy(&format!("systemd/{name}.service")));
        let installed = format!("ExecStart=/usr/bin/{name} ");
        assert!(unit.contains(&installed), "{unit}");
        // It is verified that the program is there, so it is the one that was built.
        let unit = unit.replace(&installed, &format!("ExecStart={} ", program.display()));
        let credentials = format!("{}.conf", name.replace("wanproxy", "credentials"));
        let drop_ins = ["low-ports.conf", "transparent.conf", &credentials];
        for drop_in in std::iter::once(None).chain(drop_ins.map(Some)) {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join(format!("{name}.service"));
            std::fs::write(&file, &unit).unwrap();
            // The socket's unit names its service, so both are read.
            let socket = deploy("systemd/wanproxy-server.socket");
            std::fs::copy(socket, directory.path().join("wanproxy-server.socket")).unwrap();
            if let Some(drop_in) = drop_in {
                let place = directory.path().join(format!("{name}.service.d"));
                std::fs::create_dir(&place).unwrap();
                std::fs::copy(
                    deploy(&format!("systemd/{drop_in}")),
                    place.join("drop-in.conf"),
                )
                .unwrap();
            }
            let mut verify = Command::new("systemd-analyze");
            verify.args(["verify", "--man=no"]).arg(&file);
            if name == "wanproxy-server" {
                verify.arg(directory.path().join("wanproxy-server.socket"));
            }
            let Some(said) = content("units for systemd", &mut verify).await else {
                return;
            };
            // It exits well over keys that it does not know.
            assert_eq!(said, "", "{name} {drop_in:?}");
        }
    }
}

#[tokio::test]
async fn systemd_finds_the_units_well_confined() {
    for name in ["wanproxy-client", "wanproxy-server"] {
        let mut security = Command::new("systemd-analyze");
        // In tenths: beyond 2.0 of 10 a right was given that it does without now.
        security
            .args(["security", "--offline=true", "--threshold=20"])
            .arg(deploy(&format!("systemd/{name}.service")));
        content("hardening of the units", &mut security).await;
    }
}

#[tokio::test]
async fn a_server_reads_what_the_service_manager_lends_it() {
    use std::os::unix::fs::PermissionsExt;
    let programs = Programs::find(Show::Nothing).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (edge, lent) = (directory.path().join("edge"), directory.path().join("lent"));
    let mut init = Command::new(programs.server());
    init.args(["init", "--address", "127.0.0.1:7443", "--dir"])
        .arg(&edge);
    content("init", &mut init).await;
    std::fs::create_dir(&lent).unwrap();
    let key = lent.join("edge.key");
    std::fs::rename(edge.join("edge.key"), &key).unwrap();
    // As systemd lends it: root's, and the access list shows as a right of the group.
    let permissions = std::fs::Permissions::from_mode(0o440);
    std::fs::set_permissions(&key, permissions).unwrap();
    let file = edge.join("server.toml");
    let text = read(&file).replace("\"edge.key\"", "\"$CREDENTIALS_DIRECTORY/edge.key\"");
    std::fs::write(&file, text).unwrap();
    let check = || {
        let mut check = Command::new(programs.server());
        check.args(["check", "--config"]).arg(&file);
        check.env_remove("CREDENTIALS_DIRECTORY");
        check
    };
    let said = content("check", check().env("CREDENTIALS_DIRECTORY", &lent)).await;
    assert!(said.unwrap().contains("is valid"));
    let without = check().output().await.unwrap();
    let said = String::from_utf8(without.stderr).unwrap();
    assert_eq!(without.status.code(), Some(2), "{said}");
    assert!(
        said.contains("needs the variable CREDENTIALS_DIRECTORY"),
        "{said}"
    );
}
