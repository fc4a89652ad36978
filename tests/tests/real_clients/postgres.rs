//! PostgreSQL: a dump of 50 MB and its restore.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use wanproxy_tests::eventually;
use wanproxy_tests::pair::Signal;

use crate::server::Server;
use crate::stage::{Ground, Stage, assert_repeat, assert_same, found, succeed};

/// The server refuses to be root's; these are nobody's, on Debian and elsewhere.
const NOBODY: u32 = 65534;

/// A row is a little over 90 bytes of a dump.
const ROWS: u32 = 560_000;
const DUMP_MIN_BYTES: usize = 50_000_000;

/// Every row counts, with all its columns, in their order.
const SUM: &str =
    "SELECT count(*), md5(string_agg(md5(i || name || note), '' ORDER BY i)) FROM rows";

#[tokio::test(flavor = "multi_thread")]
async fn psql_dumps_and_restores_fifty_megabytes() {
    let programs = ["initdb", "postgres", "psql", "pg_dump", "setpriv"];
    let Some([initdb, postgres, psql, dump, setpriv]) = found("PostgreSQL", programs) else {
        return;
    };
    let Some(ground) = Ground::lay("PostgreSQL") else {
        return;
    };
    // Not below the ground's directory, into which nobody may not look.
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let cluster = home.path().join("cluster");
    let unprivileged = |program: &Path| {
        let mut command = ground.far(&setpriv);
        command
            .args([
                "--reuid",
                &NOBODY.to_string(),
                "--regid",
                &NOBODY.to_string(),
                "--clear-groups",
            ])
            .arg(program)
            .current_dir(home.path());
        command
    };
    let mut make = unprivileged(&initdb);
    make.args([
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        "--no-locale",
        "--encoding=UTF8",
        "--pgdata",
    ])
    .arg(&cluster);
    succeed(make).await;
    let rules = cluster.join("pg_hba.conf");
    let open = std::fs::read_to_string(&rules).unwrap() + "host all all 10.77.0.0/24 trust\n";
    std::fs::write(&rules, open).unwrap();
    let address = ground.far_address();
    let mut server = unprivileged(&postgres);
    server
        .arg("-D")
        .arg(&cluster)
        .args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
        ])
        .args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
            "-c",
            "autovacuum=off",
            "-c",
            "max_wal_size=2GB",
        ]);
    // At once: nothing of the cluster is kept.
    let _server = Server::start(&ground, server, address)
        .await
        .ends_by(Signal::QUIT);
    let mut stage = ground.pair(&[("sql", address)]).await;
    let way = stage.listener("sql");

    // It takes connections before it answers questions.
    eventually("PostgreSQL answers", async || {
        let question = sql(&stage, &psql, address, "postgres", "SELECT 1");
        let output = tokio::process::Command::from(question).output().await;
        let output = output.unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
    .await;
    let fill = format!(
        "CREATE TABLE rows AS SELECT i, 'customer ' || md5(i::text) AS name, 'note ' || repeat(md5((i * 7)::text), 1) || ' of ' || i % 97 AS note \
         FROM generate_series(1, {ROWS}) i"
    );
    succeed(sql(&stage, &psql, address, "postgres", &fill)).await;
    let sum = succeed(sql(&stage, &psql, address, "postgres", SUM)).await;
    assert!(sum.starts_with(format!("{ROWS}|").as_bytes()));

    let command = client(&stage, &dump, address, "postgres");
    let direct = without_token(&stage.direct("pg_dump", command).await);
    assert!(direct.len() > DUMP_MIN_BYTES, "only {} bytes", direct.len());
    for turn in ["first", "again"] {
        let command = client(&stage, &dump, way, "postgres");
        let (got, wan) = stage.through(&format!("pg_dump, {turn}"), command).await;
        assert_same(turn, &without_token(&got), &direct);
        if turn == "again" {
            assert_repeat("pg_dump", direct.len() as u64, wan);
        }
    }

    let file = stage.ground.path("dump.sql");
    std::fs::write(&file, &direct).unwrap();
    for (name, through) in [("restored_directly", false), ("restored", true)] {
        succeed(sql(
            &stage,
            &psql,
            address,
            "postgres",
            &format!("CREATE DATABASE {name}"),
        ))
        .await;
        let mut command = client(&stage, &psql, if through { way } else { address }, name);
        command.args([
            "--quiet",
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--file",
            &file,
        ]);
        if through {
            stage.through("psql, restore", command).await;
        } else {
            stage.direct("psql, restore", command).await;
        }
        assert_eq!(
            succeed(sql(&stage, &psql, address, name, SUM)).await,
            sum,
            "{name}"
        );
    }
    stage.report();
}

fn client(stage: &Stage, program: &Path, server: std::net::SocketAddr, database: &str) -> Command {
    let mut command = stage.ground.near(program);
    command
        .args([
            "--host",
            &server.ip().to_string(),
            "--port",
            &server.port().to_string(),
        ])
        .args(["--username=postgres", "--no-password", "--dbname", database])
        .env("PGSSLMODE", "disable")
        .env("PGPASSFILE", "/dev/null")
        .env("HOME", stage.ground.path(""));
    command
}

fn sql(
    stage: &Stage,
    psql: &Path,
    server: std::net::SocketAddr,
    database: &str,
    text: &str,
) -> Command {
    let mut command = client(stage, psql, server, database);
    command.args([
        "--quiet",
        "--no-psqlrc",
        "--no-align",
        "--tuples-only",
        "--set=ON_ERROR_STOP=1",
        "--command",
        text,
    ]);
    command
}

/// Newer versions put a random word around the dump (`\restrict`), a new one each time.
fn without_token(dump: &[u8]) -> Vec<u8> {
    let lines = dump.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.starts_with(b"\\restrict ") && !line.starts_with(b"\\unrestrict "))
        .flatten()
        .copied()
        .collect()
}
