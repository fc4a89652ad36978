//! Ack and Refuse: what became of numbers.

use bytes::{BufMut, BytesMut};

use super::payload::{PayloadReader, require};
use super::{DomainId, FieldProblem, FrameError, FrameKind, RefuseReason};
use crate::block::{BLOCK_PLAIN_MAX, Source, Space, Span};
use crate::ranges::RangeSet;
use crate::varint;

/// Ranges of numbers in one Ack; more gaps than this are reported once the lower ones have closed.
pub const ACK_RANGES_MAX: usize = 256;
/// Append ranges that one Ack may report as not stored.
pub const ACK_NOT_STORED_MAX: usize = 64;
/// Ranges that one Refuse may report as lost.
pub const REFUSE_LOST_MAX: usize = 64;

/// Numbers that were decoded, verified and appended (blocks), or acted on (frames).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    /// 1 to [`ACK_RANGES_MAX`] ranges of numbers.
    pub numbers: RangeSet,
    /// Append ranges of acknowledged blocks that were not stored: holes. At most [`ACK_NOT_STORED_MAX`].
    pub not_stored: Vec<NotStored>,
}

/// An append range that its receiver did not store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotStored {
    /// The domain whose history lacks it.
    pub domain: DomainId,
    /// The range, in the history of the block's sender.
    pub span: Span,
}

/// A block could not be decoded. It acknowledges the block's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// The block's number, from 1.
    pub number: u64,
    /// Why.
    pub reason: RefuseReason,
    /// Ranges that the receiver of the block does not hold: holes for good. At most [`REFUSE_LOST_MAX`].
    pub lost: Vec<Lost>,
}

/// A range that the receiver of a block found missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The domain of the history.
    pub domain: DomainId,
    /// The range. As in the block's header, [`Space::Sender`] is the history of the block's sender.
    pub source: Source,
}

impl Ack {
    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let kind = FrameKind::Ack;
        let bad = |field| FrameError::Field {
            kind,
            field,
            problem: FieldProblem::OutOfBounds,
        };
        let count = payload.count("ranges", ACK_RANGES_MAX)?;
        let mut numbers = RangeSet::new();
        // The highest number that the next range may have; the wire's ranges go down.
        let mut highest = payload.varint("largest")?;
        for index in 0..count {
            if index > 0 {
                let gap = payload.varint("gap")?;
                highest = gap
                    .checked_add(2)
                    .and_then(|down| highest.checked_sub(down))
                    .ok_or(bad("gap"))?;
            }
            let more = payload.varint("length")?;
            let lowest = highest
                .checked_sub(more)
                .filter(|&lowest| lowest >= 1)
                .ok_or(bad("length"))?;
            let end = highest.checked_add(1).ok_or(bad("largest"))?;
            numbers.insert(lowest..end);
            highest = lowest;
        }
        let count = payload.count("not stored", ACK_NOT_STORED_MAX)?;
        let mut not_stored = Vec::with_capacity(count);
        for _ in 0..count {
            not_stored.push(NotStored {
                domain: read_domain(&mut payload)?,
                span: read_span(&mut payload)?,
            });
        }
        payload.finish()?;
        let ack = Self {
            numbers,
            not_stored,
        };
        ack.check()?;
        Ok(ack)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.check()?;
        varint::put(out, self.numbers.range_count() as u64);
        let mut above: Option<u64> = None;
        for range in self.numbers.iter().rev() {
            let highest = range.end - 1;
            match above {
                None => varint::put(out, highest),
                // Ranges of a set do not touch, so at least one number lies between them.
                Some(lowest) => varint::put(out, lowest - highest - 2),
            }
            varint::put(out, highest - range.start);
            above = Some(range.start);
        }
        varint::put(out, self.not_stored.len() as u64);
        for entry in &self.not_stored {
            varint::put(out, entry.domain.0);
            put_span(out, entry.span);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = FrameKind::Ack;
        require(
            (1..=ACK_RANGES_MAX).contains(&self.numbers.range_count()),
            kind,
            "ranges",
            FieldProblem::OutOfBounds,
        )?;
        require(
            !self.numbers.contains(0),
            kind,
            "ranges",
            FieldProblem::OutOfBounds,
        )?;
        require(
            self.not_stored.len() <= ACK_NOT_STORED_MAX,
            kind,
            "not stored",
            FieldProblem::OutOfBounds,
        )?;
        self.not_stored
            .iter()
            .try_for_each(|entry| check_span(kind, entry.domain, entry.span))
    }
}

impl Refuse {
    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let number = payload.positive("number")?;
        let reason = payload.byte("reason")?;
        let reason = RefuseReason::from_code(reason)
            .ok_or_else(|| payload.error("reason", FieldProblem::OutOfBounds))?;
        let count = payload.count("lost", REFUSE_LOST_MAX)?;
        let mut lost = Vec::with_capacity(count);
        for _ in 0..count {
            let domain = read_domain(&mut payload)?;
            let space = payload.byte("space")?;
            let space = Space::from_code(space)
                .ok_or_else(|| payload.error("space", FieldProblem::OutOfBounds))?;
            let Span { position, length } = read_span(&mut payload)?;
            lost.push(Lost {
                domain,
                source: Source {
                    space,
                    position,
                    length,
                },
            });
        }
        payload.finish()?;
        let refuse = Self {
            number,
            reason,
            lost,
        };
        refuse.check()?;
        Ok(refuse)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.check()?;
        varint::put(out, self.number);
        out.put_u8(self.reason.code());
        varint::put(out, self.lost.len() as u64);
        for entry in &self.lost {
            varint::put(out, entry.domain.0);
            out.put_u8(entry.source.space.code());
            put_span(out, entry.source.span());
        }
        Ok(())
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = FrameKind::Refuse;
        require(self.number >= 1, kind, "number", FieldProblem::OutOfBounds)?;
        require(
            self.lost.len() <= REFUSE_LOST_MAX,
            kind,
            "lost",
            FieldProblem::OutOfBounds,
        )?;
        self.lost
            .iter()
            .try_for_each(|entry| check_span(kind, entry.domain, entry.source.span()))
    }
}

fn read_domain(payload: &mut PayloadReader) -> Result<DomainId, FrameError> {
    Ok(DomainId(payload.varint("domain")?))
}

fn read_span(payload: &mut PayloadReader) -> Result<Span, FrameError> {
    let position = payload.position("position")?;
    let length = payload.varint("length")?;
    let length =
        u32::try_from(length).map_err(|_| payload.error("length", FieldProblem::OutOfBounds))?;
    Ok(Span { position, length })
}

fn put_span(out: &mut BytesMut, span: Span) {
    varint::put(out, span.position);
    varint::put(out, u64::from(span.length));
}

fn check_span(kind: FrameKind, domain: DomainId, span: Span) -> Result<(), FrameError> {
    require(
        domain <= DomainId::MAX,
        kind,
        "domain",
        FieldProblem::OutOfBounds,
    )?;
    require(
        (1..=BLOCK_PLAIN_MAX).contains(&span.length),
        kind,
        "length",
        FieldProblem::OutOfBounds,
    )?;
    require(
        span.is_in_bounds(),
        kind,
        "position",
        FieldProblem::OutOfBounds,
    )
}
