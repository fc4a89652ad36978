//! Tunnels that are cut at every kind of place, by whoever sits on the line.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wanproxy_tests::payload::{Checker, Payload};

use super::Scene;

/// What has not happened by then never will; each cut costs a pause of up to five seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// At least so many bytes go there and back.
const TRANSFER_BYTES: u64 = 4 << 20;

/// After how many bytes a link is cut, and which of its directions they are counted in. The first ones are within TLS's handshake, then within the
/// Hellos, the frames behind them, and blocks. After each long one the tunnel has carried something, so the next attempt comes soon.
const CUTS: [(Way, usize); 20] = [
    (Way::ToServer, 0),
    (Way::ToServer, 3),
    (Way::ToServer, 100_000),
    (Way::ToClient, 1),
    (Way::ToClient, 90),
    (Way::ToClient, 150_000),
    (Way::ToServer, 400),
    (Way::ToClient, 1_500),
    (Way::ToServer, 65_537),
    (Way::ToServer, 1_400),
    (Way::ToServer, 1_900),
    (Way::ToClient, 65_537),
    (Way::ToServer, 2_000),
    (Way::ToServer, 2_100),
    (Way::ToServer, 300_000),
    (Way::ToClient, 1_800),
    (Way::ToClient, 2_200),
    (Way::ToClient, 300_001),
    (Way::ToServer, 10_000),
    (Way::ToClient, 10_000),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_cut_anywhere_carries_on_and_loses_no_byte() {
    let scene = Scene::set().await;
    let cuts = Arc::new(Mutex::new(VecDeque::new()));
    let cutter = cutter(scene.server(), cuts.clone()).await;
    let listener = format!(
        "[tunnel]\nserver = [\"{cutter}\"]\n[[listen]]\nname = \"echo\"\nkind = \"forward\"\nbind = \"127.0.0.1:0\"\ntarget = \"{}\"\ndedup = \"off\"\n",
        scene.echo.address()
    );
    let client = scene
        .pair
        .start_client("branch-cut", &listener)
        .await
        .unwrap();
    let connection = TcpStream::connect(client.address("echo").unwrap())
        .await
        .unwrap();
    let payload = Payload::random(41);
    let (mut reader, mut writer) = connection.into_split();
    // The stream is there before its line is cut for the first time.
    let head = payload.bytes(0, 1_000);
    writer.write_all(&head).await.unwrap();
    let mut checker = Checker::new(payload, u64::MAX);
    let mut first = vec![0; 1_000];
    reader.read_exact(&mut first).await.unwrap();
    checker.feed(&first).unwrap();
    cuts.lock().unwrap().extend(CUTS);
    let sending = tokio::spawn(async move {
        let mut offset = 1_000;
        // Until a link has taken the last cut: how much goes one way while the other way's bytes are counted, nobody knows.
        while offset < TRANSFER_BYTES || !cuts.lock().unwrap().is_empty() {
            writer
                .write_all(&payload.bytes(offset, 50_000))
                .await
                .unwrap();
            offset += 50_000;
        }
        writer.shutdown().await.unwrap();
        offset
    });
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = timeout(LIMIT, reader.read(&mut buffer)).await;
        let count = read.expect("the transfer stalled").unwrap();
        if count == 0 {
            break;
        }
        checker.feed(&buffer[..count]).unwrap();
    }
    let sent = timeout(LIMIT, sending).await;
    let sent = sent.expect("it ended before all was sent").unwrap();
    assert_eq!(checker.offset(), sent, "it ended before all was back");
    scene.honest_works().await;
}

type Cuts = Arc<Mutex<VecDeque<(Way, usize)>>>;

/// Carries links to the server. As soon as there are cuts, each link, also one that is there, takes the next one; without any it carries all.
async fn cutter(server: SocketAddr, cuts: Cuts) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(server).await else {
                continue;
            };
            tokio::spawn(carry(near, far, cuts.clone()));
        }
    });
    address
}

/// Both sockets are dropped when it returns, in whatever state they are.
async fn carry(near: TcpStream, far: TcpStream, cuts: Cuts) {
    let own = Mutex::new(None);
    let ((near_reader, near_writer), (far_reader, far_writer)) =
        (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_reader, far_writer, Way::ToServer, &own, &cuts) => {}
        () = copy(far_reader, near_writer, Way::ToClient, &own, &cuts) => {}
    }
}

/// What is left to this link, and in which direction.
type Own = Mutex<Option<(Way, usize)>>;

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: Way,
    own: &Own,
    cuts: &Cuts,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let passes = {
            let mut own = own.lock().unwrap();
            if own.is_none() {
                *own = cuts.lock().unwrap().pop_front();
            }
            match own.as_mut() {
                Some((counted, left)) if *counted == way => {
                    let passes = count.min(*left);
                    *left -= passes;
                    (passes, passes < count || *left == 0)
                }
                _ => (count, false),
            }
        };
        let (passes, is_over) = passes;
        if to.write_all(&buffer[..passes]).await.is_err() || is_over {
            return;
        }
    }
}
