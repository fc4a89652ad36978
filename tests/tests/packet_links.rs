//! Two lines of packets between the edges, and one tunnel over both: together they carry what both carry. Needs root.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use tokio::time::sleep;
use wanproxy_tests::eventually;
use wanproxy_tests::load::{Arrived, Bulk, Way, bulk_origin};
use wanproxy_tests::packets::{FAR, FAR_BESIDE, NEAR, PacketLine, Settings};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::skip;

/// Bits a second of each line.
const RATE: u64 = 24_000_000;

const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Free in a namespace of our own.
const PORT: u16 = 7443;

/// How long a stream runs before it is measured.
const SETTLING: Duration = Duration::from_secs(2);

/// How long it is measured, and how often at most.
const SPAN: Duration = Duration::from_secs(4);
const SPANS: usize = 10;

/// Bytes of random bulk that arrive over one line or over two, in bytes a second: in the first span that has `enough`, or the most that any
/// has. A machine that does something else for a moment holds up all that it carries.
async fn rate(way: Way, has_second: bool, enough: f64) -> f64 {
    let settings = Settings::line(RATE, ROUND_TRIP);
    let line = PacketLine::start(settings.clone(), 3).unwrap();
    let _second = has_second.then(|| line.beside(settings, 4).unwrap());
    let arrived = Arrived::default();
    let bulk = bulk_origin(&line.far().place(), arrived.clone()).unwrap();
    let mut paths =
        format!("[tunnel]\nserver = [\"{FAR}:{PORT}\"]\n[[tunnel.path]]\nbind = \"{NEAR}\"\n");
    if has_second {
        paths += &format!("[[tunnel.path]]\nserver = \"{FAR_BESIDE}:{PORT}\"\n");
    }
    let pair = Pair::builder()
        .across(&line)
        .forward("bulk", bulk.address())
        .server_toml(&format!("[tunnel]\nlisten = \"0.0.0.0:{PORT}\"\n"))
        .client_toml(&paths)
        .start()
        .await
        .unwrap();
    let wanted = 1 + usize::from(has_second);
    eventually("all links", async || {
        let status = pair.client().status_json().await.unwrap();
        let links = status["tunnels"][0]["links"].as_array().map_or(0, Vec::len);
        (links == wanted).then_some(()).ok_or(links)
    })
    .await;
    let bulk = Bulk::start(pair.client(), "bulk", way, 0..1, &arrived)
        .await
        .unwrap();
    sleep(SETTLING).await;
    let mut most = 0.0_f64;
    for _ in 0..SPANS {
        let (before, began) = (bulk.arrived().snapshot(1)[0], Instant::now());
        sleep(SPAN).await;
        let bytes = bulk.arrived().snapshot(1)[0] - before;
        most = most.max(bytes as f64 / began.elapsed().as_secs_f64());
        if most >= enough {
            break;
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_over_two_lines_is_nearly_twice_as_fast_as_over_one() {
    if let Err(reason) = PacketLine::possible() {
        skip("a test of two lines of packets", &reason);
        return;
    }
    for way in [Way::Up, Way::Down] {
        // A line carries no more than its rate; what is beyond had piled up before it was measured.
        let one = rate(way, false, 0.0).await.min(RATE as f64 / 8.0);
        let two = rate(way, true, 1.5 * one).await;
        eprintln!(
            "{way:?}: {one:.0} bytes a second over one line, {two:.0} over two: {:.2}",
            two / one
        );
        assert!(
            two >= 1.5 * one,
            "{way:?}: {one:.0} bytes a second over one line, {two:.0} over two"
        );
    }
}
