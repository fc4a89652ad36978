//! A program that may open no further descriptor.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::{eventually, origin};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(60);

/// Connections that want in while descriptors are short.
const CONNECTIONS: usize = 24;

/// Descriptors that are left for them.
const LEFT: u64 = 6;

/// Lets the edge have as many descriptors as it has now and `more`; what it might have before.
fn limit(edge: &EdgeProcess, more: u64) -> Rlimit {
    let id = edge.id().unwrap();
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64;
    set(edge, Some(open + more))
}

fn set(edge: &EdgeProcess, current: Option<u64>) -> Rlimit {
    let process = Pid::from_raw(i32::try_from(edge.id().unwrap()).unwrap());
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: current.or(hard),
        maximum: hard,
    };
    prlimit(process, Resource::Nofile, limit).unwrap()
}

/// A connection that has asked for an answer. One that was refused before it could ask says so at once, or when it is read.
async fn try_asked(pair: &Pair) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(pair.client().address("echo").unwrap()).await?;
    let _refused = connection.write_all(b"?").await;
    Ok(connection)
}

async fn asked(pair: &Pair) -> TcpStream {
    try_asked(pair).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_descriptors_pauses_says_so_once_and_goes_on() {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let mut held = asked(&pair).await;
    held.read_u8().await.unwrap();

    limit(pair.client(), LEFT);
    let mut waiting = Vec::new();
    for _ in 0..CONNECTIONS {
        waiting.push(asked(&pair).await);
    }
    let complaint = "cannot accept a connection";
    eventually("the client says that it cannot accept", async || {
        let log = pair.client().log();
        if log.contains(complaint) {
            Ok(())
        } else {
            Err(log.len())
        }
    })
    .await;
    // What it has goes on meanwhile.
    held.write_all(b"!").await.unwrap();
    assert_eq!(held.read_u8().await.unwrap(), b'!');

    set(pair.client(), None);
    for (number, connection) in waiting.iter_mut().enumerate() {
        let answer = timeout(LIMIT, connection.read_u8()).await;
        assert_eq!(
            answer
                .unwrap_or_else(|_| panic!("connection {number} was forgotten"))
                .unwrap(),
            b'?'
        );
    }
    let complaints = pair.client().log().matches(complaint).count();
    assert_eq!(complaints, 1, "warnings about one shortage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_refuses_what_it_cannot_dial_and_goes_on() {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let mut held = asked(&pair).await;
    held.read_u8().await.unwrap();

    limit(pair.server(), LEFT);
    let mut waiting = Vec::new();
    for _ in 0..CONNECTIONS {
        waiting.extend(try_asked(&pair).await.ok());
    }
    let mut refused = CONNECTIONS - waiting.len();
    for (number, connection) in waiting.iter_mut().enumerate() {
        match timeout(LIMIT, connection.read_u8()).await {
            Ok(Ok(answer)) => assert_eq!(answer, b'?'),
            Ok(Err(_)) => refused += 1,
            Err(_) => panic!("connection {number} was neither served nor refused"),
        }
    }
    assert!(refused > 0, "there were descriptors for all of them");
    held.write_all(b"!").await.unwrap();
    assert_eq!(held.read_u8().await.unwrap(), b'!');
    drop(waiting);

    set(pair.server(), None);
    let mut connection = asked(&pair).await;
    assert_eq!(
        timeout(LIMIT, connection.read_u8()).await.unwrap().unwrap(),
        b'?'
    );
}
