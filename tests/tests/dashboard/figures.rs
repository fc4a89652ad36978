//! The page says what the edge says.

use std::collections::HashMap;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn figures_on_the_page_are_those_of_the_edge_while_traffic_flows() {
    let Some((browser, _one)) = browser("the dashboard's figures").await else {
        return;
    };
    let (pair, _origin) = start("").await;
    for edge in [pair.client(), pair.server()] {
        let traffic = Traffic::start(pair.client().address("files").unwrap());
        let mut feed = Feed::open(edge).await;
        open(&browser, edge).await;
        // Each tick that the page shows is compared with the same one as a program has it.
        let known = Arc::new(std::sync::Mutex::new(HashMap::new()));
        let heard = known.clone();
        let listener = tokio::spawn(async move {
            loop {
                let message = feed.next().await;
                if let Some(uptime) = message.data["status"]["uptime_seconds"].as_f64() {
                    let figures = figures_of(&message.data["status"]);
                    heard.lock().unwrap().insert(uptime.to_bits(), figures);
                }
            }
        });
        let mut compared: Vec<Value> = Vec::new();
        eventually("three ticks were compared", async || {
            let shown = browser.script(FIGURES).await.unwrap();
            let uptime = shown["uptime"].as_f64().unwrap();
            let expected = known.lock().unwrap().get(&uptime.to_bits()).cloned();
            if let Some(expected) = expected {
                assert!(
                    same(&shown, &expected),
                    "shown: {shown}\nexpected: {expected}"
                );
                let is_new = compared
                    .last()
                    .is_none_or(|last| last["lan"] != shown["lan"]);
                if is_new {
                    compared.push(shown);
                }
            }
            // Both files have come twice, and there is something of each kind.
            let kinds = compared
                .last()
                .map_or(Value::Null, |last| last["kinds"].clone());
            let has_all = ["copied", "compressed", "raw"]
                .iter()
                .all(|kind| kinds[*kind].as_u64() > Some(0));
            if compared.len() >= 3 && has_all {
                Ok(())
            } else {
                Err((compared.len(), kinds))
            }
        })
        .await;
        listener.abort();
        traffic.stop().await;
        // At rest the page is equal to `/api/status`, but for what goes on with time.
        eventually("the page shows what /api/status says", async || {
            let mut shown = browser.script(FIGURES).await.unwrap();
            let mut expected = figures_of(&edge.status_json().await.unwrap());
            for side in [&mut shown, &mut expected] {
                side["uptime"] = Value::Null;
            }
            if same(&shown, &expected) {
                Ok(())
            } else {
                Err((shown, expected))
            }
        })
        .await;
        let ratio = browser
            .text("return document.getElementById('ratio').textContent")
            .await;
        assert_ne!(ratio.unwrap(), "–");
        let rate = browser
            .text("return document.getElementById('chart').ariaLabel")
            .await
            .unwrap();
        assert!(rate.contains("bit/s"), "{rate}");
        console_is_clean(&browser).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_opened_late_shows_the_past() {
    let (pair, _origin) = start("").await;
    let traffic = Traffic::start(pair.client().address("files").unwrap());
    let mut feed = Feed::open(pair.client()).await;
    let snapshot = feed.next().await;
    assert_eq!(snapshot.name, "snapshot");
    let mut samples: Vec<Value> = Vec::new();
    // The traffic may begin late.
    let flowed = |samples: &[Value]| samples.iter().any(|sample| sample[1].as_u64() > Some(0));
    while samples.len() < 3 || (samples.len() < 60 && !flowed(&samples)) {
        let message = feed.next().await;
        if message.name == "tick" && !message.data["sample"].is_null() {
            samples.push(message.data["sample"].clone());
        }
    }
    traffic.stop().await;
    let late = Feed::open(pair.client()).await.next().await;
    let past = late.data["samples"].as_array().unwrap();
    for sample in &samples {
        assert!(past.contains(sample), "{sample} is not in {past:?}");
    }
    assert!(flowed(&samples), "{samples:?}");
}
