//! Which of several servers a client prefers: rendezvous hashing. Every client ranks all servers by a hash of its own name and the server's address, so clients
//! spread over the servers, each stays with its own, and a server that comes or goes moves those clients only that prefer it.

use std::cmp::Reverse;

use aws_lc_rs::digest::{SHA256, digest};

use super::target::Target;
use crate::identity::EdgeName;

/// Sorts servers as the edge of this name prefers them. The order in which they are given makes no difference.
pub(crate) fn sort(servers: &mut [Target], name: &EdgeName) {
    servers.sort_by_cached_key(|server| {
        let server = server.to_string();
        (Reverse(score(name.as_str(), &server)), server)
    });
}

/// How much an edge prefers a server. The same in every version and on every machine: another answer would move clients away from their histories.
fn score(name: &str, server: &str) -> Vec<u8> {
    // A name has no line end, so no other pair makes the same text.
    let text = format!("{name}\n{server}");
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn order(name: &str, servers: &[&str]) -> Vec<String> {
        let name = name.parse().unwrap();
        let mut servers: Vec<Target> = servers.iter().map(|text| text.parse().unwrap()).collect();
        sort(&mut servers, &name);
        servers.iter().map(ToString::to_string).collect()
    }

    const FOUR: [&str; 4] = ["hq-1:7443", "hq-2:7443", "hq-3:7443", "hq-4:7443"];

    fn branches() -> impl Iterator<Item = String> {
        (0..1_000).map(|number| format!("branch-{number}"))
    }

    #[test]
    fn the_order_never_changes() {
        assert_eq!(
            order("branch-1", &FOUR),
            ["hq-2:7443", "hq-1:7443", "hq-4:7443", "hq-3:7443"]
        );
        let [one, two, three, four] = FOUR;
        assert_eq!(
            order("branch-1", &FOUR),
            order("branch-1", &[three, one, four, two])
        );
    }

    #[test]
    fn clients_spread_over_the_servers() {
        for server in FOUR {
            let first = branches().filter(|name| order(name, &FOUR)[0] == server);
            let count = first.count();
            assert!((200..=300).contains(&count), "{server}: {count}");
        }
    }

    #[test]
    fn a_server_that_goes_moves_its_own_clients_only_and_to_their_next() {
        for gone in FOUR {
            let left: Vec<&str> = FOUR.into_iter().filter(|server| *server != gone).collect();
            for name in branches() {
                let mut before = order(&name, &FOUR);
                before.retain(|server| server != gone);
                assert_eq!(order(&name, &left), before, "{name}");
            }
        }
    }
}
