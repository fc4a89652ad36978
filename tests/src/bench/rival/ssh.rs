//! OpenSSH with compression and one forwarded port: all connections in one.

use std::process::Command;

use anyhow::Result;

use super::{Pair, Setup, run};
use crate::bench::place::Side;

pub(super) const CLIENT: &str = "ssh";
pub(super) const KEYGEN: &str = "ssh-keygen";
/// It insists on being started by its full path.
pub(super) const SERVER: &str = "/usr/sbin/sshd";

/// Where a server that runs as root keeps nothing at all, but insists on it.
const EMPTY_DIRECTORY: &str = "/run/sshd";

pub(super) fn start(setup: &Setup<'_>) -> Result<Pair> {
    let entrance = setup.entrance()?;
    let tunnel = setup.tunnel()?;
    for name in ["host", "user"] {
        let mut keygen = Command::new(KEYGEN);
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &setup.path(name)?]);
        run(keygen)?;
    }
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir_all(EMPTY_DIRECTORY)?;
    }
    let config = setup.write(
        "sshd.conf",
        &format!(
            "ListenAddress {tunnel}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPermitRootLogin yes\nPidFile none\nUsePAM no\n",
            setup.path("host")?,
            setup.path("user.pub")?,
        ),
    )?;
    let mut server = setup.command(Side::Far, SERVER);
    server.args(["-D", "-e", "-f", &config]);
    let mut processes = vec![setup.spawn("sshd", server)?];

    // It does not try again, so it begins when the server listens; connections to its port are refused until then.
    let wait = "until ssh-keyscan -T 1 -p \"$0\" \"$1\" >/dev/null 2>&1; do sleep 0.05; done; shift; exec \"$@\"";
    let mut client = setup.command(Side::Near, "sh");
    client.args([
        "-c",
        wait,
        &tunnel.port().to_string(),
        &tunnel.ip().to_string(),
        CLIENT,
    ]);
    client.args(["-N", "-C", "-F", "none", "-i", &setup.path("user")?]);
    client.args(["-p", &tunnel.port().to_string()]);
    client.args([
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "IdentitiesOnly=yes",
    ]);
    client.args([
        "-L",
        &format!("{entrance}:{}", setup.origin),
        &tunnel.ip().to_string(),
    ]);
    processes.push(setup.spawn("ssh", client)?);
    Ok(Pair {
        entrance,
        processes,
    })
}
