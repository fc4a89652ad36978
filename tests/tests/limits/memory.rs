//! The memory budget under everything that holds on to memory at the same time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wanproxy_tests::eventually;
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::payload::Payload;

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

/// `[memory] budget` of both edges.
const BUDGET_BYTES: u64 = 64 << 20;

/// Downloads that nobody reads, and uploads that nobody reads.
const STALLED: usize = 40;

/// What a program holds beside the budget: itself, its threads' stacks and scratch memory, both sides' histories, and what an allocator keeps of
/// what was freed. Without a budget these streams alone would hold up to 256 MiB each.
const BESIDE_BYTES: u64 = 192 << 20;

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_and_a_lost_line_stay_within_the_budget() {
    let flood = Server::start(|mut connection: TcpStream| async move {
        let number = connection.read_u8().await?;
        send(&mut connection, u64::from(number)).await
    })
    .unwrap();
    let deaf = Server::start(|connection: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(connection);
        Ok(())
    })
    .unwrap();
    let echo = origin::echo().unwrap();
    let toml = format!("[memory]\nbudget = \"{BUDGET_BYTES}B\"\n[history]\nsize = \"32MiB\"\n");
    let pair = Pair::builder()
        .line(LineConfig::unshaped())
        .forward("flood", flood.address())
        .forward("deaf", deaf.address())
        .forward("echo", echo.address())
        .client_toml(&toml)
        .server_toml(&toml)
        .start()
        .await
        .unwrap();
    let mut interactive = connected(&pair, "echo").await;
    asks(&mut interactive).await;

    let mut unread = Vec::new();
    let mut uploads = JoinSet::new();
    for number in 0..STALLED {
        let mut connection = connected(&pair, "flood").await;
        connection
            .write_u8(u8::try_from(number).unwrap())
            .await
            .unwrap();
        unread.push(connection);
        let mut connection = connected(&pair, "deaf").await;
        uploads.spawn(async move { send(&mut connection, 1_000 + number as u64).await });
    }
    is_full(&pair, "with stalled readers on both sides").await;
    asks(&mut interactive).await;
    // Who comes now is let in, too.
    asks(&mut connected(&pair, "echo").await).await;

    // Everything that is under way is held until the line is back.
    pair.line().unwrap().cut();
    is_full(&pair, "without a line").await;
    pair.line().unwrap().restore();
    asks(&mut interactive).await;
    is_full(&pair, "with the line again").await;

    // The origin that reads nothing as well, or what was uploaded before the end would still be for it.
    drop((unread, uploads, deaf));
    for edge in [pair.client(), pair.server()] {
        eventually("only the interactive stream is left", async || {
            match edge
                .metrics()
                .await
                .unwrap()
                .sum("wanproxy_streams_open", &[])
            {
                Some(1.0) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    asks(&mut interactive).await;
}

async fn connected(pair: &Pair, service: &str) -> TcpStream {
    TcpStream::connect(pair.client().address(service).unwrap())
        .await
        .unwrap()
}

async fn asks(connection: &mut TcpStream) {
    connection.write_all(b"?").await.unwrap();
    let answer = timeout(LIMIT, connection.read_u8()).await;
    assert_eq!(
        answer.expect("the interactive stream stalls").unwrap(),
        b'?'
    );
}

/// Random bytes until nobody takes them any more.
async fn send(connection: &mut TcpStream, seed: u64) -> std::io::Result<()> {
    let payload = Payload::random(seed);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        payload.fill(offset, &mut buffer);
        connection.write_all(&buffer).await?;
        offset += buffer.len() as u64;
    }
}

/// Waits until neither edge takes more than before, and looks at what they hold all the while.
async fn is_full(pair: &Pair, when: &str) {
    for (name, edge) in [("client", pair.client()), ("server", pair.server())] {
        let mut before = None;
        eventually("nothing more is taken", async || {
            let (used, taken) = held(edge).await;
            assert!(
                used <= BUDGET_BYTES,
                "{name} edge {when}: {used} bytes of the budget are used"
            );
            let resident = edge.resident_bytes().unwrap();
            let most = BUDGET_BYTES + BESIDE_BYTES;
            assert!(
                resident <= most,
                "{name} edge {when}: {resident} bytes are resident, {most} were expected at most"
            );
            match before.replace(taken) {
                Some(last) if last == taken && taken > 0 => Ok(()),
                _ => Err(taken),
            }
        })
        .await;
    }
}

/// Bytes of the budget in use, and bytes that came from the LAN side so far.
async fn held(edge: &EdgeProcess) -> (u64, u64) {
    let metrics = edge.metrics().await.unwrap();
    let all = metrics.sum("wanproxy_memory_bytes", &[]).unwrap();
    let beside: f64 = ["history", "index"]
        .into_iter()
        .filter_map(|usage| metrics.sum("wanproxy_memory_bytes", &[("use", usage)]))
        .sum();
    let taken = metrics.sum(
        "wanproxy_service_lan_bytes_total",
        &[("direction", "to_wan")],
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of bytes"
    )]
    ((all - beside) as u64, taken.unwrap_or_default() as u64)
}
