//! The rules as text: an nft file, with the commands for routing in comments that begin with `#ip `.

use std::fmt::{self, Display, Formatter, Write};
use std::net::{IpAddr, SocketAddr};

use edge::config::Method;
use edge::os::{OWN_MARK, TPROXY_MARK};

use super::wants_routing;

/// The routing table by which TPROXY's packets reach this machine. The number means nothing.
const ROUTING_TABLE: u32 = 7743;

/// What the rules do.
pub(super) struct Rules {
    /// Who catches what.
    pub(super) catches: Vec<Catch>,
    /// The tunnel's servers.
    pub(super) servers: Vec<SocketAddr>,
    /// Interfaces of the LAN; none: all.
    pub(super) lan: Vec<String>,
    /// This machine's own connections, too.
    pub(super) local: bool,
    /// The user that the edge runs as, where it cannot mark its packets.
    pub(super) uid: Option<u32>,
}

/// A service that catches one family's connections.
pub(super) struct Catch {
    pub(super) service: String,
    pub(super) family: Family,
    pub(super) bind: SocketAddr,
    pub(super) method: Method,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const fn protocol(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

impl Display for Family {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Display for Rules {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.head(out)?;
        // All at once, or not at all: nft takes a file as one transaction.
        writeln!(out, "table inet wanproxy")?;
        writeln!(out, "delete table inet wanproxy")?;
        writeln!(out, "table inet wanproxy {{")?;
        self.redirect(out)?;
        self.tproxy(out)?;
        self.datagrams(out)?;
        writeln!(out, "}}")
    }
}

impl Rules {
    fn of(&self, method: Method) -> impl Iterator<Item = &Catch> {
        self.catches
            .iter()
            .filter(move |catch| catch.method == method)
    }

    fn head(&self, out: &mut impl Write) -> fmt::Result {
        writeln!(
            out,
            "# Rules for the transparent services of wanproxy-client, made by `wanproxy-client transparent-rules`."
        )?;
        writeln!(out, "# Load them:    nft -f FILE")?;
        if self.of(Method::Tproxy).next().is_some() {
            writeln!(out, "# and routing:  sed -n 's/^#ip /ip /p' FILE | sh")?;
            for catch in self.catches.iter().filter(|c| wants_routing(c.method)) {
                let (option, mark) = (catch.family.option(), TPROXY_MARK);
                writeln!(
                    out,
                    "#ip {option} rule add fwmark {mark:#x} lookup {ROUTING_TABLE}"
                )?;
                writeln!(
                    out,
                    "#ip {option} route replace local default dev lo table {ROUTING_TABLE}"
                )?;
            }
        }
        writeln!(out, "# Remove them:  nft delete table inet wanproxy")?;
        if self.lan.is_empty() {
            writeln!(
                out,
                "# Connections of every interface are caught; --lan NAME catches those of the LAN only."
            )?;
        }
        writeln!(out)
    }

    fn redirect(&self, out: &mut impl Write) -> fmt::Result {
        if self.of(Method::Redirect).next().is_none() {
            return Ok(());
        }
        let to = |catch: &Catch| match catch.bind.ip() {
            ip if ip.is_unspecified() => format!("redirect to :{}", catch.bind.port()),
            _ => format!("dnat {} to {}", catch.family.word(), catch.bind),
        };
        begin(out, "redirect_lan", "nat hook prerouting priority dstnat")?;
        self.only_lan(out, false)?;
        self.leave_alone(out)?;
        // What comes from elsewhere does not reach loopback.
        for catch in self
            .of(Method::Redirect)
            .filter(|c| !c.bind.ip().is_loopback())
        {
            let protocol = catch.family.protocol();
            line(
                out,
                &format!("meta nfproto {protocol} meta l4proto tcp {}", to(catch)),
            )?;
        }
        end(out)?;
        if self.local {
            begin(out, "redirect_local", "nat hook output priority -100")?;
            self.not_the_edge(out)?;
            self.leave_alone(out)?;
            for catch in self.of(Method::Redirect) {
                let protocol = catch.family.protocol();
                line(
                    out,
                    &format!("meta nfproto {protocol} meta l4proto tcp {}", to(catch)),
                )?;
            }
            end(out)?;
        }
        Ok(())
    }

    fn tproxy(&self, out: &mut impl Write) -> fmt::Result {
        if self.of(Method::Tproxy).next().is_none() {
            return Ok(());
        }
        begin(out, "tproxy_lan", "filter hook prerouting priority mangle")?;
        self.only_lan(out, self.local)?;
        self.leave_alone(out)?;
        for catch in self.of(Method::Tproxy) {
            let word = catch.family.word();
            let port = catch.bind.port();
            let to = match catch.bind.ip() {
                ip if ip.is_unspecified() => format!(":{port}"),
                _ => catch.bind.to_string(),
            };
            line(
                out,
                &format!(
                    "meta nfproto {} meta l4proto tcp tproxy {word} to {to} meta mark set {TPROXY_MARK:#x} accept",
                    catch.family.protocol()
                ),
            )?;
        }
        end(out)?;
        if self.local {
            // The mark sends this machine's own packets round through lo, where they are caught as if they came from outside.
            begin(out, "tproxy_local", "route hook output priority mangle")?;
            line(out, "ct direction reply return")?;
            self.not_the_edge(out)?;
            self.leave_alone(out)?;
            for catch in self.of(Method::Tproxy) {
                line(
                    out,
                    &format!(
                        "meta nfproto {} meta l4proto tcp meta mark set {TPROXY_MARK:#x}",
                        catch.family.protocol()
                    ),
                )?;
            }
            end(out)?;
        }
        Ok(())
    }

    /// QUIC is not carried; told so at once, browsers take TCP.
    fn datagrams(&self, out: &mut impl Write) -> fmt::Result {
        let reject = |out: &mut _| {
            self.catches.iter().try_for_each(|catch| {
                let protocol = catch.family.protocol();
                line(
                    out,
                    &format!("meta nfproto {protocol} udp dport 443 reject"),
                )
            })
        };
        begin(out, "quic_lan", "filter hook forward priority filter")?;
        self.only_lan(out, false)?;
        reject(out)?;
        end(out)?;
        if self.local {
            begin(out, "quic_local", "filter hook output priority filter")?;
            self.not_the_edge(out)?;
            line(out, "fib daddr type local return")?;
            reject(out)?;
            end(out)?;
        }
        Ok(())
    }

    fn only_lan(&self, out: &mut impl Write, and_lo: bool) -> fmt::Result {
        if self.lan.is_empty() {
            return Ok(());
        }
        let lo = and_lo.then_some("lo");
        let names = self.lan.iter().map(String::as_str).chain(lo);
        let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
        line(
            out,
            &format!("iifname != {{ {} }} return", names.join(", ")),
        )
    }

    /// What is for this machine or for many is not carried, and what goes to the tunnel's server carries the tunnel.
    fn leave_alone(&self, out: &mut impl Write) -> fmt::Result {
        line(
            out,
            "fib daddr type { local, broadcast, anycast, multicast } return",
        )?;
        for server in &self.servers {
            let word = match server.ip() {
                IpAddr::V4(_) => "ip",
                IpAddr::V6(_) => "ip6",
            };
            line(
                out,
                &format!(
                    "{word} daddr {} tcp dport {} return",
                    server.ip(),
                    server.port()
                ),
            )?;
        }
        Ok(())
    }

    fn not_the_edge(&self, out: &mut impl Write) -> fmt::Result {
        line(out, &format!("meta mark {OWN_MARK:#x} return"))?;
        match self.uid {
            Some(uid) => line(out, &format!("meta skuid {uid} return")),
            None => Ok(()),
        }
    }
}

fn begin(out: &mut impl Write, name: &str, what: &str) -> fmt::Result {
    writeln!(out, "    chain {name} {{")?;
    line(out, &format!("type {what}; policy accept;"))
}

fn line(out: &mut impl Write, text: &str) -> fmt::Result {
    writeln!(out, "        {text}")
}

/// On a line of its own: nft 1.0.6 takes it nowhere else.
fn end(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "    }}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rules(method: Method, local: bool) -> String {
        let catch = |family| Catch {
            service: "lan".to_owned(),
            family,
            bind: "[::]:7080".parse().unwrap(),
            method,
        };
        Rules {
            catches: vec![catch(Family::V4), catch(Family::V6)],
            servers: vec!["192.0.2.1:7443".parse().unwrap()],
            lan: vec!["lan0".to_owned()],
            local,
            uid: local.then_some(7),
        }
        .to_string()
    }

    #[test]
    fn redirect_needs_no_routing_and_tproxy_does() {
        let redirect = rules(Method::Redirect, false);
        assert!(!redirect.contains("\n#ip "), "{redirect}");
        assert_eq!(redirect.matches("redirect to :7080").count(), 2);
        let tproxy = rules(Method::Tproxy, false);
        assert_eq!(tproxy.matches("\n#ip -4 ").count(), 2, "{tproxy}");
        assert_eq!(tproxy.matches("\n#ip -6 ").count(), 2, "{tproxy}");
        assert!(tproxy.contains("tproxy ip to :7080 meta mark set 0x77700002 accept"));
        for text in [redirect, tproxy] {
            assert!(text.contains("ip daddr 192.0.2.1 tcp dport 7443 return"));
            assert_eq!(text.matches("udp dport 443 reject").count(), 2);
            assert!(!text.contains("hook output"));
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
    }

    #[test]
    fn own_connections_are_caught_when_asked_for_and_never_those_of_the_edge() {
        for method in [Method::Redirect, Method::Tproxy] {
            let text = rules(method, true);
            for chain in text.split("chain ").filter(|c| c.contains("hook output")) {
                assert!(chain.contains("meta mark 0x77700001 return"), "{chain}");
                assert!(chain.contains("meta skuid 7 return"), "{chain}");
            }
            assert_eq!(text.matches("hook output").count(), 2);
        }
    }

    #[test]
    fn a_listener_at_one_address_is_named_by_it() {
        let one = Rules {
            catches: vec![Catch {
                service: "lan".to_owned(),
                family: Family::V6,
                bind: "[2001:db8::5]:7080".parse().unwrap(),
                method: Method::Redirect,
            }],
            servers: Vec::new(),
            lan: Vec::new(),
            local: false,
            uid: None,
        };
        assert!(one.to_string().contains("dnat ip6 to [2001:db8::5]:7080"));
    }
}
