//! The decoder: a block in, plain bytes out. One for each worker; it keeps scratch memory and nothing else between blocks.

use std::ops::Range;

use bytes::Bytes;

use crate::anchor::Density;
use crate::block::ops::Inner;
use crate::block::{BlockHeader, BodyKind, Op, Source, Space, Span};
use crate::compress::{Decompressor, Wrapping};
use crate::domain::{Domain, Log};
use crate::encoder::{Append, AppendScanner, Tally};
use crate::error::{DecodeError, Violation};
use crate::frame::{REFUSE_LOST_MAX, RefuseReason};
use crate::history::log::{Access, Standing};
use crate::history::reader::{Reader, Unseen};
use crate::policy::looks_like_noise;
use crate::ranges::RangeSet;

/// A decoded block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Its plain bytes, whose checksum was right.
    pub plain: Bytes,
    /// False if the block has an append range and it was not stored: the Ack must say so, and the range is a hole.
    pub stored: bool,
    /// How its bytes came.
    pub tally: Tally,
}

/// Decodes blocks.
pub struct Decoder {
    decompressor: Decompressor,
    appender: AppendScanner,
    inner: Vec<u8>,
    prefix: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder; its scratch memory grows to about 1.5 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            decompressor: Decompressor::new(),
            appender: AppendScanner::default(),
            inner: Vec::new(),
            prefix: Vec::new(),
        }
    }

    /// Decodes a block of the peer's, whose append range was registered when its first fragment came. `body` is what follows the header, in any
    /// number of pieces. Nothing of it enters the mirror before its checksum was right. Where histories are on disk it may wait for pages of them.
    ///
    /// # Errors
    /// [`DecodeError::Waits`] if the block must be decoded again later; [`DecodeError::Refused`] and [`DecodeError::Violation`] as the protocol has them.
    pub fn decode(
        &mut self,
        domain: Option<&Domain>,
        header: &BlockHeader,
        body: &[Bytes],
    ) -> Result<Decoded, DecodeError> {
        self.attempt(domain, header, body, true)
    }

    /// The same on a thread that must not wait for a disk.
    ///
    /// # Errors
    /// [`DecodeError::NotResident`] if pages have to be read: it is for [`Decoder::decode`] on another thread. Else as there.
    pub fn try_decode(
        &mut self,
        domain: Option<&Domain>,
        header: &BlockHeader,
        body: &[Bytes],
    ) -> Result<Decoded, DecodeError> {
        self.attempt(domain, header, body, false)
    }

    fn attempt(
        &mut self,
        domain: Option<&Domain>,
        header: &BlockHeader,
        body: &[Bytes],
        may_block: bool,
    ) -> Result<Decoded, DecodeError> {
        let sources = Sources {
            domain,
            side: Side::Receiver,
            may_block,
        };
        let Plain { plain, runs, tally } = self.plain(sources, header, body)?;
        let Some(span) = header.append else {
            return Ok(Decoded {
                plain,
                stored: true,
                tally,
            });
        };
        let domain = domain.ok_or(Violation::NoDomain)?;
        let stored = self.store(domain, span, header, plain.clone(), runs);
        Ok(Decoded {
            plain,
            stored,
            tally,
        })
    }

    /// Decodes a block of one's own, to send its bytes again: from whatever is still there, and without appending anything. It may wait for a disk.
    ///
    /// # Errors
    /// [`DecodeError::Refused`] if the bytes are no longer there, or not those that were sent.
    pub fn rebuild(
        &mut self,
        domain: Option<&Domain>,
        header: &BlockHeader,
        body: &[Bytes],
    ) -> Result<Bytes, DecodeError> {
        let sources = Sources {
            domain,
            side: Side::Sender,
            may_block: true,
        };
        self.plain(sources, header, body)
            .map(|decoded| decoded.plain)
    }

    /// The same on a thread that must not wait for a disk.
    ///
    /// # Errors
    /// [`DecodeError::NotResident`] if pages have to be read. Else as there.
    pub fn try_rebuild(
        &mut self,
        domain: Option<&Domain>,
        header: &BlockHeader,
        body: &[Bytes],
    ) -> Result<Bytes, DecodeError> {
        let sources = Sources {
            domain,
            side: Side::Sender,
            may_block: false,
        };
        self.plain(sources, header, body)
            .map(|decoded| decoded.plain)
    }

    fn plain(
        &mut self,
        from: Sources<'_>,
        header: &BlockHeader,
        body: &[Bytes],
    ) -> Result<Plain, DecodeError> {
        header.check()?;
        let plain_bytes = header.plain_length as usize;
        let mut runs = Vec::new();
        let mut sources = Vec::from_iter(header.prefix);
        let plain = match header.body {
            BodyKind::Raw => {
                let plain = join(body, plain_bytes).ok_or_else(|| bad_body(header))?;
                runs.push(0..plain_bytes);
                plain
            }
            BodyKind::Stored | BodyKind::Zstd | BodyKind::ZstdBlock => {
                self.unpack(from, header, body, &mut sources, &mut runs)?
            }
        };
        let right = plain.len() == plain_bytes
            && header.checksum.is_none_or(|checksum| {
                checksum == BlockHeader::checksum_of(header.version, &plain)
            });
        if right {
            let copies = sources.iter().skip(usize::from(header.prefix.is_some()));
            let copied_bytes = copies.map(|copy| copy.length).sum();
            let tally = tally(header, copied_bytes);
            Ok(Plain { plain, runs, tally })
        } else {
            Err(damaged(&sources))
        }
    }

    /// The plain bytes of a stored or zstd body, in a buffer of their own.
    fn unpack(
        &mut self,
        from: Sources<'_>,
        header: &BlockHeader,
        body: &[Bytes],
        sources: &mut Vec<Source>,
        runs: &mut Vec<Range<usize>>,
    ) -> Result<Bytes, DecodeError> {
        let Self {
            decompressor,
            inner,
            prefix,
            ..
        } = self;
        prefix.clear();
        if let Some(source) = header.prefix {
            from.check(&[source])?;
            copy(&mut from.reader()?, source, from.side, prefix)?;
        }
        // A prefix that is not what the sender had makes nonsense of a correct block.
        let nonsense = |error: DecodeError| {
            if header.prefix.is_some() {
                damaged(&Vec::from_iter(header.prefix))
            } else {
                error
            }
        };
        let literals_only = !header.copies();
        let mut own = Vec::new();
        let inner = if literals_only { &mut own } else { inner };
        if header.body.is_compressed() {
            let wrapping = if header.body == BodyKind::Zstd {
                Wrapping::Frame
            } else {
                Wrapping::Block
            };
            let inner_bytes = header.inner_length as usize;
            let parts = body.iter().map(AsRef::as_ref);
            if !decompressor.decompress(wrapping, parts, prefix, inner_bytes, inner) {
                return Err(nonsense(bad_body(header).into()));
            }
        } else {
            if body.iter().map(Bytes::len).sum::<usize>() as u64
                > crate::block::inner_max_bytes(header.plain_length)
            {
                return Err(bad_body(header).into());
            }
            inner.clear();
            body.iter().for_each(|part| inner.extend_from_slice(part));
        }
        let parsed = Inner::read(header, inner).map_err(|error| nonsense(error.into()))?;
        if literals_only {
            // All that is before the literals is the length of no operations.
            let before = inner.len() - parsed.literals().len();
            runs.push(0..header.plain_length as usize);
            return Ok(Bytes::from(own).slice(before..));
        }
        sources.extend(parsed.operations().filter_map(Op::source));
        from.check(sources)?;
        let mut plain = Vec::with_capacity(header.plain_length as usize);
        let mut reader = from.reader()?;
        let mut literals = parsed.literals();
        for op in parsed.operations() {
            let start = plain.len();
            match op.source() {
                None => {
                    let (these, rest) = literals
                        .split_at_checked(op.length() as usize)
                        .ok_or_else(|| bad_body(header))?;
                    plain.extend_from_slice(these);
                    literals = rest;
                }
                Some(source) => copy(&mut reader, source, from.side, &mut plain)?,
            }
            if op.is_appended() {
                crate::encoder::push_run(runs, start..plain.len());
            }
        }
        Ok(plain.into())
    }

    fn store(
        &mut self,
        domain: &Domain,
        span: Span,
        header: &BlockHeader,
        plain: Bytes,
        runs: Vec<Range<usize>>,
    ) -> bool {
        let density = Density::of(header.body == BodyKind::Raw && looks_like_noise(&plain));
        let mut append = Append::new(header.stream, plain, runs);
        append.scan(density, &mut self.appender);
        append.length() == span.length && domain.fill(Log::Mirror, span, &append)
    }
}

/// What a block says, before anything is stored.
struct Plain {
    plain: Bytes,
    /// What of it is appended.
    runs: Vec<Range<usize>>,
    tally: Tally,
}

/// How the plain bytes of a block came, of which `copied_bytes` were copies: as the encoder counts them.
fn tally(header: &BlockHeader, copied_bytes: u32) -> Tally {
    let literal_bytes = header.plain_length.saturating_sub(copied_bytes);
    let (compressed_bytes, raw_bytes) = if header.body.is_compressed() {
        (literal_bytes, 0)
    } else {
        (0, literal_bytes)
    };
    Tally {
        copied_bytes,
        compressed_bytes,
        raw_bytes,
    }
}

/// Whose side a block is decoded on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Sender,
    Receiver,
}

impl Side {
    const fn log(self, space: Space) -> Log {
        match (self, space) {
            (Self::Sender, Space::Sender) | (Self::Receiver, Space::Receiver) => Log::Own,
            (Self::Sender, Space::Receiver) | (Self::Receiver, Space::Sender) => Log::Mirror,
        }
    }

    const fn access(self) -> Access {
        match self {
            Self::Sender => Access::Present,
            Self::Receiver => Access::Covered,
        }
    }
}

/// Where a block's sources are to be read.
#[derive(Clone, Copy)]
struct Sources<'d> {
    domain: Option<&'d Domain>,
    side: Side,
    may_block: bool,
}

impl<'d> Sources<'d> {
    fn reader(self) -> Result<Reader<'d>, DecodeError> {
        let domain = self.domain.ok_or(Violation::NoDomain)?;
        Ok(Reader::new(domain, self.side.access(), self.may_block))
    }

    /// Whether all of `sources` can be read now, may be later, or never. What may never be is found before what is waited for.
    fn check(self, sources: &[Source]) -> Result<(), DecodeError> {
        if sources.is_empty() {
            return Ok(());
        }
        let domain = self.domain.ok_or(Violation::NoDomain)?;
        if self.side == Side::Sender {
            return Ok(());
        }
        let mut lost = Vec::new();
        let mut waits = None;
        for space in Space::BOTH {
            let log = self.side.log(space);
            let history = domain.read(log);
            for source in sources.iter().filter(|source| source.space == space) {
                let range = source.span().range();
                match history.standing(&range) {
                    Standing::Covered => {}
                    // Of our own log the peer knows nothing that was not sent whole.
                    Standing::Pending if log == Log::Own => {
                        return Err(Violation::NeverSent {
                            position: range.start,
                        }
                        .into());
                    }
                    Standing::Pending => {
                        waits = Some(DecodeError::Waits {
                            log,
                            span: source.span(),
                        })
                    }
                    Standing::Beyond => {
                        return Err(Violation::NeverSent {
                            position: range.start.max(history.tail()),
                        }
                        .into());
                    }
                    Standing::Gone => {
                        lost.extend(history.gone(&range).into_iter().map(|range| (space, range)))
                    }
                }
            }
        }
        if !lost.is_empty() {
            return Err(refused(RefuseReason::Evicted, lost));
        }
        waits.map_or(Ok(()), Err)
    }
}

/// Appends a source's bytes to `out`. They were there a moment ago; what has been evicted since is refused.
fn copy(
    reader: &mut Reader<'_>,
    source: Source,
    side: Side,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let Span { mut position, .. } = source.span();
    let end = source.span().end();
    while position < end {
        let seen = reader
            .from(side.log(source.space), position)
            .filter(|seen| !seen.is_empty());
        let Some(seen) = seen else {
            return Err(match reader.take_unseen() {
                Unseen::NotResident => DecodeError::NotResident,
                Unseen::Unreadable(lost) => {
                    refused(RefuseReason::Unreadable, vec![(source.space, lost)])
                }
                Unseen::Gone => refused(RefuseReason::Evicted, vec![(source.space, position..end)]),
            });
        };
        let wanted = usize::try_from(end - position)
            .unwrap_or(usize::MAX)
            .min(seen.len());
        out.extend_from_slice(seen.get(..wanted).unwrap_or_default());
        position += wanted as u64;
    }
    Ok(())
}

/// The pieces as one; `None` unless they have `length` bytes together. A single piece is shared, not copied.
fn join(body: &[Bytes], length: usize) -> Option<Bytes> {
    if body.iter().map(Bytes::len).sum::<usize>() != length {
        return None;
    }
    if let [only] = body {
        return Some(only.clone());
    }
    let mut joined = Vec::with_capacity(length);
    body.iter().for_each(|part| joined.extend_from_slice(part));
    Some(joined.into())
}

const fn bad_body(header: &BlockHeader) -> Violation {
    Violation::Body {
        stream_offset: header.stream_offset,
    }
}

/// Wrong bytes: whatever they were made of is not to be used again.
fn damaged(sources: &[Source]) -> DecodeError {
    refused(
        RefuseReason::Damaged,
        sources
            .iter()
            .map(|source| (source.space, source.span().range())),
    )
}

/// A refusal that names the lost ranges, joined where they touch, as many as a frame holds.
fn refused(
    reason: RefuseReason,
    lost: impl IntoIterator<Item = (Space, Range<u64>)>,
) -> DecodeError {
    let mut sets = [RangeSet::new(), RangeSet::new()];
    for (space, range) in lost {
        space.of_mut(&mut sets).insert(range);
    }
    let ranges = Space::BOTH.into_iter().zip(&sets).flat_map(|(space, set)| {
        set.iter().filter_map(move |range| {
            let length = u32::try_from(range.end - range.start).ok()?;
            Some(Source {
                space,
                position: range.start,
                length,
            })
        })
    });
    DecodeError::Refused {
        reason,
        lost: ranges.take(REFUSE_LOST_MAX).collect(),
    }
}
