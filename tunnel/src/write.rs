//! Writes of owned bytes to a sink that takes as much as it likes.
//!
//! A [`Write`] is a vector of [`Bytes`]; a single buffer is a vector of one. It completes exactly once, as [`Written::Completed`] or
//! [`Written::Cancelled`], and tells its owner so. Closing the queue, an error of the sink and dropping either cancel what is left. The
//! owner (a page, a permit, a callback) lives until then, so that the bytes stay valid and paid for as long as the sink may need them.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// How many slices one call hands to the sink. Bounds the array on the stack (1 KiB); the kernel's own limit is 1,024, and 64 slices of a
/// TLS record each are already more than a socket's buffer takes at once.
pub const SLICES_PER_CALL: usize = 64;

/// How a write ended, with the number of its bytes that the sink took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of them.
    Completed(usize),
    /// The first so many of them; the others were not and will not be written.
    Cancelled(usize),
}

/// What a write belongs to.
pub trait WriteOwner {
    /// The write has ended. Called exactly once; what is not moved out of `self` is dropped with it.
    fn written(self, how: Written);
}

/// For a write that nobody asks about.
impl WriteOwner for () {
    fn written(self, _how: Written) {}
}

/// For a write whose end is an event.
impl<F: FnOnce(Written)> WriteOwner for F {
    fn written(self, how: Written) {
        self(how);
    }
}

/// Holds something until the write has ended, and drops it then.
#[derive(Debug)]
pub struct Holding<T>(pub T);

impl<T> WriteOwner for Holding<T> {
    fn written(self, _how: Written) {}
}

/// Owned bytes on their way to a sink.
pub struct Write<O: WriteOwner> {
    /// What is left, without empty slices; the first may be the rest of one.
    slices: VecDeque<Bytes>,
    left_bytes: usize,
    written_bytes: usize,
    /// Taken at the end.
    owner: Option<O>,
}

impl<O: WriteOwner> Write<O> {
    /// A write of `slices`, one after the other. Empty slices and an empty vector are allowed.
    pub fn new(slices: Vec<Bytes>, owner: O) -> Self {
        let mut slices = VecDeque::from(slices);
        slices.retain(|slice| !slice.is_empty());
        Self {
            left_bytes: slices.iter().map(Bytes::len).sum(),
            slices,
            written_bytes: 0,
            owner: Some(owner),
        }
    }

    /// A write of one buffer.
    pub fn single(buffer: Bytes, owner: O) -> Self {
        Self::new(vec![buffer], owner)
    }

    /// How many of its bytes the sink has not taken.
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        self.left_bytes
    }

    /// The sink took up to `taken_bytes` more. Returns how many of them were beyond this write.
    fn advance(&mut self, taken_bytes: usize) -> usize {
        let own_bytes = taken_bytes.min(self.left_bytes);
        self.left_bytes -= own_bytes;
        self.written_bytes += own_bytes;
        let mut rest = own_bytes;
        while rest > 0 {
            let Some(front) = self.slices.front_mut() else {
                break;
            };
            if rest < front.len() {
                front.advance(rest);
                break;
            }
            rest -= front.len();
            self.slices.pop_front();
        }
        taken_bytes - own_bytes
    }

    fn complete(mut self) {
        if let Some(owner) = self.owner.take() {
            owner.written(Written::Completed(self.written_bytes));
        }
    }
}

impl<O: WriteOwner> Drop for Write<O> {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            // The bytes go first: the owner may be what keeps them valid.
            self.slices.clear();
            owner.written(Written::Cancelled(self.written_bytes));
        }
    }
}

impl<O: WriteOwner> fmt::Debug for Write<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("left_bytes", &self.left_bytes)
            .field("written_bytes", &self.written_bytes)
            .finish_non_exhaustive()
    }
}

/// What [`WriteQueue::try_write`] stopped at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything was written.
    Empty,
    /// The sink takes no more for now.
    Blocked,
}

/// Writes to one sink, in order.
///
/// The queue has no bound of its own: who pushes looks at [`Self::queued_bytes`].
#[derive(Debug)]
pub struct WriteQueue<O: WriteOwner> {
    writes: VecDeque<Write<O>>,
    queued_bytes: usize,
    closed: bool,
}

impl<O: WriteOwner> WriteQueue<O> {
    /// An empty, open queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            writes: VecDeque::new(),
            queued_bytes: 0,
            closed: false,
        }
    }

    /// Adds a write at the end. A closed queue cancels it on the spot.
    pub fn push(&mut self, write: Write<O>) {
        if self.closed {
            drop(write);
            return;
        }
        self.queued_bytes += write.left_bytes;
        self.writes.push_back(write);
    }

    /// How many bytes wait for the sink.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether nothing waits, not even an empty write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Cancels everything, in order, and whatever is pushed later.
    pub fn close(&mut self) {
        self.closed = true;
        self.queued_bytes = 0;
        while let Some(write) = self.writes.pop_front() {
            drop(write);
        }
    }

    /// Offers what waits to `sink` until all is written or the sink would block. `sink` gets at most [`SLICES_PER_CALL`] slices, none
    /// of them empty, and returns how many bytes it took.
    ///
    /// # Errors
    /// The sink's error, other than that it would block or was interrupted; [`io::ErrorKind::WriteZero`] where it took nothing;
    /// [`io::ErrorKind::InvalidData`] where it claims more than it was offered. The queue is closed by it.
    pub fn try_write<S>(&mut self, mut sink: S) -> io::Result<Progress>
    where
        S: FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        loop {
            self.complete_finished();
            if self.writes.is_empty() {
                return Ok(Progress::Empty);
            }
            let mut gathered = [IoSlice::new(&[]); SLICES_PER_CALL];
            let mut count = 0;
            let mut offered_bytes = 0;
            let waiting = self.writes.iter().flat_map(|write| &write.slices);
            for (place, slice) in gathered.iter_mut().zip(waiting) {
                *place = IoSlice::new(slice);
                count += 1;
                offered_bytes += slice.len();
            }
            let taken = match sink(&gathered[..count]) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(taken_bytes) if taken_bytes > offered_bytes => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a sink took more than it was offered",
                )),
                Ok(taken_bytes) => Ok(taken_bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Blocked);
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(taken_bytes) => self.advance(taken_bytes),
                Err(error) => {
                    self.close();
                    return Err(error);
                }
            }
        }
    }

    /// Writes to `sink` until everything is written. Pending while the sink takes no more.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    pub fn poll_write<W>(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: Pin<&mut W>,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + ?Sized,
    {
        let progress =
            self.try_write(
                |slices| match sink.as_mut().poll_write_vectored(cx, slices) {
                    Poll::Ready(taken) => taken,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                },
            );
        match progress {
            Ok(Progress::Empty) => Poll::Ready(Ok(())),
            Ok(Progress::Blocked) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn advance(&mut self, taken_bytes: usize) {
        self.queued_bytes -= taken_bytes;
        let mut rest = taken_bytes;
        for write in &mut self.writes {
            if rest == 0 {
                break;
            }
            rest = write.advance(rest);
        }
    }

    fn complete_finished(&mut self) {
        while self
            .writes
            .front()
            .is_some_and(|write| write.left_bytes == 0)
        {
            if let Some(write) = self.writes.pop_front() {
                write.complete();
            }
        }
    }
}

impl<O: WriteOwner> Default for WriteQueue<O> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
