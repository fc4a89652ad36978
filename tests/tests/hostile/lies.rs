//! A peer that claims what it does not have, or refers to what is not its own.

use codec::block::Space;
use codec::frame::{Coverage, CoverageFrame, DomainId, Epoch, Frame, HistorySide};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wanproxy_tests::payload::Payload;

use super::{Scene, copying_block, copying_block_of, opens};

/// What an honest client has said to its own target.
const SECRET_BYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn who_claims_anothers_history_is_given_none_of_it() {
    let scene = Scene::set().await;
    let secret = Payload::random(31).bytes(0, SECRET_BYTES);
    let mut honest = TcpStream::connect(scene.pair.client().address("echo").unwrap())
        .await
        .unwrap();
    let (mut reader, mut writer) = honest.split();
    let mut back = vec![0; SECRET_BYTES];
    let (sent, read) = tokio::join!(writer.write_all(&secret), reader.read_exact(&mut back));
    sent.unwrap();
    read.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (space, position) in [
        (Space::Sender, 0),
        (Space::Sender, 4_096),
        (Space::Receiver, 0),
        (Space::Receiver, 4_096),
    ] {
        let mut link = scene.link().await;
        // What the server says of its own histories is what a liar can know best, and repeats.
        let mut epochs = vec![Epoch {
            id: [9; 16],
            start: 0,
        }];
        link.greet().await;
        link.send(&Frame::Ping { token: 1 }).await.unwrap();
        loop {
            match link.receive().await.expect("the link ended") {
                Frame::Coverage(said) => epochs.extend(said.coverage.epochs),
                Frame::Pong { token: 1 } => break,
                _ => {}
            }
        }
        epochs.sort_by_key(|epoch| epoch.start);
        for side in [HistorySide::Own, HistorySide::Mirror] {
            let claim = CoverageFrame {
                domain: DomainId::SHARED,
                name: "shared".to_owned(),
                side,
                coverage: Coverage {
                    floor: 0,
                    tail: 4 * SECRET_BYTES as u64,
                    epochs: epochs.clone(),
                    ..Coverage::default()
                },
            };
            link.send(&Frame::Coverage(claim)).await.unwrap();
        }
        opens(&mut link, &listener).await;
        link.send(&copying_block(2, 1, space, position))
            .await
            .unwrap();
        let (mut target, _) = listener.accept().await.unwrap();
        let mut received = vec![0; 64];
        // Refused or ended: the target gets nothing either way.
        let refused = async {
            loop {
                match link.receive().await {
                    None | Some(Frame::Refuse(_)) => break,
                    Some(_) => {}
                }
            }
        };
        tokio::select! {
            () = refused => {}
            count = target.read(&mut received) => {
                assert!(matches!(count, Ok(0) | Err(_)), "{space:?} {position}: {received:?}");
            }
        }
    }
    scene.honest_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_that_were_never_agreed_are_nobodys() {
    let scene = Scene::set().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // An isolated service's of a client and of a server, and one of no number that either gives.
    for domain in [3, 2, 4_000_000_000] {
        let mut link = scene.link().await;
        link.greet().await;
        opens(&mut link, &listener).await;
        let block = copying_block_of(2, 1, Space::Receiver, 0, DomainId::from(domain));
        link.send(&block).await.unwrap();
        link.ended().await;
        let (mut target, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        let _reset = target.read_to_end(&mut received).await;
        assert_eq!(received, b"");
    }
    // Offering more domains than a tunnel may have ends it, too.
    let mut link = scene.link().await;
    link.greet().await;
    for domain in 0..20u64 {
        let claim = CoverageFrame {
            domain: DomainId::from(1 + 2 * domain),
            name: format!("c:{domain}"),
            side: HistorySide::Own,
            coverage: Coverage::default(),
        };
        let _ended_already = link.send(&Frame::Coverage(claim)).await;
    }
    link.ended().await;
    scene.honest_works().await;
}
