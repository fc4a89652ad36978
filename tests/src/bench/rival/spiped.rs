//! spiped: an encrypted connection for each connection.

use anyhow::Result;

use super::{Pair, Setup};
use crate::bench::place::Side;

pub(super) const PROGRAM: &str = "spiped";

pub(super) fn start(setup: &Setup<'_>) -> Result<Pair> {
    let entrance = setup.entrance()?;
    let tunnel = setup.tunnel()?;
    let bytes: [u64; 4] = rand::random();
    let key = setup.write(
        "spiped.key",
        &bytes.map(|word| format!("{word:016x}")).concat(),
    )?;
    let bracketed =
        |address: std::net::SocketAddr| format!("[{}]:{}", address.ip(), address.port());
    let mut processes = Vec::new();
    for (side, name, way, source, target) in [
        (Side::Far, "spiped-far", "-d", tunnel, setup.origin),
        (Side::Near, "spiped-near", "-e", entrance, tunnel),
    ] {
        let mut command = setup.command(side, PROGRAM);
        command.args([way, "-F", "-n", "0", "-o", "60", "-k", &key]);
        command.args(["-s", &bracketed(source), "-t", &bracketed(target)]);
        processes.push(setup.spawn(name, command)?);
    }
    Ok(Pair {
        entrance,
        processes,
    })
}
