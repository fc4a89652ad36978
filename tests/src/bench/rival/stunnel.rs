//! stunnel: a TLS connection for each connection.

use anyhow::Result;

use super::{Pair, Setup};
use crate::bench::place::Side;

pub(super) const PROGRAM: &str = "stunnel";

pub(super) fn start(setup: &Setup<'_>) -> Result<Pair> {
    let entrance = setup.entrance()?;
    let tunnel = setup.tunnel()?;
    let certificate = setup.certificate()?;
    let common = "foreground = yes\npid =\nsyslog = no\ndebug = warning\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n";
    let far = setup.write(
        "stunnel-far.conf",
        &format!(
            "{common}[far]\naccept = {tunnel}\nconnect = {}\ncert = {certificate}\n",
            setup.origin
        ),
    )?;
    let near = setup.write(
        "stunnel-near.conf",
        &format!("{common}[near]\nclient = yes\naccept = {entrance}\nconnect = {tunnel}\n"),
    )?;
    let mut processes = Vec::new();
    for (side, name, config) in [
        (Side::Far, "stunnel-far", far),
        (Side::Near, "stunnel-near", near),
    ] {
        let mut command = setup.command(side, PROGRAM);
        command.arg(config);
        processes.push(setup.spawn(name, command)?);
    }
    Ok(Pair {
        entrance,
        processes,
    })
}
