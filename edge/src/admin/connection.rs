//! The admin endpoint's listening socket, bounded in connections and in time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::config::Bind;
use crate::lan::{Application, LanListener, LanStream};

/// Connections served at a time; the rest waits in the kernel. A scraper and a few people need no more, and each may hold a request
/// buffer of some 400 KiB.
const CONNECTIONS_MAX: usize = 32;

/// A connection lives no longer than this, so that nobody holds one of the few places. Every answer is made in milliseconds. One that
/// carries the live figures has a place of another kind, and ends when its reader has taken nothing for as long.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);

/// Pause after an accept that failed because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener for [`axum::serve`] that admits a bounded number of connections.
pub struct BoundedListener {
    listener: LanListener,
    places: Arc<Semaphore>,
}

impl BoundedListener {
    /// Bounds `listener`.
    pub fn new(listener: LanListener) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedConnection;
    type Addr = Application;

    async fn accept(&mut self) -> (BoundedConnection, Application) {
        let Ok(place) = self.places.clone().acquire_owned().await else {
            // The semaphore is never closed; if it were, nobody would be admitted.
            return std::future::pending().await;
        };
        loop {
            match self.listener.accept().await {
                Ok((socket, address)) => {
                    return (
                        BoundedConnection::new(socket, place, CONNECTION_LIFETIME),
                        address,
                    );
                }
                Err(error) => {
                    tracing::debug!(%error, "the admin endpoint cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Who has connected is as good as where to: nobody asks for either.
    fn local_addr(&self) -> io::Result<Application> {
        Ok(match self.listener.bound()? {
            Bind::Tcp(address) => Application::Tcp(address),
            Bind::Unix(_) => Application::Unix,
        })
    }
}

/// The place that a connection takes among the bounded number of them, as the handler of its request sees it.
#[derive(Clone, Debug)]
pub struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    permit: Mutex<OwnedSemaphorePermit>,
    stays: AtomicBool,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Held {
            permit: Mutex::new(permit),
            stays: AtomicBool::new(false),
        }))
    }

    /// Lets the connection live as long as its other end reads, in the place of `permit`; the place that it had is free again.
    pub fn stay(&self, permit: OwnedSemaphorePermit) {
        *self.0.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
        self.0.stays.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for Place {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        stream.io().place.clone()
    }
}

/// A connection that fails with `TimedOut` when its time is over: counted from its start, or, where it [stays](Place::stay), from the last
/// bytes that its socket took.
pub struct BoundedConnection {
    socket: LanStream,
    lifetime: Duration,
    end: Pin<Box<Sleep>>,
    place: Place,
}

impl BoundedConnection {
    fn new(socket: LanStream, permit: OwnedSemaphorePermit, lifetime: Duration) -> Self {
        Self {
            socket,
            lifetime,
            end: Box::pin(tokio::time::sleep(lifetime)),
            place: Place::new(permit),
        }
    }

    fn poll_in_time<T>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut LanStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll(Pin::new(&mut self.socket), cx)
    }
}

impl AsyncRead for BoundedConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, |socket, cx| socket.poll_read(cx, buffer))
    }
}

impl AsyncWrite for BoundedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self
            .as_mut()
            .poll_in_time(cx, |socket, cx| socket.poll_write(cx, bytes));
        if matches!(written, Poll::Ready(Ok(_))) && self.place.0.stays.load(Ordering::Relaxed) {
            let end = Instant::now() + self.lifetime;
            self.end.as_mut().reset(end);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, |socket, cx| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, |socket, cx| socket.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_ends_when_its_time_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _idle = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut connection =
            BoundedConnection::new(socket.into(), place, Duration::from_millis(10));
        let error = connection.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// The clock stands still but for what is slept here, so that a pause of the machine is no silence. That needs a Unix socket: what is
    /// written to one can be read at once, and a clock that stands still jumps where a byte is waited for.
    #[tokio::test(start_paused = true)]
    async fn one_that_stays_lives_while_its_bytes_are_taken_and_its_place_is_free() {
        let (socket, mut reader) = UnixStream::pair().unwrap();
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().unwrap();
        let lifetime = Duration::from_millis(200);
        let mut connection = BoundedConnection::new(socket.into(), place, lifetime);
        let readers = Arc::new(Semaphore::new(1));
        connection
            .place
            .stay(readers.clone().try_acquire_owned().unwrap());
        assert_eq!(
            (places.available_permits(), readers.available_permits()),
            (1, 0)
        );
        let start = Instant::now();
        while start.elapsed() < lifetime * 3 {
            connection.write_all(b"tick").await.unwrap();
            reader.read_exact(&mut [0; 4]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Nobody reads any more: the socket fills up, and then its time is over.
        let error = loop {
            if let Err(error) = connection.write_all(&[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert_eq!(readers.available_permits(), 1);
    }

    #[tokio::test]
    async fn no_more_than_the_bound_are_admitted_until_one_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = BoundedListener::new(LanListener::Tcp(listener));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push((
                TcpStream::connect(address).await.unwrap(),
                listener.accept().await,
            ));
        }
        assert_eq!(listener.places.available_permits(), 0);
        held.pop();
        let _next = TcpStream::connect(address).await.unwrap();
        listener.accept().await;
    }
}
