//! The encoder: plain bytes in, a block out. One for each worker; it keeps scratch memory and nothing else between blocks.

mod append;
mod encoded;
mod extend;
mod finder;
mod prefix;
mod request;

use std::ops::Range;

use bytes::Bytes;

pub use append::Append;
pub(crate) use append::{AppendScanner, push_run};
pub use encoded::{Encoded, Tally, Uses};
pub use request::{Avoid, Continuation, EncodeRequest};

use crate::anchor::{Density, Selector};
use crate::block::ops::Writer;
use crate::block::{BlockHeader, BlockVersion, BodyKind, Source, Space};
use crate::compress::{Compressor, only_block};
use crate::domain::Log;
use crate::history::log::Access;
use crate::history::reader::Reader;
use crate::policy::{
    APPEND_MIN_BYTES, COMPRESS_MIN_BYTES, GAIN_FRACTION, Level, PREFIXED_MIN_BYTES, REAPPEND_BYTES,
    looks_like_noise, prefix_named_bytes,
};
use finder::{Finder, Match};
use prefix::Region;

/// Encodes blocks.
pub struct Encoder {
    compressor: Compressor,
    finder: Finder,
    appender: AppendScanner,
    writer: Writer,
    /// What zstd gets: the prefix, if any, and the inner part.
    input: Vec<u8>,
}

/// Literals, in bytes, from which on a prefix is looked up: loading it costs as much as compressing its own length.
const PREFIX_LITERALS_MIN_BYTES: u32 = 256;

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder; its scratch memory grows to about 1.5 MiB at level 1.
    #[must_use]
    pub fn new() -> Self {
        Self {
            compressor: Compressor::new(),
            finder: Finder::default(),
            appender: AppendScanner::default(),
            writer: Writer::new(BlockVersion::One),
            input: Vec::new(),
        }
    }

    /// Encodes one block. What cannot be improved travels raw. Where histories are on disk it may wait for pages of them.
    pub fn encode(&mut self, request: EncodeRequest) -> Encoded {
        self.attempt(&request, true)
            .expect("a reader that may wait is never stuck")
    }

    /// The same on a thread that must not wait for a disk.
    ///
    /// # Errors
    /// The request, if pages have to be read: it is for [`Encoder::encode`] on another thread.
    pub fn try_encode(&mut self, request: EncodeRequest) -> Result<Encoded, Box<EncodeRequest>> {
        self.attempt(&request, false)
            .ok_or_else(|| Box::new(request))
    }

    /// `None` if it may not block and has to.
    fn attempt(&mut self, request: &EncodeRequest, may_block: bool) -> Option<Encoded> {
        let domain = request
            .domain
            .as_ref()
            .filter(|_| request.replaces.is_none())
            .map(|(_, domain)| domain.as_ref());
        let plain = &request.plain;
        self.finder.clear();
        let sparsely = request.habit.scans_sparsely() && looks_like_noise(plain);
        let hint = request.hint.and_then(|hint| hint.at(request.stream_offset));
        let mut reader = domain.map(|domain| {
            Reader::new(domain, Access::Source, may_block).avoiding(request.avoid.clone())
        });
        if let (Some(domain), Some(reader)) = (domain, reader.as_mut().filter(|_| request.may_copy))
        {
            let density = Density::of(sparsely);
            if !self.finder.find(reader, domain, plain, density, hint) {
                return None;
            }
        }
        let continuation = self.continuation(request, hint);
        let region = domain
            .filter(|_| request.level != Level::Off)
            .and_then(|domain| {
                Region::choose(domain, request.stream, plain.len(), &self.finder.matches)
            });
        if region
            .as_ref()
            .is_some_and(|region| region.replaces(plain.len(), &self.finder.matches))
        {
            self.finder.matches.clear();
        }
        let mut uses = Uses::default();
        for copy in &self.finder.matches {
            uses.add(copy.log, copy.position);
        }
        let appends = domain.is_some() && request.may_append && plain.len() >= APPEND_MIN_BYTES;
        let renew = domain.map(|domain| [Log::Own, Log::Mirror].map(|log| domain.renew_below(log)));
        let runs = self.write_operations(request.version, plain.len(), renew.unwrap_or_default());
        let sums = self.writer.sums();

        let checksum = BlockHeader::checksum_of(request.version, plain);
        let mut header = BlockHeader {
            version: request.version,
            stream: request.stream,
            stream_offset: request.stream_offset,
            plain_length: sums.literal_bytes + sums.copied_bytes,
            body: BodyKind::Raw,
            domain: request
                .domain
                .as_ref()
                .filter(|_| domain.is_some())
                .map(|(id, _)| *id),
            append: None,
            prefix: None,
            diagonals: self.writer.diagonals(),
            inner_length: 0,
            replaces: request.replaces,
            checksum: Some(checksum),
        };
        let mut habit = request.habit;
        let noisy = self.finder.matches.is_empty() && (sparsely || looks_like_noise(plain));
        let body = if self.finder.matches.is_empty() {
            let hopeless =
                plain.len() < PREFIXED_MIN_BYTES || habit.trusts_the_look(plain.len(), noisy);
            let compressed = if hopeless {
                None
            } else {
                let prefix = self.prefix(reader.as_mut(), region.filter(|_| !noisy))?;
                self.compress(&mut header, plain, prefix, request.level)
            };
            habit = habit.after(plain.len(), noisy, compressed.is_some());
            compressed
        } else {
            habit = habit.after(plain.len(), false, true);
            let helps = sums.literal_bytes >= PREFIX_LITERALS_MIN_BYTES;
            let prefix = self.prefix(reader.as_mut(), region.filter(|_| helps))?;
            let body = self.compress(&mut header, plain, prefix, request.level);
            Some(body.unwrap_or_else(|| {
                header.body = BodyKind::Stored;
                let prefix_bytes = prefix.map_or(0, |prefix| prefix.length as usize);
                Bytes::copy_from_slice(self.input.get(prefix_bytes..).unwrap_or_default())
            }))
        };
        if let Some(prefix) = header.prefix {
            uses.add(log_of(prefix.space), prefix.position);
        }
        let tally = Tally {
            copied_bytes: sums.copied_bytes,
            compressed_bytes: if header.body.is_compressed() {
                sums.literal_bytes
            } else {
                0
            },
            raw_bytes: if header.body.is_compressed() {
                0
            } else {
                sums.literal_bytes
            },
        };
        let append = (appends && sums.appended_bytes > 0).then(|| {
            let density = Density::of(header.body == BodyKind::Raw && noisy);
            self.append(request, runs, density, sparsely)
        });
        // Only now: an attempt that was given up leaves no trace that another could follow.
        if let (Some(domain), Some(reader)) = (domain, &reader) {
            reader.note_pages();
            domain.count(self.finder.lookups, self.finder.hits);
        }
        Some(Encoded {
            body: body.unwrap_or_else(|| plain.clone()),
            header,
            checksum,
            append,
            continuation,
            habit,
            uses,
            tally,
        })
    }

    /// Where the next block may go on: behind the last copy, on its diagonal.
    fn continuation(
        &self,
        request: &EncodeRequest,
        hint: Option<Continuation>,
    ) -> Option<Continuation> {
        let length = request.plain.len();
        let stream_offset = request.stream_offset + length as u64;
        let Some(last) = self.finder.matches.last() else {
            let hint = hint?;
            return Some(Continuation {
                position: hint.position + length as u64,
                stream_offset,
                run_bytes: 0,
                ..hint
            });
        };
        let position = last.next_position() + (length - last.end) as u64;
        let run_bytes = if last.end == length {
            last.run_before_bytes + (last.end - last.start) as u64
        } else {
            0
        };
        Some(Continuation {
            log: last.log,
            position,
            stream_offset,
            run_bytes,
            places: self
                .finder
                .places
                .map(|place| place.map(|place| (place.log, place.next_position))),
        })
    }

    /// Turns the matches into operations; returns the stretches that are appended.
    fn write_operations(
        &mut self,
        version: BlockVersion,
        plain_length: usize,
        renew_below: [u64; 2],
    ) -> Vec<Range<usize>> {
        self.writer.clear(version);
        let mut runs = Vec::new();
        let mut at = 0;
        for copy in &self.finder.matches {
            let Match {
                start,
                end,
                log,
                position,
                ..
            } = *copy;
            let space = space_of(log);
            let old = position < space.of(renew_below);
            let append = old || copy.run_bytes() < REAPPEND_BYTES;
            push_run(&mut runs, at..if append { end } else { start });
            self.writer.literal(length_of(start - at));
            self.writer
                .copy(length_of(end - start), append, space, position);
            at = end;
        }
        push_run(&mut runs, at..plain_length);
        self.writer.literal(length_of(plain_length - at));
        runs
    }

    /// Builds the inner part behind what `input` holds of a prefix and compresses it, if that shrinks it.
    fn compress(
        &mut self,
        header: &mut BlockHeader,
        plain: &[u8],
        prefix: Option<Source>,
        level: Level,
    ) -> Option<Bytes> {
        let prefix_bytes = prefix.map_or(0, |prefix| prefix.length as usize);
        self.input.truncate(prefix_bytes);
        self.writer.put_inner(&mut self.input);
        let mut at = 0;
        for copy in &self.finder.matches {
            self.input
                .extend_from_slice(plain.get(at..copy.start).unwrap_or_default());
            at = copy.end;
        }
        self.input
            .extend_from_slice(plain.get(at..).unwrap_or_default());
        let inner_bytes = self.input.len() - prefix_bytes;
        let (least, named) = if prefix.is_some() {
            (PREFIXED_MIN_BYTES, prefix_named_bytes(header.version))
        } else {
            (COMPRESS_MIN_BYTES, 4)
        };
        if inner_bytes < least {
            return None;
        }
        let most = (inner_bytes - inner_bytes / GAIN_FRACTION).checked_sub(named)?;
        let mut frame = self
            .compressor
            .compress(&self.input, prefix_bytes, level, most)?;
        let block = only_block(frame).filter(|_| header.version == BlockVersion::Two);
        (header.body, frame) = match block {
            Some(block) => (BodyKind::ZstdBlock, block),
            None => (BodyKind::Zstd, frame),
        };
        header.inner_length = length_of(inner_bytes);
        header.prefix = prefix;
        Some(Bytes::copy_from_slice(frame))
    }

    /// Reads the prefix, if there is one, into `input`; `None` if that has to wait and may not.
    fn prefix(
        &mut self,
        reader: Option<&mut Reader<'_>>,
        region: Option<Region>,
    ) -> Option<Option<Source>> {
        let (Some(reader), Some(region)) = (reader, region) else {
            return Some(None);
        };
        reader.begin_prefix();
        let prefix = region.read(reader, &mut self.input);
        (!reader.is_stuck()).then_some(prefix)
    }

    /// The append with its anchors: those that the search has found, and for what it skipped those that are found now.
    fn append(
        &mut self,
        request: &EncodeRequest,
        runs: Vec<Range<usize>>,
        density: Density,
        sparsely: bool,
    ) -> Append {
        let plain = &request.plain;
        let whole = self
            .finder
            .scanned
            .first()
            .is_some_and(|range| *range == (0..plain.len()));
        let mut append = Append::new(request.stream, plain.clone(), runs);
        match density {
            Density::Sparse if whole => {
                let mut select = Selector::new(density);
                let anchors = self
                    .finder
                    .sparse
                    .iter()
                    .filter(|candidate| select.accepts(**candidate));
                append.take_anchors(
                    anchors.filter_map(|candidate| {
                        Some((candidate.key(plain)?, candidate.end as usize))
                    }),
                );
            }
            Density::Dense if !sparsely => {
                self.finder.scan_rest(plain, append.runs());
                append.take_anchors(self.finder.anchors.iter().copied());
            }
            _ => append.scan(density, &mut self.appender),
        }
        append
    }
}

/// How a block of ours names a log.
const fn space_of(log: Log) -> Space {
    match log {
        Log::Own => Space::Sender,
        Log::Mirror => Space::Receiver,
    }
}

/// The other way round.
const fn log_of(space: Space) -> Log {
    match space {
        Space::Sender => Log::Own,
        Space::Receiver => Log::Mirror,
    }
}

/// A length inside a block.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a block has at most 2^18 plain bytes and twice that of inner ones"
)]
const fn length_of(length: usize) -> u32 {
    length as u32
}
