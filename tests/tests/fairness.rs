//! Who gets how much of a line of packets: shares of bulk streams, and bulk beside an interactive stream on a busy machine. Needs root.
//!
//! Everything here is a ratio of figures of the same run. How long a byte takes under load is for `wanproxy-fair` to say, on a machine that
//! does nothing else.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::sleep;
use wanproxy_tests::load::{
    Arrived, Bulk, PingPong, Way, bulk_origin, echo_origin, stalled_origin,
};
use wanproxy_tests::packets::{PacketLine, Settings};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::skip;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(180);

/// Time between an answer and the next ping.
const PING_PAUSE: Duration = Duration::from_millis(7);

/// One test at a time has the machine.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Place {
    line: PacketLine,
    pair: Pair,
    arrived: Arrived,
    _origins: [wanproxy_tests::origin::Server; 3],
}

async fn start(rate_bits_per_s: u64, round_trip: Duration) -> Option<Place> {
    if let Err(reason) = PacketLine::possible() {
        skip("a test of fairness", &reason);
        return None;
    }
    let line = PacketLine::start(Settings::line(rate_bits_per_s, round_trip), 11).unwrap();
    let arrived = Arrived::default();
    let bulk = bulk_origin(&line.far().place(), arrived.clone()).unwrap();
    let echo = echo_origin(&line.far().place()).unwrap();
    let deaf = stalled_origin(&line.far().place()).unwrap();
    let pair = Pair::builder()
        .across(&line)
        .forward("bulk", bulk.address())
        .forward("echo", echo.address())
        .forward("deaf", deaf.address())
        .start()
        .await
        .unwrap();
    Some(Place {
        line,
        pair,
        arrived,
        _origins: [bulk, echo, deaf],
    })
}

/// Waits until `look` holds for what has arrived.
async fn until(arrived: &Arrived, count: usize, look: impl Fn(&[u64]) -> bool) -> Vec<u64> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = arrived.snapshot(count);
        if look(&now) {
            return now;
        }
        assert!(
            Instant::now() < deadline,
            "not within {LIMIT:?}; arrived: {now:?}"
        );
        sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_bulk_streams_get_equal_shares_beside_one_that_nobody_reads() {
    const STREAMS: u16 = 50;
    /// Each stream's start is not counted: windows grow, blocks become full.
    const START_BYTES: u64 = 256 << 10;
    /// What is counted of each, on the average: 20 blocks, of which one more or less is within the bounds.
    const COUNTED_BYTES: u64 = 20 * (128 << 10);
    /// So many times as much is counted at most. A pause of this program leaves bytes in its sockets that are not counted yet, of some
    /// streams more than of others: the more there is in all, the less they matter. Shares that differ stay different.
    const ROUNDS: u64 = 3;

    let _alone = ALONE.lock().await;
    let Some(place) = start(100_000_000, Duration::from_millis(20)).await else {
        return;
    };
    let client = place.pair.client();
    let nobody = Arrived::default();
    let _stalled = Bulk::start(client, "deaf", Way::Up, 1000..1001, &nobody)
        .await
        .unwrap();
    let pings = PingPong::start(client, "echo", PING_PAUSE).unwrap();
    let bulk = Bulk::start(client, "bulk", Way::Up, 0..STREAMS, &place.arrived)
        .await
        .unwrap();
    let count = usize::from(STREAMS);
    let begin = until(bulk.arrived(), count, |now| {
        now.iter().all(|bytes| *bytes >= START_BYTES)
    })
    .await;
    let total: u64 = begin.iter().sum();
    let is_equal = |share: &f64| (0.9..=1.1).contains(share);
    let mut shares: Vec<f64> = Vec::new();
    for round in 1..=ROUNDS {
        let end = until(bulk.arrived(), count, |now| {
            now.iter().sum::<u64>() - total >= round * COUNTED_BYTES * u64::from(STREAMS)
        })
        .await;
        let mean = (end.iter().sum::<u64>() - total) as f64 / f64::from(STREAMS);
        shares = begin
            .iter()
            .zip(&end)
            .map(|(begin, end)| (end - begin) as f64 / mean)
            .collect();
        if shares.iter().all(is_equal) {
            break;
        }
    }
    for (stream, share) in shares.iter().enumerate() {
        assert!(
            is_equal(share),
            "stream {stream} got {share:.3} of the mean; all: {shares:.3?}"
        );
    }
    let answered = pings.finish().unwrap().count();
    assert!(answered > 0, "the interactive stream was not served");
    drop(place.line);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_beside_an_interactive_stream_keeps_its_pace_on_a_busy_machine() {
    const STREAMS: u16 = 4;
    /// What is moved for each figure.
    const BYTES: u64 = 12 << 20;
    /// The part of its rate alone that bulk keeps at least: leaving room costs a twentieth, and a machine without time to spare something. A
    /// pace that takes the machine's slowness for the line's ends at a hundredth.
    const LEAST: f64 = 0.3;

    let _alone = ALONE.lock().await;
    let Some(place) = start(20_000_000, Duration::from_millis(40)).await else {
        return;
    };
    let client = place.pair.client();
    let bulk = Bulk::start(client, "bulk", Way::Up, 0..STREAMS, &place.arrived)
        .await
        .unwrap();
    let rate = async || {
        let count = usize::from(STREAMS);
        let before: u64 = bulk.arrived().snapshot(count).iter().sum();
        let begin = Instant::now();
        let after = until(bulk.arrived(), count, |now| {
            now.iter().sum::<u64>() - before >= BYTES
        })
        .await;
        (after.iter().sum::<u64>() - before) as f64 / begin.elapsed().as_secs_f64()
    };
    let busy = Busy::start();
    let alone = rate().await;
    let pings = PingPong::start(client, "echo", PING_PAUSE).unwrap();
    // The first figure has the pace's beginning in it, the second what it becomes.
    let (first, then) = (rate().await, rate().await);
    drop(busy);
    assert!(
        pings.finish().unwrap().count() > 0,
        "the interactive stream was not served"
    );
    for (when, beside) in [("at first", first), ("then", then)] {
        let part = beside / alone;
        assert!(
            part >= LEAST,
            "{when}: {beside:.0} bytes a second beside an interactive stream, {alone:.0} alone: {part:.2}"
        );
    }
    drop(place.line);
}

/// Threads that leave the machine no rest: two for each core.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * cores {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
