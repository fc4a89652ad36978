//! A stream as tokio's reader and writer, for libraries that want one. What is carried whole goes by [`relay`](super::relay) instead,
//! which copies less.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use codec::frame::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{StreamReceive, StreamSend};

/// Bytes that were carried so far.
#[derive(Debug, Default)]
pub struct Carried {
    to_wan_bytes: AtomicU64,
    from_wan_bytes: AtomicU64,
}

impl Carried {
    /// Given to the stream.
    pub fn to_wan_bytes(&self) -> u64 {
        self.to_wan_bytes.load(Ordering::Relaxed)
    }

    /// Taken from the stream.
    pub fn from_wan_bytes(&self) -> u64 {
        self.from_wan_bytes.load(Ordering::Relaxed)
    }
}

/// The error of a stream that the other edge has ended, inside an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream was reset: {0:?}")]
pub struct StreamReset(pub Reason);

/// Both halves of a stream. Shutting it down ends the sending direction cleanly; dropping it before resets what has not ended.
#[derive(Debug)]
pub struct StreamIo<S, R> {
    send: Option<S>,
    receive: R,
    piece: Bytes,
    carried: Arc<Carried>,
}

impl<S: StreamSend, R: StreamReceive> StreamIo<S, R> {
    /// Takes both halves.
    pub fn new(send: S, receive: R) -> Self {
        Self {
            send: Some(send),
            receive,
            piece: Bytes::new(),
            carried: Arc::default(),
        }
    }

    /// What it has carried; goes on counting.
    pub fn carried(&self) -> Arc<Carried> {
        self.carried.clone()
    }
}

impl<S: StreamSend + Unpin, R: StreamReceive + Unpin> AsyncRead for StreamIo<S, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.piece.is_empty() {
            match ready!(self.receive.poll_receive(cx)) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(reason) => return Poll::Ready(Err(reset(reason))),
            }
        }
        let count = self.piece.len().min(buffer.remaining());
        buffer.put_slice(self.piece.get(..count).unwrap_or_default());
        self.piece.advance(count);
        self.receive.consumed(count);
        add(&self.carried.from_wan_bytes, count);
        Poll::Ready(Ok(()))
    }
}

impl<S: StreamSend + Unpin, R: StreamReceive + Unpin> AsyncWrite for StreamIo<S, R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let room = ready!(send.poll_ready(cx)).map_err(reset)?;
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        send.send(Bytes::copy_from_slice(taken)).map_err(reset)?;
        add(&self.carried.to_wan_bytes, taken.len());
        Poll::Ready(Ok(taken.len()))
    }

    /// What was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(send) = self.send.take() {
            send.finish();
        }
        Poll::Ready(Ok(()))
    }
}

fn reset(reason: Reason) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, StreamReset(reason))
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a sending half was told.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<String>>);

    struct Send(Arc<Told>, usize);

    impl StreamSend for Send {
        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
            Poll::Ready(Ok(self.1))
        }
        fn poll_stopped(&mut self, _cx: &mut Context<'_>) -> Poll<Reason> {
            Poll::Pending
        }
        fn send(&mut self, bytes: Bytes) -> Result<(), Reason> {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.0.lock().unwrap().push(text);
            Ok(())
        }
        fn finish(self) {
            self.0.0.lock().unwrap().push("(end)".to_owned());
        }
        fn reset(self, _reason: Reason) {}
    }

    struct Receive(VecDeque<Result<Option<Bytes>, Reason>>, Arc<AtomicU64>);

    impl StreamReceive for Receive {
        fn poll_receive(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>> {
            Poll::Ready(self.0.pop_front().unwrap())
        }
        fn consumed(&mut self, bytes: usize) {
            add(&self.1, bytes);
        }
        fn stop(self, _reason: Reason) {}
    }

    #[tokio::test]
    async fn bytes_pass_in_the_pieces_that_either_side_takes() {
        let told = Arc::new(Told::default());
        let consumed = Arc::new(AtomicU64::new(0));
        let pieces = [
            Ok(Some(Bytes::from_static(b"hello "))),
            Ok(Some(Bytes::from_static(b"world"))),
            Ok(None),
        ];
        let receive = Receive(pieces.into(), consumed.clone());
        let mut stream = StreamIo::new(Send(told.clone(), 3), receive);
        stream.write_all(b"request").await.unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(
            consumed.load(Ordering::Relaxed),
            4,
            "credit follows what is taken"
        );
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&first, rest.as_str()), (b"hell", "o world"));
        stream.shutdown().await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(*told.0.lock().unwrap(), ["req", "ues", "t", "(end)"]);
        assert!(stream.write(b"more").await.is_err());
        let carried = stream.carried();
        assert_eq!((carried.to_wan_bytes(), carried.from_wan_bytes()), (7, 11));
    }

    #[tokio::test]
    async fn a_reset_is_an_error_that_keeps_its_reason() {
        let receive = Receive([Err(Reason::TunnelLost)].into(), Arc::default());
        let mut stream = StreamIo::new(Send(Arc::default(), 1), receive);
        let error = stream.read_u8().await.unwrap_err();
        let inner = error.get_ref().unwrap().downcast_ref::<StreamReset>();
        assert_eq!(inner, Some(&StreamReset(Reason::TunnelLost)));
    }
}
