//! The halves of a tunnel's stream as the relay wants them.

use std::task::{Context, Poll};

use bytes::Bytes;
use codec::frame::Reason;
use tunnel::stream::{RecvHalf, SendHalf, StreamError};

use super::stream::{StreamReceive, StreamSend};

fn reason(error: StreamError) -> Reason {
    match error {
        StreamError::Ended(reason) => reason,
    }
}

impl StreamSend for SendHalf {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        SendHalf::poll_ready(self, cx).map_err(reason)
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        SendHalf::poll_stopped(self, cx)
    }

    fn send(&mut self, bytes: Bytes) -> Result<(), Reason> {
        SendHalf::send(self, bytes).map_err(reason)
    }

    fn finish(self) {
        SendHalf::finish(self);
    }

    fn reset(self, reason: Reason) {
        SendHalf::reset(self, reason);
    }
}

impl StreamReceive for RecvHalf {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>> {
        RecvHalf::poll_recv(self, cx).map_err(reason)
    }

    fn consumed(&mut self, bytes: usize) {
        RecvHalf::consumed(self, bytes);
    }

    fn stop(self, reason: Reason) {
        RecvHalf::stop(self, reason);
    }
}
