//! What is shown when a line is lost, and when the edge itself is away.

use tokio::io::AsyncReadExt;
use wanproxy_tests::free_port;

use super::*;

const BANNER: &str = "const banner = document.getElementById('banner'); return banner.hidden ? '' : banner.textContent";

/// Waits until what `script` returns holds `words`.
async fn says(browser: &Browser, script: &str, words: &str) {
    eventually(words, async || {
        let said = browser.text(script).await.unwrap();
        if said.contains(words) {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
}

async fn banner_says(browser: &Browser, words: &str) {
    says(browser, BANNER, words).await;
}

/// What is read out by those who read pages out.
async fn is_announced(browser: &Browser, words: &str) {
    eventually(words, async || {
        let spoken = browser
            .text("return document.getElementById('announce').textContent")
            .await
            .unwrap();
        if spoken == words { Ok(()) } else { Err(spoken) }
    })
    .await;
}

async fn banner_is_gone(browser: &Browser) {
    eventually("the banner is gone", async || {
        let said = browser.text(BANNER).await.unwrap();
        if said.is_empty() { Ok(()) } else { Err(said) }
    })
    .await;
}

async fn event_is_shown(browser: &Browser, kind: &str) {
    eventually(kind, async || {
        let kinds = browser
            .text("return [...document.querySelectorAll('#events li')].map((event) => event.dataset.kind).join(' ')")
            .await
            .unwrap();
        if kinds.split(' ').any(|shown| shown == kind) {
            Ok(())
        } else {
            Err(kinds)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_line_is_shown_with_since_when_and_its_return_too() {
    let Some((browser, _one)) = browser("the dashboard without a line").await else {
        return;
    };
    let (pair, _origin) = start("[tunnel]\nheartbeat = \"1s\"\n").await;
    open(&browser, pair.client()).await;
    event_is_shown(&browser, "tunnel_up").await;
    // With such a heartbeat a pause of this program, which is the line, looks like its loss, too, and passes.
    banner_is_gone(&browser).await;
    pair.line().unwrap().block();
    // Since when is known a second later where the edge looked at its tunnels while the line was lost.
    banner_says(&browser, "The line to server is lost. Since ").await;
    let tunnel = "return document.querySelector('.tunnel').textContent";
    says(&browser, tunnel, "line lost, waiting for it since ").await;
    event_is_shown(&browser, "line_lost").await;
    is_announced(&browser, "The line to server is lost.").await;
    let status = pair.client().status_json().await.unwrap();
    assert!(
        status["tunnels"][0]["since_unix_seconds"].is_u64(),
        "{status}"
    );
    pair.line().unwrap().restore();
    banner_is_gone(&browser).await;
    event_is_shown(&browser, "tunnel_resumed").await;
    is_announced(&browser, "All is well.").await;
    console_is_clean(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_away_is_shown_and_found_again() {
    let Some((browser, _one)) = browser("the dashboard without an edge").await else {
        return;
    };
    // It must come back where the page looks for it.
    let port = free_port().unwrap();
    let admin = format!("[admin]\nbind = \"127.0.0.1:{port}\"\n");
    let (mut pair, _origin) = start(&admin).await;
    let traffic = Traffic::start(pair.client().address("files").unwrap());
    open(&browser, pair.client()).await;
    event_is_shown(&browser, "tunnel_up").await;
    eventually("the page shows that something was carried", async || {
        let shown = browser.script(FIGURES).await.unwrap();
        if shown["lan"].as_u64() > Some(0) {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
    traffic.stop().await;
    console_is_clean(&browser).await;
    pair.client_mut()
        .signal(wanproxy_tests::pair::Signal::KILL)
        .unwrap();
    banner_says(&browser, "This page has no connection to the edge.").await;
    let pill = browser
        .text("return document.getElementById('connection').textContent")
        .await
        .unwrap();
    assert!(pill.contains("no connection, last seen "), "{pill}");
    // The figures of then are still there.
    let shown = browser.script(FIGURES).await.unwrap();
    assert!(shown["lan"].as_u64() > Some(0), "{shown}");
    pair.restart_client().await.unwrap();
    is_live(&browser).await;
    banner_is_gone(&browser).await;
    let client = pair.client();
    eventually("the figures are those of the new edge", async || {
        let shown = browser.script(FIGURES).await.unwrap();
        let expected = figures_of(&client.status_json().await.unwrap());
        if shown["lan"] == expected["lan"]
            && shown["uptime"].as_f64() <= expected["uptime"].as_f64()
        {
            Ok(())
        } else {
            Err((shown, expected))
        }
    })
    .await;
    // Requests that nobody answered are all that the console may have said.
    for line in browser.console().await.unwrap() {
        assert!(line.message.contains("net::ERR_"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_what_happened_to_tunnels_streams_and_configuration() {
    let (pair, origin) = start("").await;
    // What the server does not allow.
    let table = "[[client]]\nname = \"branch-*\"\nallow = []\ndeny = []\n";
    let server = pair.server();
    let config = std::fs::read_to_string(server.config()).unwrap();
    let changed = format!(
        "{}\n",
        config.replacen("[[client]]", &format!("{table}[[client]]"), 1)
    );
    let mut feed = Feed::open(server).await;
    let mut kinds: Vec<String> = Vec::new();
    let mut wait_for = async |wanted: &str| {
        while !kinds.iter().any(|kind| kind == wanted) {
            let message = feed.next().await;
            match &*message.name {
                "snapshot" => {
                    for event in message.data["events"].as_array().unwrap() {
                        kinds.push(event["kind"].as_str().unwrap().to_owned());
                    }
                }
                "event" => kinds.push(message.data["kind"].as_str().unwrap().to_owned()),
                _ => {}
            }
        }
    };
    wait_for("tunnel_up").await;
    std::fs::write(server.config(), changed).unwrap();
    server.signal(wanproxy_tests::pair::Signal::HUP).unwrap();
    wait_for("reload").await;
    let refused = fetch(
        pair.client().address("files").unwrap(),
        &Request::get("/text"),
        |_| {},
    )
    .await;
    assert!(refused.is_err());
    wait_for("stream_refused").await;
    std::fs::write(server.config(), "nonsense = 1\n").unwrap();
    server.signal(wanproxy_tests::pair::Signal::HUP).unwrap();
    wait_for("reload_failed").await;
    // A server that has nothing to drain may be gone before it has told that it drains: one stream is to be open.
    std::fs::write(server.config(), config).unwrap();
    server.signal(wanproxy_tests::pair::Signal::HUP).unwrap();
    let held = eventually("a stream is open", async || {
        let mut held = TcpStream::connect(pair.client().address("files").unwrap()).await?;
        let request = "GET /text HTTP/1.1\r\nHost: origin\r\n\r\n";
        held.write_all(request.as_bytes()).await?;
        held.read_u8().await?;
        Ok::<_, std::io::Error>(held)
    })
    .await;
    server.signal(wanproxy_tests::pair::Signal::TERM).unwrap();
    wait_for("draining").await;
    drop((held, origin));
}
