//! What is asked without end is held within a bound: memory, descriptors, time. Each test names its own, and others are served meanwhile.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::frame::Frame;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wanproxy_tests::origin;
use wanproxy_tests::pair::{EdgeProcess, Pair, PairBuilder};
use wanproxy_tests::payload::Payload;
use wanproxy_tests::{eventually, skip};

use super::peer::{ALPN, Shows, tls};
use super::{Scene, open, raw_block};

/// Given up long before: the slowest bound is the life of a connection to the admin endpoint, 30 s.
pub const GIVEN_UP_WITHIN: Duration = Duration::from_secs(120);

/// Between two bytes of a request that comes slowly: less than any pause that would end it by itself.
const TRICKLE: Duration = Duration::from_millis(500);

/// What an edge may grow by while it is asked for far more, in bytes; the allocator keeps some of what was used.
const GROWTH_MAX_BYTES: u64 = 96 << 20;

/// Connections that an attacker holds on each listener.
const HELD: usize = 40;

/// A pair with every kind of listener: `echo`, `socks5`, `proxy`, `proxied` and `caught` of the client edge, and `back` of the server edge. Those
/// that read nothing before they open a stream read a PROXY protocol header here, but for the transparent one.
pub fn every_listener(echo: SocketAddr) -> PairBuilder {
    let proxied = format!(
        "kind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{echo}\"\nproxy_accept = true\n"
    );
    Pair::builder()
        .forward("echo", echo)
        .socks5()
        .http()
        .client_toml(&format!(
            "[[listen]]\nname = \"proxied\"\n{proxied}[[listen]]\nname = \"caught\"\nkind = \"transparent\"\nbind = \"127.0.0.1:0\"\n[[accept]]\nallow = [\"127.0.0.1:*\"]\n"
        ))
        .server_toml(&format!(
            "[[listen]]\nname = \"back\"\nclient = \"branch-1\"\n{proxied}"
        ))
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_are_given_up_on_every_listener_while_others_are_served() {
    let echo = origin::echo().unwrap();
    let pair = every_listener(echo.address()).start().await.unwrap();
    let edges = [pair.client(), pair.server()];
    let before = edges.map(|edge| {
        (
            edge.descriptor_count().unwrap(),
            edge.resident_bytes().unwrap(),
        )
    });
    let mut held = Vec::new();
    for (what, address, start) in [
        (
            "socks5",
            pair.client().address("socks5").unwrap(),
            &b"\x05\xff"[..],
        ),
        (
            "http",
            pair.client().address("proxy").unwrap(),
            b"GET http://a/ HTTP/1.1\r\nA: ",
        ),
        (
            "PROXY protocol",
            pair.client().address("proxied").unwrap(),
            b"PROXY TCP4 ",
        ),
        (
            "PROXY protocol of a reverse listener",
            pair.server().address("back").unwrap(),
            b"\x0d\x0a\x0d\x0a\x00\x0d\x0a",
        ),
        ("transparent", pair.client().address("caught").unwrap(), b""),
        (
            "admin of the client",
            pair.client().admin_address().unwrap(),
            b"GET / HTTP/1.1\r\nA: ",
        ),
        (
            "admin of the server",
            pair.server().admin_address().unwrap(),
            b"GET / HTTP/1.1\r\nA: ",
        ),
        (
            "tunnel",
            pair.server().tunnel_address().unwrap(),
            b"\x16\x03\x01\x01\x00",
        ),
    ] {
        for _ in 0..HELD {
            held.push((what, tokio::spawn(trickle(address, start))));
        }
    }
    assert_echoes(pair.client()).await;
    for (what, connection) in held {
        let given_up = timeout(GIVEN_UP_WITHIN, connection).await;
        given_up
            .unwrap_or_else(|_| panic!("{what}: still open after {GIVEN_UP_WITHIN:?}"))
            .unwrap();
    }
    assert_echoes(pair.client()).await;
    // What no filter has sent to the transparent listener is refused at once, and counted.
    let refused = pair.client().metrics().await.unwrap();
    let refused = refused.sum("wanproxy_policy_refusals_total", &[]);
    assert_eq!(refused, Some(HELD as f64));
    for (edge, (descriptors, resident)) in edges.into_iter().zip(before) {
        assert_grew_within_bounds(edge, resident);
        eventually("descriptors return", async || {
            let now = edge.descriptor_count().unwrap();
            if now <= descriptors {
                Ok(())
            } else {
                Err((now, descriptors))
            }
        })
        .await;
        assert!(edge.is_ready().await, "the admin endpoint serves again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_crowd_on_each_listener_does_not_keep_others_out() {
    const CROWD: usize = 100;
    let echo = origin::echo().unwrap();
    let pair = every_listener(echo.address()).start().await.unwrap();
    let address = |name| pair.client().address(name).unwrap();
    let listeners = [
        ("socks5", address("socks5")),
        ("proxy", address("proxy")),
        ("proxied", address("proxied")),
        ("back", pair.server().address("back").unwrap()),
    ];
    let mut crowd = Vec::new();
    for (name, address) in listeners {
        for _ in 0..CROWD {
            crowd.push((name, TcpStream::connect(address).await.unwrap()));
        }
    }
    let target = echo.address();
    let [high, low] = target.port().to_be_bytes();
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let header = format!("PROXY TCP4 192.0.2.1 127.0.0.1 4711 {}\r\n", target.port());
    let questions: [(&[u8], &[u8]); 4] = [
        (
            &[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low],
            b"\x05\x00\x05\x00",
        ),
        (connect.as_bytes(), b"HTTP/1.1 200"),
        (header.as_bytes(), b""),
        (header.as_bytes(), b""),
    ];
    for ((name, address), (question, answer)) in listeners.into_iter().zip(questions) {
        let mut honest = TcpStream::connect(address).await.unwrap();
        honest.write_all(question).await.unwrap();
        honest.write_all(b"still here").await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"still here") {
            let read = timeout(GIVEN_UP_WITHIN, honest.read_buf(&mut heard)).await;
            let count = read.expect("no answer beside the crowd").unwrap();
            assert!(count > 0, "{name}: refused beside the crowd");
        }
        assert!(heard.starts_with(answer), "{name}: {heard:?}");
    }
    for (name, mut silent) in crowd {
        let ended = timeout(GIVEN_UP_WITHIN, silent.read_to_end(&mut Vec::new())).await;
        let _reset = ended.unwrap_or_else(|_| panic!("{name}: still open"));
    }
}

/// Sends a byte now and then until the other side has had enough.
async fn trickle(address: SocketAddr, start: &[u8]) {
    // Where nothing is read at all, it may be refused before it is there.
    let Ok(mut connection) = TcpStream::connect(address).await else {
        return;
    };
    let _refused_already = connection.write_all(start).await;
    let (mut reader, mut writer) = connection.into_split();
    let mut answer = Vec::new();
    let slow = async {
        while writer.write_all(b"a").await.is_ok() {
            tokio::time::sleep(TRICKLE).await;
        }
    };
    tokio::select! {
        _closed = reader.read_to_end(&mut answer) => {}
        () = slow => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_acknowledges_nothing_holds_its_targets_back_and_not_our_memory() {
    const STREAMS: u64 = 40;
    const OFFERED_BYTES: u64 = 64 << 20;
    let scene = Scene::set().await;
    let source = origin::source(Payload::random(9), OFFERED_BYTES).unwrap();
    let before = scene.pair.server().resident_bytes().unwrap();
    let mut link = scene.link().await;
    link.greet().await;
    for stream in 0..STREAMS {
        link.send(&open(1 + stream, 1 + 2 * stream, source.address()))
            .await
            .unwrap();
    }
    let mut opened = 0;
    while opened < STREAMS {
        opened += link
            .receive_until("Opened", |frame| {
                matches!(frame, Frame::Opened(_)).then_some(1)
            })
            .await;
    }
    // Each of them gives the targets a round trip's time to send more.
    for token in 0..200 {
        assert!(link.is_alive(token).await);
    }
    scene.honest_works().await;
    assert_grew_within_bounds(scene.pair.server(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_whose_answers_nobody_reads_take_no_memory() {
    let scene = Scene::set().await;
    let before = scene.pair.server().resident_bytes().unwrap();
    let mut link = scene.link().await;
    link.greet().await;
    // Held back, ended or taken: each is within its rights, as long as nothing piles up.
    let _held_back = timeout(Duration::from_secs(10), async {
        for token in 0..200_000 {
            if link.send(&Frame::Ping { token }).await.is_err() {
                break;
            }
        }
    })
    .await;
    assert_grew_within_bounds(scene.pair.server(), before);
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_link_opens_nothing_when_it_is_replayed_whole_or_in_part() {
    let scene = Scene::set().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let recorder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entrance = recorder.local_addr().unwrap();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let (server, record) = (scene.server(), recorded.clone());
    tokio::spawn(async move {
        let (near, _) = recorder.accept().await.unwrap();
        let far = TcpStream::connect(server).await.unwrap();
        let (mut from_near, mut to_near) = near.into_split();
        let (mut from_far, mut to_far) = far.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_far, &mut to_near).await });
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
            record.lock().unwrap().extend_from_slice(&buffer[..count]);
            if to_far.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    });
    let ca = scene.intruder.join("ca.pem");
    let mut link = tls(entrance, &ca, Shows::Certificate(&scene.intruder), ALPN)
        .await
        .unwrap();
    link.greet().await;
    link.send(&open(1, 1, target.local_addr().unwrap()))
        .await
        .unwrap();
    link.send(&raw_block(2, 1, 0, b"once")).await.unwrap();
    let (mut first, _) = target.accept().await.unwrap();
    let mut received = [0; 4];
    first.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"once");
    link.vanish();

    let bytes = recorded.lock().unwrap().clone();
    for length in [bytes.len(), bytes.len() / 2] {
        let mut replay = TcpStream::connect(scene.server()).await.unwrap();
        let _refused_already = replay.write_all(&bytes[..length]).await;
        let _refused_already = replay.shutdown().await;
        let mut answer = Vec::new();
        let _reset = timeout(GIVEN_UP_WITHIN, replay.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    scene.honest_works().await;
    let second = timeout(Duration::ZERO, target.accept()).await;
    assert!(second.is_err(), "the replay reached the target");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_without_descriptors_keeps_what_it_has_and_serves_again_when_they_are_back() {
    /// Descriptors left to the edge, and connections that ask for more.
    const SPARE: usize = 8;
    const ASKED: usize = 60;
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let address = pair.client().address("echo").unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    for edge in [pair.client(), pair.server()] {
        let mut old = TcpStream::connect(address).await.unwrap();
        exchange(&mut old).await.unwrap();
        let used = std::fs::read_dir(format!("/proc/{}/fd", edge.id().unwrap()))
            .unwrap()
            .count();
        let pid = i32::try_from(edge.id().unwrap())
            .ok()
            .and_then(Pid::from_raw);
        let few = Rlimit {
            current: Some((used + SPARE) as u64),
            maximum,
        };
        let Ok(usual) = prlimit(pid, Resource::Nofile, few) else {
            skip(
                "an edge without descriptors",
                "this user may not change another process's limits",
            );
            return;
        };
        let mut crowd = Vec::new();
        for _ in 0..ASKED {
            // Refused, some before they know that they were connected.
            crowd.push(TcpStream::connect(address).await);
        }
        exchange(&mut old)
            .await
            .expect("a connection that was there goes on");
        edge.id().expect("the edge lives");
        drop(crowd);
        eventually(
            "new connections are served again within the limit",
            async || {
                let mut new = TcpStream::connect(address)
                    .await
                    .map_err(|error| error.to_string())?;
                exchange(&mut new).await.map_err(|error| error.to_string())
            },
        )
        .await;
        exchange(&mut old)
            .await
            .expect("a connection that was there goes on");
        prlimit(pid, Resource::Nofile, usual).unwrap();
    }
}

/// A few bytes to the echo and back.
pub async fn exchange(connection: &mut TcpStream) -> std::io::Result<()> {
    connection.write_all(b"still here").await?;
    let mut back = [0; 10];
    timeout(GIVEN_UP_WITHIN, connection.read_exact(&mut back)).await??;
    assert_eq!(&back, b"still here");
    Ok(())
}

async fn assert_echoes(client: &EdgeProcess) {
    let address = client.address("echo").unwrap();
    exchange(&mut TcpStream::connect(address).await.unwrap())
        .await
        .unwrap();
}

pub fn assert_grew_within_bounds(edge: &EdgeProcess, before: u64) {
    let now = edge.resident_bytes().unwrap();
    assert!(
        now < before + GROWTH_MAX_BYTES,
        "memory went from {before} to {now} bytes, more than {GROWTH_MAX_BYTES} more"
    );
}
