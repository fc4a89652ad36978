#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// A stream in memory: what the relay did to it, and what it is to find.
#[derive(Default)]
struct Fake {
    credit: usize,
    sent: Vec<u8>,
    largest_piece: usize,
    finished: bool,
    reset: Option<Reason>,
    stopped: Option<Reason>,
    incoming: VecDeque<Bytes>,
    incoming_end: Option<Result<(), Reason>>,
    consumed: usize,
    stop: Option<Reason>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Fake>>);

impl Stream {
    fn with_credit(credit: usize) -> Self {
        let stream = Self::default();
        stream.change(|fake| fake.credit = credit);
        stream
    }

    fn change<T>(&self, change: impl FnOnce(&mut Fake) -> T) -> T {
        let mut fake = self.0.lock().unwrap();
        let result = change(&mut fake);
        fake.wakers.drain(..).for_each(Waker::wake);
        result
    }

    /// Waits until the state is as wanted; the watching task is woken by every change.
    async fn until(&self, wanted: impl Fn(&Fake) -> bool) {
        tokio::time::timeout(
            Duration::from_secs(60),
            poll_fn(|cx| self.poll(cx, |fake| wanted(fake).then_some(()))),
        )
        .await
        .unwrap();
    }

    fn poll<T>(&self, cx: &mut Context<'_>, look: impl FnOnce(&mut Fake) -> Option<T>) -> Poll<T> {
        let mut fake = self.0.lock().unwrap();
        match look(&mut fake) {
            Some(found) => {
                // Something may have been taken; whoever watches the state wants to know.
                fake.wakers.drain(..).for_each(Waker::wake);
                Poll::Ready(found)
            }
            None => {
                fake.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl StreamSend for Stream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        self.poll(cx, |fake| match fake.stopped {
            Some(reason) => Some(Err(reason)),
            None => (fake.credit > 0).then_some(Ok(fake.credit)),
        })
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.poll(cx, |fake| fake.stopped)
    }

    fn send(&mut self, bytes: Bytes) -> Result<(), Reason> {
        self.change(|fake| {
            assert!(bytes.len() <= fake.credit, "more than there was credit for");
            fake.credit -= bytes.len();
            fake.largest_piece = fake.largest_piece.max(bytes.len());
            fake.sent.extend_from_slice(&bytes);
        });
        Ok(())
    }

    fn finish(self) {
        self.change(|fake| fake.finished = true);
    }

    fn reset(self, reason: Reason) {
        self.change(|fake| fake.reset = Some(reason));
    }
}

impl StreamReceive for Stream {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>> {
        self.poll(cx, |fake| {
            if let Some(piece) = fake.incoming.pop_front() {
                return Some(Ok(Some(piece)));
            }
            fake.incoming_end.map(|end| end.map(|()| None))
        })
    }

    fn consumed(&mut self, bytes: usize) {
        self.change(|fake| fake.consumed += bytes);
    }

    fn stop(self, reason: Reason) {
        self.change(|fake| fake.stop = Some(reason));
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (lan, _) = listener.accept().await.unwrap();
    (application, lan)
}

async fn start(stream: &Stream) -> (TcpStream, JoinHandle<Report>) {
    let (application, lan) = sockets().await;
    (
        application,
        tokio::spawn(relay(lan, stream.clone(), stream.clone())),
    )
}

fn payload(length: usize) -> Vec<u8> {
    (0..length)
        .map(|offset| (offset.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect()
}

fn assert_same(found: &[u8], expected: &[u8]) {
    let wrong = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        (wrong, found.len()),
        (None, expected.len()),
        "first wrong offset, and length"
    );
}

#[tokio::test]
async fn both_directions_arrive_whole_and_end_cleanly() {
    let stream = Stream::with_credit(usize::MAX / 2);
    let (application, relay) = start(&stream).await;
    let up = payload(3_000_000);
    let down = payload(2_000_000);
    stream.change(|fake| {
        fake.incoming = down.chunks(70_001).map(Bytes::copy_from_slice).collect();
        fake.incoming_end = Some(Ok(()));
    });
    let (mut reading, mut writing) = application.into_split();
    let sent = up.clone();
    let writer = tokio::spawn(async move {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    reading.read_to_end(&mut heard).await.unwrap();
    writer.await.unwrap();
    let report = relay.await.unwrap();
    assert_same(&heard, &down);
    stream.change(|fake| {
        assert_same(&fake.sent, &up);
        assert!(fake.largest_piece <= READ_MAX_BYTES);
        assert_eq!(
            (fake.finished, fake.reset, fake.stop, fake.consumed),
            (true, None, None, down.len())
        );
    });
    assert_eq!(
        report,
        Report {
            to_wan_bytes: 3_000_000,
            from_wan_bytes: 2_000_000,
            outcome: Outcome::Finished
        }
    );
}

#[tokio::test]
async fn an_application_that_ends_its_data_still_hears_the_answer() {
    let stream = Stream::with_credit(1 << 20);
    let (mut application, relay) = start(&stream).await;
    application.write_all(b"question").await.unwrap();
    application.shutdown().await.unwrap();
    stream.until(|fake| fake.finished).await;
    stream.change(|fake| {
        assert_eq!(fake.sent, b"question");
        fake.incoming.push_back(Bytes::from_static(b"answer"));
        fake.incoming_end = Some(Ok(()));
    });
    let mut heard = Vec::new();
    application.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"answer");
    assert_eq!(relay.await.unwrap().outcome, Outcome::Finished);
}

#[tokio::test]
async fn a_target_that_ends_its_data_can_still_be_written_to() {
    let stream = Stream::with_credit(1 << 20);
    stream.change(|fake| fake.incoming_end = Some(Ok(())));
    let (mut application, relay) = start(&stream).await;
    assert_eq!(application.read(&mut [0; 1]).await.unwrap(), 0);
    application.write_all(b"late").await.unwrap();
    stream.until(|fake| fake.sent == b"late").await;
    drop(application);
    assert_eq!(relay.await.unwrap().outcome, Outcome::Finished);
    assert!(stream.change(|fake| fake.finished));
}

#[tokio::test]
async fn nothing_is_read_beyond_the_credit() {
    let stream = Stream::with_credit(10);
    let (mut application, relay) = start(&stream).await;
    application.write_all(b"0123456789abcdef").await.unwrap();
    application.shutdown().await.unwrap();
    stream.until(|fake| fake.sent == b"0123456789").await;
    assert!(!stream.change(|fake| fake.finished));
    stream.change(|fake| fake.credit = 100);
    stream
        .until(|fake| fake.finished && fake.sent == b"0123456789abcdef")
        .await;
    stream.change(|fake| fake.incoming_end = Some(Ok(())));
    assert_eq!(relay.await.unwrap().outcome, Outcome::Finished);
}

#[tokio::test]
async fn an_application_that_breaks_its_connection_resets_the_stream_both_ways() {
    let stream = Stream::with_credit(1 << 20);
    let (application, relay) = start(&stream).await;
    crate::os::arm_reset(&application).unwrap();
    drop(application);
    assert_eq!(relay.await.unwrap().outcome, Outcome::LanFailed);
    stream.change(|fake| {
        assert_eq!(
            (fake.finished, fake.reset, fake.stop),
            (
                false,
                Some(Reason::ConnectionReset),
                Some(Reason::ConnectionReset)
            )
        );
    });
}

#[tokio::test]
async fn a_reset_by_the_other_edge_breaks_the_connection() {
    let stream = Stream::with_credit(1 << 20);
    let (mut application, relay) = start(&stream).await;
    stream.change(|fake| fake.incoming.push_back(Bytes::from_static(b"half of it")));
    let mut heard = [0; 10];
    application.read_exact(&mut heard).await.unwrap();
    stream.change(|fake| fake.incoming_end = Some(Err(Reason::ConnectionReset)));
    assert_eq!(
        relay.await.unwrap().outcome,
        Outcome::PeerReset(Reason::ConnectionReset)
    );
    assert_eq!(
        stream.change(|fake| fake.reset),
        Some(Reason::ConnectionReset)
    );
    let error = application.read(&mut heard).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A socket that reads as `readable` bytes at once, again and again, and takes nothing.
struct Deaf {
    readable: usize,
}

impl LanSocket for Deaf {
    fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.readable > 0 {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
    fn try_read<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        let count = self.readable.min(buffer.remaining_mut());
        buffer.put_bytes(9, count);
        Ok(count)
    }
    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
    fn try_write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_reset_on_close(&self, _: bool) {}
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_application_reads_nothing() {
    let stream = Stream::with_credit(1 << 20);
    stream.change(|fake| fake.incoming.push_back(Bytes::from_static(b"never read")));
    let relay = tokio::spawn(relay(Deaf { readable: 0 }, stream.clone(), stream.clone()));
    stream.until(|fake| fake.incoming.is_empty()).await;
    stream.change(|fake| fake.incoming_end = Some(Err(Reason::Cancelled)));
    assert_eq!(
        relay.await.unwrap().outcome,
        Outcome::PeerReset(Reason::Cancelled)
    );
}

#[tokio::test]
async fn when_the_other_edge_can_deliver_no_more_the_answer_still_comes_and_then_the_connection_breaks()
 {
    let stream = Stream::with_credit(1 << 20);
    let (mut application, relay) = start(&stream).await;
    stream.change(|fake| fake.stopped = Some(Reason::ConnectionReset));
    stream.until(|fake| fake.reset.is_some()).await;
    assert!(!relay.is_finished());
    stream.change(|fake| {
        fake.incoming
            .push_back(Bytes::from_static(b"413 too large"))
    });
    let mut heard = [0; 13];
    application.read_exact(&mut heard).await.unwrap();
    stream.change(|fake| fake.incoming_end = Some(Ok(())));
    assert_eq!(
        relay.await.unwrap().outcome,
        Outcome::PeerReset(Reason::ConnectionReset)
    );
}

#[tokio::test]
async fn an_application_that_reads_no_more_stops_the_sender_and_its_end_is_no_clean_one() {
    let stream = Stream::with_credit(1 << 20);
    let (mut application, lan) = sockets().await;
    // The application says something, closes with unread bytes at hand, and so breaks the connection.
    application.write_all(b"last words").await.unwrap();
    lan.writable().await.unwrap();
    lan.try_write(b"unread").unwrap();
    application.readable().await.unwrap();
    drop(application);
    stream.change(|fake| {
        fake.credit = 0;
        // All the same piece: a machine need not have so much memory.
        fake.incoming = vec![Bytes::from(vec![7; 65_536]); 10_000].into();
    });
    let relay = tokio::spawn(relay(lan, stream.clone(), stream.clone()));
    stream.until(|fake| fake.stop.is_some()).await;
    stream.change(|fake| fake.credit = 1 << 20);
    assert_eq!(relay.await.unwrap().outcome, Outcome::LanFailed);
    stream.change(|fake| {
        assert_eq!(
            (fake.finished, fake.reset),
            (false, Some(Reason::ConnectionReset))
        )
    });
}

#[tokio::test]
async fn a_relay_that_is_thrown_away_breaks_the_connection() {
    let stream = Stream::with_credit(1 << 20);
    let (mut application, relay) = start(&stream).await;
    application.write_all(b"x").await.unwrap();
    stream.until(|fake| fake.sent == b"x").await;
    relay.abort();
    let error = application.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_small_piece_does_not_hold_a_large_buffer() {
    let held = |bytes: Bytes| bytes.try_into_mut().unwrap().capacity();
    assert!(held(read_piece(&Deaf { readable: 1 }, READ_MAX_BYTES).unwrap()) < 64);
    assert!(
        held(
            read_piece(
                &Deaf {
                    readable: KEEP_BUFFER_FROM_BYTES - 1
                },
                READ_MAX_BYTES
            )
            .unwrap()
        ) < KEEP_BUFFER_FROM_BYTES + 64
    );
    let large = read_piece(
        &Deaf {
            readable: usize::MAX,
        },
        READ_MAX_BYTES,
    )
    .unwrap();
    assert_eq!(large.len(), READ_MAX_BYTES);
    assert_eq!(
        read_piece(
            &Deaf {
                readable: usize::MAX
            },
            100
        )
        .unwrap()
        .len(),
        100
    );
    drop(large);
}

proptest! {
    #[test]
    fn a_queue_advances_by_exactly_what_was_written(lengths in prop::collection::vec(1usize..50, 0..20), cut in 0usize..600) {
        let whole = payload(lengths.iter().sum());
        let mut rest = Bytes::from(whole.clone());
        let mut queue: VecDeque<Bytes> = lengths.iter().map(|length| rest.split_to(*length)).collect();
        let cut = cut.min(whole.len());
        advance(&mut queue, cut);
        prop_assert!(queue.iter().all(|piece| !piece.is_empty()));
        prop_assert_eq!(queue.iter().flatten().copied().collect::<Vec<u8>>(), &whole[cut..]);
    }
}
