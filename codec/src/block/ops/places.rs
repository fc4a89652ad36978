//! Where the next copy of a block likely lies, as far as the operations before it say.
//!
//! What was changed and sent once lies in two places: what stayed, on the old diagonal, and what was appended, piece behind piece, at the end of the history.
//! A repeat of it goes from one to the other and back. So version 2 remembers two places and says where a copy goes on without a number.

use crate::block::Space;

/// How an operation names its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// By a distance from the running diagonal of this space.
    Distance(Space),
    /// On the diagonal of a place.
    Along(Nearness),
    /// Just behind the last source at a place.
    Behind(Nearness),
}

/// Which of the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nearness {
    /// That of the last copy.
    Last,
    /// The one that was left for it.
    Before,
}

impl Mode {
    const KNOWN: [Self; 4] = [
        Self::Along(Nearness::Last),
        Self::Behind(Nearness::Last),
        Self::Along(Nearness::Before),
        Self::Behind(Nearness::Before),
    ];

    pub const fn code(self) -> u64 {
        match self {
            Self::Distance(space) => space.code() as u64,
            Self::Along(Nearness::Last) => 2,
            Self::Behind(Nearness::Last) => 3,
            Self::Along(Nearness::Before) => 4,
            Self::Behind(Nearness::Before) => 5,
        }
    }

    pub fn from_code(code: u64) -> Option<Self> {
        let mut all = Space::BOTH
            .map(Self::Distance)
            .into_iter()
            .chain(Self::KNOWN);
        all.find(|mode| mode.code() == code)
    }
}

/// Where copies were made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    space: Space,
    /// Source minus plain offset.
    diagonal: i64,
    /// Behind the source.
    end: u64,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    running: [Option<i64>; 2],
    last: Option<Place>,
    before: Option<Place>,
}

impl Places {
    /// Before the first operation of a block whose header has `diagonals`.
    pub const fn starting(diagonals: [Option<i64>; 2]) -> Self {
        Self {
            running: diagonals,
            last: None,
            before: None,
        }
    }

    /// A space is copied from for the first time.
    pub const fn begin(&mut self, space: Space, diagonal: i64) {
        *space.of_mut(&mut self.running) = Some(diagonal);
    }

    pub const fn running(&self, space: Space) -> Option<i64> {
        space.of(self.running)
    }

    const fn at(&self, nearness: Nearness) -> Option<Place> {
        match nearness {
            Nearness::Last => self.last,
            Nearness::Before => self.before,
        }
    }

    /// How the source at `position` on `diagonal` is named.
    pub fn mode_of(&self, space: Space, diagonal: i64, position: u64) -> Mode {
        let is_there = |mode: &Mode| match *mode {
            Mode::Along(nearness) => self
                .at(nearness)
                .is_some_and(|place| (place.space, place.diagonal) == (space, diagonal)),
            Mode::Behind(nearness) => self
                .at(nearness)
                .is_some_and(|place| (place.space, place.end) == (space, position)),
            Mode::Distance(_) => false,
        };
        let known = Mode::KNOWN.into_iter().find(is_there);
        known.unwrap_or(Mode::Distance(space))
    }

    /// The space and diagonal that a mode other than a distance names at `plain_offset`.
    pub fn place_of(&self, mode: Mode, plain_offset: u32) -> Option<(Space, i64)> {
        match mode {
            Mode::Distance(_) => None,
            Mode::Along(nearness) => {
                let place = self.at(nearness)?;
                Some((place.space, place.diagonal))
            }
            Mode::Behind(nearness) => {
                let place = self.at(nearness)?;
                // A position is at most 2^62.
                let diagonal = place.end.cast_signed() - i64::from(plain_offset);
                Some((place.space, diagonal))
            }
        }
    }

    /// A copy was made: from there on it is the last place, and the one that it did not come from is the one before.
    pub const fn went(&mut self, mode: Mode, space: Space, diagonal: i64, end: u64) {
        if !matches!(
            mode,
            Mode::Along(Nearness::Last) | Mode::Behind(Nearness::Last)
        ) {
            self.before = self.last;
        }
        *space.of_mut(&mut self.running) = Some(diagonal);
        self.last = Some(Place {
            space,
            diagonal,
            end,
        });
    }
}
