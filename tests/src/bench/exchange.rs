//! What both ends of a load know of each other without the tunnel: they are two sides of one process, so payloads, counts and moments need not cross
//! the programs under test.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::payload::Payload;

/// Bytes that are read or made at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// How much of a piece is compared with what was sent: enough to notice bytes at the wrong place, and no load.
const COMPARED_BYTES: usize = 16;

/// What a connection is for; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The far side sends the payload of the transfer.
    Down,
    /// The near side sends it.
    Up,
    /// What comes goes back.
    Echo,
    /// The far side answers one byte and closes.
    Short,
    /// The far side sends random bytes until the connection ends.
    Flood,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Down, Self::Up, Self::Echo, Self::Short, Self::Flood];

    /// What opens a connection for this: a byte, and the transfer's number.
    pub(super) fn greeting(self, transfer: u64) -> [u8; 9] {
        let mut greeting = [0; 9];
        let place = Self::ALL.iter().position(|purpose| *purpose == self);
        let (first, rest) = greeting.split_at_mut(1);
        first.fill(
            place
                .and_then(|place| u8::try_from(place).ok())
                .unwrap_or(u8::MAX),
        );
        rest.copy_from_slice(&transfer.to_le_bytes());
        greeting
    }

    fn of(byte: u8) -> io::Result<Self> {
        let found = Self::ALL.get(usize::from(byte)).copied();
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Bytes of a transfer: a sample, several times over.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) sample: Bytes,
    pub(super) times: usize,
}

impl Load {
    pub(super) fn length(&self) -> u64 {
        self.sample.len() as u64 * self.times as u64
    }

    pub(super) async fn send(&self, connection: &mut TcpStream) -> io::Result<()> {
        for _ in 0..self.times {
            connection.write_all(&self.sample).await?;
        }
        connection.shutdown().await
    }

    /// Reads to the end, counts, and compares the edges of each piece.
    pub(super) async fn receive(
        &self,
        connection: &mut TcpStream,
        count: &AtomicU64,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let length = connection.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            let piece = buffer.get(..length).unwrap_or_default();
            let head = piece.get(..COMPARED_BYTES).unwrap_or(piece);
            let tail_at = length.saturating_sub(COMPARED_BYTES);
            let tail = piece.get(tail_at..).unwrap_or_default();
            if !self.holds(offset, head) || !self.holds(offset + tail_at as u64, tail) {
                return Err(io::Error::other(format!(
                    "wrong bytes at or after offset {offset}"
                )));
            }
            offset += length as u64;
            count.store(offset, Ordering::Relaxed);
        }
        if offset == self.length() {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "{offset} bytes of {} came",
                self.length()
            )))
        }
    }

    fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let length = self.sample.len() as u64;
        if length == 0 || offset + bytes.len() as u64 > self.length() {
            return false;
        }
        let place = usize::try_from(offset % length).unwrap_or(usize::MAX);
        let (inside, over) = bytes.split_at(bytes.len().min(self.sample.len() - place));
        self.sample
            .get(place..)
            .is_some_and(|rest| rest.starts_with(inside))
            && self.sample.starts_with(over)
    }
}

/// The transfers under way.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    next: AtomicU64,
    transfers: Mutex<HashMap<u64, Transfer>>,
}

#[derive(Debug)]
struct Transfer {
    load: Load,
    count: Arc<AtomicU64>,
    done: oneshot::Sender<io::Result<Instant>>,
}

/// The near side's hold on a transfer.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) number: u64,
    /// Bytes that the receiving side has.
    pub(super) count: Arc<AtomicU64>,
    /// The moment at which the far side had everything, or had sent it.
    pub(super) done: oneshot::Receiver<io::Result<Instant>>,
}

impl Exchange {
    /// A number that was not used before.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn offer(&self, load: Load) -> Ticket {
        let number = self.number();
        let count = Arc::new(AtomicU64::new(0));
        let (done, received) = oneshot::channel();
        let transfer = Transfer {
            load,
            count: Arc::clone(&count),
            done,
        };
        self.lock().insert(number, transfer);
        Ticket {
            number,
            count,
            done: received,
        }
    }

    /// The far side of every connection.
    pub(super) async fn serve(&self, mut connection: TcpStream) -> io::Result<()> {
        let purpose = Purpose::of(connection.read_u8().await?)?;
        let number = connection.read_u64_le().await?;
        match purpose {
            Purpose::Echo => echo(connection).await,
            Purpose::Short => {
                connection.write_all(&[0]).await?;
                connection.shutdown().await
            }
            Purpose::Flood => flood(connection, number).await,
            Purpose::Up | Purpose::Down => {
                let transfer = self.lock().remove(&number).ok_or(io::ErrorKind::NotFound)?;
                let moved = match purpose {
                    Purpose::Up => {
                        transfer
                            .load
                            .receive(&mut connection, &transfer.count)
                            .await
                    }
                    _ => transfer.load.send(&mut connection).await,
                };
                // Whoever asked may have given up.
                let _nobody = transfer.done.send(moved.map(|()| Instant::now()));
                Ok(())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Transfer>> {
        self.transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn echo(mut connection: TcpStream) -> io::Result<()> {
    // Twenty thousand of these wait at a time.
    let mut buffer = [0; 512];
    loop {
        let length = connection.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        connection
            .write_all(buffer.get(..length).unwrap_or_default())
            .await?;
    }
}

async fn flood(mut connection: TcpStream, seed: u64) -> io::Result<()> {
    let payload = Payload::random(!seed);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        payload.fill(offset, &mut buffer);
        connection.write_all(&buffer).await?;
        offset += buffer.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_repeats_its_sample_and_notices_other_bytes() {
        let load = Load {
            sample: Bytes::from_static(b"abcde"),
            times: 3,
        };
        assert_eq!(load.length(), 15);
        assert!(load.holds(0, b"abcde") && load.holds(3, b"deab") && load.holds(11, b"bcde"));
        assert!(!load.holds(0, b"b") && !load.holds(3, b"dea!") && !load.holds(14, b"ea"));
    }

    #[test]
    fn purposes_are_told_by_their_first_byte() {
        for purpose in Purpose::ALL {
            let greeting = purpose.greeting(7);
            assert_eq!(Purpose::of(greeting[0]).ok(), Some(purpose));
        }
        assert!(Purpose::of(99).is_err());
    }
}
