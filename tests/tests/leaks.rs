//! After a storm everything is back where it was: descriptors, threads, memory.

#![expect(clippy::unwrap_used, reason = "tests")]

use wanproxy_tests::eventually;
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::storm::{Script, StormOrigin, allow_descriptors};

/// Connections of one storm.
const CONNECTIONS: u64 = 300;

/// Storms before the first look: they fill the histories, the pools and the allocator.
const WARM_UP_STORMS: u64 = 6;

/// Storms between the looks.
const STORMS: u64 = 20;

/// What resident memory may grow by in all those storms together. An allocator keeps some of what it once had, here about
/// 6 MiB; three kilobytes that stay behind for each connection are more than this.
const SLACK_BYTES: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_and_memory_return_after_storms() {
    allow_descriptors(4096).unwrap();
    let origin = StormOrigin::start().unwrap();
    // Histories that are soon full: what they go on to take would look like a leak.
    let small = "[history]\nsize = \"2MiB\"\n[memory]\nbudget = \"256MiB\"\n";
    // Storms of 300 connections follow each other within seconds on a machine with nothing else to do.
    let unhurried = "[[client]]\nname = \"branch-*\"\nallow = [\"127.0.0.1:*\"]\nnew_streams_per_second = 100000\n";
    let pair = Pair::builder()
        .forward("storm", origin.address())
        .server_toml(&format!("{small}{unhurried}"))
        .client_toml(small)
        .start()
        .await
        .unwrap();
    for _ in 0..WARM_UP_STORMS {
        storm(&pair, &origin).await;
    }
    let before = Held::by(&pair);
    for _ in 0..STORMS {
        storm(&pair, &origin).await;
    }
    eventually("descriptors and memory are back", async || {
        let now = Held::by(&pair);
        if now.is_back_at(&before) {
            return Ok(());
        }
        if !now.has_memory_of(&before) {
            // An allocator gives back what it has kept when it is used again. What leaks becomes more.
            storm(&pair, &origin).await;
        }
        Err(format!("{before:?}, now {now:?}"))
    })
    .await;
}

/// The same storm each time, so that the histories do not grow by new content.
async fn storm(pair: &Pair, origin: &StormOrigin) {
    origin
        .rage(
            pair.client().address("storm").unwrap(),
            Script::many(CONNECTIONS, 5),
        )
        .await;
    for edge in [pair.client(), pair.server()] {
        eventually("no stream is left", async || {
            match edge
                .metrics()
                .await
                .unwrap()
                .sum("wanproxy_streams_open", &[])
            {
                None | Some(0.0) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
}

#[derive(Debug)]
struct Held {
    client: Edge,
    server: Edge,
}

#[derive(Debug)]
struct Edge {
    descriptors: usize,
    resident_bytes: u64,
}

impl Held {
    fn by(pair: &Pair) -> Self {
        Self {
            client: Edge::of(pair.client()),
            server: Edge::of(pair.server()),
        }
    }

    fn is_back_at(&self, before: &Self) -> bool {
        self.has_memory_of(before)
            && self.client.descriptors <= before.client.descriptors
            && self.server.descriptors <= before.server.descriptors
    }

    fn has_memory_of(&self, before: &Self) -> bool {
        self.client.has_memory_of(&before.client) && self.server.has_memory_of(&before.server)
    }
}

impl Edge {
    fn of(edge: &EdgeProcess) -> Self {
        Self {
            descriptors: edge.descriptor_count().unwrap(),
            resident_bytes: edge.resident_bytes().unwrap(),
        }
    }

    fn has_memory_of(&self, before: &Self) -> bool {
        self.resident_bytes <= before.resident_bytes + SLACK_BYTES
    }
}
