//! Reading a socket that was ready, without asking it twice.

use std::io;

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there into the room of `buffer`; 0 is the end. A read that leaves room has emptied the socket: its readiness is
/// forgotten, so that the next reader waits for more instead of asking in vain. `TcpStream::try_read` never forgets it before it has
/// asked in vain, which is every second call of an exchange of small messages.
///
/// # Errors
/// `WouldBlock` when nothing is there; else the connection failed.
#[expect(
    unsafe_code,
    reason = "the kernel fills memory that was not initialised, and says how much of it"
)]
pub fn try_read<B: BufMut>(socket: &TcpStream, buffer: &mut B) -> io::Result<usize> {
    let mut count = 0;
    let result = socket.try_io(Interest::READABLE, || {
        let room = buffer.chunk_mut();
        let room_bytes = room.len();
        // SAFETY: `recv` only ever writes initialised bytes into it.
        let room = unsafe { room.as_uninit_slice_mut() };
        count = SockRef::from(socket).recv(room)?;
        // SAFETY: the kernel has initialised the first `count` bytes of the room, which is at least that long.
        unsafe { buffer.advance_mut(count) };
        if 0 < count && count < room_bytes {
            // What tells the runtime that there is no more. News that have come since the call began are not lost by it.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match result {
        Err(error) if count == 0 || error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    async fn is_ready_now(socket: &TcpStream) -> bool {
        poll_fn(|cx| Poll::Ready(socket.poll_read_ready(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_read_that_leaves_room_ends_readiness_and_more_bytes_bring_it_back() {
        let (mut near, far) = pair().await;
        let mut buffer = Vec::with_capacity(100);
        for round in 1..=3_usize {
            near.write_all(b"message").await.unwrap();
            far.readable().await.unwrap();
            assert_eq!(try_read(&far, &mut (&mut buffer).limit(50)).unwrap(), 7);
            assert_eq!(buffer, b"message".repeat(round));
            assert!(!is_ready_now(&far).await, "round {round}");
        }
    }

    #[tokio::test]
    async fn a_read_that_fills_its_room_keeps_readiness() {
        let (mut near, far) = pair().await;
        near.write_all(b"message").await.unwrap();
        far.readable().await.unwrap();
        let mut buffer = Vec::with_capacity(100);
        assert_eq!(try_read(&far, &mut (&mut buffer).limit(3)).unwrap(), 3);
        assert!(is_ready_now(&far).await);
        assert_eq!(try_read(&far, &mut (&mut buffer).limit(50)).unwrap(), 4);
        assert_eq!(buffer, b"message");
        let error = try_read(&far, &mut (&mut buffer).limit(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn the_end_and_a_reset_are_seen_behind_the_last_bytes() {
        let (mut near, far) = pair().await;
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut buffer = Vec::with_capacity(100);
        while buffer.len() < 10 {
            far.readable().await.unwrap();
            let _ = try_read(&far, &mut (&mut buffer).limit(50));
        }
        far.readable().await.unwrap();
        assert_eq!(try_read(&far, &mut (&mut buffer).limit(50)).unwrap(), 0);

        let (near, far) = pair().await;
        crate::os::arm_reset(&near).unwrap();
        drop(near);
        far.readable().await.unwrap();
        let error = try_read(&far, &mut (&mut buffer).limit(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
