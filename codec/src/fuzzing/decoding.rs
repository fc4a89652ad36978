//! Blocks against a receiver with real histories, and a naive model of what must come out.

use bytes::Bytes;

use crate::block::ops::{Inner, Writer};
use crate::block::{BlockHeader, BodyKind, COPY_MIN, Known, Source, Space, Span};
use crate::decoder::Decoder;
use crate::domain::{Domain, DomainConfig, Log};
use crate::encoder::Append;
use crate::error::{DecodeError, Violation};
use crate::frame::{Coverage, Epoch, REFUSE_LOST_MAX, RefuseReason};

/// Bytes in each log before the block comes.
const HELD_BYTES: u32 = 8_192;
/// A stretch of the mirror that was lost.
const HOLE: Span = Span {
    position: 4_096,
    length: 64,
};
/// A stretch of the mirror that is registered and has not come.
const AWAITED: Span = Span {
    position: HELD_BYTES as u64,
    length: 256,
};
/// What each log may hold: nothing is evicted here.
const CAPACITY_BYTES: u64 = 1 << 20;

/// What the receiver knows before the block, of any stream and domain: appends go on where what is awaited ends.
pub(super) const KNOWN: Known = Known {
    stream_offset: 1_000,
    append_position: HELD_BYTES as u64 + AWAITED.length as u64,
};

/// What the receiver can do with a byte of a history; the last one met decides over a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Held,
    Awaited,
    Gone,
    NeverSent,
}

/// A receiver of blocks, and the same in the naive.
struct Receiver {
    domain: Domain,
    /// The first position of the own history.
    own_start: u64,
    /// The tail of the mirror.
    mirror_tail: u64,
}

/// Decodes the block at a receiver: what the model can make of it must come out, and nothing else may.
pub(super) fn decode(header: &BlockHeader, body: &Bytes) {
    let mut receiver = Receiver::new();
    if let Some(append) = header.append {
        let accepted = receiver.domain.register(append).is_ok();
        assert_eq!(
            accepted,
            append.position >= receiver.mirror_tail,
            "{append:?}"
        );
        if !accepted {
            return;
        }
        receiver.mirror_tail = append.end();
    }
    match (header.body, Inner::read(header, body)) {
        (BodyKind::Raw, _) if body.len() == header.plain_length as usize => {
            receiver.check(header, body, body, Standing::Held);
        }
        (BodyKind::Stored, Ok(inner)) => {
            let (plain, standing) = receiver.model(&inner);
            receiver.check(header, body, &plain, standing);
        }
        // The model knows no zstd, and the rest cannot be decoded.
        _ => match receiver.decode(header, body) {
            Ok(plain) => assert_eq!(plain.len(), header.plain_length as usize),
            Err(DecodeError::Refused { lost, .. }) => assert!(lost.len() <= REFUSE_LOST_MAX),
            Err(_) => {}
        },
    }
}

impl Receiver {
    fn new() -> Self {
        let domain = Domain::in_memory(DomainConfig {
            own_capacity_bytes: CAPACITY_BYTES,
            mirror_capacity_bytes: CAPACITY_BYTES,
            index_capacity_bytes: 0,
            epoch: [1; 16],
        });
        let epochs = vec![Epoch {
            id: [2; 16],
            start: 0,
        }];
        domain.agree(Log::Own, &Coverage::default());
        domain.agree(
            Log::Mirror,
            &Coverage {
                epochs,
                ..Coverage::default()
            },
        );
        domain.set_quota(CAPACITY_BYTES);
        let append = |log| {
            Append::new(
                crate::frame::StreamId(1),
                held(log),
                std::iter::once(0..HELD_BYTES as usize).collect(),
            )
        };
        let own_start = domain.reserve(HELD_BYTES);
        assert!(own_start.is_some(), "the histories are agreed on");
        let own_start = own_start.unwrap_or_default();
        domain.commit(own_start, &append(Log::Own));
        let span = Span {
            position: 0,
            length: HELD_BYTES,
        };
        let filled =
            domain.register(span).is_ok() && domain.fill(Log::Mirror, span, &append(Log::Mirror));
        assert!(filled, "the mirror takes its first bytes");
        domain.lose(Log::Mirror, HOLE.position, u64::from(HOLE.length));
        assert!(domain.register(AWAITED).is_ok());
        Self {
            domain,
            own_start,
            mirror_tail: AWAITED.end(),
        }
    }

    fn decode(&self, header: &BlockHeader, body: &Bytes) -> Result<Bytes, DecodeError> {
        let middle = body.len() / 2;
        let pieces = [body.slice(..middle), body.slice(middle..)];
        let decoded = Decoder::new().decode(Some(&self.domain), header, &pieces)?;
        assert!(decoded.stored, "there is room");
        Ok(decoded.plain)
    }

    /// The plain bytes of a block, as far as they can be had, and what its sources allow.
    fn model(&self, inner: &Inner<'_>) -> (Vec<u8>, Standing) {
        let (mut plain, mut worst) = (Vec::new(), Standing::Held);
        let mut literals = inner.literals().iter();
        for op in inner.operations() {
            match op.source() {
                None => plain.extend(literals.by_ref().take(op.length() as usize)),
                Some(source) => worst = worst.max(self.source(source, &mut plain)),
            }
        }
        (plain, worst)
    }

    fn source(&self, source: Source, plain: &mut Vec<u8>) -> Standing {
        let (log, start, tail) = match source.space {
            Space::Sender => (Log::Mirror, 0, self.mirror_tail),
            Space::Receiver => (
                Log::Own,
                self.own_start,
                self.own_start + u64::from(HELD_BYTES),
            ),
        };
        if source.span().end() > tail {
            return Standing::NeverSent;
        }
        let standing = |position: u64| match log {
            Log::Own if position < start => Standing::Gone,
            Log::Own => Standing::Held,
            Log::Mirror if HOLE.range().contains(&position) => Standing::Gone,
            Log::Mirror if position < HOLE.end().max(u64::from(HELD_BYTES)) => Standing::Held,
            Log::Mirror if AWAITED.range().contains(&position) => Standing::Awaited,
            // Skipped before the block's own append range, which no source may touch.
            Log::Mirror => Standing::Gone,
        };
        let worst = source
            .span()
            .range()
            .map(standing)
            .max()
            .unwrap_or(Standing::Held);
        if worst == Standing::Held {
            let offset = usize::try_from(source.position - start).unwrap_or(usize::MAX);
            plain.extend(held(log).iter().skip(offset).take(source.length as usize));
        }
        worst
    }

    /// Decodes the block, with the right checksum for `plain` if all of it can be had.
    fn check(&self, header: &BlockHeader, body: &Bytes, plain: &[u8], standing: Standing) {
        // Where there is none, there is none to be wrong.
        let checksum = BlockHeader::checksum_of(header.version, plain);
        let header = BlockHeader {
            checksum: header.checksum.map(|_| checksum),
            ..header.clone()
        };
        let result = self.decode(&header, body);
        match (standing, &result) {
            (Standing::Held, Ok(decoded)) => assert_eq!(decoded.as_ref(), plain),
            (
                Standing::Awaited,
                Err(DecodeError::Waits {
                    log: Log::Mirror, ..
                }),
            ) => {}
            (
                Standing::Gone,
                Err(DecodeError::Refused {
                    reason: RefuseReason::Evicted,
                    lost,
                }),
            ) => {
                assert!((1..=REFUSE_LOST_MAX).contains(&lost.len()));
            }
            (Standing::NeverSent, Err(DecodeError::Violation(Violation::NeverSent { .. }))) => {}
            _ => panic!("{standing:?} gave {result:?} for {header:?}"),
        }
        if let (Some(append), Ok(_)) = (header.append, result) {
            self.check_append(&header, append, body, plain);
        }
        let wrong = BlockHeader {
            checksum: header.checksum.map(|checksum| checksum ^ 1),
            ..header
        };
        if standing == Standing::Held && wrong.append.is_none() && wrong.checksum.is_some() {
            let damaged = matches!(
                self.decode(&wrong, body),
                Err(DecodeError::Refused {
                    reason: RefuseReason::Damaged,
                    ..
                })
            );
            assert!(damaged, "a wrong checksum passed");
        }
    }

    /// What the block appended is there for the next one.
    fn check_append(&self, header: &BlockHeader, append: Span, body: &Bytes, plain: &[u8]) {
        let mut appended = Vec::new();
        match Inner::read(header, body) {
            Ok(inner) if header.body == BodyKind::Stored => {
                let mut rest = plain.iter();
                for op in inner.operations() {
                    let bytes = rest.by_ref().take(op.length() as usize);
                    if op.is_appended() {
                        appended.extend(bytes);
                    } else {
                        bytes.for_each(drop);
                    }
                }
            }
            _ => appended.extend_from_slice(plain),
        }
        assert_eq!(appended.len(), append.length as usize);
        if append.length < COPY_MIN {
            return;
        }
        let mut writer = Writer::new(header.version);
        writer.copy(append.length, false, Space::Sender, append.position);
        let mut inner = Vec::new();
        writer.put_inner(&mut inner);
        let next = BlockHeader {
            plain_length: append.length,
            body: BodyKind::Stored,
            append: None,
            prefix: None,
            diagonals: writer.diagonals(),
            inner_length: 0,
            checksum: Some(BlockHeader::checksum_of(header.version, &appended)),
            ..header.clone()
        };
        let copied = self.decode(&next, &inner.into());
        assert!(
            copied.is_ok_and(|copied| copied == appended),
            "{append:?} is not what was appended"
        );
    }
}

/// What a log holds: bytes that differ from place to place, and from log to log.
fn held(log: Log) -> Bytes {
    let seed: u32 = match log {
        Log::Own => 0x9e37_79b9,
        Log::Mirror => 0x85eb_ca6b,
    };
    (0..HELD_BYTES)
        .map(|at| at.wrapping_mul(seed).to_be_bytes()[0])
        .collect()
}
