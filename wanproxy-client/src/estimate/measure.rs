//! Runs files through the codec and counts what would cross the line.
//!
//! A file is a stream of its own, cut into blocks as a stream in bulk is. Of the pair of histories that two edges share, only the sender's own is needed:
//! its peer takes and acknowledges everything at once. What counts as a block's WAN bytes:
//!
//! ```text
//! block  = its clear header + its body, as the encoder makes them
//! framed = block + the header of a Data frame for every 64 KiB of it
//! wan    = framed + 22 bytes for each TLS record of at most 16 KiB; a block begins a record
//! ```
//!
//! A busy link puts several small blocks into one record, so this is an upper bound there. Not in it, since they depend on the service and the line and
//! not on the bytes: opening and finishing a stream, acknowledgements on their way back, TCP and IP headers.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::block::{BlockVersion, Known};
use codec::domain::{Domain, DomainConfig, Lease, Log};
use codec::encoder::{Continuation, EncodeRequest, Encoder};
use codec::frame::{Coverage, DomainId, FRAGMENT_MAX, StreamId, data_header};
use codec::policy::{BULK_BLOCK_BYTES, Habit, Level};

/// Plain bytes of a TLS record at most (RFC 8446, 5.1).
const TLS_RECORD_MAX_BYTES: usize = 1 << 14;

/// What TLS 1.3 adds to a record: 5 bytes of header, the content type, and a tag of 16 (AES-GCM and ChaCha20-Poly1305 alike).
const TLS_RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16;

/// An index entry (8 bytes) for every 64 bytes of history, as the tunnel's histories have it.
const HISTORY_BYTES_PER_INDEX_BYTE: u64 = 8;

/// What some files came to. Plain bytes are copied, compressed or raw: those three sum to `bytes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Files that were read to their end.
    pub files: u64,
    /// Their plain bytes, and those of files that could be read in part.
    pub bytes: u64,
    /// What would cross the line.
    pub wan_bytes: u64,
    /// Plain bytes that the history held.
    pub copied_bytes: u64,
    /// Plain bytes that zstd made smaller.
    pub compressed_bytes: u64,
    /// Plain bytes that travel as they are.
    pub raw_bytes: u64,
    /// Time that one core spent in the codec; reading files is not in it.
    pub codec_time: Duration,
}

impl Sums {
    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.wan_bytes += other.wan_bytes;
        self.copied_bytes += other.copied_bytes;
        self.compressed_bytes += other.compressed_bytes;
        self.raw_bytes += other.raw_bytes;
        self.codec_time += other.codec_time;
    }
}

/// The sending end of a tunnel without a line.
pub(super) struct Measurer {
    domain: Arc<Domain>,
    /// Held for as long as the history is used: without it nothing counts as agreed.
    _lease: Option<Lease>,
    encoder: Encoder,
    level: Level,
    streams: u64,
    blocks: u64,
    /// Behind the newest append.
    appended_end: u64,
}

/// A stream in the middle.
struct Stream {
    id: StreamId,
    offset: u64,
    hint: Option<Continuation>,
    habit: Habit,
    /// How long the next block is: what the tunnel cuts off a stream in bulk.
    block_bytes: u64,
}

impl Measurer {
    /// An empty history of at most `history_bytes`; its index takes an eighth of that besides.
    pub(super) fn new(history_bytes: u64, level: Level) -> Self {
        let domain = Arc::new(Domain::in_memory(DomainConfig {
            own_capacity_bytes: history_bytes,
            mirror_capacity_bytes: 0,
            index_capacity_bytes: history_bytes / HISTORY_BYTES_PER_INDEX_BYTE,
            // Names the history towards a peer; here there is none.
            epoch: [0; 16],
        }));
        let lease = domain.try_lease();
        // A peer that holds nothing yet, and has as much room.
        domain.agree(Log::Own, &Coverage::default());
        domain.agree(Log::Mirror, &Coverage::default());
        domain.set_quota(history_bytes);
        Self {
            domain,
            _lease: lease,
            encoder: Encoder::new(),
            level,
            streams: 0,
            blocks: 0,
            appended_end: 0,
        }
    }

    /// Sends a file as a new stream, adds to `sums` what it came to, and tells `advance` of bytes as they are done.
    ///
    /// # Errors
    /// It cannot be read to its end. What came before stays in the history, and in `sums` with the exception of `files`.
    pub(super) fn file(
        &mut self,
        file: &mut impl Read,
        sums: &mut Sums,
        mut advance: impl FnMut(u64),
    ) -> io::Result<()> {
        self.streams += 1;
        let mut stream = Stream {
            id: StreamId(self.streams),
            offset: 0,
            hint: None,
            habit: Habit::default(),
            block_bytes: BULK_BLOCK_BYTES,
        };
        loop {
            let mut plain =
                Vec::with_capacity(usize::try_from(stream.block_bytes).unwrap_or_default());
            file.by_ref()
                .take(stream.block_bytes)
                .read_to_end(&mut plain)?;
            if plain.is_empty() {
                sums.files += 1;
                return Ok(());
            }
            let bytes = plain.len() as u64;
            self.block(&mut stream, Bytes::from(plain), sums);
            advance(bytes);
        }
    }

    /// Encodes a block and hands it to the link that is not there.
    fn block(&mut self, stream: &mut Stream, plain: Bytes, sums: &mut Sums) {
        let bytes = plain.len() as u64;
        let start = Instant::now();
        let mut encoded = self.encoder.encode(EncodeRequest {
            version: BlockVersion::Two,
            stream: stream.id,
            stream_offset: stream.offset,
            plain,
            domain: Some((DomainId::SHARED, Arc::clone(&self.domain))),
            may_copy: true,
            may_append: true,
            level: self.level,
            hint: stream.hint,
            habit: stream.habit,
            replaces: None,
            avoid: None,
        });
        let position = match encoded.append_length() {
            0 => None,
            length => self.domain.reserve(length),
        };
        let known = Known {
            stream_offset: stream.offset,
            append_position: self.appended_end,
        };
        let (header, body) = encoded.wire(position, known);
        if let Some(append) = encoded.header().append {
            self.appended_end = append.end();
        }
        if let (Some(position), Some(append)) = (position, encoded.take_append()) {
            self.domain.commit(position, &append);
        }
        if let Some(floor) = self.domain.floor_wanted() {
            self.domain.drop_below(Log::Own, floor);
        }
        sums.codec_time += start.elapsed();
        stream.offset += bytes;
        stream.hint = encoded.continuation;
        stream.habit = encoded.habit;
        stream.block_bytes = encoded.tally.bulk_block_bytes();
        self.blocks += 1;
        sums.bytes += bytes;
        sums.wan_bytes += wan_bytes(self.blocks, header.len() + body.len());
        sums.copied_bytes += u64::from(encoded.tally.copied_bytes);
        sums.compressed_bytes += u64::from(encoded.tally.compressed_bytes);
        sums.raw_bytes += u64::from(encoded.tally.raw_bytes);
    }
}

/// What the block `number` of `block_bytes` encoded bytes takes on the line; see the head of this file.
fn wan_bytes(number: u64, block_bytes: usize) -> u64 {
    let mut framed_bytes = 0;
    let mut offset = 0;
    while offset < block_bytes {
        let end = block_bytes.min(offset + FRAGMENT_MAX);
        let header = data_header(number, offset as u64, end == block_bytes, end - offset);
        framed_bytes += header.len() + (end - offset);
        offset = end;
    }
    let records = framed_bytes.div_ceil(TLS_RECORD_MAX_BYTES);
    (framed_bytes + records * TLS_RECORD_OVERHEAD_BYTES) as u64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Bytes that do not compress.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        (0..length.div_ceil(8))
            .flat_map(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (z ^ z >> 31).to_le_bytes()
            })
            .take(length)
            .collect()
    }

    fn sent(measurer: &mut Measurer, mut file: &[u8]) -> Sums {
        let mut sums = Sums::default();
        let mut advanced = 0;
        measurer
            .file(&mut file, &mut sums, |bytes| advanced += bytes)
            .unwrap();
        assert_eq!(sums.files, 1);
        assert_eq!(advanced, sums.bytes);
        assert_eq!(
            sums.copied_bytes + sums.compressed_bytes + sums.raw_bytes,
            sums.bytes
        );
        sums
    }

    #[test]
    fn a_block_is_framed_and_sealed() {
        // Type, length, number and offset are a byte each; one record.
        assert_eq!(wan_bytes(1, 100), 100 + 4 + 22);
        // The length and the number take two bytes each: one record is full, or begins another.
        assert_eq!(wan_bytes(128, 16_378), 16_378 + 6 + 22);
        assert_eq!(wan_bytes(128, 16_379), 16_379 + 6 + 2 * 22);
        // Fragments of 65,536, 65,536 and 10 bytes; offsets of one, three and three bytes, lengths of three, three and one.
        assert_eq!(wan_bytes(1, 131_082), 131_082 + (6 + 8 + 6) + 9 * 22);
    }

    #[test]
    fn what_was_sent_before_is_copied_however_it_is_cut() {
        let mut measurer = Measurer::new(8 << 20, Level::default());
        let plain = noise(1_000_000, 1);
        let cold = sent(&mut measurer, &plain);
        assert_eq!(cold.raw_bytes, 1_000_000);
        assert!((1_000_000..1_003_000).contains(&cold.wan_bytes), "{cold:?}");
        let moved = [b"in front".as_slice(), &plain].concat();
        let warm = sent(&mut measurer, &moved);
        assert!(warm.wan_bytes * 500 < warm.bytes, "{warm:?}");
        assert!(warm.copied_bytes > 999_000, "{warm:?}");
    }

    #[test]
    fn a_history_forgets_what_does_not_fit_and_none_remembers_nothing() {
        let (plain, other) = (noise(1 << 20, 1), noise(8 << 20, 2));
        let mut small = Measurer::new(4 << 20, Level::default());
        sent(&mut small, &plain);
        sent(&mut small, &other);
        assert!(small.domain.stats().own_bytes <= 4 << 20);
        assert_eq!(sent(&mut small, &plain).copied_bytes, 0);
        let mut none = Measurer::new(0, Level::default());
        sent(&mut none, &plain);
        assert_eq!(sent(&mut none, &plain).copied_bytes, 0);
    }

    #[test]
    fn a_file_that_breaks_off_counts_up_to_there() {
        struct Broken(u64);
        impl Read for Broken {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Err(io::Error::other("bad sector"));
                }
                let length = into.len().min(usize::try_from(self.0).unwrap());
                self.0 -= length as u64;
                into.iter_mut().take(length).for_each(|byte| *byte = 7);
                Ok(length)
            }
        }
        let mut sums = Sums::default();
        let read = Measurer::new(1 << 20, Level::default()).file(
            &mut Broken(3 * BULK_BLOCK_BYTES),
            &mut sums,
            |_| (),
        );
        assert_eq!(read.unwrap_err().to_string(), "bad sector");
        assert_eq!((sums.files, sums.bytes), (0, 3 * BULK_BLOCK_BYTES));
    }

    #[test]
    fn levels_reach_the_codec() {
        let text: Vec<u8> = (0..40_000u32)
            .flat_map(|number| {
                format!("line {}\n", number.wrapping_mul(2_654_435_761)).into_bytes()
            })
            .collect();
        let at = |level| sent(&mut Measurer::new(8 << 20, level), &text);
        let (off, fast, hard) = (at(Level::Off), at(Level::Zstd(1)), at(Level::Zstd(19)));
        assert_eq!(off.compressed_bytes, 0);
        assert!(fast.wan_bytes < off.wan_bytes, "{fast:?} {off:?}");
        assert!(hard.wan_bytes < fast.wan_bytes, "{hard:?} {fast:?}");
    }
}
