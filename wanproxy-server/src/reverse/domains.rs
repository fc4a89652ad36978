//! Which domain the streams of reverse services use.

use std::collections::HashMap;

use codec::frame::DomainId;
use edge::config::{Dedup, ListenConfig};
use edge::identity::EdgeName;
use tunnel::histories::DomainSpec;

/// The first isolated domain; those of a server edge are even, and 0 is the shared one (protocol.md, Coverage).
const FIRST_ISOLATED: u64 = 2;

/// Numbers isolated services, each client's on its own. A number stays its service's for the life of the program, since tunnels outlive reloads.
#[derive(Debug, Default)]
pub(super) struct Domains(HashMap<EdgeName, Vec<String>>);

impl Domains {
    /// The domain of a service that leads behind `client`; nothing for one without dedup.
    pub(super) fn of(&mut self, config: &ListenConfig, client: &EdgeName) -> Option<DomainSpec> {
        match config.dedup {
            Dedup::Off => None,
            Dedup::Shared => Some(DomainSpec::shared()),
            Dedup::Isolated => {
                let known = self.0.entry(client.clone()).or_default();
                let place = known
                    .iter()
                    .position(|name| *name == config.name)
                    .unwrap_or_else(|| {
                        known.push(config.name.clone());
                        known.len() - 1
                    });
                let id = DomainId::from(FIRST_ISOLATED + 2 * place as u64);
                (id <= DomainId::MAX).then(|| DomainSpec {
                    id,
                    name: format!("s:{}", config.name),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use edge::config::ServerConfig;

    use super::*;

    #[test]
    fn isolated_services_of_a_server_have_even_domains_by_client_that_stay() {
        let service = |name: &str, client: &str, dedup: &str| {
            format!(
                "[[listen]]\nname = \"{name}\"\nkind = \"forward\"\nclient = \"{client}\"\nbind = \"127.0.0.1:0\"\ntarget = \"10.0.0.1:1\"\ndedup = \"{dedup}\"\n"
            )
        };
        let text = [
            "[tunnel]\nlisten = \"127.0.0.1:0\"\n".to_owned(),
            service("a", "one", "shared"),
            service("b", "one", "isolated"),
            service("c", "one", "isolated"),
            service("d", "two", "isolated"),
            service("e", "two", "off"),
        ];
        let config = ServerConfig::parse(&text.concat(), Path::new("server.toml")).unwrap();
        let mut domains = Domains::default();
        let ids = |domains: &mut Domains| -> Vec<_> {
            let of = |service| domains.of(service, service.client.as_ref().unwrap());
            let all: Vec<_> = config.listen.iter().map(of).collect();
            all.into_iter()
                .map(|spec| spec.map(|spec| (u64::from(spec.id), spec.name)))
                .collect()
        };
        let named = |id, name: &str| Some((id, name.to_owned()));
        let expected = [
            named(0, "shared"),
            named(2, "s:b"),
            named(4, "s:c"),
            named(2, "s:d"),
            None,
        ];
        assert_eq!(ids(&mut domains), expected);
        assert_eq!(ids(&mut domains), expected, "after a reload");
    }
}
