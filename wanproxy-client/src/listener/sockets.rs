//! The listening sockets of services. Those with `method = "tproxy"` take connections to addresses that are not this machine's.

use std::io;

use edge::cli::Failure;
use edge::config::{Bind, ListenConfig, ListenKind, Method};
use edge::lan::{LanListener, cannot_listen};
use edge::os;

/// Opens the listening socket of a `[[listen]]`.
///
/// # Errors
/// The address cannot be had, or the service needs what this program may not do.
pub fn open(service: &ListenConfig) -> Result<LanListener, Failure> {
    match &service.bind {
        Bind::Tcp(address) if is_tproxy(service) => {
            os::may_have_foreign_addresses()
                .map_err(|error| cannot_be_transparent(service, &error))?;
            os::listen_transparent(*address)
                .map(LanListener::Tcp)
                .map_err(|error| cannot_listen(&service.name, &service.bind, &error))
        }
        _ => LanListener::open_for(&service.name, &service.bind),
    }
}

/// Prepares the socket of a listener that stays for what its service becomes.
///
/// # Errors
/// The service needs what this program may not do.
pub fn refit(socket: &LanListener, service: &ListenConfig) -> Result<(), Failure> {
    if is_tproxy(service) {
        os::mark_own(socket)
            .and_then(|()| os::set_transparent(socket))
            .map_err(|error| cannot_be_transparent(service, &error))?;
    }
    Ok(())
}

fn is_tproxy(service: &ListenConfig) -> bool {
    matches!(&service.kind, ListenKind::Transparent(config) if config.method == Method::Tproxy)
}

/// The line for a program that may not do what method `tproxy` needs.
fn cannot_be_transparent(service: &ListenConfig, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "service \"{}\" with method = \"tproxy\" needs the capability CAP_NET_ADMIN ({error}); run as root, or with AmbientCapabilities=CAP_NET_ADMIN in the systemd unit, or after setcap cap_net_admin+ep on the program; method = \"redirect\" needs none",
        service.name
    ))
}

/// Is one of the services transparent?
pub fn has_transparent(services: &[ListenConfig]) -> bool {
    services
        .iter()
        .any(|service| matches!(service.kind, ListenKind::Transparent(_)))
}
