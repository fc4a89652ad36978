//! Programs of two versions: they speak the older one, and all works; two of the newer one spend less on messages.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::support::{
    INLINE_BELOW_BYTES, environment, on_runtime, pair_of, payload, receive_all, send, send_all,
    spec,
};

/// Bytes that the line takes for a session of short messages, there and back.
async fn session(versions: [RangeInclusive<u64>; 2]) -> u64 {
    let [client, server] = versions.map(|versions| {
        let mut environment = environment("branch-1", INLINE_BELOW_BYTES);
        environment.versions = versions;
        environment
    });
    let mut pair = pair_of(client, server).await;
    let tunnel = pair.tunnel().await;

    // The same in bulk twice, each way: the second time from the histories.
    let data = payload(1_500_000);
    for _ in 0..2 {
        let near = tunnel.open(spec()).unwrap();
        let far = pair.server.accept().await;
        let ((near_send, near_recv), (far_send, far_recv)) = (near.split(), far.split());
        let there = tokio::spawn(send_all(near_send, data.clone()));
        assert_eq!(receive_all(far_recv).await, data);
        there.await.unwrap();
        let back = tokio::spawn(send_all(far_send, data.clone()));
        assert_eq!(receive_all(near_recv).await, data);
        back.await.unwrap();
    }

    let near = tunnel.open(spec()).unwrap();
    let far = pair.server.accept().await;
    let end = near.end();
    let ((mut near_send, mut near_recv), (mut far_send, mut far_recv)) =
        (near.split(), far.split());
    for id in 0..300u64 {
        let token = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let ask = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"orders.get","token":"{token:016x}"}}"#
        );
        let answer = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"state":"open","cents":{}}}}}"#,
            token >> 40
        );
        send(&mut near_send, Bytes::from(ask.clone()))
            .await
            .unwrap();
        assert_eq!(hear(&mut far_recv, ask.len()).await, ask.as_bytes());
        send(&mut far_send, Bytes::from(answer.clone()))
            .await
            .unwrap();
        assert_eq!(hear(&mut near_recv, answer.len()).await, answer.as_bytes());
    }
    near_send.finish();
    far_send.finish();
    assert_eq!(receive_all(far_recv).await, b"");
    assert_eq!(receive_all(near_recv).await, b"");
    let summary = end.summary().await.unwrap();
    summary.wan_to_wan_bytes + summary.wan_from_wan_bytes
}

/// The next `bytes` of a stream.
async fn hear(half: &mut tunnel::stream::RecvHalf, bytes: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < bytes {
        let data = half.recv().await.unwrap().unwrap();
        heard.extend_from_slice(&data);
        half.consumed(data.len());
    }
    heard
}

#[test]
fn an_older_program_is_spoken_to_as_before() {
    on_runtime(async {
        let older = session([1..=1, 1..=2]).await;
        let other_older = session([1..=2, 1..=1]).await;
        let newer = session([1..=2, 1..=2]).await;
        for older in [older, other_older] {
            assert!(
                newer * 5 < older * 4,
                "{newer} bytes with version 2, {older} with version 1"
            );
        }
    });
}
