//! The tunnel side of a relay: what it needs of a stream's two halves.

use std::task::{Context, Poll};

use bytes::Bytes;
use codec::frame::Reason;

/// The direction from the LAN into the tunnel.
pub trait StreamSend: Send {
    /// Ready with the number of bytes, at least 1, that [`send`](Self::send) takes now.
    ///
    /// # Errors
    /// The other edge cannot deliver any more, or the tunnel is gone.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>>;
    /// Ready when the other edge cannot deliver any more, or the tunnel is gone.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Reason>;
    /// Hands over bytes, no more than [`poll_ready`](Self::poll_ready) said.
    ///
    /// # Errors
    /// As of [`poll_ready`](Self::poll_ready).
    fn send(&mut self, bytes: Bytes) -> Result<(), Reason>;
    /// The LAN side has ended its data.
    fn finish(self);
    /// The LAN side's reading failed, or what it reads is of no use any more.
    fn reset(self, reason: Reason);
}

/// The direction out of the tunnel to the LAN.
pub trait StreamReceive: Send {
    /// The next bytes; `None` after the end of the data.
    ///
    /// # Errors
    /// The other edge's LAN side failed, or the tunnel is gone.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>>;
    /// The LAN side took so many bytes.
    fn consumed(&mut self, bytes: usize);
    /// The LAN side takes no more.
    fn stop(self, reason: Reason);
}
