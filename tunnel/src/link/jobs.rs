//! The work of a link that costs CPU: opening with decoding of frames, and sealing. On the spot, or as jobs of pool `crypto`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use codec::frame::{Frame, FrameCodec};
use tokio_util::codec::Decoder;

use super::LinkError;
use crate::pool::{Job, JobName, Step, StepContext};
use crate::tls::{Session, TlsError};

/// A fragment shorter than this gets a buffer of its own: as a slice it would keep its whole batch (up to about 128 KiB) alive for as
/// long as its block is parked or not yet delivered, and only its own length is charged to the memory budget.
const OWN_BUFFER_BELOW_BYTES: usize = 16 * 1024;

/// The receiving half of a TLS session with the frame decoder behind it. It is handed to an open job and comes back
/// with the job's result, so that opening stays in order without a lock.
pub(crate) struct Opener {
    session: Arc<Session>,
    plain: BytesMut,
    frames: FrameCodec,
}

/// What one opening gave.
pub(crate) struct OpenedBatch {
    pub(crate) frames: Vec<Frame>,
    pub(super) closed: bool,
    pub(super) wants_write: bool,
}

impl Opener {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            plain: BytesMut::new(),
            frames: FrameCodec,
        }
    }

    /// Opens and decodes one frame at most; what came behind it stays for later. Also says whether the peer has closed.
    pub(super) fn open_first(&mut self, wire: &[u8]) -> Result<(Option<Frame>, bool), LinkError> {
        let report = self.session.open(wire, &mut self.plain)?;
        Ok((self.frames.decode(&mut self.plain)?, report.closed))
    }

    pub(super) fn open(&mut self, wire: &[u8]) -> Result<OpenedBatch, LinkError> {
        self.plain.reserve(wire.len());
        let report = self.session.open(wire, &mut self.plain)?;
        let mut frames = Vec::new();
        while let Some(mut frame) = self.frames.decode(&mut self.plain)? {
            if let Frame::Data(data) = &mut frame
                && data.bytes.len() < OWN_BUFFER_BELOW_BYTES
            {
                data.bytes = Bytes::copy_from_slice(&data.bytes);
            }
            frames.push(frame);
        }
        Ok(OpenedBatch {
            frames,
            closed: report.closed,
            wants_write: report.wants_write,
        })
    }
}

/// Opens one batch in pool `crypto`.
pub(super) struct OpenJob {
    pub(super) work: Option<(Box<Opener>, Bytes)>,
}

/// What an open job gives back: the opener, and the frames or why there are none.
pub(crate) type OpenOutput = (Box<Opener>, Result<OpenedBatch, LinkError>);

impl Job for OpenJob {
    type Output = OpenOutput;

    fn name(&self) -> JobName {
        JobName {
            who: "link".into(),
            why: "open",
        }
    }

    fn step(&mut self, _cx: &mut StepContext<'_>) -> Step<Self::Output> {
        let Some((mut opener, wire)) = self.work.take() else {
            return Step::Stopped;
        };
        let result = opener.open(&wire);
        Step::Finished((opener, result))
    }
}

/// Seals one batch in pool `crypto`.
pub(super) struct SealJob {
    pub(super) session: Arc<Session>,
    pub(super) plain: Vec<Bytes>,
}

impl Job for SealJob {
    type Output = Result<Bytes, TlsError>;

    fn name(&self) -> JobName {
        JobName {
            who: "link".into(),
            why: "seal",
        }
    }

    fn step(&mut self, _cx: &mut StepContext<'_>) -> Step<Self::Output> {
        Step::Finished(self.session.seal(&self.plain))
    }
}
