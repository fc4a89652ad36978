//! zstd, as the wire wants it: one frame a block, without magic number, checksum, content size or dictionary id, and optionally with a
//! range of a history as raw prefix.

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::policy::Level;

/// The largest window, as a power of two: a block's inner part is hardly larger.
const WINDOW_LOG_MAX: u32 = 18;

/// What every zstd frame begins with, and ours do not.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Compresses blocks; its context and buffer are kept from block to block.
pub(crate) struct Compressor {
    context: CCtx<'static>,
    level: i32,
    frame: Vec<u8>,
}

impl Compressor {
    pub fn new() -> Self {
        Self {
            context: new_context(1),
            level: 1,
            frame: Vec::new(),
        }
    }

    /// The frame for `inner` if it has at most `most_bytes`.
    pub fn compress(
        &mut self,
        inner: &[u8],
        prefix: &[u8],
        level: Level,
        most_bytes: usize,
    ) -> Option<&[u8]> {
        let Level::Zstd(level) = level else {
            return None;
        };
        let level = i32::from(level);
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
        } else {
            // The prefix is borrowed for as long as its context lives, so the kept one cannot have it.
            let mut context = new_context(level);
            context.ref_prefix(prefix).ok()?;
            context.compress2(frame, inner).ok()?
        };
        self.frame.get(..frame_bytes)?.strip_prefix(&MAGIC)
    }
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

    /// Puts the content of the frame in `body` into `inner` if it has exactly `inner_bytes`; false otherwise, or if it is no frame.
    pub fn decompress<'a>(
        &mut self,
        body: impl Iterator<Item = &'a [u8]>,
        prefix: &[u8],
        inner_bytes: usize,
        inner: &mut Vec<u8>,
    ) -> bool {
        self.frame.clear();
        self.frame.extend_from_slice(&MAGIC);
        for part in body {
            self.frame.extend_from_slice(part);
        }
        inner.clear();
        // zstd writes into the capacity and never beyond it.
        inner.reserve_exact(inner_bytes);
        let written = if prefix.is_empty() {
            self.context.decompress(inner, &self.frame)
        } else {
            let mut context = DCtx::create();
            context
                .ref_prefix(prefix)
                .and_then(|_| context.decompress(inner, &self.frame))
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

    fn round_trip(inner: &[u8], prefix: &[u8], level: Level) -> usize {
        let mut compressor = Compressor::new();
        let frame = compressor
            .compress(inner, prefix, level, inner.len() + 100)
            .unwrap()
            .to_vec();
        let mut back = Vec::new();
        let (one, two) = frame.split_at(frame.len() / 2);
        assert!(Decompressor::new().decompress(
            [one, two].into_iter(),
            prefix,
            inner.len(),
            &mut back
        ));
        assert_eq!(back, inner);
        frame.len()
    }

    #[test]
    fn frames_have_no_magic_number_and_come_back() {
        let inner = include_bytes!("compress.rs");
        for level in [Level::zstd(1), Level::zstd(9), Level::zstd(19)] {
            assert!(round_trip(inner, &[], level) < inner.len() / 2);
        }
        let mut compressor = Compressor::new();
        assert!(
            !compressor
                .compress(inner, &[], Level::zstd(1), inner.len())
                .unwrap()
                .starts_with(&MAGIC)
        );
        assert_eq!(
            compressor.compress(inner, &[], Level::Off, inner.len()),
            None
        );
        assert_eq!(compressor.compress(inner, &[], Level::zstd(1), 50), None);
    }

    #[test]
    fn a_prefix_helps_and_is_needed() {
        let inner = include_bytes!("compress.rs");
        // A prefix that looks like a zstd dictionary is raw content all the same.
        let prefix = [&[0x37, 0xa4, 0x30, 0xec], inner.as_slice()].concat();
        assert!(round_trip(inner, &prefix, Level::zstd(1)) < 100);
        let frame = Compressor::new()
            .compress(inner, &prefix, Level::zstd(1), inner.len())
            .unwrap()
            .to_vec();
        let mut back = Vec::new();
        let mut decompressor = Decompressor::new();
        assert!(
            !decompressor.decompress([frame.as_slice()].into_iter(), &[], inner.len(), &mut back)
                || back != inner
        );
        assert!(decompressor.decompress(
            [frame.as_slice()].into_iter(),
            &prefix,
            inner.len(),
            &mut back
        ));
        assert!(
            !decompressor.decompress(
                [frame.as_slice()].into_iter(),
                &prefix,
                inner.len() - 1,
                &mut Vec::new()
            ),
            "too long"
        );
        assert!(
            !decompressor.decompress(
                [frame.as_slice()].into_iter(),
                &prefix,
                inner.len() + 1,
                &mut back
            ),
            "too short"
        );
        assert!(
            !decompressor.decompress([frame.as_slice()].into_iter().take(0), &[], 0, &mut back)
                || back.is_empty()
        );
    }
}
