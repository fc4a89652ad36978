//! Services that share a history, have one of their own, or none: on disk, and over restarts.

use super::*;

/// A pair with four listeners to one origin: `http` shares, `alone` and `apart` are isolated, `never` is off.
async fn four_services() -> (Pair, HttpOrigin) {
    let origin = HttpOrigin::start().unwrap();
    let listener = |name: &str, dedup: &str| {
        format!(
            "[[listen]]\nname = \"{name}\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\ndedup = \"{dedup}\"\n",
            origin.address()
        )
    };
    let config = [
        listener("alone", "isolated"),
        listener("apart", "isolated"),
        listener("never", "off"),
    ];
    let pair = Pair::builder()
        .forward("http", origin.address())
        .line(LineConfig::unshaped())
        .client_toml(&config.concat())
        .start()
        .await
        .unwrap();
    all_settled(&pair).await;
    (pair, origin)
}

/// Waits until the tunnel holds the histories of all three domains on both sides, and all that is on disk is found.
async fn all_settled(pair: &Pair) {
    eventually("both isolated domains are in use", async || {
        for (edge, peer) in [(pair.client(), "server"), (pair.server(), CLIENT_NAME)] {
            let page = history(edge).await;
            let in_use = |line: &&Value| line["peer"] == peer && line["in_use"] == true;
            let domains = page["domains"].as_array().unwrap();
            if domains.iter().filter(in_use).count() != 3 {
                return Err(page.to_string());
            }
        }
        Ok(())
    })
    .await;
    settled(pair).await;
}

/// What the file costs on the line through a listener.
async fn cost(pair: &Pair, file: &File, listener: &str) -> u64 {
    let before = pair.wan_bytes().unwrap();
    file.fetch_from(pair.client().address(listener).unwrap())
        .await;
    pair.wan_bytes().unwrap().since(&before).total()
}

async fn is_cold(pair: &Pair, file: &File, listener: &str) {
    let cost = cost(pair, file, listener).await;
    assert!(
        cost >= file.len(),
        "{listener}: {cost} of {} bytes: some came from a history",
        file.len()
    );
}

async fn is_warm(pair: &Pair, file: &File, listener: &str) {
    let cost = cost(pair, file, listener).await;
    assert!(
        cost <= file.len() / 100,
        "{listener}: {cost} of {} bytes crossed the line again",
        file.len()
    );
}

async fn restart_all(pair: &mut Pair) {
    restart_both(pair).await;
    all_settled(pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_service_has_a_history_of_its_own_that_survives() {
    let (mut pair, origin) = four_services().await;
    let (one, two) = (File::random(&origin, 70, 4), File::random(&origin, 71, 4));
    is_cold(&pair, &one, "http").await;
    is_warm(&pair, &one, "http").await;
    // What one domain has, the others do not see, in either order.
    is_cold(&pair, &one, "alone").await;
    is_cold(&pair, &two, "alone").await;
    is_cold(&pair, &two, "http").await;
    is_cold(&pair, &two, "apart").await;
    written(&pair).await;
    restart_all(&mut pair).await;
    for (file, listener) in [
        (&one, "http"),
        (&one, "alone"),
        (&two, "alone"),
        (&two, "apart"),
        (&two, "http"),
    ] {
        is_warm(&pair, file, listener).await;
    }
    // Nor after a restart, nor after a kill.
    is_cold(&pair, &one, "apart").await;
    written(&pair).await;
    kill_both(&mut pair).await;
    restart_all(&mut pair).await;
    for (file, listener) in [(&one, "apart"), (&one, "alone"), (&two, "apart")] {
        is_warm(&pair, file, listener).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_off_reads_and_leaves_nothing() {
    let (mut pair, origin) = four_services().await;
    let file = File::random(&origin, 72, 4);
    let held = async |pair: &Pair| {
        let status = pair.server().status_json().await.unwrap();
        status["history"]["bytes"].as_u64().unwrap()
    };
    let before = held(&pair).await;
    for _ in 0..2 {
        is_cold(&pair, &file, "never").await;
    }
    assert_eq!(held(&pair).await, before, "something of it was kept");
    // Nor does it see what another has.
    is_cold(&pair, &file, "http").await;
    is_cold(&pair, &file, "never").await;
    written(&pair).await;
    restart_all(&mut pair).await;
    is_warm(&pair, &file, "http").await;
    is_cold(&pair, &file, "never").await;
}
