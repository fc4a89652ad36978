//! How fast anchors are found, beside copying the same bytes.

use std::hint::black_box;

use codec::anchor::{Candidate, Density, Scanner};

use crate::bulk::USUAL_BLOCK_BYTES;
use crate::clock::timed;
use crate::corpus::Corpus;
use crate::report::{Figure, Phase, Suite, Who};

/// Of so many turns the fastest counts.
const TURNS: usize = 3;

/// Bytes of the corpus that are gone through.
const MOST_BYTES: usize = 64 << 20;

/// Anchors and memcpy over one corpus, block by block. In what does not compress an edge looks for sparse anchors only.
pub fn of(corpus: &Corpus) -> [Figure; 2] {
    let plain = &corpus.old[..corpus.old.len().min(MOST_BYTES)];
    let fastest = |work: &mut dyn FnMut(&[u8])| {
        (0..TURNS)
            .map(|_| timed(|| plain.chunks(USUAL_BLOCK_BYTES).for_each(&mut *work)).1)
            .fold(f64::MAX, f64::min)
    };
    let density = if corpus.name == "random" {
        Density::Sparse
    } else {
        Density::Dense
    };
    let mut scanner = Scanner::default();
    let mut candidates: Vec<Candidate> = Vec::new();
    let scanning = fastest(&mut |block| {
        candidates.clear();
        scanner.scan(block, 0..block.len(), density, &mut candidates);
        black_box(&candidates);
    });
    let mut target = vec![0_u8; plain.len()];
    let mut at = 0;
    let copying = fastest(&mut |block| {
        // Into memory that is not in the cache, as a history's is not.
        target[at..at + block.len()].copy_from_slice(block);
        black_box(&mut target);
        at = (at + block.len()) % plain.len();
    });
    [(Who::Wanproxy, scanning), (Who::Memcpy, copying)].map(|(who, encode_seconds)| Figure {
        block_bytes: USUAL_BLOCK_BYTES,
        plain_bytes: plain.len() as u64,
        wire_bytes: plain.len() as u64,
        encode_seconds,
        ..Figure::new(Suite::Scanner, corpus.name, Phase::Cold, who)
    })
}
