//! `transparent-rules`: what the packet filter and the routing of this machine need for the configuration's transparent services.

mod text;

use std::net::{SocketAddr, ToSocketAddrs};

use edge::cli::Failure;
use edge::config::{Bind, ClientConfig, ListenKind, Method};
use edge::os;

use crate::cli::TransparentRulesArgs;
use text::{Catch, Family, Rules};

/// Prints the rules, ready for `nft -f`.
///
/// # Errors
/// The configuration is wrong, has no transparent service, or leaves open where the rules should lead.
pub fn transparent_rules(args: &TransparentRulesArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let rules = Rules {
        catches: catches(&config, &args.service, args.local)?,
        servers: servers(&config)?,
        lan: args.lan.clone(),
        local: args.local,
        uid: args.uid,
    };
    edge::cli::print(&rules.to_string())
}

/// Which service catches what, a family once.
fn catches(config: &ClientConfig, only: &[String], local: bool) -> Result<Vec<Catch>, Failure> {
    for name in only {
        if !config.listen.iter().any(|service| service.name == *name) {
            return Err(Failure::Usage(format!(
                "--service {name}: there is no such service; write the name of a [[listen]] with kind = \"transparent\""
            )));
        }
    }
    let mut catches: Vec<Catch> = Vec::new();
    for service in &config.listen {
        // A transparent service is at an address.
        let (ListenKind::Transparent(transparent), Bind::Tcp(bind)) =
            (&service.kind, &service.bind)
        else {
            continue;
        };
        if !only.is_empty() && !only.contains(&service.name) {
            continue;
        }
        let is_loopback = bind.ip().to_canonical().is_loopback();
        if is_loopback && transparent.method == Method::Redirect && !local {
            return Err(Failure::Usage(format!(
                "service \"{}\" listens on loopback, where redirected connections of other machines do not arrive; write bind = \"[::]:{}\", or use --local for this machine's own connections",
                service.name,
                bind.port()
            )));
        }
        let families = families(&service.name, *bind)?;
        for family in families {
            if let Some(taken) = catches.iter().find(|catch| catch.family == family) {
                return Err(Failure::Usage(format!(
                    "services \"{}\" and \"{}\" would both catch {family}; choose by --service NAME",
                    taken.service, service.name
                )));
            }
            catches.push(Catch {
                service: service.name.clone(),
                family,
                bind: os::canonical(*bind),
                method: transparent.method,
            });
        }
    }
    if catches.is_empty() {
        return Err(Failure::Usage(
            "there is no transparent service to print rules for; add a [[listen]] with kind = \"transparent\" and bind = \"[::]:7080\", or use --transparent '[::]:7080'"
                .to_owned(),
        ));
    }
    Ok(catches)
}

fn families(service: &str, bind: SocketAddr) -> Result<Vec<Family>, Failure> {
    if bind.port() == 0 {
        return Err(Failure::Usage(format!(
            "service \"{}\" lets the system choose its port, so rules cannot name it; give it one, like bind = \"[::]:7080\"",
            service
        )));
    }
    Ok(match bind {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => vec![Family::V4, Family::V6],
        _ if os::canonical(bind).is_ipv4() => vec![Family::V4],
        _ => vec![Family::V6],
    })
}

/// The addresses of the tunnel's servers, which must not be caught.
fn servers(config: &ClientConfig) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    for route in config.tunnel.paths.routes() {
        addresses.extend(resolve(&route.server)?);
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn resolve(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    let found = text.to_socket_addrs().map_err(|error| {
        Failure::Failed(format!(
            "cannot resolve {text}, which the rules must leave alone: {error}; print them where the name resolves, or write its address in [tunnel] server"
        ))
    })?;
    Ok(found.map(os::canonical).collect())
}

/// Reads the name of an interface for `--lan`.
///
/// # Errors
/// The kernel would have no such name.
pub fn parse_interface(text: &str) -> Result<String, String> {
    /// `IFNAMSIZ` less the closing zero.
    const MAX_BYTES: usize = 15;
    let good = (1..=MAX_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'"' | b'\\' | b'*'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("it is no name of an interface; `ip link` lists them".to_owned())
    }
}

/// Is a mark enough, or does the method want routing, too?
const fn wants_routing(method: Method) -> bool {
    matches!(method, Method::Tproxy)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;

    fn config(listen: &str) -> ClientConfig {
        let text =
            format!("[tunnel]\nserver = [\"192.0.2.1:7443\", \"[2001:db8::1]:7443\"]\n{listen}");
        ClientConfig::parse(&text, Path::new("client.toml")).unwrap()
    }

    fn service(name: &str, bind: &str) -> String {
        format!("[[listen]]\nname = \"{name}\"\nkind = \"transparent\"\nbind = \"{bind}\"\n")
    }

    #[test]
    fn each_family_has_one_service() {
        let families = |listen: &str, only: &[String]| {
            catches(&config(listen), only, false).map(|catches| {
                catches
                    .iter()
                    .map(|catch| (catch.service.clone(), catch.family))
                    .collect::<Vec<_>>()
            })
        };
        let a = |family| ("a".to_owned(), family);
        assert_eq!(
            families(&service("a", "[::]:7080"), &[]).unwrap(),
            [a(Family::V4), a(Family::V6)]
        );
        assert_eq!(
            families(&service("a", "0.0.0.0:7080"), &[]).unwrap(),
            [a(Family::V4)]
        );
        assert_eq!(
            families(&service("a", "[2001:db8::5]:7080"), &[]).unwrap(),
            [a(Family::V6)]
        );
        let two = service("a", "[::]:7080") + &service("b", "0.0.0.0:7081");
        let message = families(&two, &[]).unwrap_err().to_string();
        assert!(
            message.contains("\"a\" and \"b\" would both catch IPv4"),
            "{message}"
        );
        assert_eq!(
            families(&two, &["b".to_owned()]).unwrap(),
            [("b".to_owned(), Family::V4)]
        );
        for (listen, only, part) in [
            (String::new(), None, "add a [[listen]]"),
            (service("a", "[::]:0"), None, "give it one"),
            (service("a", "[::]:1"), Some("x"), "no such service"),
            (service("a", "[::1]:1"), None, "bind = \"[::]:1\""),
        ] {
            let only: Vec<String> = only.into_iter().map(str::to_owned).collect();
            let message = families(&listen, &only).unwrap_err().to_string();
            assert!(
                message.contains(part) && !message.contains('\n'),
                "{message}"
            );
        }
    }

    #[test]
    fn servers_are_known_by_their_addresses() {
        let servers = servers(&config("")).unwrap();
        assert_eq!(
            servers,
            ["192.0.2.1:7443", "[2001:db8::1]:7443"].map(|text| text.parse().unwrap())
        );
    }

    #[test]
    fn an_interface_has_a_name_that_a_rule_can_hold() {
        for name in ["eth0", "br-lan", "eth0.10", "wg_0", "a"] {
            assert_eq!(parse_interface(name).unwrap(), name);
        }
        for name in ["", "a b", "a\"b", "0123456789abcdef", "a/b", "eth*"] {
            assert!(parse_interface(name).is_err(), "{name}");
        }
    }
}
