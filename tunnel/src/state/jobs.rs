//! Codec jobs: plain structs that run anywhere, in any order, and come back with what they made.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use codec::block::BlockHeader;
use codec::decoder::{Decoded, Decoder};
use codec::domain::Domain;
use codec::encoder::{EncodeRequest, Encoded, Encoder};
use codec::error::DecodeError;
use codec::frame::StreamId;
use codec::policy::{Habit, Level};

/// Names a job of one tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) u64);

/// What a worker keeps between jobs: compression contexts and buffers, about 3 MiB once both are used.
#[derive(Default)]
pub struct CodecScratch {
    encoder: Option<Encoder>,
    decoder: Option<Decoder>,
}

/// One piece of work for a codec thread.
pub enum CodecJob {
    /// Makes a block of plain bytes.
    Encode(EncodeJob),
    /// Makes plain bytes of a block.
    Decode(DecodeJob),
    /// Makes a block of a refused block's plain bytes.
    Rebuild(RebuildJob),
}

/// See [`CodecJob::Encode`].
pub struct EncodeJob {
    pub(super) id: JobId,
    pub(super) request: EncodeRequest,
}

/// See [`CodecJob::Decode`].
pub struct DecodeJob {
    pub(super) id: JobId,
    pub(super) domain: Option<Arc<Domain>>,
    pub(super) header: BlockHeader,
    pub(super) body: Vec<Bytes>,
}

/// See [`CodecJob::Rebuild`].
pub struct RebuildJob {
    pub(super) id: JobId,
    /// The refused block's number.
    pub(super) number: u64,
    pub(super) domain: Option<Arc<Domain>>,
    pub(super) header: Box<BlockHeader>,
    pub(super) body: Bytes,
    pub(super) level: Level,
}

/// What a job made; to be given back by `handle_job`.
pub struct CodecDone {
    pub(super) id: JobId,
    pub(super) result: JobResult,
}

pub(super) enum JobResult {
    Encoded(Box<Encoded>),
    Decoded {
        result: Result<Decoded, DecodeError>,
        /// Comes back for when the block must be decoded again.
        body: Vec<Bytes>,
    },
    /// None: the bytes are not there any more.
    Rebuilt(Option<Box<Encoded>>),
}

impl CodecJob {
    /// The job's name towards its tunnel.
    #[must_use]
    pub fn id(&self) -> JobId {
        match self {
            Self::Encode(job) => job.id,
            Self::Decode(job) => job.id,
            Self::Rebuild(job) => job.id,
        }
    }

    /// Whether it goes before encoding: it frees memory and lets the other side go on.
    #[must_use]
    pub fn is_decode(&self) -> bool {
        matches!(self, Self::Decode(_))
    }

    /// About how many plain bytes it handles.
    #[must_use]
    pub fn plain_len_hint(&self) -> usize {
        match self {
            Self::Encode(job) => job.request.plain.len(),
            Self::Decode(job) => job.header.plain_length as usize,
            Self::Rebuild(job) => job.body.len(),
        }
    }

    /// Does the work. It may wait for pages of histories on disk, and for nothing else.
    #[must_use]
    pub fn run(self, scratch: &mut CodecScratch) -> CodecDone {
        let id = self.id();
        let result = match self {
            Self::Encode(job) => {
                JobResult::Encoded(Box::new(scratch.encoder().encode(job.request)))
            }
            Self::Decode(job) => {
                let result =
                    scratch
                        .decoder()
                        .decode(job.domain.as_deref(), &job.header, &job.body);
                JobResult::Decoded {
                    result,
                    body: job.body,
                }
            }
            Self::Rebuild(job) => JobResult::Rebuilt(
                job.plain(scratch, true)
                    .ok()
                    .map(|plain| job.encode(plain, scratch)),
            ),
        };
        CodecDone { id, result }
    }

    /// Does the work on a thread that must not wait.
    ///
    /// # Errors
    /// The job as it was, if pages have to be read from disk: it is for [`CodecJob::run`] on another thread.
    pub fn try_run(self, scratch: &mut CodecScratch) -> Result<CodecDone, Box<Self>> {
        let id = self.id();
        let result = match self {
            Self::Encode(EncodeJob { request, .. }) => {
                let encoded = scratch.encoder().try_encode(request).map_err(|request| {
                    let request = *request;
                    Box::new(Self::Encode(EncodeJob { id, request }))
                })?;
                JobResult::Encoded(Box::new(encoded))
            }
            Self::Decode(job) => {
                let domain = job.domain.as_deref();
                let result = scratch.decoder().try_decode(domain, &job.header, &job.body);
                if result == Err(DecodeError::NotResident) {
                    return Err(Box::new(Self::Decode(job)));
                }
                JobResult::Decoded {
                    result,
                    body: job.body,
                }
            }
            Self::Rebuild(job) => match job.plain(scratch, false) {
                Err(Some(DecodeError::NotResident)) => return Err(Box::new(Self::Rebuild(job))),
                plain => JobResult::Rebuilt(plain.ok().map(|plain| job.encode(plain, scratch))),
            },
        };
        Ok(CodecDone { id, result })
    }
}

impl RebuildJob {
    /// The refused block's plain bytes.
    fn plain(
        &self,
        scratch: &mut CodecScratch,
        may_block: bool,
    ) -> Result<Bytes, Option<DecodeError>> {
        let header = self.header.as_ref();
        let (domain, body) = (self.domain.as_deref(), std::slice::from_ref(&self.body));
        let decoder = scratch.decoder();
        let plain = if may_block {
            decoder.rebuild(domain, header, body)
        } else {
            decoder.try_rebuild(domain, header, body)
        };
        plain.map_err(Some)
    }

    fn encode(&self, plain: Bytes, scratch: &mut CodecScratch) -> Box<Encoded> {
        let header = self.header.as_ref();
        let request = EncodeRequest {
            version: header.version,
            stream: header.stream,
            stream_offset: header.stream_offset,
            plain,
            domain: None,
            may_copy: false,
            may_append: false,
            level: self.level,
            hint: None,
            habit: Habit::default(),
            replaces: Some(self.number),
            avoid: None,
        };
        Box::new(scratch.encoder().encode(request))
    }
}

impl CodecScratch {
    fn encoder(&mut self) -> &mut Encoder {
        self.encoder.get_or_insert_with(Encoder::new)
    }

    fn decoder(&mut self) -> &mut Decoder {
        self.decoder.get_or_insert_with(Decoder::new)
    }
}

/// What an outstanding job is for, kept by the tunnel.
#[derive(Debug)]
pub(super) enum Purpose {
    Encode {
        stream: StreamId,
        plain_bytes: u64,
        stream_offset: u64,
        started: Instant,
        domain: Option<codec::frame::DomainId>,
        link: super::LinkId,
    },
    Decode {
        number: u64,
    },
    Rebuild {
        stream: StreamId,
        plain_bytes: u64,
        pins: super::domains::Pins,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use codec::block::{BlockVersion, BodyKind, Known};

    fn damaged(stream: StreamId) -> DecodeJob {
        let header = BlockHeader {
            version: BlockVersion::One,
            stream,
            stream_offset: 0,
            plain_length: 4,
            body: BodyKind::Raw,
            domain: None,
            append: None,
            prefix: None,
            diagonals: [None, None],
            inner_length: 0,
            replaces: None,
            checksum: Some(1),
        };
        DecodeJob {
            id: JobId(1),
            domain: None,
            header,
            body: vec![Bytes::from_static(b"abcd")],
        }
    }

    #[test]
    fn a_block_that_fails_comes_back_with_its_body() {
        let done = CodecJob::Decode(damaged(StreamId(1))).run(&mut CodecScratch::default());
        let JobResult::Decoded { result, body } = done.result else {
            unreachable!("it was a decode job")
        };
        assert!(matches!(result, Err(DecodeError::Refused { .. })));
        assert_eq!(body, [Bytes::from_static(b"abcd")]);
    }

    #[test]
    fn a_refused_block_is_rebuilt_as_a_replacement() {
        let plain = Bytes::from(vec![b'x'; 5000]);
        let request = EncodeRequest {
            version: BlockVersion::Two,
            stream: StreamId(1),
            stream_offset: 70,
            plain: plain.clone(),
            domain: None,
            may_copy: false,
            may_append: false,
            level: Level::default(),
            hint: None,
            habit: Habit::default(),
            replaces: None,
            avoid: None,
        };
        let scratch = &mut CodecScratch::default();
        let done = CodecJob::Encode(EncodeJob {
            id: JobId(1),
            request,
        })
        .run(scratch);
        let JobResult::Encoded(mut first) = done.result else {
            unreachable!("it was an encode job")
        };
        let (_, body) = first.wire(None, Known::default());
        let job = RebuildJob {
            id: JobId(2),
            number: 9,
            domain: None,
            header: Box::new(first.header().clone()),
            body,
            level: Level::default(),
        };
        let JobResult::Rebuilt(Some(mut second)) = CodecJob::Rebuild(job).run(scratch).result
        else {
            unreachable!("its bytes are there")
        };
        let (header, body) = second.wire(None, Known::default());
        let mut header = BytesMut::from(&header[..]).freeze();
        let header =
            BlockHeader::decode(&mut header, BlockVersion::Two, |_, _| Known::default()).unwrap();
        assert_eq!((header.replaces, header.stream_offset), (Some(9), 70));
        let decoded = scratch.decoder().decode(None, &header, &[body]).unwrap();
        assert_eq!(decoded.plain, plain);
    }
}
