//! zstd alone, as one would use it without a codec like ours: one long stream, or a patch against the last version.

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use crate::clock::timed;

/// What is handed to zstd at a time, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// Window of the long streams, as a power of two: `zstd --long=27`.
const LONG_WINDOW_LOG: u32 = 27;

/// The largest window that zstd has on 64 bits, as a power of two.
const WINDOW_LOG_MAX: u32 = 31;

/// Encoded bytes, and seconds of both ways.
pub struct Cost {
    pub wire_bytes: u64,
    pub encode_seconds: f64,
    pub decode_seconds: f64,
}

/// One stream, compressed from end to end, decompressed and compared.
pub struct Stream {
    compress: CCtx<'static>,
    decompress: DCtx<'static>,
}

impl Stream {
    pub fn new(level: i32, long: bool) -> Self {
        let (mut compress, mut decompress) = (CCtx::create(), DCtx::create());
        compress
            .set_parameter(CParameter::CompressionLevel(level))
            .unwrap();
        if long {
            let window = CParameter::WindowLog(LONG_WINDOW_LOG);
            compress.set_parameter(window).unwrap();
            let matching = CParameter::EnableLongDistanceMatching(true);
            compress.set_parameter(matching).unwrap();
        }
        let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        decompress.set_parameter(window).unwrap();
        Self {
            compress,
            decompress,
        }
    }

    /// Sends the stream's next bytes and looks at what arrives.
    pub fn send(&mut self, plain: &[u8]) -> Cost {
        let (wire, encode_seconds) = timed(|| self.compress(plain));
        let mut back = Vec::with_capacity(plain.len());
        let ((), decode_seconds) = timed(|| self.decompress(&wire, &mut back));
        assert!(back == plain, "zstd gave everything back");
        Cost {
            wire_bytes: wire.len() as u64,
            encode_seconds,
            decode_seconds,
        }
    }

    /// The stream's next bytes, and what zstd still held back of them at their end.
    pub fn compress(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut pieces = plain.chunks(PIECE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() {
                ZSTD_EndDirective::ZSTD_e_flush
            } else {
                ZSTD_EndDirective::ZSTD_e_continue
            };
            let mut input = InBuffer::around(piece);
            loop {
                wire.reserve(zstd_safe::compress_bound(piece.len()));
                let written = wire.len();
                let mut output = OutBuffer::around_pos(&mut wire, written);
                let left = self
                    .compress
                    .compress_stream2(&mut output, &mut input, end)
                    .unwrap();
                let flushed = end == ZSTD_EndDirective::ZSTD_e_continue || left == 0;
                if input.pos == piece.len() && flushed {
                    break;
                }
            }
        }
        wire
    }

    /// Into the capacity of `back`.
    fn decompress(&mut self, wire: &[u8], back: &mut Vec<u8>) {
        let mut input = InBuffer::around(wire);
        while input.pos < wire.len() {
            let written = back.len();
            let mut output = OutBuffer::around_pos(back, written);
            self.decompress
                .decompress_stream(&mut output, &mut input)
                .unwrap();
        }
    }
}

/// `new` at level 3 with all of `old` as its prefix, as `zstd -3 --patch-from` makes it: a window over both, and long-distance matching.
pub fn patch_from(old: &[u8], new: &[u8]) -> Cost {
    let both = (old.len() + new.len()).max(1 << 18);
    let window_log = (usize::BITS - (both - 1).leading_zeros()).min(WINDOW_LOG_MAX);
    let mut wire = Vec::with_capacity(zstd_safe::compress_bound(new.len()));
    let ((), encode_seconds) = timed(|| {
        let mut context = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(3),
            CParameter::WindowLog(window_log),
            CParameter::EnableLongDistanceMatching(true),
        ] {
            context.set_parameter(parameter).unwrap();
        }
        context.ref_prefix(old).unwrap();
        context.compress2(&mut wire, new).unwrap();
    });
    let mut back = Vec::with_capacity(new.len());
    let ((), decode_seconds) = timed(|| {
        let mut context = DCtx::create();
        let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        context.set_parameter(window).unwrap();
        context.ref_prefix(old).unwrap();
        context.decompress(&mut back, &wire).unwrap();
    });
    assert!(back == new, "the patch gave everything back");
    Cost {
        wire_bytes: wire.len() as u64,
        encode_seconds,
        decode_seconds,
    }
}

/// A message alone at level 1; raw where that does not shrink it.
pub fn alone(context: &mut CCtx<'_>, plain: &[u8], wire: &mut Vec<u8>) -> Cost {
    wire.clear();
    wire.reserve(zstd_safe::compress_bound(plain.len()));
    let (written, encode_seconds) = timed(|| context.compress(wire, plain, 1).unwrap());
    Cost {
        wire_bytes: written.min(plain.len()) as u64,
        encode_seconds,
        decode_seconds: 0.0,
    }
}
