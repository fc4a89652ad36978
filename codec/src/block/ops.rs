//! The operations of a block: which plain bytes are literals and which are copies, and from where.

mod places;

use bytes::BufMut;

use super::{
    BLOCK_PLAIN_MAX, BlockError, BlockHeader, BlockVersion, COPY_MIN, POSITION_MAX, Source, Space,
};
use crate::varint;
use places::{Mode, Places};

/// One operation, in plain order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The next bytes of the literals.
    Literal {
        /// At least 1 byte.
        length: u32,
    },
    /// Bytes of a history.
    Copy {
        /// At least [`COPY_MIN`] bytes.
        length: u32,
        /// Whether these bytes are appended to the history of the block's sender.
        append: bool,
        /// Whose history.
        space: Space,
        /// The position of the first byte.
        position: u64,
    },
}

impl Op {
    /// Plain bytes that the operation makes.
    #[must_use]
    pub const fn length(self) -> u32 {
        match self {
            Self::Literal { length } | Self::Copy { length, .. } => length,
        }
    }

    /// What it reads of a history.
    #[must_use]
    pub const fn source(self) -> Option<Source> {
        match self {
            Self::Literal { .. } => None,
            Self::Copy {
                length,
                space,
                position,
                ..
            } => Some(Source {
                space,
                position,
                length,
            }),
        }
    }

    /// Whether its bytes are appended, if the block appends at all.
    #[must_use]
    pub const fn is_appended(self) -> bool {
        match self {
            Self::Literal { .. } => true,
            Self::Copy { append, .. } => append,
        }
    }
}

/// Sums over the operations of one block, in plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Bytes that are literals.
    pub literal_bytes: u32,
    /// Bytes that are copied.
    pub copied_bytes: u32,
    /// Literals, and copies that are appended.
    pub appended_bytes: u32,
}

impl Sums {
    fn add(&mut self, op: Op) {
        let length = op.length();
        match op {
            Op::Literal { .. } => self.literal_bytes += length,
            Op::Copy { .. } => self.copied_bytes += length,
        }
        if op.is_appended() {
            self.appended_bytes += length;
        }
    }
}

/// Writes operations; one is reused for block after block.
#[derive(Debug)]
pub struct Writer {
    version: BlockVersion,
    bytes: Vec<u8>,
    /// Where each space's first copy lies: source minus plain offset.
    starts: [Option<i64>; 2],
    places: Places,
    sums: Sums,
    /// Literal bytes since the last copy, not written yet: a trailing run is implied.
    literal_run: u32,
}

impl Writer {
    /// An empty one.
    #[must_use]
    pub fn new(version: BlockVersion) -> Self {
        Self {
            version,
            bytes: Vec::new(),
            starts: [None; 2],
            places: Places::default(),
            sums: Sums::default(),
            literal_run: 0,
        }
    }

    /// Begins a new block; the memory is kept.
    pub fn clear(&mut self, version: BlockVersion) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self {
            bytes,
            ..Self::new(version)
        };
    }

    /// The next `length` plain bytes are literals; runs that follow one another are one, and 0 adds nothing.
    pub fn literal(&mut self, length: u32) {
        self.literal_run += length;
        self.sums.add(Op::Literal { length });
    }

    /// The next `length` plain bytes, at least [`COPY_MIN`], are those at `position` of `space`, ending at [`POSITION_MAX`] at most.
    pub fn copy(&mut self, length: u32, append: bool, space: Space, position: u64) {
        debug_assert!(
            length >= COPY_MIN && position.saturating_add(u64::from(length)) <= POSITION_MAX
        );
        let plain_offset = self.plain_length();
        let diagonal = position.cast_signed() - i64::from(plain_offset);
        if space.of(self.starts).is_none() {
            *space.of_mut(&mut self.starts) = Some(diagonal);
            self.places.begin(space, diagonal);
        }
        varint::put(&mut self.bytes, u64::from(self.literal_run));
        match self.version {
            BlockVersion::One => {
                let distance = diagonal - self.places.running(space).unwrap_or(diagonal);
                varint::put(&mut self.bytes, copy_code(length, append, space));
                varint::put_signed(&mut self.bytes, distance);
                self.places.went(Mode::Distance(space), space, diagonal, 0);
            }
            BlockVersion::Two => {
                let mode = self.places.mode_of(space, diagonal, position);
                varint::put(&mut self.bytes, mode_code(length, append, mode));
                if let Mode::Distance(space) = mode {
                    let distance = diagonal - self.places.running(space).unwrap_or(diagonal);
                    varint::put_signed(&mut self.bytes, distance);
                }
                let end = position + u64::from(length);
                self.places.went(mode, space, diagonal, end);
            }
        }
        self.literal_run = 0;
        self.sums.add(Op::Copy {
            length,
            append,
            space,
            position,
        });
    }

    /// The operations' bytes; the literals behind the last copy are implied.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The header's `diagonals`: one for each space that was copied from.
    #[must_use]
    pub const fn diagonals(&self) -> [Option<i64>; 2] {
        self.starts
    }

    /// What was written so far.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        self.sums
    }

    /// Plain bytes so far.
    #[must_use]
    pub const fn plain_length(&self) -> u32 {
        self.sums.literal_bytes + self.sums.copied_bytes
    }

    /// Appends the inner part of the block up to its literals, which follow: the operations' length and the operations. In version 2 a block without
    /// copies has neither.
    pub fn put_inner(&self, out: &mut impl BufMut) {
        if self.version == BlockVersion::Two && self.bytes.is_empty() {
            return;
        }
        varint::put(out, self.bytes.len() as u64);
        out.put_slice(&self.bytes);
    }
}

/// Reads operations and checks each: its bounds, and that the plain length is kept. It ends after the first error.
///
/// Literal runs of 0 bytes are not shown; the implied last run is. Lengths sum to the plain length exactly.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    version: BlockVersion,
    rest: &'a [u8],
    plain_length: u32,
    plain_offset: u32,
    places: Places,
    /// The copy that follows a literal run just shown.
    pending: Option<Op>,
    done: bool,
}

impl<'a> Reader<'a> {
    /// Over the operations of a block of `plain_length` bytes whose header has `diagonals`.
    #[must_use]
    pub const fn new(
        version: BlockVersion,
        operations: &'a [u8],
        plain_length: u32,
        diagonals: [Option<i64>; 2],
    ) -> Self {
        Self {
            version,
            rest: operations,
            plain_length,
            plain_offset: 0,
            places: Places::starting(diagonals),
            pending: None,
            done: false,
        }
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, BlockError> {
        varint::take(&mut self.rest).map_err(|error| BlockError::varint(field, error))
    }

    /// Plain bytes still to come.
    const fn left(&self) -> u32 {
        self.plain_length - self.plain_offset
    }

    /// A length that fits into what is left.
    fn fitting(&self, length: u64, field: &'static str) -> Result<u32, BlockError> {
        u32::try_from(length)
            .ok()
            .filter(|&length| length <= self.left())
            .ok_or(BlockError::Sum(field))
    }

    /// Reads a literal run and the copy behind it, and moves past both.
    fn pair(&mut self) -> Result<(u32, Op), BlockError> {
        let literal = self.varint("literal length")?;
        let literal = self.fitting(literal, "literal lengths")?;
        self.plain_offset += literal;
        let code = self.varint("copy length")?;
        let (length, append, mode) = match self.version {
            BlockVersion::One => split_copy_code(code)?,
            BlockVersion::Two => split_mode_code(code)?,
        };
        let length = self.fitting(length, "copy lengths")?;
        let (space, diagonal) =
            match mode {
                Mode::Distance(space) => {
                    let distance = varint::unzigzag(self.varint("distance")?);
                    let running = self.places.running(space).ok_or(BlockError::Contradiction(
                        "a copy from a space without a diagonal",
                    ))?;
                    let diagonal = running
                        .checked_add(distance)
                        .ok_or(BlockError::OutOfBounds("distance"))?;
                    (space, diagonal)
                }
                known => self.places.place_of(known, self.plain_offset).ok_or(
                    BlockError::Contradiction("a copy that goes on where none was"),
                )?,
            };
        let position = diagonal
            .checked_add(i64::from(self.plain_offset))
            .and_then(|position| u64::try_from(position).ok());
        let end = |position: u64| {
            position
                .checked_add(u64::from(length))
                .filter(|end| *end <= POSITION_MAX)
        };
        let (position, end) = position
            .and_then(|position| Some((position, end(position)?)))
            .ok_or(BlockError::OutOfBounds("copy source"))?;
        self.places.went(mode, space, diagonal, end);
        self.plain_offset += length;
        Ok((
            literal,
            Op::Copy {
                length,
                append,
                space,
                position,
            },
        ))
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Op, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(copy) = self.pending.take() {
            return Some(Ok(copy));
        }
        if self.done {
            return None;
        }
        if self.rest.is_empty() {
            self.done = true;
            let length = self.left();
            return (length > 0).then_some(Ok(Op::Literal { length }));
        }
        match self.pair() {
            Ok((0, copy)) => Some(Ok(copy)),
            Ok((length, copy)) => {
                self.pending = Some(copy);
                Some(Ok(Op::Literal { length }))
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Reader<'_> {}

/// The inner part of a stored or zstd body: operations and literals that agree with each other and with the header.
#[derive(Debug, Clone, Copy)]
pub struct Inner<'a> {
    version: BlockVersion,
    operations: &'a [u8],
    literals: &'a [u8],
    plain_length: u32,
    diagonals: [Option<i64>; 2],
    sums: Sums,
}

impl<'a> Inner<'a> {
    /// Takes `inner` apart and checks it against `header`: every operation, the sums of literals and of appended bytes, and that
    /// no copy reads what the block itself appends. Whether the sources exist is the history's to say.
    ///
    /// # Errors
    /// Any [`BlockError`].
    pub fn read(header: &BlockHeader, inner: &'a [u8]) -> Result<Self, BlockError> {
        if header.plain_length > BLOCK_PLAIN_MAX {
            return Err(BlockError::OutOfBounds("plain length"));
        }
        let (operations, literals) = if header.version == BlockVersion::Two && !header.copies() {
            (&[][..], inner)
        } else {
            let mut rest = inner;
            let length = varint::take(&mut rest)
                .map_err(|error| BlockError::varint("operations length", error))?;
            let length = usize::try_from(length)
                .map_err(|_| BlockError::OutOfBounds("operations length"))?;
            rest.split_at_checked(length)
                .ok_or(BlockError::CutShort("operations"))?
        };
        let mut sums = Sums::default();
        for op in Reader::new(
            header.version,
            operations,
            header.plain_length,
            header.diagonals,
        ) {
            let op = op?;
            if op.source().is_some_and(|source| header.appends_to(source)) {
                return Err(BlockError::Contradiction(
                    "a block must not use its own append range",
                ));
            }
            sums.add(op);
        }
        if sums.literal_bytes as usize != literals.len() {
            return Err(BlockError::Sum("literal lengths"));
        }
        if header
            .append
            .is_some_and(|append| append.length != sums.appended_bytes)
        {
            return Err(BlockError::Sum("appended lengths"));
        }
        Ok(Self {
            version: header.version,
            operations,
            literals,
            plain_length: header.plain_length,
            diagonals: header.diagonals,
            sums,
        })
    }

    /// The operations, from the first; they were all checked.
    pub fn operations(&self) -> impl Iterator<Item = Op> + use<'a> {
        Reader::new(
            self.version,
            self.operations,
            self.plain_length,
            self.diagonals,
        )
        .map_while(Result::ok)
    }

    /// All literals, one after another.
    #[must_use]
    pub const fn literals(&self) -> &'a [u8] {
        self.literals
    }

    /// Sums over the operations.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        self.sums
    }
}

fn copy_code(length: u32, append: bool, space: Space) -> u64 {
    u64::from(length - COPY_MIN) << 2 | u64::from(append) << 1 | u64::from(space.code())
}

fn split_copy_code(code: u64) -> Result<(u64, bool, Mode), BlockError> {
    let space = if code & 1 == 0 {
        Space::Sender
    } else {
        Space::Receiver
    };
    Ok((
        copy_length(code >> 2)?,
        code & 2 != 0,
        Mode::Distance(space),
    ))
}

fn mode_code(length: u32, append: bool, mode: Mode) -> u64 {
    u64::from(length - COPY_MIN) << 4 | u64::from(append) << 3 | mode.code()
}

fn split_mode_code(code: u64) -> Result<(u64, bool, Mode), BlockError> {
    let mode = Mode::from_code(code & 7).ok_or(BlockError::OutOfBounds("copy mode"))?;
    Ok((copy_length(code >> 4)?, code & 8 != 0, mode))
}

fn copy_length(beyond: u64) -> Result<u64, BlockError> {
    beyond
        .checked_add(u64::from(COPY_MIN))
        .ok_or(BlockError::OutOfBounds("copy length"))
}
