//! Does what a history holds make new blocks dearer? A corpus on top of histories that hold other things.
//!
//! The sending end alone, so that a history of 8 GiB needs little more memory than that: it rebuilds each block from its own history, which is the way a
//! receiver decodes, and compares.

use bytes::Bytes;
use codec::domain::Log;
use codec::frame::Coverage;

use crate::bulk::{USUAL_BLOCK_BYTES, wire_bytes};
use crate::clock::timed;
use crate::core_pair::{End, Flight};
use crate::corpus::Corpus;
use crate::generate::filler;
use crate::machine;
use crate::report::{Figure, NotRun, Phase, Suite, Who};

/// What the histories hold before, in bytes, and whether that is all that they may hold.
pub const HISTORIES: [(u64, bool); 4] = [
    (0, false),
    (1 << 30, false),
    (8 << 30, false),
    (1 << 30, true),
];

/// Made, and sent, at a time.
const FILL_BYTES: u64 = 64 << 20;

const BATCH_BLOCKS: usize = 32;

/// Cold, warm and the next version on top of `history_bytes`; in a full history they take the place of what it held.
///
/// # Errors
/// There is not enough memory.
pub fn ours(corpus: &Corpus, history_bytes: u64, full: bool) -> Result<Vec<Figure>, NotRun> {
    let used_bytes = history_bytes + 4 * corpus.old.len() as u64;
    let capacity_bytes = if full {
        history_bytes
    } else {
        // An eighth of a history is kept free.
        used_bytes + used_bytes / 7 + (1 << 20)
    };
    // What is used of the history, its index, and what else the machine needs.
    let needed_bytes = used_bytes + capacity_bytes / 8 + (1 << 30);
    let available_bytes = machine::memory("MemAvailable").unwrap_or(u64::MAX);
    if available_bytes < needed_bytes {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        return Err(NotRun::new(
            &format!("a history of {:.0} GiB", gib(history_bytes)),
            &format!(
                "it needs {:.1} GiB of memory, {:.1} are available",
                gib(needed_bytes),
                gib(available_bytes)
            ),
        ));
    }
    let mut end = End::new(capacity_bytes, 1);
    // A peer that holds nothing yet, and has as much room.
    end.domain.agree(Log::Own, &Coverage::default());
    end.domain.agree(Log::Mirror, &Coverage::default());
    end.domain.set_quota(capacity_bytes);
    for seed in 0..history_bytes / FILL_BYTES {
        let fill = filler(usize::try_from(FILL_BYTES).unwrap(), 100 + seed);
        for block in fill.chunks(USUAL_BLOCK_BYTES) {
            drop(end.send(1, &Bytes::copy_from_slice(block)));
            drop_what_is_too_much(&end);
        }
    }
    let mut rounds = vec![(Phase::Cold, &corpus.old), (Phase::Warm, &corpus.old)];
    rounds.extend(corpus.new.as_ref().map(|new| (Phase::Next, new)));
    let figures = rounds
        .into_iter()
        .enumerate()
        .map(|(stream, (phase, plain))| {
            let mut figure = Figure {
                block_bytes: USUAL_BLOCK_BYTES,
                history_bytes,
                full,
                ..Figure::new(Suite::Histories, corpus.name, phase, Who::Wanproxy)
            };
            send(&mut end, 2 * stream as u64 + 3, plain, &mut figure);
            figure
        })
        .collect();
    let dropped = end.domain.claim(Log::Own).floor > 0;
    assert_eq!(dropped, full, "what is full drops, and nothing else");
    Ok(figures)
}

fn send(end: &mut End, stream: u64, plain: &[u8], figure: &mut Figure) {
    let mut decoding = 0.0;
    for batch in plain.chunks(BATCH_BLOCKS * USUAL_BLOCK_BYTES) {
        let blocks: Vec<Bytes> = batch
            .chunks(USUAL_BLOCK_BYTES)
            .map(Bytes::copy_from_slice)
            .collect();
        let (flights, seconds): (Vec<Flight>, f64) = timed(|| {
            let flights = blocks.iter().map(|block| end.send(stream, block)).collect();
            drop_what_is_too_much(end);
            flights
        });
        figure.encode_seconds += seconds;
        let (rebuilt, seconds): (Vec<Bytes>, f64) = timed(|| {
            flights
                .iter()
                .map(|flight| {
                    let body = std::slice::from_ref(&flight.body);
                    let header = flight.encoded.header();
                    end.decoder
                        .rebuild(Some(&end.domain), header, body)
                        .unwrap()
                })
                .collect()
        });
        decoding += seconds;
        assert!(rebuilt == blocks, "every block came back");
        figure.wire_bytes += flights.iter().map(wire_bytes).sum::<u64>();
    }
    figure.plain_bytes = plain.len() as u64;
    figure.decode_seconds = Some(decoding);
}

/// As a peer would agree to.
fn drop_what_is_too_much(end: &End) {
    if let Some(floor) = end.domain.floor_wanted() {
        end.domain.drop_below(Log::Own, floor);
    }
}
