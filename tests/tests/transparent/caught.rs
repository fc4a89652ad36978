//! What is caught is carried, whole and to where it was going.

use wanproxy_tests::packets::Space;
use wanproxy_tests::skip;

use super::branch::BRANCH;
use super::*;

/// The port of iperf3 at the target, which listens for either family.
const IPERF: &str = "5201";

#[tokio::test(flavor = "multi_thread")]
async fn redirected_connections_reach_their_targets() {
    let Some(branch) = Branch::start("redirect", "", "").await else {
        return;
    };
    carries(&branch, &["--lan", BRANCH.device]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_by_tproxy_reach_their_targets() {
    let Some(branch) = Branch::start("tproxy", "method = \"tproxy\"\n", "").await else {
        return;
    };
    carries(&branch, &["--lan", BRANCH.device]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routers_own_connections_are_redirected_too_when_asked_for() {
    let Some(branch) = Branch::start("redirect of own connections", "", "").await else {
        return;
    };
    carries_own(&branch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routers_own_connections_go_by_tproxy_too_when_asked_for() {
    let listen = "method = \"tproxy\"\n";
    let Some(branch) = Branch::start("tproxy of own connections", listen, "").await else {
        return;
    };
    carries_own(&branch).await;
}

/// Nothing reaches the target by itself; with the rules everything does, over the tunnel.
async fn carries(branch: &Branch, options: &[&str]) {
    let alone = branch.host.run(|| {
        TcpStream::connect_timeout(
            &(TARGET[V4], branch::WHO).into(),
            Duration::from_millis(300),
        )
    });
    assert!(alone.is_err(), "there is a way around the tunnel");
    let rules = branch.rules(options);
    branch.load(&rules);
    let mut streams = 0;
    for ip in TARGET {
        branch.curl(&branch.host, ip);
        branch.has_carried(streams + 1).await;
        // The server edge dials, so it is seen.
        let seen = branch.seen(&branch.host, ip).ip();
        branch.has_carried(streams + 2).await;
        streams += 2;
        assert_ne!(seen, IpAddr::V4(BRANCH.host.0));
        assert_ne!(seen, IpAddr::V6(BRANCH.host.1));
    }
    for ip in TARGET {
        iperf(branch, ip);
        quic_is_rejected(&branch.host, ip);
    }
    // Loaded again, they replace themselves.
    must(branch.line.near().command("nft").args([
        "-f",
        branch.pair.scratch().join("rules.nft").to_str().unwrap(),
    ]));
    branch.curl(&branch.host, TARGET[V4]);
}

/// What the router itself begins is carried; the edge's own connection to its server is not, even if the rules do not know the server.
async fn carries_own(branch: &Branch) {
    let rules = branch.rules(&["--local"]);
    branch.load(&rules);
    let router = branch.line.near();
    let mut streams = 0;
    for ip in TARGET {
        branch.curl(router, ip);
        branch.curl(&branch.host, ip);
        streams += 2;
        branch.has_carried(streams).await;
        quic_is_rejected(router, ip);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edges_own_connections_are_left_alone_by_their_mark() {
    let listen = "method = \"tproxy\"\n";
    for listen in ["", listen] {
        let Some(mut branch) = Branch::start("the edge's mark", listen, "").await else {
            return;
        };
        let server = branch.pair.server().tunnel_address().unwrap();
        let excluded = format!("tcp dport {} return", server.port());
        let rules = branch.rules(&["--local"]);
        assert!(rules.contains(&excluded), "{rules}");
        let without: Vec<&str> = rules
            .lines()
            .filter(|line| !line.contains(&excluded))
            .collect();
        branch.load(&(without.join("\n") + "\n"));
        branch.pair.restart_client().await.unwrap();
        eventually("the tunnel is up", async || {
            if branch.pair.client().is_ready().await {
                Ok(())
            } else {
                Err(branch.pair.client().last_log_lines())
            }
        })
        .await;
        branch.curl(branch.line.near(), TARGET[V4]);
    }
}

/// A second of iperf3, by IPv6 from the target to the host; more, if this machine was so busy that nothing arrived in that one.
fn iperf(branch: &Branch, ip: IpAddr) {
    if !has("iperf3") {
        skip("iperf3 through the tunnel", "it needs the program iperf3");
        return;
    }
    // The far end counts until it hears, by another connection, that the time is over; what is in the tunnel then is not counted.
    let arrives = |seconds: &str| {
        let report = iperf_for(branch, ip, seconds);
        let counted = |sum: &str| report["end"][sum]["bytes"].as_u64() > Some(0);
        counted("sum_sent") && counted("sum_received")
    };
    assert!(arrives("1") || arrives("20"), "{ip}: nothing arrives");
}

/// The client's report of so many seconds of it.
fn iperf_for(branch: &Branch, ip: IpAddr, seconds: &str) -> serde_json::Value {
    let mut server = branch
        .target
        .command("iperf3")
        .args(["--server", "--one-off", "--forceflush", "--port", IPERF])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = [0; 256];
    let mut heard = String::new();
    while !heard.contains("listening") {
        let count = server.stdout.as_mut().unwrap().read(&mut said).unwrap();
        assert!(count > 0, "iperf3 did not start: {heard}");
        heard.push_str(&String::from_utf8_lossy(&said[..count]));
    }
    let address = ip.to_string();
    let mut command = branch.host.command("iperf3");
    command.args(["--client", &address, "--port", IPERF, "--json"]);
    command.args(["--time", seconds]);
    if ip.is_ipv6() {
        command.arg("--reverse");
    }
    let report = serde_json::from_slice(&must(&mut command)).unwrap();
    server.wait().unwrap();
    report
}

/// UDP to port 443 is answered at once: there is nothing, take TCP.
fn quic_is_rejected(from: &Space, ip: IpAddr) {
    let any: IpAddr = if ip.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let error = from
        .run(|| {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect((ip, 443))?;
            socket.set_read_timeout(Some(LIMIT))?;
            // The rule may answer the very call that sends.
            Ok(socket
                .send(b"quic")
                .and_then(|_| socket.recv(&mut [0; 64]))
                .map_err(|error| error.kind()))
        })
        .unwrap()
        .unwrap_err();
    let expected = [
        std::io::ErrorKind::ConnectionRefused,
        std::io::ErrorKind::PermissionDenied,
    ];
    assert!(expected.contains(&error), "{ip}: {error:?}");
}
