//! The two ends of a connection, playing its script.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{Ending, Script};
use crate::payload::{Checker, Mismatch, Payload};

/// Bytes made or read at a time: not a power of two, so that pieces and blocks do not line up.
const CHUNK_BYTES: u64 = 20_011;

/// What one end of a connection saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Right bytes received.
    received: u64,
    /// How receiving ended.
    end: End,
    /// Sending went wrong, with this.
    send_error: Option<io::ErrorKind>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// A clean end after all bytes.
    Complete,
    /// The connection broke.
    Broken(io::ErrorKind),
    /// What may never happen: wrong bytes, or a clean end too early.
    Wrong(Mismatch),
    /// This end stopped listening, as it reset the connection itself.
    Reset,
    /// The connection could not be opened.
    NotOpened(String),
}

impl Outcome {
    pub(super) fn not_opened(error: &io::Error) -> Self {
        Self {
            received: 0,
            end: End::NotOpened(error.to_string()),
            send_error: None,
        }
    }

    /// The other end went away before it began. Without a reset that is as wrong as any other early end.
    pub(super) fn not_begun(error: &io::Error) -> Self {
        let end = match error.kind() {
            io::ErrorKind::UnexpectedEof => End::NotOpened(error.to_string()),
            kind => End::Broken(kind),
        };
        Self {
            received: 0,
            end,
            send_error: None,
        }
    }

    /// All `bytes` came, then a clean end, and sending went well.
    pub(super) fn is_complete(&self, bytes: u64) -> bool {
        self.received == bytes && self.end == End::Complete && self.send_error.is_none()
    }

    /// Right bytes came, then the connection broke. The system tells of a reset only once: when sending was told,
    /// receiving sees a clean end.
    pub(super) fn is_broken(&self) -> bool {
        match self.end {
            End::Broken(_) => true,
            End::Complete | End::Wrong(Mismatch::TooShort { .. }) => self.send_error.is_some(),
            _ => false,
        }
    }
}

/// The side that connected.
pub(super) async fn near(connection: TcpStream, script: Script) -> Outcome {
    let own = Part {
        payload: script.up(),
        bytes: script.up_bytes,
    };
    let other = Part {
        payload: script.down(),
        bytes: script.down_bytes,
    };
    match script.ending {
        Ending::Together => together(connection, own, other).await,
        Ending::NearFirst => send_first(connection, own, other).await,
        Ending::FarFirst => receive_first(connection, own, other).await,
        Ending::NearResets => {
            reset(
                connection,
                Part {
                    bytes: script.place,
                    ..own
                },
            )
            .await
        }
        // Never ends its own side: a reset of a connection that is over already would not be seen.
        Ending::FarResets => until_broken(connection, own, other).await,
    }
}

/// The side that was connected to.
pub(super) async fn far(connection: TcpStream, script: Script) -> Outcome {
    let own = Part {
        payload: script.down(),
        bytes: script.down_bytes,
    };
    let other = Part {
        payload: script.up(),
        bytes: script.up_bytes,
    };
    match script.ending {
        Ending::Together => together(connection, own, other).await,
        Ending::NearFirst => receive_first(connection, own, other).await,
        Ending::FarFirst => send_first(connection, own, other).await,
        Ending::NearResets => until_broken(connection, own, other).await,
        Ending::FarResets => {
            reset(
                connection,
                Part {
                    bytes: script.place,
                    ..own
                },
            )
            .await
        }
    }
}

/// The first `bytes` bytes of a payload.
#[derive(Clone, Copy)]
struct Part {
    payload: Payload,
    bytes: u64,
}

async fn together(mut connection: TcpStream, own: Part, other: Part) -> Outcome {
    let (mut reader, mut writer) = connection.split();
    let (sent, (received, end)) =
        tokio::join!(send(&mut writer, own, true), receive(&mut reader, other));
    Outcome {
        received,
        end,
        send_error: sent.err(),
    }
}

async fn send_first(mut connection: TcpStream, own: Part, other: Part) -> Outcome {
    let (mut reader, mut writer) = connection.split();
    let sent = send(&mut writer, own, true).await;
    let (received, end) = receive(&mut reader, other).await;
    Outcome {
        received,
        end,
        send_error: sent.err(),
    }
}

async fn receive_first(mut connection: TcpStream, own: Part, other: Part) -> Outcome {
    let (mut reader, mut writer) = connection.split();
    let (received, end) = receive(&mut reader, other).await;
    let sent = send(&mut writer, own, true).await;
    Outcome {
        received,
        end,
        send_error: sent.err(),
    }
}

/// Sends what comes before the reset; closing with a linger of zero is the reset.
async fn reset(mut connection: TcpStream, own: Part) -> Outcome {
    let (_, mut writer) = connection.split();
    let sent = send(&mut writer, own, false).await;
    let reset = connection.set_zero_linger();
    Outcome {
        received: 0,
        end: End::Reset,
        send_error: sent.err().or(reset.err().map(|error| error.kind())),
    }
}

async fn until_broken(mut connection: TcpStream, own: Part, other: Part) -> Outcome {
    let (mut reader, mut writer) = connection.split();
    let (sent, (received, end)) =
        tokio::join!(send(&mut writer, own, false), receive(&mut reader, other));
    Outcome {
        received,
        end,
        send_error: sent.err(),
    }
}

async fn send(writer: &mut WriteHalf<'_>, part: Part, end: bool) -> Result<(), io::ErrorKind> {
    let mut offset = 0;
    while offset < part.bytes {
        let count = (part.bytes - offset).min(CHUNK_BYTES);
        let bytes = part
            .payload
            .bytes(offset, usize::try_from(count).unwrap_or(0));
        writer
            .write_all(&bytes)
            .await
            .map_err(|error| error.kind())?;
        offset += count;
    }
    if end {
        writer.shutdown().await.map_err(|error| error.kind())
    } else {
        Ok(())
    }
}

async fn receive(reader: &mut ReadHalf<'_>, part: Part) -> (u64, End) {
    let mut checker = Checker::new(part.payload, part.bytes);
    let mut buffer = vec![0; usize::try_from(CHUNK_BYTES).unwrap_or(0)];
    let end = loop {
        match reader.read(&mut buffer).await {
            Ok(0) => break checker.finish().err().map_or(End::Complete, End::Wrong),
            Ok(count) => {
                if let Err(mismatch) = checker.feed(&buffer[..count]) {
                    break End::Wrong(mismatch);
                }
            }
            Err(error) => break End::Broken(error.kind()),
        }
    };
    (checker.offset(), end)
}
