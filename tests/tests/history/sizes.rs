//! Another size of the histories, on edges that run and on edges that do not.

use super::*;

/// Writes another size into the configuration of an edge.
fn resize(edge: &EdgeProcess, before: &str, after: &str) {
    let text = std::fs::read_to_string(edge.config()).unwrap();
    let resized = text.replace(&format!("\"{before}\""), &format!("\"{after}\""));
    assert_ne!(text, resized);
    std::fs::write(edge.config(), resized).unwrap();
}

/// Waits until new bytes are remembered.
async fn remembers(pair: &Pair, origin: &HttpOrigin, seed: u64) {
    let file = File::random(origin, seed, 2);
    eventually("new bytes are remembered", async || {
        file.cost(pair).await;
        let cost = file.cost(pair).await;
        if cost <= file.len() / 100 {
            Ok(())
        } else {
            Err(format!("{cost}; {}", history(pair.server()).await))
        }
    })
    .await;
}

async fn capacity(edge: &EdgeProcess) -> u64 {
    let status = edge.status_json().await.unwrap();
    status["history"]["capacity_bytes"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_of_nothing_ends_with_a_larger_one_while_it_runs() {
    let size = "[history]\nsize = \"64MiB\"\n";
    let (pair, origin) = measured(size, size).await;
    let mut before = "64MiB";
    for (seed, after, bytes) in [
        (90, "512KiB", MEBIBYTE / 2),
        (91, "128MiB", 128 * MEBIBYTE),
        (92, "0B", 0),
        (93, "64MiB", 64 * MEBIBYTE),
    ] {
        for edge in [pair.client(), pair.server()] {
            resize(edge, before, after);
            edge.signal(Signal::HUP).unwrap();
        }
        before = after;
        for edge in [pair.client(), pair.server()] {
            eventually("the size is taken over", async || {
                let now = capacity(edge).await;
                if now == bytes { Ok(()) } else { Err(now) }
            })
            .await;
        }
        // Exact, with or without a history.
        File::random(&origin, seed, 1).cost(&pair).await;
        if bytes > MEBIBYTE {
            remembers(&pair, &origin, seed + 10).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_size_counts_from_the_next_start_of_edges_that_do_not_run() {
    let size = "[history]\nsize = \"64MiB\"\n";
    let (mut pair, origin) = measured(size, size).await;
    let file = File::random(&origin, 94, 4);
    file.cost(&pair).await;
    let mut before = "64MiB";
    for (seed, after, bytes) in [
        (95, "256MiB", 256 * MEBIBYTE),
        (96, "32MiB", 32 * MEBIBYTE),
        (97, "0B", 0),
        (98, "64MiB", 64 * MEBIBYTE),
    ] {
        stop_written(&mut pair).await;
        for edge in [pair.client(), pair.server()] {
            resize(edge, before, after);
        }
        before = after;
        restart_both(&mut pair).await;
        assert_eq!(capacity(pair.server()).await, bytes);
        if seed == 95 {
            file.is_warm(&pair).await;
        }
        File::random(&origin, seed, 1).cost(&pair).await;
        if bytes > 0 {
            remembers(&pair, &origin, seed + 10).await;
        }
    }
}

/// Where the index has room for next to nothing of what the disk may hold, what does not shrink is found as well as with much memory.
#[tokio::test(flavor = "multi_thread")]
async fn little_memory_and_much_room_find_random_bytes_again() {
    let little = "[memory]\nbudget = \"16MiB\"\n[history]\nsize = \"8GiB\"\n";
    let (mut pair, origin) = measured(little, little).await;
    let files = [300, 301, 302, 303].map(|seed| File::random(&origin, seed, 2));
    for file in &files {
        file.cost(&pair).await;
        file.is_warm(&pair).await;
        // With little memory, little may wait for a slow disk, and what is more is not kept.
        written(&pair).await;
    }
    restart_written(&mut pair).await;
    for file in files.iter().chain(&files) {
        file.is_warm(&pair).await;
    }
}
