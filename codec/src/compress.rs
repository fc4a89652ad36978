//! zstd, as the wire wants it: one frame a block, without magic number, checksum or dictionary id, and optionally with a range of a history
//! as raw prefix.

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::policy::Level;

/// The largest window, as a power of two: a block's inner part is hardly larger.
const WINDOW_LOG_MAX: u32 = 18;

/// What every zstd frame begins with, and ours do not.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A frame with one compressed block, up to that block: single segment, the content's size in four bytes; and the block's header of three.
const ONE_BLOCK_DESCRIPTOR: u8 = 0b1010_0000;
const BLOCK_HEADER_BYTES: usize = 3;
/// Bytes of a block that its header can say.
const BLOCK_BYTES_MAX: usize = (1 << 21) - 1;

/// What zstd's own dictionaries begin with. A prefix is raw bytes of a history even if it begins so.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// Compresses blocks; its contexts and buffer are kept from block to block.
pub(crate) struct Compressor {
    context: CCtx<'static>,
    level: i32,
    prefixed: CCtx<'static>,
    frame: Vec<u8>,
}

impl Compressor {
    pub fn new() -> Self {
        Self {
            context: new_context(1),
            level: 1,
            prefixed: CCtx::create(),
            frame: Vec::new(),
        }
    }

    /// The frame for what follows the first `prefix_bytes` of `input`, made with these as its prefix, if it has at most `most_bytes`.
    ///
    /// That both lie in one buffer is what makes a prefix cheap: zstd then takes its ordinary path, as for one long input.
    pub fn compress(
        &mut self,
        input: &[u8],
        prefix_bytes: usize,
        level: Level,
        most_bytes: usize,
    ) -> Option<&[u8]> {
        let Level::Zstd(level) = level else {
            return None;
        };
        let level = i32::from(level);
        let (prefix, inner) = input.split_at_checked(prefix_bytes)?;
        let most_bytes = most_bytes + MAGIC.len();
        if self.frame.len() < most_bytes {
            self.frame.resize(most_bytes, 0);
        }
        let frame = self.frame.get_mut(..most_bytes)?;
        let frame_bytes = if prefix.is_empty() {
            if level != self.level {
                self.context = new_context(level);
                self.level = level;
            }
            self.context.compress2(frame, inner).ok()?
        } else if prefix.starts_with(&DICTIONARY_MAGIC) {
            return None;
        } else {
            self.prefixed
                .compress_using_dict(frame, inner, prefix, level)
                .ok()?
        };
        self.frame.get(..frame_bytes)?.strip_prefix(&MAGIC)
    }
}

/// The block of a frame (without its magic number) that is nothing but one compressed block.
pub(crate) fn only_block(frame: &[u8]) -> Option<&[u8]> {
    let (&descriptor, rest) = frame.split_first()?;
    let is_single_segment = descriptor & 1 << 5 != 0;
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        log => 1 << log,
    };
    let has_more = descriptor & 0b111 != 0;
    if has_more {
        return None;
    }
    let rest = rest.get(usize::from(!is_single_segment) + size_bytes..)?;
    let (header, block) = rest.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
    (*header == block_header(block.len())?).then_some(block)
}

/// The header of the last block of a frame, compressed to this many bytes.
fn block_header(bytes: usize) -> Option<[u8; BLOCK_HEADER_BYTES]> {
    const LAST: u32 = 1;
    const COMPRESSED: u32 = 2 << 1;
    let size = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= BLOCK_BYTES_MAX)?;
    let [a, b, c, _] = (size << 3 | COMPRESSED | LAST).to_le_bytes();
    Some([a, b, c])
}

/// What a compressed body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// A frame without its magic number.
    Frame,
    /// One compressed block.
    Block,
}

/// Decompresses blocks; its context and buffer are kept from block to block.
pub(crate) struct Decompressor {
    context: DCtx<'static>,
    frame: Vec<u8>,
}

impl Decompressor {
    pub fn new() -> Self {
        Self {
            context: DCtx::create(),
            frame: Vec::new(),
        }
    }

    /// Puts the content of `body` into `inner` if it has exactly `inner_bytes`; false otherwise, or if it is not what it should be.
    pub fn decompress<'a>(
        &mut self,
        wrapping: Wrapping,
        body: impl Iterator<Item = &'a [u8]>,
        prefix: &[u8],
        inner_bytes: usize,
        inner: &mut Vec<u8>,
    ) -> bool {
        self.frame.clear();
        self.frame.extend_from_slice(&MAGIC);
        let mut start = self.frame.len();
        if wrapping == Wrapping::Block {
            let Ok(content_bytes) = u32::try_from(inner_bytes) else {
                return false;
            };
            self.frame.push(ONE_BLOCK_DESCRIPTOR);
            self.frame.extend_from_slice(&content_bytes.to_le_bytes());
            start = self.frame.len();
            self.frame.extend_from_slice(&[0; BLOCK_HEADER_BYTES]);
        }
        for part in body {
            self.frame.extend_from_slice(part);
        }
        if wrapping == Wrapping::Block {
            let bytes = self.frame.len() - start - BLOCK_HEADER_BYTES;
            let place = self.frame.get_mut(start..start + BLOCK_HEADER_BYTES);
            let (Some(header), Some(place)) = (block_header(bytes), place) else {
                return false;
            };
            place.copy_from_slice(&header);
        }
        inner.clear();
        // zstd writes into the capacity and never beyond it.
        inner.reserve_exact(inner_bytes);
        let written = if prefix.starts_with(&DICTIONARY_MAGIC) {
            // The prefix is borrowed for as long as its context lives, so the kept one cannot have it.
            let mut context = DCtx::create();
            context
                .ref_prefix(prefix)
                .and_then(|_| context.decompress(inner, &self.frame))
        } else {
            self.context
                .decompress_using_dict(inner, &self.frame, prefix)
        };
        written == Ok(inner_bytes) && inner.len() == inner_bytes
    }
}

fn new_context(level: i32) -> CCtx<'static> {
    let mut context = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(WINDOW_LOG_MAX),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ];
    for parameter in parameters {
        let set = context.set_parameter(parameter);
        debug_assert!(set.is_ok(), "all values are within zstd's bounds");
    }
    context
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn compress(inner: &[u8], prefix: &[u8], level: Level, most_bytes: usize) -> Option<Vec<u8>> {
        let input = [prefix, inner].concat();
        Compressor::new()
            .compress(&input, prefix.len(), level, most_bytes)
            .map(<[u8]>::to_vec)
    }

    fn decompress(frame: &[u8], prefix: &[u8], inner_bytes: usize) -> Option<Vec<u8>> {
        let mut back = Vec::new();
        let (one, two) = frame.split_at(frame.len() / 2);
        Decompressor::new()
            .decompress(
                Wrapping::Frame,
                [one, two].into_iter(),
                prefix,
                inner_bytes,
                &mut back,
            )
            .then_some(back)
    }

    #[test]
    fn frames_have_no_magic_number_and_come_back() {
        let inner = include_bytes!("compress.rs");
        for level in [Level::zstd(1), Level::zstd(9), Level::zstd(19)] {
            let frame = compress(inner, &[], level, inner.len()).unwrap();
            assert!(frame.len() < inner.len() / 2 && !frame.starts_with(&MAGIC));
            assert_eq!(decompress(&frame, &[], inner.len()).unwrap(), inner);
            assert_eq!(decompress(&frame, &[], inner.len() - 1), None, "too long");
            assert_eq!(decompress(&frame, &[], inner.len() + 1), None, "too short");
        }
        assert_eq!(compress(inner, &[], Level::Off, inner.len()), None);
        assert_eq!(compress(inner, &[], Level::zstd(1), 50), None);
        assert_eq!(decompress(inner, &[], inner.len()), None);
    }

    #[test]
    fn a_block_alone_is_understood_where_its_frame_is() {
        let inner = include_bytes!("compress.rs");
        for prefix in [&[][..], inner.get(..5000).unwrap()] {
            for level in [1, 3, 9] {
                let frame = compress(inner, prefix, Level::zstd(level), inner.len()).unwrap();
                let block = only_block(&frame).unwrap();
                assert!(block.len() < frame.len());
                let mut back = Vec::new();
                for (bytes, right) in [
                    (inner.len(), true),
                    (inner.len() - 1, false),
                    (inner.len() + 1, false),
                ] {
                    let done = Decompressor::new().decompress(
                        Wrapping::Block,
                        block.chunks(100),
                        prefix,
                        bytes,
                        &mut back,
                    );
                    assert_eq!(done, right, "{bytes} bytes");
                    assert!(!right || back == inner);
                }
            }
        }
        let long: Vec<u8> = inner.iter().copied().cycle().take(200_000).collect();
        let frame = compress(&long, &[], Level::zstd(1), long.len()).unwrap();
        assert_eq!(only_block(&frame), None, "of two blocks");
        for end in 0..20 {
            assert_eq!(frame.get(..end).and_then(only_block), None, "cut at {end}");
        }
    }

    #[test]
    fn a_prefix_helps_and_is_needed() {
        let inner = include_bytes!("compress.rs");
        let frame = compress(inner, inner, Level::zstd(1), inner.len()).unwrap();
        assert!(frame.len() < 100);
        assert_eq!(decompress(&frame, inner, inner.len()).unwrap(), inner);
        assert_ne!(
            decompress(&frame, &[], inner.len()).as_deref(),
            Some(inner.as_slice())
        );
    }

    #[test]
    fn a_prefix_that_looks_like_a_dictionary_is_raw_bytes() {
        let inner = include_bytes!("compress.rs");
        let prefix = [&DICTIONARY_MAGIC, inner.as_slice()].concat();
        assert_eq!(
            compress(inner, &prefix, Level::zstd(1), inner.len()),
            None,
            "not made"
        );
        let mut context = new_context(1);
        context.ref_prefix(&prefix).unwrap();
        let mut frame = vec![0; inner.len()];
        let length = context.compress2(frame.as_mut_slice(), inner).unwrap();
        let frame = frame.get(MAGIC.len()..length).unwrap();
        assert_eq!(
            decompress(frame, &prefix, inner.len()).unwrap(),
            inner,
            "but understood"
        );
    }
}
