//! The LAN side of a relay: what it needs of a socket.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::net::TcpStream;

use crate::os;

/// A connected, bidirectional byte stream of the LAN side. All methods take `&self`, so that both directions of a relay share it
/// without a lock; both are polled by one task.
pub trait LanSocket: Send + Sync {
    /// Ready when a read would not wait: bytes, the end, or an error.
    ///
    /// # Errors
    /// The runtime is going away.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads what is there into the room of `buffer`; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; else the connection failed.
    fn try_read<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize>;
    /// Ready when a write would not wait.
    ///
    /// # Errors
    /// The runtime is going away.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Writes as much as the socket takes now and returns how much.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; else the connection failed.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ends the writing direction; the other goes on.
    ///
    /// # Errors
    /// The other end is gone.
    fn shutdown_write(&self) -> io::Result<()>;
    /// Should closing break the connection (an RST) instead of ending it? A failure is of no consequence for the data.
    fn set_reset_on_close(&self, reset: bool);
}

impl LanSocket for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    fn try_read<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        os::try_read(self, buffer)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_write_ready(self, cx)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(slices)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        os::shutdown_write(self)
    }

    fn set_reset_on_close(&self, reset: bool) {
        let result = if reset {
            os::arm_reset(self)
        } else {
            os::disarm_reset(self)
        };
        if let Err(error) = result {
            tracing::debug!(%error, reset, "SO_LINGER was not taken");
        }
    }
}
