//! What the kernel measures of a link's connection: `TCP_INFO`, which neither `socket2` nor `rustix` asks for.

use std::os::fd::AsFd;

use tunnel::state::LineSample;

/// What the kernel says of the connection; `None` where it says nothing, or too little.
#[cfg(target_os = "linux")]
pub fn sample_link(socket: &impl AsFd) -> Option<LineSample> {
    sample(&tcp_info(socket)?)
}

/// What the kernel says of the connection; `None` where it says nothing, or too little.
#[cfg(not(target_os = "linux"))]
pub fn sample_link(_socket: &impl AsFd) -> Option<LineSample> {
    None
}

/// Bytes asked for: up to the last field that is wanted and the rest of its eight. The kernel only ever adds fields at the end.
#[cfg(target_os = "linux")]
const INFO_BYTES: usize = 152;

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "getsockopt with a buffer of plain bytes, whose length goes with it"
)]
fn tcp_info(socket: &impl AsFd) -> Option<[u8; INFO_BYTES]> {
    use std::os::fd::AsRawFd;

    let mut info = [0_u8; INFO_BYTES];
    let mut length = libc::socklen_t::try_from(INFO_BYTES).ok()?;
    let descriptor = socket.as_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `length` bytes to `info`, all of which
    // may hold anything, and the length to `length`.
    let result = unsafe {
        libc::getsockopt(
            descriptor.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // An older kernel that says less says nothing of use.
    (result == 0 && usize::try_from(length).ok()? == INFO_BYTES).then_some(info)
}

/// Reads the fields of `struct tcp_info` (linux/tcp.h, an interface that does not change) that are wanted here.
#[cfg(target_os = "linux")]
fn sample(info: &[u8; INFO_BYTES]) -> Option<LineSample> {
    let number = |offset: usize| -> Option<u32> {
        let bytes = info.get(offset..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let segment_bytes = u64::from(number(16)?);
    let (unacked, sacked, lost, retransmitted) =
        (number(24)?, number(28)?, number(32)?, number(36)?);
    let round_trip_us = number(68)?;
    let window_segments = number(80)?;
    let acked_bytes = u64::from_ne_bytes(*info.get(120..)?.first_chunk()?);
    let unsent_bytes = number(144)?;
    let in_flight = unacked
        .saturating_add(retransmitted)
        .saturating_sub(sacked)
        .saturating_sub(lost);
    Some(LineSample {
        // What was received behind a gap has arrived too.
        delivered_bytes: acked_bytes.saturating_add(u64::from(sacked) * segment_bytes),
        unsent_bytes: unsent_bytes.into(),
        in_flight_bytes: u64::from(in_flight) * segment_bytes,
        window_bytes: u64::from(window_segments) * segment_bytes,
        round_trip: std::time::Duration::from_micros(round_trip_us.into()),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_tells_what_has_arrived_and_what_has_not_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let before = sample_link(&sender).unwrap();
        sender.write_all(&[7; 10_000]).await.unwrap();
        receiver.read_exact(&mut [0; 10_000]).await.unwrap();
        // The acknowledgement may come a little later than the bytes.
        let mut arrived = 0;
        while arrived < 10_000 {
            tokio::task::yield_now().await;
            arrived = sample_link(&sender).unwrap().delivered_bytes - before.delivered_bytes;
        }
        assert_eq!(arrived, 10_000);

        // Nobody reads: the other end's buffer fills, then this one's.
        while sender.try_write(&[7; 65_536]).is_ok() {}
        let full = sample_link(&sender).unwrap();
        assert!(full.unsent_bytes > 0, "{full:?}");
        assert!(full.window_bytes > 0 && full.round_trip.as_secs() < 60);
    }

    #[tokio::test]
    async fn what_is_no_connection_tells_nothing() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(sample_link(&socket), None);
    }
}
