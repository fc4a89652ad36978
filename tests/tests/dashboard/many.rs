//! An edge with a thousand services whose names are hostile, and one with nothing at all.

use std::collections::HashSet;

use edge::admin::{
    Access, AdminServer, HistoryAccess, Observed, Pulse, ServiceStatus, Status, TunnelStatus,
};
use edge::config::Bind;
use edge::lan::LanListener;
use edge::metrics::Family;
use tokio::net::TcpListener;

use super::*;

const HOSTILE: &str = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;\"'";

struct Edge(Status);

impl Observed for Edge {
    fn status(&self) -> Status {
        self.0.clone()
    }

    fn pulse(&self) -> Pulse {
        Pulse::default()
    }

    fn metrics(&self) -> Vec<Family> {
        Vec::new()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn history(&self) -> HistoryAccess {
        panic!("not asked for here")
    }
}

async fn serve(status: Status) -> (String, AdminServer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bind = listener.local_addr().unwrap();
    let access = Access {
        bind: Bind::Tcp(bind),
        token: None,
    };
    let server = AdminServer::start(
        LanListener::Tcp(listener),
        access,
        Arc::new(Edge(status)),
        Arc::default(),
    );
    (format!("http://{bind}/"), server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_services_with_hostile_names_are_only_text() {
    let Some((browser, _one)) = browser("the dashboard with a thousand services").await else {
        return;
    };
    let services = (0..1_000).map(|number| ServiceStatus {
        name: format!("{HOSTILE}{number}"),
        kind: "forward".to_owned(),
        bind: HOSTILE.to_owned(),
        lan_bytes_to_wan: number,
        ..ServiceStatus::default()
    });
    let tunnel = |peer: &str| TunnelStatus {
        peer: peer.to_owned(),
        state: "connecting".to_owned(),
        error: Some(HOSTILE.to_owned()),
        ..TunnelStatus::default()
    };
    let status = Status {
        edge: "server".to_owned(),
        name: HOSTILE.to_owned(),
        services: services.collect(),
        // Two tunnels of one peer are two.
        tunnels: vec![tunnel(HOSTILE), tunnel(HOSTILE)],
        ..Status::default()
    };
    let (address, _server) = serve(status).await;
    browser.resize(360, 740, 1.0).await.unwrap();
    browser.open(&address).await.unwrap();
    is_live(&browser).await;
    let count = async |selector: &str| {
        let script = format!("return document.querySelectorAll('{selector}').length");
        browser.script(&script).await.unwrap().as_u64().unwrap()
    };
    assert_eq!(count(".tunnel").await, 2);
    assert_eq!(count("#services tbody tr").await, 25);
    let first = browser
        .text("return document.querySelector('#services tbody .service-name').textContent")
        .await
        .unwrap();
    assert_eq!(first, format!("{HOSTILE}999"));
    assert_eq!(
        (count("img[src=x]").await, count("body script").await),
        (0, 0)
    );
    browser
        .script("document.getElementById('services-more').click()")
        .await
        .unwrap();
    assert_eq!(count("#services tbody tr").await, 1_000);
    // A filter finds what has it in its name.
    browser
        .script("const filter = document.getElementById('services-filter'); filter.value = '77'; filter.dispatchEvent(new Event('input'))")
        .await
        .unwrap();
    let names = browser.script("return [...document.querySelectorAll('#services tbody .service-name')].map((name) => name.textContent)").await.unwrap();
    let shown: HashSet<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let expected: Vec<String> = (0..1_000)
        .filter(|number| number.to_string().contains("77"))
        .map(|number| format!("{HOSTILE}{number}"))
        .collect();
    assert_eq!(shown, expected.iter().map(String::as_str).collect());
    let content = browser
        .script("return document.documentElement.scrollWidth")
        .await
        .unwrap();
    assert!(content.as_u64() <= Some(360), "{content}");
    console_is_clean(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_has_done_nothing_says_so() {
    let Some((browser, _one)) = browser("the dashboard of an idle edge").await else {
        return;
    };
    // A page whose edge goes away before the next one is opened would complain on the console.
    let mut servers = Vec::new();
    for (edge, words) in [
        ("server", "No client has opened a stream yet."),
        ("client", "There is no [[listen]] section"),
    ] {
        let status = Status {
            edge: edge.to_owned(),
            name: "idle".to_owned(),
            ..Status::default()
        };
        let (address, server) = serve(status).await;
        servers.push(server);
        browser.open(&address).await.unwrap();
        is_live(&browser).await;
        let text = browser
            .text("return document.body.innerText")
            .await
            .unwrap();
        for wanted in [
            words,
            "Nothing has been carried yet.",
            "No client has a tunnel here at present.",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        for wrong in ["NaN", "undefined", "null", "Infinity"] {
            assert!(!text.contains(wrong), "{wrong}: {text}");
        }
        console_is_clean(&browser).await;
    }
}
