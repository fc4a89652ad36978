//! What the services are, and the domains of their streams.

use std::collections::HashMap;
use std::sync::Arc;

use codec::frame::DomainId;
use edge::cli::Failure;
use edge::config::{Dedup, ListenConfig};
use edge::pace::Paces;
use edge::users::Users;
use tunnel::client::DomainSpec;

use crate::listener::Service;

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

    /// What the listeners need to know of their services.
    ///
    /// # Errors
    /// The password of a user cannot be had.
    pub fn services(
        &self,
        configs: &[ListenConfig],
    ) -> Result<Vec<(ListenConfig, Service)>, Failure> {
        let both = |config: &ListenConfig| Ok((config.clone(), self.service(config)?));
        configs.iter().map(both).collect()
    }

    fn service(&self, config: &ListenConfig) -> Result<Service, Failure> {
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
}
