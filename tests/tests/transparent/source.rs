//! `preserve_source`: the target sees the application's own address, if the server lets the client speak for it.

use wanproxy_tests::packets::Space;

use super::branch::{BRANCH, load_into, logged};
use super::*;

const LISTEN: &str = "method = \"tproxy\"\npreserve_source = true\n";

/// The first `[[client]]` counts, so what it allows must stand in it.
fn server(source: &str) -> String {
    format!(
        "[[client]]\nname = \"branch-*\"\nallow = [\"10.79.0.0/16:*\", \"[fd79::/16]:*\"]\nsource = [{source}]\n"
    )
}

/// The recipe for the server's machine, as the document has it.
fn return_rules() -> String {
    let document = include_str!("../../../docs/transparent.md");
    let (_, rest) = document.split_once("```nft\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

async fn start(source: &str) -> Option<Branch> {
    let branch = Branch::start("preserve_source", LISTEN, &server(source)).await?;
    branch.load(&branch.rules(&["--lan", BRANCH.device]));
    load_into(branch.line.far(), branch.pair.scratch(), &return_rules());
    Some(branch)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_sees_the_applications_own_address() {
    let Some(branch) = start("\"10.78.1.0/24\", \"fd78:1::/64\"").await else {
        return;
    };
    let own: [IpAddr; 2] = [BRANCH.host.0.into(), BRANCH.host.1.into()];
    for (ip, own) in TARGET.into_iter().zip(own) {
        assert_eq!(branch.seen(&branch.host, ip).ip(), own);
        branch.curl(&branch.host, ip);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_the_clients_is_refused_and_a_reload_takes_one_away() {
    let Some(branch) = start("\"10.78.1.2/32\", \"fd78:1:0:1::/64\"").await else {
        return;
    };
    let [v4, v6] = TARGET;
    assert_eq!(
        branch.seen(&branch.host, v4).ip(),
        IpAddr::V4(BRANCH.host.0)
    );
    refused(&branch.host, v6);
    logged(branch.pair.server(), "reason=\"source\"").await;
    let metrics = branch.pair.server().metrics().await.unwrap();
    assert_eq!(
        metrics.sum("wanproxy_policy_refusals_total", &[("reason", "source")]),
        Some(1.0)
    );

    let mut open = branch
        .host
        .run(|| TcpStream::connect((v4, branch::WHO)))
        .unwrap();
    open.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(open.read(&mut [0; 1]).unwrap() > 0);
    let config = branch.pair.server().config();
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace("10.78.1.2/32", "10.78.1.3/32")).unwrap();
    branch
        .pair
        .server()
        .signal(wanproxy_tests::pair::Signal::HUP)
        .unwrap();
    let mut rest = Vec::new();
    let ended = open.read_to_end(&mut rest);
    assert!(ended.is_err(), "{ended:?}");
    refused(&branch.host, v4);
}

/// The edge takes the connection before the server has said no; then it is reset.
fn refused(from: &Space, ip: IpAddr) {
    let ended = from
        .run(|| {
            let talk = || {
                let mut connection = TcpStream::connect_timeout(&(ip, branch::WHO).into(), LIMIT)?;
                connection.set_read_timeout(Some(LIMIT))?;
                connection.read(&mut [0; 1])
            };
            Ok(talk().map_err(|error| error.kind()))
        })
        .unwrap();
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset), "{ip}");
}
