//! Many at a time: idle streams and what they hold, active streams, and client edges.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::payload::Payload;
use wanproxy_tests::{eventually, origin, skip};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

/// Idle streams through one pair.
const CROWD: u64 = 20_000;

/// Fewer say nothing.
const CROWD_LEAST: u64 = 1_000;

/// Descriptors of an edge or of this process for other things.
const SPARE_DESCRIPTORS: u64 = 300;

/// Streams before the first look: they fill the pools, and what the allocator takes once.
const FIRST: usize = 200;

/// What an idle stream may hold in each edge, in bytes.
const IDLE_STREAM_BYTES: u64 = 16 << 10;

/// Streams that move bytes at the same moment.
const ACTIVE: usize = 2_000;

/// Bytes that each of them sends and gets back.
const ACTIVE_BYTES: usize = 20_000;

/// Client edges of one server edge, and how many of them are started at a time.
const CLIENTS: usize = 100;
/// See [`CLIENTS`].
const STARTING: usize = 8;

/// Connections that are opened at a time.
const OPENING: usize = 64;

/// Threads of an edge that may begin after they were counted first: the one that looks at its files, once.
const LATE_THREADS: usize = 1;

/// The policy lets the client open as many as the test wants, as fast as it can.
const UNHURRIED: &str = "[[client]]\nname = \"branch-*\"\nallow = [\"127.0.0.1:*\"]\nmax_streams = 65000\nnew_streams_per_second = 1000000\n";

/// One test at a time has this process's descriptors, and the machine.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_streams_costs_little_memory_and_no_threads_and_works_at_the_same_time() {
    let _alone = ALONE.lock().await;
    let descriptors = raise_descriptors();
    // Each stream is one descriptor in either edge, and two here: its connection, and the origin's.
    let crowd = CROWD.min(descriptors.saturating_sub(SPARE_DESCRIPTORS) / 2);
    if crowd < CROWD_LEAST {
        skip(
            "the crowd of idle streams",
            &format!("{descriptors} descriptors are too few"),
        );
        return;
    }
    if crowd < CROWD {
        skip(
            &format!("{CROWD} idle streams"),
            &format!("this process may have {descriptors} descriptors: {crowd} streams instead"),
        );
    }
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .server_toml(UNHURRIED)
        .start()
        .await
        .unwrap();
    let entrance = pair.client().address("echo").unwrap();

    let one = opened(entrance).await.unwrap();
    let threads = thread_counts(&pair);
    let first = gather(entrance, FIRST).await;
    let before = [pair.client(), pair.server()].map(|edge| edge.resident_bytes().unwrap());

    let crowd = usize::try_from(crowd).unwrap();
    let mut streams = gather(entrance, crowd - FIRST).await;
    let after = [pair.client(), pair.server()].map(|edge| edge.resident_bytes().unwrap());
    for (edge, (before, after)) in ["client", "server"]
        .into_iter()
        .zip(before.into_iter().zip(after))
    {
        let each = after.saturating_sub(before) / streams.len() as u64;
        assert!(
            each <= IDLE_STREAM_BYTES,
            "{edge} edge: {each} bytes of resident memory for each of {crowd} idle streams"
        );
    }
    assert_eq!(open_streams(pair.server()).await, crowd as f64 + 1.0);
    has_no_more_threads(&pair, threads, &format!("with {crowd} streams"));

    let active: Vec<TcpStream> = streams.split_off(streams.len().saturating_sub(ACTIVE));
    exchange_at_once(active).await;
    has_no_more_threads(&pair, threads, &format!("with {ACTIVE} active streams"));

    drop((one, first, streams));
    eventually("no stream is left", async || {
        match open_streams(pair.server()).await {
            0.0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
}

fn thread_counts(pair: &Pair) -> [usize; 2] {
    [pair.client(), pair.server()].map(|edge| edge.thread_count().unwrap())
}

fn has_no_more_threads(pair: &Pair, before: [usize; 2], when: &str) {
    let now = thread_counts(pair);
    let are_few = now
        .iter()
        .zip(before)
        .all(|(now, before)| *now <= before + LATE_THREADS);
    assert!(
        are_few,
        "threads of both edges: {before:?} with one stream, {now:?} {when}"
    );
}

/// All send at the same moment and compare what comes back.
async fn exchange_at_once(connections: Vec<TcpStream>) {
    let together = Arc::new(Barrier::new(connections.len()));
    let mut exchanges = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let together = together.clone();
        exchanges.spawn(async move {
            let sent = Payload::random(number as u64).bytes(0, ACTIVE_BYTES);
            together.wait().await;
            let (mut reader, mut writer) = connection.split();
            let mut received = vec![0; sent.len()];
            let (written, read) = timeout(LIMIT, async {
                tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received))
            })
            .await
            .unwrap_or_else(|_| panic!("stream {number} has stalled"));
            written.unwrap();
            read.unwrap();
            let wrong = sent.iter().zip(&received).position(|(a, b)| a != b);
            assert_eq!(
                wrong, None,
                "offset of the first wrong byte of stream {number}"
            );
        });
    }
    while let Some(ended) = exchanges.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_use_one_server() {
    let _alone = ALONE.lock().await;
    let echo = origin::echo().unwrap();
    let pair = Arc::new(
        Pair::builder()
            .forward("echo", echo.address())
            .start()
            .await
            .unwrap(),
    );
    let listen = format!(
        "[pools]\ncodec_threads = 1\ncrypto_threads = 1\n[[listen]]\nname = \"echo\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\n",
        echo.address()
    );
    let room = Arc::new(Semaphore::new(STARTING));
    let mut starting = JoinSet::new();
    for number in 2..=CLIENTS {
        let (pair, room, listen) = (pair.clone(), room.clone(), listen.clone());
        starting.spawn(async move {
            let _permit = room.acquire_owned().await.unwrap();
            let client = pair
                .start_client(&format!("branch-{number}"), &listen)
                .await
                .unwrap();
            let stream = opened(client.address("echo").unwrap()).await.unwrap();
            (client, stream)
        });
    }
    let mut clients = Vec::new();
    while let Some(started) = starting.join_next().await {
        clients.push(started.unwrap());
    }
    let own = opened(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    assert_eq!(open_streams(pair.server()).await, CLIENTS as f64);
    let mut streams: Vec<TcpStream> = vec![own];
    let mut edges = Vec::new();
    for (client, stream) in clients {
        edges.push(client);
        streams.push(stream);
    }
    exchange_at_once(streams).await;
}

async fn open_streams(edge: &EdgeProcess) -> f64 {
    let metrics = edge.metrics().await.unwrap();
    metrics
        .sum("wanproxy_streams_open", &[])
        .unwrap_or_default()
}

/// So many streams that have each carried a byte and now wait.
async fn gather(entrance: SocketAddr, count: usize) -> Vec<TcpStream> {
    let room = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let room = room.clone();
        opening.spawn(async move {
            let _permit = room.acquire_owned().await.unwrap();
            opened(entrance).await
        });
    }
    let mut connections = Vec::with_capacity(count);
    while let Some(one) = opening.join_next().await {
        connections.push(one.unwrap().unwrap());
    }
    connections
}

async fn opened(entrance: SocketAddr) -> io::Result<TcpStream> {
    let carry = async {
        let mut connection = TcpStream::connect(entrance).await?;
        connection.write_all(b"?").await?;
        connection.read_u8().await?;
        Ok(connection)
    };
    timeout(LIMIT, carry).await?
}

/// As far as the system lets us; programs that are started inherit it. How many there may be.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 2 * CROWD + SPARE_DESCRIPTORS;
    let Some(hard) = limit.maximum else {
        return wanted;
    };
    let set = |maximum: u64| {
        let limit = Rlimit {
            current: Some(maximum),
            maximum: Some(maximum),
        };
        setrlimit(Resource::Nofile, limit).map(|()| maximum)
    };
    // Only root may have more than it was given, and not everywhere.
    set(hard.max(wanted)).or_else(|_| set(hard)).unwrap_or(hard)
}
