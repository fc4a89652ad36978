//! Sockets and domains of the services.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use codec::frame::DomainId;
use edge::cli::Failure;
use edge::config::{Dedup, ListenConfig};
use edge::lifecycle::Listening;
use edge::os;
use edge::users::Users;
use tokio::net::TcpListener;
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
pub fn bind(service: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    os::listen(address).map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {address} for \"{service}\": {error}"
        ))
    })
}

/// A listener's line.
pub fn listening(listener: &Listener) -> Listening {
    Listening {
        name: listener.config.name.clone(),
        kind: listener.config.kind.as_str(),
        address: listener.address,
    }
}

/// Which domain the services' streams use. Fixed for the life of the program, since a tunnel's domains are agreed when it comes up.
#[derive(Clone, Debug)]
pub struct Domains(HashMap<String, DomainId>);

/// The first domain of an isolated service; those of a client edge are odd, and 1 stays free (protocol.md, Coverage).
const FIRST_ISOLATED: u64 = 3;

impl Domains {
    /// Numbers the isolated services.
    pub fn new(services: &[ListenConfig]) -> Self {
        let isolated = services
            .iter()
            .filter(|service| service.dedup == Dedup::Isolated);
        let ids = (FIRST_ISOLATED..).step_by(2).map(DomainId::from);
        Self(
            isolated
                .map(|service| service.name.clone())
                .zip(ids)
                .collect(),
        )
    }

    /// What the connector attaches to each tunnel.
    pub fn specs(&self) -> Vec<DomainSpec> {
        let isolated = self.0.iter().map(|(name, id)| DomainSpec {
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

    /// The domain of a service; nothing for one without dedup, or for one that became isolated after the start.
    pub fn of(&self, config: &ListenConfig) -> Option<DomainId> {
        match config.dedup {
            Dedup::Shared => Some(DomainId::SHARED),
            Dedup::Isolated => self.0.get(&config.name).copied(),
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
        let first = bind("files", "127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind("more", first.local_addr().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot listen on 127.0.0.1:") && error.contains("for \"more\": "),
            "{error}"
        );
    }
}
