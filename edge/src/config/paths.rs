//! `[tunnel] server`, `links` and `[[tunnel.path]]`: the ways to the server.

use std::net::IpAddr;

use tunnel::client::{Bind, Route};

use super::document::{Keys, Section};
use super::error::{ConfigError, ValueError};
use super::rendezvous;
use super::target::Target;
use crate::identity::EdgeName;

/// Server addresses; each costs a dial timeout when it is dead.
const MAX_SERVERS: usize = 16;

/// Paths: more than any site has.
const MAX_PATHS: usize = 8;

/// Links over one path: more TCP connections than that give no line more.
const MAX_LINKS: usize = 8;

/// Links of one tunnel, as many as a server admits.
const MAX_LINKS_IN_ALL: usize = 16;

/// A network interface's name has at most so many bytes (`IFNAMSIZ` and its end).
const MAX_INTERFACE_BYTES: usize = 15;

const PATH: Keys = Keys {
    offered: &["bind", "server"],
    later: &[],
};

/// What `[tunnel]` says of the ways to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathsConfig {
    /// Server addresses, tried in this order, whichever `order` has made it; empty only where each path has its own.
    pub server: Vec<Target>,
    /// Links over each path.
    pub links: usize,
    /// `[[tunnel.path]]`.
    pub paths: Vec<PathConfig>,
}

/// One `[[tunnel.path]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathConfig {
    /// The source address or interface of its connections.
    pub bind: Option<Bind>,
    /// The address of the first server on this path; none: those of `server`.
    pub server: Option<Target>,
}

impl PathsConfig {
    /// Reads the section of an edge that has this name.
    pub(crate) fn read(
        tunnel: &Section<'_>,
        name: Option<&EdgeName>,
        advice: &'static str,
    ) -> Result<Self, ConfigError> {
        let mut server: Vec<Target> = tunnel.list("server", MAX_SERVERS, str::parse)?;
        let order = tunnel.parse("order", order)?.unwrap_or(Order::Written);
        let links = tunnel.parse_string_or_integer("links", links)?.unwrap_or(1);
        let mut paths: Vec<PathConfig> = Vec::new();
        for section in tunnel.sections("path", MAX_PATHS, &PATH)? {
            let path = PathConfig {
                bind: section.parse("bind", bind)?,
                server: section.parse("server", str::parse)?,
            };
            if path.bind.is_none() && path.server.is_none() {
                let advice = "write bind = \"192.0.2.1\", bind = \"eth1\" or server = \"hq.example.com:7443\"";
                return Err(section.missing("bind or server", advice));
            }
            if path.server.is_none() && server.is_empty() {
                return Err(section.missing("server", "give it one, or [tunnel] a list of servers"));
            }
            if paths.contains(&path) {
                return Err(section.conflict("bind", "another path is the same"));
            }
            paths.push(path);
        }
        if server.is_empty() && paths.is_empty() {
            return Err(tunnel.missing("server", advice));
        }
        if links * paths.len().max(1) > MAX_LINKS_IN_ALL {
            let message = format!(
                "{links} links over each of {} paths are more than the {MAX_LINKS_IN_ALL} that a tunnel may have",
                paths.len()
            );
            return Err(tunnel.conflict("links", message));
        }
        if order == Order::Rendezvous {
            if server.len() > 1 && paths.iter().any(|path| path.server.is_some()) {
                let message = "a path's own server is another address of the first one that is written, and \"rendezvous\" may put another first; leave one of them out";
                return Err(tunnel.conflict("order", message));
            }
            let name = name.ok_or_else(|| {
                tunnel.conflict(
                    "order",
                    "\"rendezvous\" chooses by this edge's name; write name = \"branch-1\" at the top of the file",
                )
            })?;
            rendezvous::sort(&mut server, name);
        }
        Ok(Self {
            server,
            links,
            paths,
        })
    }

    /// All ways to all servers, in the order in which they are tried. Paths lead to the first server where they name their own address of it.
    pub fn routes(&self) -> Vec<Route> {
        let servers: Vec<String> = self.server.iter().map(ToString::to_string).collect();
        if self.paths.is_empty() {
            return Route::to_servers(servers);
        }
        let mut routes = Vec::new();
        for site in 0..servers.len().max(1) {
            for path in &self.paths {
                let own = path.server.as_ref().filter(|_| site == 0);
                let server = match (own, &path.server) {
                    (Some(own), _) => Some(own.to_string()),
                    (None, None) => servers.get(site).cloned(),
                    // Its address is the first server's.
                    (None, Some(_)) => None,
                };
                routes.extend(server.map(|server| Route {
                    server,
                    bind: path.bind.clone(),
                    site,
                }));
            }
            if site > 0 && !routes.iter().any(|route| route.site == site) {
                routes.extend(servers.get(site).map(|server| Route {
                    server: server.clone(),
                    bind: None,
                    site,
                }));
            }
        }
        routes
    }
}

/// `order`: which of several servers comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As they are written.
    Written,
    /// By a hash of this edge's name, another order for each client.
    Rendezvous,
}

fn order(text: &str) -> Result<Order, ValueError> {
    match text {
        "written" => Ok(Order::Written),
        "rendezvous" => Ok(Order::Rendezvous),
        _ => Err(ValueError::wrong(format!(
            "\"{text}\" is no order of servers; write \"written\" or \"rendezvous\""
        ))),
    }
}

fn links(text: &str) -> Result<usize, ValueError> {
    match text.parse() {
        _ if text == "auto" => Ok(1),
        Ok(links) if (1..=MAX_LINKS).contains(&links) => Ok(links),
        _ => Err(ValueError::wrong(format!(
            "\"{text}\" is no number of links; write \"auto\" or a number from 1 to {MAX_LINKS}"
        ))),
    }
}

fn bind(text: &str) -> Result<Bind, ValueError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Bind::Address(address));
    }
    let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if !text.is_empty() && text.len() <= MAX_INTERFACE_BYTES && text.bytes().all(is_name) {
        return Ok(Bind::Interface(text.to_owned()));
    }
    Err(ValueError::wrong(format!(
        "\"{text}\" is neither an address nor an interface; write bind = \"192.0.2.1\" or bind = \"eth1\""
    )))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::super::ClientConfig;
    use super::*;

    fn read(text: &str) -> Result<PathsConfig, String> {
        read_whole(&format!("[tunnel]\n{text}"))
    }

    fn read_whole(text: &str) -> Result<PathsConfig, String> {
        ClientConfig::parse(text, Path::new("client.toml"))
            .map(|config| config.tunnel.paths)
            .map_err(|error| error.to_string())
    }

    fn routes(text: &str) -> Vec<(String, usize)> {
        let routes = read(text).unwrap().routes().into_iter();
        routes
            .map(|route| (route.to_string(), route.site))
            .collect()
    }

    fn way(route: &str, site: usize) -> (String, usize) {
        (route.to_owned(), site)
    }

    #[test]
    fn servers_are_places_and_paths_are_ways_to_them() {
        assert_eq!(
            routes("server = [\"a:1\", \"b:1\"]"),
            [way("a:1", 0), way("b:1", 1)]
        );
        assert_eq!(
            routes(
                "server = [\"a:1\", \"b:1\"]\n[[tunnel.path]]\nbind = \"192.0.2.1\"\n[[tunnel.path]]\nbind = \"lte0\""
            ),
            [
                way("a:1 from 192.0.2.1", 0),
                way("a:1 by lte0", 0),
                way("b:1 from 192.0.2.1", 1),
                way("b:1 by lte0", 1)
            ]
        );
        assert_eq!(
            routes(
                "[[tunnel.path]]\nserver = \"one:1\"\n[[tunnel.path]]\nserver = \"two:1\"\nbind = \"::1\""
            ),
            [way("one:1", 0), way("two:1 from ::1", 0)]
        );
        assert_eq!(
            routes(
                "server = [\"a:1\", \"b:1\"]\n[[tunnel.path]]\nserver = \"other-a:1\"\n[[tunnel.path]]\nserver = \"a:1\""
            ),
            [way("other-a:1", 0), way("a:1", 0), way("b:1", 1)]
        );
    }

    #[test]
    fn an_order_by_rendezvous_depends_on_the_name_and_not_on_what_is_written_first() {
        let servers = |name: &str, list: &str| {
            let text =
                format!("name = \"{name}\"\n[tunnel]\nserver = [{list}]\norder = \"rendezvous\"");
            let server = read_whole(&text).unwrap().server;
            server.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (forth, back) = ("\"a:1\", \"b:1\", \"c:1\"", "\"c:1\", \"b:1\", \"a:1\"");
        let mut firsts = std::collections::BTreeSet::new();
        for branch in 0..64 {
            let name = format!("branch-{branch}");
            assert_eq!(servers(&name, forth), servers(&name, back));
            firsts.extend(servers(&name, forth).into_iter().next());
        }
        assert_eq!(firsts.len(), 3);
        let written = read("server = [\"b:1\", \"a:1\"]\norder = \"written\"").unwrap();
        assert_eq!(written, read("server = [\"b:1\", \"a:1\"]").unwrap());
    }

    #[test]
    fn links_are_a_number_or_auto() {
        let with =
            |links: &str| read(&format!("server = [\"a:1\"]\n{links}")).map(|paths| paths.links);
        assert_eq!(with(""), Ok(1));
        assert_eq!(with("links = \"auto\""), Ok(1));
        assert_eq!(with("links = 4"), Ok(4));
        for wrong in ["links = 0", "links = 9", "links = \"many\""] {
            let message = with(wrong).unwrap_err();
            assert!(
                message.contains("write \"auto\" or a number from 1 to 8"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for (text, part) in [
            ("", "[tunnel] needs server"),
            ("[[tunnel.path]]\nbind = \"eth0\"", "[[path]] needs server"),
            (
                "server = [\"a:1\"]\n[[tunnel.path]]",
                "[[path]] needs bind or server",
            ),
            (
                "server = [\"a:1\"]\n[[tunnel.path]]\nbind = \"a/b\"",
                "neither an address nor an interface",
            ),
            (
                "server = [\"a:1\"]\n[[tunnel.path]]\nbind = \"eth0\"\n[[tunnel.path]]\nbind = \"eth0\"",
                "another path is the same",
            ),
            (
                "server = [\"a:1\"]\n[[tunnel.path]]\nbnd = \"eth0\"",
                "did you mean \"bind\"?",
            ),
            (
                "server = [\"a:1\"]\norder = \"random\"",
                "write \"written\" or \"rendezvous\"",
            ),
            (
                "server = [\"a:1\", \"b:1\"]\norder = \"rendezvous\"",
                "write name = \"branch-1\"",
            ),
            (
                "server = [\"a:1\", \"b:1\"]\norder = \"rendezvous\"\n[[tunnel.path]]\nserver = \"c:1\"",
                "leave one of them out",
            ),
            (
                "server = [\"a:1\"]\nlinks = 8\n[[tunnel.path]]\nbind = \"a\"\n[[tunnel.path]]\nbind = \"b\"\n[[tunnel.path]]\nbind = \"c\"",
                "more than the 16",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
