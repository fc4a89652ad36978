//! kcptun: KCP over UDP with forward error correction and snappy; all connections in one.

use anyhow::Result;

use super::{Pair, Setup};
use crate::bench::place::Side;

pub(super) const SERVER: &str = "kcptun-server";
pub(super) const CLIENT: &str = "kcptun-client";

/// Its default windows hold 0.2 MB on their way; these hold what a line of 100 Mbit/s and 80 ms does, and more.
const COMMON: [&str; 7] = [
    "--quiet", "--mode", "fast2", "--sndwnd", "2048", "--rcvwnd", "2048",
];

pub(super) fn start(setup: &Setup<'_>) -> Result<Pair> {
    let entrance = setup.entrance()?;
    let tunnel = setup.tunnel()?;
    let key = format!("{:016x}", rand::random::<u64>());
    let mut server = setup.command(Side::Far, SERVER);
    server.args(["-l", &tunnel.to_string(), "-t", &setup.origin.to_string()]);
    let mut client = setup.command(Side::Near, CLIENT);
    client.args(["-l", &entrance.to_string(), "-r", &tunnel.to_string()]);
    let mut processes = Vec::new();
    for (name, mut command) in [(SERVER, server), (CLIENT, client)] {
        command.args(COMMON).env("KCPTUN_KEY", &key);
        processes.push(setup.spawn(name, command)?);
    }
    Ok(Pair {
        entrance,
        processes,
    })
}
