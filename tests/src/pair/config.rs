//! The configuration files of a pair: what the programs' own commands wrote, with changes merged in.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

/// Sockets that an edge must name before it counts as started.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) kinds: Vec<&'static str>,
    pub(super) names: Vec<String>,
}

/// A listener of the client edge.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) target: Option<String>,
}

/// Changes the `server.toml` in `directory`: where it takes tunnels, a free port for its admin endpoint, and what `extra` says.
pub(super) fn write_server(directory: &Path, tunnel: SocketAddr, extra: &str) -> Result<()> {
    let changes = format!("[tunnel]\nlisten = \"{tunnel}\"\n[admin]\nbind = \"127.0.0.1:0\"\n");
    change(&directory.join("server.toml"), &[&changes, extra])
}

/// Changes the `client.toml` in `directory`: the server's address, the listeners, and what `extra` says.
pub(super) fn write_client(
    directory: &Path,
    server: SocketAddr,
    listeners: &[Listener],
    extra: &str,
) -> Result<()> {
    let mut changes =
        format!("[tunnel]\nserver = [\"{server}\"]\n[admin]\nbind = \"127.0.0.1:0\"\n");
    for Listener { name, kind, target } in listeners {
        changes +=
            &format!("[[listen]]\nname = \"{name}\"\nkind = \"{kind}\"\nbind = \"127.0.0.1:0\"\n");
        if let Some(target) = target {
            changes += &format!("target = \"{target}\"\n");
        }
    }
    change(&directory.join("client.toml"), &[&changes, extra])
}

/// Which sockets the edge with this configuration will name.
pub(super) fn expected_sockets(config: &Path) -> Result<Expected> {
    let table = read(config)?;
    let mut expected = Expected::default();
    if table
        .get("tunnel")
        .and_then(|tunnel| tunnel.get("listen"))
        .is_some()
    {
        expected.kinds.push("tunnel");
    }
    if table
        .get("admin")
        .and_then(|admin| admin.get("bind"))
        .is_some()
    {
        expected.kinds.push("admin");
    }
    let listeners = table
        .get("listen")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    expected.names = listeners
        .filter_map(|listener| listener.get("name")?.as_str().map(str::to_owned))
        .collect();
    Ok(expected)
}

fn read(file: &Path) -> Result<Table> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.parse()
        .with_context(|| format!("{} is no TOML", file.display()))
}

fn change(file: &Path, changes: &[&str]) -> Result<()> {
    let mut table = read(file)?;
    for text in changes {
        merge(
            &mut table,
            text.parse().with_context(|| format!("no TOML: {text}"))?,
        );
    }
    std::fs::write(file, toml::to_string(&table)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Tables are merged; lists of tables are put before those that are there, as the first match counts; anything else
/// replaces what was there.
fn merge(table: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(inner)), Value::Table(change)) => merge(inner, change),
            (Some(Value::Array(list)), Value::Array(mut change))
                if change.iter().any(Value::is_table) =>
            {
                change.append(list);
                *list = change;
            }
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn changes_are_merged() {
        let mut table: Table =
            "name = 'a'\n[tunnel]\nserver = ['x:1']\nheartbeat = '5s'\n[[client]]\nname = '*'\n"
                .parse()
                .unwrap();
        merge(
            &mut table,
            "[tunnel]\nserver = ['y:2']\n[[client]]\nname = 'b'\n[log]\nlevel = 'debug'\n"
                .parse()
                .unwrap(),
        );
        let wanted: Table =
            "name = 'a'\n[tunnel]\nserver = ['y:2']\nheartbeat = '5s'\n[[client]]\nname = 'b'\n[[client]]\nname = '*'\n[log]\nlevel = 'debug'\n"
                .parse()
                .unwrap();
        assert_eq!(table, wanted);
    }

    #[test]
    fn an_edge_is_expected_to_name_all_its_sockets() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("client.toml"), "").unwrap();
        let listener = Listener {
            name: "files".to_owned(),
            kind: "forward",
            target: Some("127.0.0.1:1".to_owned()),
        };
        write_client(
            directory.path(),
            "127.0.0.1:9".parse().unwrap(),
            &[listener],
            "",
        )
        .unwrap();
        let expected = expected_sockets(&directory.path().join("client.toml")).unwrap();
        assert_eq!(expected.kinds, ["admin"]);
        assert_eq!(expected.names, ["files"]);
    }
}
