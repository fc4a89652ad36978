//! Each corpus cold, warm and as its next version: ours in blocks of five sizes, and the peers.

use bytes::Bytes;
use codec::block::BlockHeader;

use crate::chunk_store::ChunkStore;
use crate::clock::timed;
use crate::core_pair::{End, Flight, agree, drop_as_agreed};
use crate::corpus::Corpus;
use crate::report::{Figure, Phase, Suite, Who};
use crate::zstd_peers::{Cost, Stream, patch_from};

/// Plain bytes of a block, from what an interactive stream sends to the largest there is.
pub const BLOCK_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10];

/// The block that a stream in bulk is cut into, unless nearly all is copied.
pub const USUAL_BLOCK_BYTES: usize = 128 << 10;

/// In place of a block's length: as the tunnel cuts a stream in bulk, 128 KiB, and 256 KiB after a block of which nearly all was copied. What the goals are judged by.
pub const AS_CUT: usize = 0;

/// The lengths that a short run measures beside that.
pub const SHORT_RUN_BLOCK_BYTES: [usize; 2] = [4 << 10, 128 << 10];

/// Plain bytes that are encoded before they are decoded, so that the clock is seldom read and memory is used again as in a tunnel.
const BATCH_BYTES: usize = 4 << 20;

/// What is sent, one after the other through the same histories or stores.
fn rounds(corpus: &Corpus) -> Vec<(Phase, &[u8])> {
    let mut rounds = vec![(Phase::Cold, &corpus.old[..]), (Phase::Warm, &corpus.old)];
    for phase in [Phase::Next, Phase::Again] {
        rounds.extend(corpus.new.as_ref().map(|new| (phase, &new[..])));
    }
    rounds
}

/// Ours.
pub fn ours(corpus: &Corpus, block_bytes: usize) -> Vec<Figure> {
    let sent: usize = rounds(corpus).iter().map(|(_, plain)| plain.len()).sum();
    // Nothing is dropped: what a full history costs is seen in the suite of histories.
    let capacity_bytes = (sent + sent / 2) as u64;
    let (mut a, mut b) = (End::new(capacity_bytes, 1), End::new(capacity_bytes, 2));
    agree(&a, &b);
    let mut figures = Vec::new();
    for (stream, (phase, plain)) in rounds(corpus).into_iter().enumerate() {
        let mut figure = Figure {
            block_bytes,
            ..Figure::new(Suite::Bulk, corpus.name, phase, Who::Wanproxy)
        };
        let stream = stream as u64 * 2 + 1;
        transfer(&mut a, &mut b, stream, plain, block_bytes, &mut figure);
        figures.push(figure);
    }
    figures
}

/// Sends `plain` from one end to the other, compares it, and adds to `figure` what that cost.
pub fn transfer(
    a: &mut End,
    b: &mut End,
    stream: u64,
    plain: &[u8],
    block_bytes: usize,
    figure: &mut Figure,
) {
    let mut decoding = figure.decode_seconds.unwrap_or(0.0);
    let mut next_bytes = USUAL_BLOCK_BYTES;
    for batch in plain.chunks(BATCH_BYTES) {
        let (blocks, flights, seconds) = if block_bytes == AS_CUT {
            as_cut(a, stream, batch, &mut next_bytes)
        } else {
            let blocks: Vec<Bytes> = batch
                .chunks(block_bytes)
                .map(Bytes::copy_from_slice)
                .collect();
            let (flights, seconds): (Vec<Flight>, f64) = timed(|| {
                let send = |block| a.send(stream, block);
                blocks.iter().map(send).collect()
            });
            (blocks, flights, seconds)
        };
        figure.encode_seconds += seconds;
        let headers: Vec<BlockHeader> = flights.iter().map(|flight| b.register(flight)).collect();
        let (decoded, seconds): (Vec<Bytes>, f64) = timed(|| {
            headers
                .iter()
                .zip(&flights)
                .map(|(header, flight)| {
                    let body = std::slice::from_ref(&flight.body);
                    let decoded = b.decoder.decode(Some(&b.domain), header, body);
                    decoded.unwrap().plain
                })
                .collect()
        });
        decoding += seconds;
        assert!(decoded == blocks, "every block came back");
        drop_as_agreed(a, b);
        figure.wire_bytes += flights.iter().map(wire_bytes).sum::<u64>();
    }
    figure.plain_bytes += plain.len() as u64;
    figure.decode_seconds = Some(decoding);
}

/// Blocks of the length that each one before says, whose time is taken one by one.
fn as_cut(
    a: &mut End,
    stream: u64,
    batch: &[u8],
    next_bytes: &mut usize,
) -> (Vec<Bytes>, Vec<Flight>, f64) {
    let (mut blocks, mut flights, mut encoding) = (Vec::new(), Vec::new(), 0.0);
    let mut rest = batch;
    while !rest.is_empty() {
        let (block, after) = rest.split_at(rest.len().min(*next_bytes));
        let block = Bytes::copy_from_slice(block);
        let (flight, seconds) = timed(|| a.send(stream, &block));
        encoding += seconds;
        *next_bytes = usize::try_from(flight.encoded.tally.bulk_block_bytes()).unwrap();
        blocks.push(block);
        flights.push(flight);
        rest = after;
    }
    (blocks, flights, encoding)
}

/// What a block takes.
pub fn wire_bytes(flight: &Flight) -> u64 {
    (flight.header.len() + flight.body.len()) as u64
}

/// The peers.
pub fn peers(corpus: &Corpus, short: bool) -> Vec<Figure> {
    let figure = |phase, who, plain: &[u8], cost: &Cost| Figure {
        plain_bytes: plain.len() as u64,
        wire_bytes: cost.wire_bytes,
        encode_seconds: cost.encode_seconds,
        decode_seconds: Some(cost.decode_seconds),
        ..Figure::new(Suite::Bulk, corpus.name, phase, who)
    };
    let mut figures = Vec::new();
    for (who, level) in [(Who::Zstd1, 1), (Who::Zstd3, 3)] {
        // What came before does not help a window that is smaller than it: each version is a stream of its own.
        for (phase, plain) in rounds(corpus) {
            if matches!(phase, Phase::Cold | Phase::Next) {
                let cost = Stream::new(level, false).send(plain);
                figures.push(figure(phase, who, plain, &cost));
            }
        }
    }
    let mut long = Stream::new(3, true);
    let mut store = ChunkStore::new();
    for (phase, plain) in rounds(corpus) {
        if phase == Phase::Again {
            // The next version once more costs the peers what it costs them warm.
            continue;
        }
        let cost = store.send(plain);
        figures.push(figure(phase, Who::FastCdc, plain, &cost));
        // The next version directly behind the last, as one would send it: the window holds not much more.
        if phase != Phase::Warm && !short {
            let cost = long.send(plain);
            figures.push(figure(phase, Who::Zstd3Long, plain, &cost));
        }
        if phase != Phase::Cold {
            // zstd forgets what of a prefix lies where its input does, so that must not be the same memory.
            let cost = patch_from(&corpus.old.clone(), plain);
            figures.push(figure(phase, Who::PatchFrom, plain, &cost));
        }
    }
    figures
}
