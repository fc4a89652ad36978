//! Bytes through the tunnel: all of them, in order, with their ends and resets, and fewer of them on the line.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::fetch::{Request, Uploaded, fetch, upload};
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{self, Content, HttpOrigin};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::payload::{Checker, Payload, edited, there_and_back};
use wanproxy_tests::storm::{Ending, Script, StormOrigin, allow_descriptors};

/// A transfer that has not ended by then has stalled; nothing here takes more than seconds.
const STALL_LIMIT: Duration = Duration::from_secs(120);

const MEBIBYTE: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_back_from_an_echo() {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let connection = TcpStream::connect(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    there_and_back(connection, Payload::random(1), 8 * MEBIBYTE, STALL_LIMIT)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_byte_is_not_held_back() {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let mut connection = TcpStream::connect(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    for byte in 0..=255 {
        connection.write_all(&[byte]).await.unwrap();
        let back = timeout(STALL_LIMIT, connection.read_u8())
            .await
            .expect("the byte stalled")
            .unwrap();
        assert_eq!(back, byte);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_may_end_first_and_still_receive() {
    let origin = StormOrigin::start().unwrap();
    let pair = Pair::builder()
        .forward("storm", origin.address())
        .start()
        .await
        .unwrap();
    let entrance = pair.client().address("storm").unwrap();
    let endings = [Ending::Together, Ending::NearFirst, Ending::FarFirst];
    let sizes = [
        (0, 0),
        (1, 0),
        (0, 1),
        (3 * MEBIBYTE, 5),
        (5, 3 * MEBIBYTE),
        (MEBIBYTE, MEBIBYTE),
    ];
    for ending in endings {
        for (up_bytes, down_bytes) in sizes {
            let script = Script {
                id: 1,
                seed: 5,
                up_bytes,
                down_bytes,
                place: 0,
                ending,
            };
            origin.rage(entrance, vec![script]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_arrives_as_a_reset_wherever_it_comes_from() {
    let origin = StormOrigin::start().unwrap();
    let pair = Pair::builder()
        .forward("storm", origin.address())
        .start()
        .await
        .unwrap();
    let entrance = pair.client().address("storm").unwrap();
    for ending in [Ending::NearResets, Ending::FarResets] {
        for place in [0, 1, 100_000, 2 * MEBIBYTE] {
            let bytes = 2 * MEBIBYTE;
            let script = Script {
                id: 1,
                seed: 6,
                up_bytes: bytes,
                down_bytes: bytes,
                place,
                ending,
            };
            origin.rage(entrance, vec![script]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_at_once_keep_their_scripts() {
    allow_descriptors(4096).unwrap();
    let origin = StormOrigin::start().unwrap();
    let pair = Pair::builder()
        .forward("storm", origin.address())
        .start()
        .await
        .unwrap();
    origin
        .rage(
            pair.client().address("storm").unwrap(),
            Script::many(1000, 99),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_aborted_at_a_tenth_fifty_times_never_stalls() {
    let payload = Payload::text(21);
    let length = 4 * MEBIBYTE;
    let source = origin::source(payload, length).unwrap();
    let pair = Pair::builder()
        .forward("source", source.address())
        .start()
        .await
        .unwrap();
    let entrance = pair.client().address("source").unwrap();
    for _ in 0..50 {
        let mut connection = TcpStream::connect(entrance).await.unwrap();
        let mut tenth = vec![0; usize::try_from(length / 10).unwrap()];
        timeout(STALL_LIMIT, connection.read_exact(&mut tenth))
            .await
            .expect("stalled")
            .unwrap();
        Checker::new(payload, length).feed(&tenth).unwrap();
        // Bytes are unread, so this close is a reset.
        drop(connection);
    }
    let mut connection = TcpStream::connect(entrance).await.unwrap();
    read_all(&mut connection, Checker::new(payload, length)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_aborted_at_a_tenth_fifty_times_never_stalls() {
    let body = Bytes::from(Payload::text(22).bytes(0, 4 << 20));
    let sink = origin::sink().unwrap();
    let pair = Pair::builder()
        .forward("sink", sink.address())
        .start()
        .await
        .unwrap();
    let entrance = pair.client().address("sink").unwrap();
    for _ in 0..50 {
        let mut connection = TcpStream::connect(entrance).await.unwrap();
        timeout(STALL_LIMIT, connection.write_all(&body[..body.len() / 10]))
            .await
            .expect("stalled")
            .unwrap();
        connection.set_zero_linger().unwrap();
    }
    let mut connection = TcpStream::connect(entrance).await.unwrap();
    timeout(STALL_LIMIT, connection.write_all(&body))
        .await
        .expect("stalled")
        .unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(STALL_LIMIT, connection.read_to_string(&mut answer))
        .await
        .expect("stalled")
        .unwrap();
    let expected = Uploaded::of(&body);
    assert_eq!(answer, format!("{} {}\n", expected.length, expected.xxh3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_does_not_hold_others_back() {
    let payload = Payload::random(31);
    let length = 24 * MEBIBYTE;
    let source = origin::source(payload, length).unwrap();
    let pair = Pair::builder()
        .forward("source", source.address())
        .start()
        .await
        .unwrap();
    let entrance = pair.client().address("source").unwrap();
    let mut slow = TcpStream::connect(entrance).await.unwrap();
    for _ in 0..3 {
        let mut other = TcpStream::connect(entrance).await.unwrap();
        read_all(&mut other, Checker::new(payload, length)).await;
    }
    read_all(&mut slow, Checker::new(payload, length)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_transfer_costs_a_five_hundredth_and_the_next_version_a_twenty_fifth() {
    let (pair, origin) = measured().await;
    one_of_three(41, async |seed| {
        let original = Bytes::from(Payload::text(seed).bytes(0, 16 << 20));
        let next = Bytes::from(edited(&original, 4));
        origin.put("/original", Content::Bytes(original.clone()));
        origin.put("/next", Content::Bytes(next.clone()));
        let cold = download(&pair, "/original", &original).await;
        assert!(
            cold < 16 << 20,
            "text was not made smaller: {cold} bytes on the line"
        );
        let warm = download(&pair, "/original", &original).await;
        within("the second transfer", warm, (16 << 20) / 500)?;
        let changed = download(&pair, "/next", &next).await;
        within("the next version", changed, next.len() as u64 / 25)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploading_what_came_down_costs_a_three_hundredth() {
    let (pair, origin) = measured().await;
    one_of_three(42, async |seed| {
        let body = Bytes::from(Payload::random(seed).bytes(0, 16 << 20));
        origin.put("/file", Content::Bytes(body.clone()));
        download(&pair, "/file", &body).await;
        let before = pair.wan_bytes().unwrap();
        let uploaded = upload(entrance(&pair), "/up", &body).await.unwrap();
        assert_eq!(uploaded, Uploaded::of(&body));
        let cost = pair.wan_bytes().unwrap().since(&before).total();
        within("the upload", cost, (16 << 20) / 300)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_data_costs_hardly_more_than_itself() {
    let (pair, origin) = measured().await;
    one_of_three(43, async |seed| {
        let body = Bytes::from(Payload::random(seed).bytes(0, 16 << 20));
        origin.put("/random", Content::Bytes(body.clone()));
        let cost = download(&pair, "/random", &body).await;
        within("it", cost, (16 << 20) / 1000 * 1005)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_received_helps_no_other() {
    let (pair, origin) = measured().await;
    let body = Bytes::from(Payload::random(44).bytes(0, 4 << 20));
    origin.put("/secret", Content::Bytes(body.clone()));
    download(&pair, "/secret", &body).await;
    let listener = format!(
        "[[listen]]\nname = \"http\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\n",
        origin.address()
    );
    let other = pair.start_client("branch-2", &listener).await.unwrap();
    let before = pair.wan_bytes().unwrap();
    fetch_checked(other.address("http").unwrap(), "/secret", &body).await;
    let cost = pair.wan_bytes().unwrap().since(&before).total();
    assert!(
        cost >= body.len() as u64,
        "another client's bytes were referred to: {cost} bytes on the line"
    );
}

/// Measures up to three times, with other bytes each time: where this machine holds a program up, a transfer is cut into more blocks, and
/// each has its price.
async fn one_of_three(seed: u64, measure: impl AsyncFn(u64) -> Result<(), String>) {
    let mut said = Vec::new();
    for seed in [seed, seed + 100, seed + 200] {
        match measure(seed).await {
            Ok(()) => return,
            Err(much) => said.push(much),
        }
    }
    panic!("{said:?}");
}

fn within(what: &str, cost: u64, most: u64) -> Result<(), String> {
    if cost <= most {
        Ok(())
    } else {
        Err(format!("{what} cost {cost} bytes on the line, not {most}"))
    }
}

/// A pair with a counting line, whose listener `http` leads to the origin.
async fn measured() -> (Pair, HttpOrigin) {
    let origin = HttpOrigin::start().unwrap();
    let pair = Pair::builder()
        .forward("http", origin.address())
        .line(LineConfig::unshaped())
        .start()
        .await
        .unwrap();
    // On a busy disk histories are opened later than a tunnel waits for them.
    let probe = Bytes::from(Payload::random(40).bytes(0, 1 << 20));
    origin.put("/probe", Content::Bytes(probe.clone()));
    eventually("both sides have agreed on their histories", async || {
        let cost = download(&pair, "/probe", &probe).await;
        if cost < probe.len() as u64 / 2 {
            Ok(())
        } else {
            Err(cost)
        }
    })
    .await;
    (pair, origin)
}

fn entrance(pair: &Pair) -> SocketAddr {
    pair.client().address("http").unwrap()
}

/// Downloads `path`, checks every byte, and returns what it cost on the line.
async fn download(pair: &Pair, path: &str, expected: &Bytes) -> u64 {
    let before = pair.wan_bytes().unwrap();
    fetch_checked(entrance(pair), path, expected).await;
    pair.wan_bytes().unwrap().since(&before).total()
}

async fn fetch_checked(address: SocketAddr, path: &str, expected: &Bytes) {
    let mut checker = Checker::of_bytes(expected.clone());
    let request = Request::get(path);
    let fetched = fetch(address, &request, |chunk| checker.feed(chunk).unwrap());
    timeout(STALL_LIMIT, fetched)
        .await
        .expect("the download stalled")
        .unwrap();
    checker.finish().unwrap();
}

async fn read_all(reader: &mut (impl AsyncReadExt + Unpin), mut checker: Checker) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = timeout(STALL_LIMIT, reader.read(&mut buffer)).await;
        match count
            .unwrap_or_else(|_| panic!("stalled at offset {}", checker.offset()))
            .unwrap()
        {
            0 => break,
            count => checker.feed(&buffer[..count]).unwrap(),
        }
    }
    checker.finish().unwrap();
}
