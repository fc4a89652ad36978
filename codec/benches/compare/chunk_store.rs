//! The usual design: content-defined chunks, named by hashes of 16 bytes, kept for good on both sides. What the other side does not have goes in zstd-1.
//!
//! It is a generous peer: its store is a table in memory without bounds, its hash is faster than one that could be trusted, and it sends no lengths of what is known.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use fastcdc::v2020::FastCDC;
use xxhash_rust::xxh3::xxh3_128;
use zstd_safe::{CCtx, DCtx};

use crate::clock::timed;
use crate::zstd_peers::Cost;

/// Chunk sizes in bytes: least, average, most.
const CHUNK_BYTES: [usize; 3] = [1 << 10, 4 << 10, 16 << 10];

/// Plain bytes that go together.
const BATCH_BYTES: usize = 128 << 10;

/// Batches that are encoded before they are decoded, as many as ours are.
const GROUP_BATCHES: usize = 32;

/// Names are hashes already.
#[derive(Default)]
struct Name(u64);

impl Hasher for Name {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            self.0 ^= u64::from_le_bytes(word.try_into().unwrap());
        }
    }
}

type Names<T> = HashMap<[u8; 16], T, BuildHasherDefault<Name>>;

/// Both sides of a store.
pub struct ChunkStore {
    sent: Names<()>,
    compress: CCtx<'static>,
    plan: Vec<u8>,
    received: Names<Range<usize>>,
    kept: Vec<u8>,
    decompress: DCtx<'static>,
    inner: Vec<u8>,
    back: Vec<u8>,
}

impl ChunkStore {
    pub fn new() -> Self {
        Self {
            sent: Names::default(),
            compress: CCtx::create(),
            plan: Vec::new(),
            received: Names::default(),
            kept: Vec::new(),
            decompress: DCtx::create(),
            inner: Vec::new(),
            back: Vec::new(),
        }
    }

    /// Sends some bytes, as one stream.
    pub fn send(&mut self, plain: &[u8]) -> Cost {
        let mut cost = Cost {
            wire_bytes: 0,
            encode_seconds: 0.0,
            decode_seconds: 0.0,
        };
        let [least, average, most] = CHUNK_BYTES;
        let mut chunks = FastCDC::new(plain, least, average, most).peekable();
        let mut at = 0;
        while at < plain.len() {
            let start = at;
            let (wires, seconds) = timed(|| {
                let mut wires = Vec::with_capacity(GROUP_BATCHES);
                while at < plain.len() && wires.len() < GROUP_BATCHES {
                    let end = at + BATCH_BYTES;
                    self.plan.clear();
                    while let Some(chunk) = chunks.next_if(|chunk| chunk.offset < end) {
                        at = chunk.offset + chunk.length;
                        self.plan(&plain[chunk.offset..at]);
                    }
                    let mut wire = Vec::with_capacity(zstd_safe::compress_bound(self.plan.len()));
                    self.compress.compress(&mut wire, &self.plan, 1).unwrap();
                    wires.push(wire);
                }
                wires
            });
            cost.encode_seconds += seconds;
            cost.wire_bytes += wires.iter().map(|wire| wire.len() as u64).sum::<u64>();
            self.back.clear();
            let ((), seconds) = timed(|| wires.iter().for_each(|wire| self.receive(wire)));
            cost.decode_seconds += seconds;
            assert!(self.back == plain[start..at], "the store gave all back");
        }
        cost
    }

    /// A chunk that is known is a zero and its name, another its length from 1 on and its bytes.
    fn plan(&mut self, chunk: &[u8]) {
        let name = xxh3_128(chunk).to_le_bytes();
        if self.sent.insert(name, ()).is_some() {
            self.plan.extend_from_slice(&[0, 0]);
            self.plan.extend_from_slice(&name);
        } else {
            let length = u16::try_from(chunk.len()).unwrap();
            self.plan.extend_from_slice(&length.to_le_bytes());
            self.plan.extend_from_slice(chunk);
        }
    }

    fn receive(&mut self, wire: &[u8]) {
        self.inner.clear();
        // A batch ends with the chunk that passes its bound.
        self.inner.reserve(2 * BATCH_BYTES);
        self.decompress.decompress(&mut self.inner, wire).unwrap();
        let mut rest = self.inner.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_le_bytes(*length));
            if length == 0 {
                let (name, after) = after.split_first_chunk::<16>().unwrap();
                let range = self.received[name].clone();
                self.back.extend_from_slice(&self.kept[range]);
                rest = after;
            } else {
                let (chunk, after) = after.split_at(length);
                let start = self.kept.len();
                self.kept.extend_from_slice(chunk);
                let name = xxh3_128(chunk).to_le_bytes();
                self.received.insert(name, start..self.kept.len());
                self.back.extend_from_slice(chunk);
                rest = after;
            }
        }
    }
}
