//! HAProxy on both sides: a TLS connection for each connection.

use anyhow::Result;

use super::{Pair, Setup};
use crate::bench::place::Side;

pub(super) const PROGRAM: &str = "haproxy";

/// Two descriptors a connection: what a limit of 20,000 lets it have.
const COMMON: &str = "global\n maxconn 9000\ndefaults\n mode tcp\n maxconn 9000\n timeout connect 20s\n timeout client 1h\n timeout server 1h\n";

pub(super) fn start(setup: &Setup<'_>) -> Result<Pair> {
    let entrance = setup.entrance()?;
    let tunnel = setup.tunnel()?;
    let certificate = setup.certificate()?;
    let far = setup.write(
        "haproxy-far.cfg",
        &format!(
            "{COMMON}listen far\n bind {tunnel} ssl crt {certificate} ssl-min-ver TLSv1.3\n server origin {}\n",
            setup.origin
        ),
    )?;
    let near = setup.write(
        "haproxy-near.cfg",
        &format!("{COMMON}listen near\n bind {entrance}\n server far {tunnel} ssl verify none\n"),
    )?;
    let mut processes = Vec::new();
    for (side, name, config) in [
        (Side::Far, "haproxy-far", far),
        (Side::Near, "haproxy-near", near),
    ] {
        let mut command = setup.command(side, PROGRAM);
        command.args(["-db", "-f", &config]);
        processes.push(setup.spawn(name, command)?);
    }
    Ok(Pair {
        entrance,
        processes,
    })
}
