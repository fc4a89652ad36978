//! Coverage: what an edge holds of one history.

use bytes::{BufMut, BytesMut};

use super::payload::{PayloadReader, require};
use super::{DomainId, FieldProblem, FrameError, FrameKind};
use crate::block::POSITION_MAX;
use crate::ranges::RangeSet;
use crate::varint;

/// Epochs in one Coverage: the newest are sent; what lies in older ones is forgotten.
pub const COVERAGE_EPOCHS_MAX: usize = 64;
/// Holes in one Coverage; a history with more forgets its oldest part.
pub const COVERAGE_HOLES_MAX: usize = 1_024;
/// Bytes of a domain's name: `c:` or `s:` and a service's name of at most 63 fit.
pub const DOMAIN_NAME_MAX_BYTES: usize = 80;

/// One side's claim for one history of one domain, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoverageFrame {
    /// The domain concerned.
    pub domain: DomainId,
    /// The domain's name: `shared`, `c:SERVICE` or `s:SERVICE`; 1 to [`DOMAIN_NAME_MAX_BYTES`] bytes.
    pub name: String,
    /// Which of the domain's two histories.
    pub side: HistorySide,
    /// What is held of it.
    pub coverage: Coverage,
}

/// Which history a Coverage speaks of, seen from its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HistorySide {
    /// The history of what the frame's sender has sent.
    Own = 0,
    /// The sender's mirror of what the other has sent.
    Mirror = 1,
}

/// What is held of a history: positions in `floor..tail`, outside the holes, divided by epochs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// The first position held.
    pub floor: u64,
    /// The position behind the last one held; at least `floor`, at most [`POSITION_MAX`].
    pub tail: u64,
    /// The openings for writing whose bytes are held, by start, oldest first. At most [`COVERAGE_EPOCHS_MAX`] travel.
    pub epochs: Vec<Epoch>,
    /// Positions in `floor..tail` that are not held. At most [`COVERAGE_HOLES_MAX`] ranges travel, all inside `floor..tail`.
    pub holes: RangeSet,
}

/// One opening of a history for writing; it runs from its start to the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Random.
    pub id: [u8; 16],
    /// The position of its first byte.
    pub start: u64,
}

impl CoverageFrame {
    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let domain = DomainId(payload.varint("domain")?);
        let length = payload.count("name length", DOMAIN_NAME_MAX_BYTES)?;
        let name = payload.bytes("name", length)?;
        let name = std::str::from_utf8(&name)
            .map_err(|_| payload.error("name", FieldProblem::Text))?
            .to_owned();
        let side = match payload.byte("log")? {
            0 => HistorySide::Own,
            1 => HistorySide::Mirror,
            _ => return Err(payload.error("log", FieldProblem::OutOfBounds)),
        };
        let floor = payload.position("floor")?;
        let tail = payload.position("tail")?;
        let count = payload.count("epochs", COVERAGE_EPOCHS_MAX)?;
        let mut epochs = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push(Epoch {
                id: payload.array("epoch")?,
                start: payload.position("epoch start")?,
            });
        }
        let holes = read_holes(&mut payload, floor)?;
        payload.finish()?;
        let frame = Self {
            domain,
            name,
            side,
            coverage: Coverage {
                floor,
                tail,
                epochs,
                holes,
            },
        };
        frame.check()?;
        Ok(frame)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.check()?;
        let Coverage {
            floor,
            tail,
            epochs,
            holes,
        } = &self.coverage;
        varint::put(out, self.domain.0);
        varint::put(out, self.name.len() as u64);
        out.put_slice(self.name.as_bytes());
        out.put_u8(self.side as u8);
        varint::put(out, *floor);
        varint::put(out, *tail);
        varint::put(out, epochs.len() as u64);
        for epoch in epochs {
            out.put_slice(&epoch.id);
            varint::put(out, epoch.start);
        }
        varint::put(out, holes.range_count() as u64);
        let mut end = *floor;
        for hole in holes.iter() {
            varint::put(out, hole.start - end);
            varint::put(out, hole.end - hole.start);
            end = hole.end;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = FrameKind::Coverage;
        let bounds = FieldProblem::OutOfBounds;
        let Coverage {
            floor,
            tail,
            epochs,
            holes,
        } = &self.coverage;
        require(self.domain <= DomainId::MAX, kind, "domain", bounds)?;
        require(
            (1..=DOMAIN_NAME_MAX_BYTES).contains(&self.name.len()),
            kind,
            "name",
            bounds,
        )?;
        require(
            !self.name.contains(char::is_control),
            kind,
            "name",
            FieldProblem::Text,
        )?;
        require(floor <= tail && *tail <= POSITION_MAX, kind, "tail", bounds)?;
        require(epochs.len() <= COVERAGE_EPOCHS_MAX, kind, "epochs", bounds)?;
        require(
            epochs.is_sorted_by_key(|epoch| epoch.start),
            kind,
            "epoch start",
            bounds,
        )?;
        require(
            epochs
                .last()
                .is_none_or(|epoch| epoch.start <= POSITION_MAX),
            kind,
            "epoch start",
            bounds,
        )?;
        require(
            holes.range_count() <= COVERAGE_HOLES_MAX,
            kind,
            "holes",
            bounds,
        )?;
        require(
            holes.first().is_none_or(|hole| hole.start >= *floor),
            kind,
            "holes",
            bounds,
        )?;
        require(
            holes.last().is_none_or(|hole| hole.end <= *tail),
            kind,
            "holes",
            bounds,
        )
    }
}

/// Holes ascend; each gap counts from the end of the hole before, the first from the floor.
fn read_holes(payload: &mut PayloadReader, floor: u64) -> Result<RangeSet, FrameError> {
    let bad = |field| FrameError::Field {
        kind: FrameKind::Coverage,
        field,
        problem: FieldProblem::OutOfBounds,
    };
    let count = payload.count("holes", COVERAGE_HOLES_MAX)?;
    let mut holes = RangeSet::new();
    let mut end = floor;
    for index in 0..count {
        // Two holes that touch are one, so that a set has one form.
        let gap = payload.varint("hole gap")?;
        if gap == 0 && index > 0 {
            return Err(bad("hole gap"));
        }
        let length = payload.positive("hole length")?;
        let start = end.checked_add(gap).ok_or(bad("hole gap"))?;
        end = start
            .checked_add(length)
            .filter(|&end| end <= POSITION_MAX)
            .ok_or(bad("hole length"))?;
        holes.insert(start..end);
    }
    Ok(holes)
}
