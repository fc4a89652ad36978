//! What would lead back is refused, and the log says why.

use wanproxy_tests::packets::FAR;

use super::branch::{BRANCH, PORT};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_listener_itself_is_refused() {
    for listen in ["", "method = \"tproxy\"\n"] {
        let Some(branch) = Branch::start("a loop", listen, "").await else {
            return;
        };
        branch.load(&branch.rules(&[]));
        for ip in [IpAddr::V4(BRANCH.router.0), IpAddr::V6(BRANCH.router.1)] {
            is_refused(&branch, (ip, PORT).into());
        }
        branch.client_logs("loop_to_listener").await;
        let metrics = branch.pair.client().metrics().await.unwrap();
        let counted = metrics.sum(
            "wanproxy_policy_refusals_total",
            &[("reason", "loop_to_listener")],
        );
        assert_eq!(counted, Some(2.0));
        assert_eq!(branch.streams().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_tunnels_server_is_refused() {
    for (listen, rule) in [
        ("", format!("redirect to :{PORT}")),
        (
            "method = \"tproxy\"\n",
            format!("tproxy ip to :{PORT} meta mark set 0x77700002 accept"),
        ),
    ] {
        let Some(branch) = Branch::start("a loop to the server", listen, "").await else {
            return;
        };
        let server = branch.pair.server().tunnel_address().unwrap();
        assert_eq!(server.ip(), IpAddr::V4(FAR));
        // With the rules that the program prints, the server is reached without the tunnel.
        branch.load(&branch.rules(&[]));
        let hook = if listen.is_empty() {
            "nat hook prerouting priority dstnat - 1"
        } else {
            "filter hook prerouting priority mangle - 1"
        };
        branch.load(&format!(
            "table inet careless {{\n chain careless {{\n type {hook}; policy accept;\n ip daddr {FAR} meta l4proto tcp {rule}\n }}\n}}\n"
        ));
        is_refused(&branch, server);
        branch.client_logs("loop_to_server").await;
        assert_eq!(branch.streams().await, 0);
    }
}

/// The connection is reset, be it at once, and not a byte comes by it.
fn is_refused(branch: &Branch, address: SocketAddr) {
    let ended = branch
        .host
        .run(|| {
            let talk = || {
                let mut connection = TcpStream::connect_timeout(&address, LIMIT)?;
                connection.set_read_timeout(Some(LIMIT))?;
                connection.write_all(b"round and round")?;
                connection.read(&mut [0; 1])
            };
            Ok(talk().map_err(|error| error.kind()))
        })
        .unwrap();
    let resets = [
        std::io::ErrorKind::ConnectionReset,
        std::io::ErrorKind::BrokenPipe,
    ];
    assert!(
        ended.is_err_and(|kind| resets.contains(&kind)),
        "{address}: {ended:?}"
    );
}
