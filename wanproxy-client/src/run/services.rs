//! Sockets and domains of the services.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use codec::frame::DomainId;
use edge::cli::Failure;
use edge::config::{Bind, Dedup, ListenConfig, ListenKind, Method};
use edge::lan::LanListener;
use edge::lifecycle::Listening;
use edge::os;
use edge::pace::Paces;
use edge::users::Users;
use tunnel::client::DomainSpec;

use crate::listener::{Listener, Service};

/// The name of the admin endpoint's socket in the `listening` lines.
pub const fn name_of_admin() -> &'static str {
    "admin"
}

/// Opens a service's listening socket.
///
/// # Errors
/// The address cannot be had; the line says whose it was to be.
pub fn bind(service: &str, bind: &Bind) -> Result<LanListener, Failure> {
    LanListener::open(bind).map_err(|error| cannot_listen(service, bind, &error))
}

fn cannot_listen(service: &str, bind: &Bind, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot listen on {bind} for \"{service}\": {error}"
    ))
}

/// Opens the listening socket of a `[[listen]]`.
///
/// # Errors
/// As [`bind`], and the service needs what this program may not do.
pub fn bind_service(service: &ListenConfig) -> Result<LanListener, Failure> {
    match (&service.kind, &service.bind) {
        (ListenKind::Transparent(config), Bind::Tcp(address))
            if config.method == Method::Tproxy =>
        {
            os::may_have_foreign_addresses()
                .map_err(|error| cannot_be_transparent(&service.name, &error))?;
            os::listen_transparent(*address)
                .map(LanListener::Tcp)
                .map_err(|error| cannot_listen(&service.name, &service.bind, &error))
        }
        _ => bind(&service.name, &service.bind),
    }
}

/// The line for a program that may not do what method `tproxy` needs.
pub fn cannot_be_transparent(service: &str, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "service \"{service}\" with method = \"tproxy\" needs the capability CAP_NET_ADMIN ({error}); run as root, or with AmbientCapabilities=CAP_NET_ADMIN in the systemd unit, or after setcap cap_net_admin+ep on the program; method = \"redirect\" needs none"
    ))
}

/// Is one of the services transparent?
pub fn has_transparent(services: &[ListenConfig]) -> bool {
    services
        .iter()
        .any(|service| matches!(service.kind, ListenKind::Transparent(_)))
}

/// A listener's line.
pub fn listening(listener: &Listener) -> Listening {
    Listening {
        name: listener.config.name.clone(),
        kind: listener.config.kind.as_str(),
        address: listener.address.clone(),
    }
}

/// Which domain the services' streams use. Fixed for the life of the program, since a tunnel's domains are agreed when it comes up.
#[derive(Debug)]
pub struct Domains {
    isolated: HashMap<String, DomainId>,
    /// The services' rates.
    pub paces: Paces,
}

/// The first domain of an isolated service; those of a client edge are odd, and 1 stays free (protocol.md, Coverage).
const FIRST_ISOLATED: u64 = 3;

impl Domains {
    /// Numbers the isolated services.
    pub fn new(services: &[ListenConfig]) -> Self {
        let isolated = services
            .iter()
            .filter(|service| service.dedup == Dedup::Isolated);
        let ids = (FIRST_ISOLATED..).step_by(2).map(DomainId::from);
        Self {
            isolated: isolated
                .map(|service| service.name.clone())
                .zip(ids)
                .collect(),
            paces: Paces::default(),
        }
    }

    /// What the connector attaches to each tunnel.
    pub fn specs(&self) -> Vec<DomainSpec> {
        let isolated = self.isolated.iter().map(|(name, id)| DomainSpec {
            id: *id,
            name: format!("c:{name}"),
        });
        std::iter::once(DomainSpec {
            id: DomainId::SHARED,
            name: String::new(),
        })
        .chain(isolated)
        .collect()
    }

    /// From now on the services' streams, running ones too, keep to the rates of `services`.
    pub fn set_rates(&self, services: &[ListenConfig]) {
        self.paces.set_all(|name| {
            let service = services.iter().find(|service| service.name == name)?;
            service.rate
        });
    }

    /// The domain of a service; nothing for one without dedup, or for one that became isolated after the start.
    pub fn of(&self, config: &ListenConfig) -> Option<DomainId> {
        match config.dedup {
            Dedup::Shared => Some(DomainId::SHARED),
            Dedup::Isolated => self.isolated.get(&config.name).copied(),
            Dedup::Off => None,
        }
    }

    /// What a listener needs to know of its service.
    ///
    /// # Errors
    /// The password of a user cannot be had.
    pub fn service(&self, config: &ListenConfig) -> Result<Service, Failure> {
        let users = Users::load(&config.users).map_err(Failure::of_configured)?;
        Ok(Service {
            name: config.name.clone(),
            kind: config.kind.clone(),
            domain: self.of(config),
            weight: config.weight,
            pace: self.paces.of(&config.name),
            proxy: config.proxy,
            users: users.map(Arc::new),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use edge::config::ClientConfig;

    use super::*;

    #[test]
    fn isolated_services_have_domains_of_their_own() {
        let service = |name: &str, dedup: &str| {
            format!(
                "[[listen]]\nname = \"{name}\"\nkind = \"socks5\"\nbind = \"127.0.0.1:0\"\ndedup = \"{dedup}\"\n"
            )
        };
        let text = [
            "[tunnel]\nserver = [\"hq:7443\"]\n".to_owned(),
            service("a", "shared"),
            service("b", "isolated"),
            service("c", "off"),
            service("d", "isolated"),
        ];
        let config = ClientConfig::parse(&text.concat(), Path::new("client.toml")).unwrap();
        let domains = Domains::new(&config.listen);
        let ids: Vec<_> = config
            .listen
            .iter()
            .map(|service| domains.of(service).map(u64::from))
            .collect();
        assert_eq!(ids, [Some(0), Some(3), None, Some(5)]);
        let mut specs: Vec<_> = domains
            .specs()
            .into_iter()
            .map(|spec| (u64::from(spec.id), spec.name))
            .collect();
        specs.sort();
        assert_eq!(
            specs,
            [
                (0, String::new()),
                (3, "c:b".to_owned()),
                (5, "c:d".to_owned())
            ]
        );
    }

    #[tokio::test]
    async fn an_address_in_use_is_told_with_its_service() {
        let first = bind("files", &"127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind("more", &first.bound().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot listen on 127.0.0.1:") && error.contains("for \"more\": "),
            "{error}"
        );
    }
}
