//! Streams end one direction at a time, cleanly or not, and do not hold each other up.

use codec::frame::Reason;
use tunnel::metrics::StreamResult;
use tunnel::stream::StreamError;

use crate::support::{
    INLINE_BELOW_BYTES, Pair, on_runtime, pair, payload, receive, receive_all, send, send_all, spec,
};

#[test]
fn each_direction_ends_by_itself() {
    on_runtime(async {
        let mut pair = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = pair.tunnel().await;
        for client_first in [true, false] {
            let near = tunnel.open(spec()).unwrap();
            let far = pair.server.accept().await;
            let ends = [near.end(), far.end()];
            let (first, second) = if client_first {
                (near, far)
            } else {
                (far, near)
            };
            let (first_send, first_recv) = first.split();
            let (second_send, second_recv) = second.split();
            first_send.finish();
            assert_eq!(receive_all(second_recv).await, b"");
            let data = payload(1_000_000);
            let sender = tokio::spawn(send_all(second_send, data.clone()));
            assert_eq!(receive_all(first_recv).await, data);
            sender.await.unwrap();
            for end in ends {
                let summary = end.summary().await.unwrap();
                assert_eq!(summary.result, StreamResult::Completed);
                assert_eq!(
                    summary.lan_to_wan_bytes + summary.lan_from_wan_bytes,
                    1_000_000
                );
            }
        }
    });
}

#[test]
fn a_reset_reaches_the_other_side_with_its_reason() {
    on_runtime(async {
        let mut pair = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = pair.tunnel().await;
        for client_resets in [true, false] {
            let near = tunnel.open(spec()).unwrap();
            let far = pair.server.accept().await;
            let ends = [near.end(), far.end()];
            let (from, to) = if client_resets {
                (near, far)
            } else {
                (far, near)
            };
            let (mut from_send, from_recv) = from.split();
            let (to_send, mut to_recv) = to.split();
            send(&mut from_send, payload(10_000)).await.unwrap();
            assert!(to_recv.recv().await.unwrap().is_some());
            from_send.reset(Reason::ConnectionReset);
            let ended = loop {
                match to_recv.recv().await {
                    Ok(data) => assert!(data.is_some(), "a reset must not look like an end"),
                    Err(ended) => break ended,
                }
            };
            assert_eq!(ended, StreamError::Ended(Reason::ConnectionReset));
            // The other direction goes on.
            let data = payload(300_000);
            let sender = tokio::spawn(send_all(to_send, data.clone()));
            assert_eq!(receive_all(from_recv).await, data);
            sender.await.unwrap();
            for end in ends {
                assert_eq!(end.summary().await.unwrap().result, StreamResult::Reset);
            }
        }
    });
}

#[test]
fn who_cannot_deliver_stops_the_sender() {
    on_runtime(async {
        let mut pair = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = pair.tunnel().await;
        for client_stops in [true, false] {
            let near = tunnel.open(spec()).unwrap();
            let far = pair.server.accept().await;
            let ends = [near.end(), far.end()];
            let (from, to) = if client_stops {
                (far, near)
            } else {
                (near, far)
            };
            let (mut from_send, from_recv) = from.split();
            let (to_send, mut to_recv) = to.split();
            send(&mut from_send, payload(10_000)).await.unwrap();
            assert!(to_recv.recv().await.unwrap().is_some());
            to_recv.stop(Reason::ConnectionReset);
            assert_eq!(from_send.stopped().await, Reason::ConnectionReset);
            to_send.finish();
            assert_eq!(receive_all(from_recv).await, b"");
            for end in ends {
                assert!(end.summary().await.is_some());
            }
        }
    });
}

#[test]
fn dropped_handles_end_their_streams_on_both_sides() {
    on_runtime(async {
        let mut pair = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = pair.tunnel().await;
        let near = tunnel.open(spec()).unwrap();
        let far = pair.server.accept().await;
        let ends = [near.end(), far.end()];
        drop(near);
        let (mut send_half, mut recv_half) = far.split();
        assert!(receive(&mut recv_half).await.is_err());
        send_half.stopped().await;
        drop((send_half, recv_half));
        for end in ends {
            assert_eq!(end.summary().await.unwrap().result, StreamResult::Reset);
        }
    });
}

#[test]
fn five_hundred_streams_at_once_come_back_exactly() {
    on_runtime(async {
        let Pair { connector, server } = pair("branch-1", INLINE_BELOW_BYTES).await;
        let _acceptor = server.echo_all();
        let tunnel = connector.tunnel(crate::support::PATIENCE).await.unwrap();
        let streams: Vec<_> = (0..500_usize)
            .map(|n| {
                let stream = tunnel.open(spec()).unwrap();
                tokio::spawn(async move {
                    let data = payload(n * 331 % 60_000);
                    let end = stream.end();
                    let (send, recv) = stream.split();
                    let sender = tokio::spawn(send_all(send, data.clone()));
                    assert_eq!(receive_all(recv).await, data, "stream {n}");
                    sender.await.unwrap();
                    end.summary().await.unwrap()
                })
            })
            .collect();
        for stream in streams {
            let summary = stream.await.unwrap();
            assert_eq!(summary.lan_to_wan_bytes, summary.lan_from_wan_bytes);
        }
    });
}

#[test]
fn who_does_not_read_holds_up_its_own_stream_only() {
    on_runtime(async {
        let mut pair = pair("branch-1", INLINE_BELOW_BYTES).await;
        let tunnel = pair.tunnel().await;
        let data = payload(40_000_000);
        let (send_half, _near_recv) = tunnel.open(spec()).unwrap().split();
        let (_far_send, unread) = pair.server.accept().await.split();
        let sender = tokio::spawn(send_all(send_half, data.clone()));
        for _ in 0..20 {
            let (send_half, near_recv) = tunnel.open(spec()).unwrap().split();
            let (far_send, far_recv) = pair.server.accept().await.split();
            let other = tokio::spawn(send_all(send_half, payload(500_000)));
            assert_eq!(receive_all(far_recv).await, payload(500_000));
            other.await.unwrap();
            far_send.finish();
            assert_eq!(receive_all(near_recv).await, b"");
        }
        // Nothing was consumed, so credit has stopped the sender.
        assert!(!sender.is_finished());
        assert!(receive_all(unread).await == data);
        sender.await.unwrap();
    });
}
