//! The application's socket, shared by hyper, which reads and writes it, and by us, who decide how it closes and take it over after a CONNECT.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use edge::lan::LanStream;
use edge::os;
use edge::relay::LanSocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module. Closed with its last holder.
#[derive(Clone, Debug)]
pub(super) struct SharedSocket(Arc<LanStream>);

impl SharedSocket {
    pub(super) fn new(socket: LanStream) -> Self {
        Self(Arc::new(socket))
    }

    pub(super) fn get(&self) -> &LanStream {
        &self.0
    }

    /// For the relay, once hyper has let go of it: `early` was read by hyper and belongs to the target.
    pub(super) fn with_early(self, early: Bytes) -> EarlySocket {
        EarlySocket {
            socket: self.0,
            early: Mutex::new(early),
        }
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(os::shutdown_write(&*self.0))
    }
}

/// A socket of which some bytes were read already.
#[derive(Debug)]
pub(super) struct EarlySocket {
    socket: Arc<LanStream>,
    early: Mutex<Bytes>,
}

impl EarlySocket {
    fn early(&self) -> std::sync::MutexGuard<'_, Bytes> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LanSocket for EarlySocket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early().is_empty() {
            self.socket.poll_read_ready(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn try_read<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        let mut early = self.early();
        if early.is_empty() {
            return self.socket.try_read_buf(buffer);
        }
        let count = early.len().min(buffer.remaining_mut());
        buffer.put_slice(early.get(..count).unwrap_or_default());
        early.advance(count);
        Ok(count)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.try_write(slices)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        LanSocket::shutdown_write(&*self.socket)
    }

    fn set_reset_on_close(&self, reset: bool) {
        self.socket.set_reset_on_close(reset);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn early_bytes_come_before_those_of_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut application = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let socket = SharedSocket::new(listener.accept().await.unwrap().0.into());
        application.write_all(b" and late").await.unwrap();
        let socket = socket.with_early(Bytes::from_static(b"early"));
        let mut read = Vec::new();
        while read.len() < 14 {
            std::future::poll_fn(|cx| socket.poll_read_ready(cx))
                .await
                .unwrap();
            let mut piece = (&mut read).limit(3);
            let _count = socket.try_read(&mut piece).unwrap_or_default();
        }
        assert_eq!(read, b"early and late");
    }
}
