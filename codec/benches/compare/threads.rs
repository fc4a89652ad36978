//! One core and all: several workers on one domain, each with a stream of its own.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use codec::block::BlockHeader;
use codec::error::DecodeError;

use crate::bulk::{USUAL_BLOCK_BYTES, wire_bytes};
use crate::core_pair::{End, Flight, agree};
use crate::corpus::Corpus;
use crate::report::{Figure, Phase, Suite, Who};
use crate::zstd_peers::Stream;

/// Of so many turns the fastest counts: what else runs on the machine can only slow them down.
const TURNS: usize = 3;

/// Ours, cold and warm.
pub fn ours(corpus: &Corpus, threads: usize) -> Vec<Figure> {
    let turns: Vec<[Figure; 2]> = (0..TURNS).map(|_| turn(corpus, threads)).collect();
    (0..2)
        .map(|phase| {
            let of_phase = || turns.iter().map(|turn| &turn[phase]);
            let fastest =
                |seconds: fn(&Figure) -> f64| of_phase().map(seconds).fold(f64::MAX, f64::min);
            Figure {
                encode_seconds: fastest(|figure| figure.encode_seconds),
                decode_seconds: Some(fastest(|figure| figure.decode_seconds.unwrap_or(f64::MAX))),
                ..turns[0][phase].clone()
            }
        })
        .collect()
}

/// A block on its way and what its receiver must give back.
struct Sent {
    thread: usize,
    position: u64,
    flight: Flight,
}

fn turn(corpus: &Corpus, threads: usize) -> [Figure; 2] {
    let capacity_bytes = 3 * corpus.old.len() as u64;
    let (a, b) = (End::new(capacity_bytes, 1), End::new(capacity_bytes, 2));
    agree(&a, &b);
    [Phase::Cold, Phase::Warm].map(|phase| {
        let stream = if phase == Phase::Cold { 1 } else { 1001 };
        let share = corpus.old.len().div_ceil(threads);
        let shares: Vec<Vec<Bytes>> = corpus
            .old
            .chunks(share)
            .map(|share| {
                share
                    .chunks(USUAL_BLOCK_BYTES)
                    .map(Bytes::copy_from_slice)
                    .collect()
            })
            .collect();
        let started = Instant::now();
        let mut sent: Vec<Sent> = thread::scope(|scope| {
            let workers: Vec<_> = shares
                .iter()
                .enumerate()
                .map(|(thread, blocks)| {
                    let mut end = End::sharing(Arc::clone(&a.domain));
                    let send = move |block: &Bytes| {
                        let flight = end.send(stream + 2 * thread as u64, block);
                        let append = flight.encoded.header().append;
                        let position = append.map_or(u64::MAX, |span| span.position);
                        Sent {
                            thread,
                            position,
                            flight,
                        }
                    };
                    scope.spawn(|| blocks.iter().map(send).collect::<Vec<Sent>>())
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        let encode_seconds = started.elapsed().as_secs_f64();
        let wire = sent.iter().map(|sent| wire_bytes(&sent.flight)).sum();
        // First fragments come in the order of their positions; those without one may stand anywhere.
        let mut b_side = End::sharing(Arc::clone(&b.domain));
        let mut order: Vec<usize> = (0..sent.len()).collect();
        order.sort_by_key(|&at| sent[at].position);
        let mut headers: Vec<Option<BlockHeader>> = vec![None; sent.len()];
        for at in order {
            headers[at] = Some(b_side.register(&sent[at].flight));
        }
        let mut work: Vec<Vec<(BlockHeader, Flight)>> = (0..threads).map(|_| Vec::new()).collect();
        for (sent, header) in sent.drain(..).zip(headers) {
            work[sent.thread].push((header.unwrap(), sent.flight));
        }
        let started = Instant::now();
        let decoded: Vec<Vec<Bytes>> = thread::scope(|scope| {
            let workers: Vec<_> = work
                .iter()
                .map(|blocks| {
                    let end = End::sharing(Arc::clone(&b.domain));
                    scope.spawn(move || decode_all(end, blocks))
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        let decode_seconds = started.elapsed().as_secs_f64();
        assert!(decoded == shares, "every block came back");
        Figure {
            block_bytes: USUAL_BLOCK_BYTES,
            threads,
            plain_bytes: corpus.old.len() as u64,
            wire_bytes: wire,
            encode_seconds,
            decode_seconds: Some(decode_seconds),
            ..Figure::new(Suite::Threads, corpus.name, phase, Who::Wanproxy)
        }
    })
}

/// One worker's blocks in their order. One that waits for another worker's is tried again, which ends: the lowest append range that is not filled waits
/// for nobody.
fn decode_all(mut end: End, blocks: &[(BlockHeader, Flight)]) -> Vec<Bytes> {
    let domain = Arc::clone(&end.domain);
    let decode = |(header, flight): &(BlockHeader, Flight)| {
        loop {
            let body = std::slice::from_ref(&flight.body);
            match end.decoder.decode(Some(&domain), header, body) {
                Ok(decoded) => return decoded.plain,
                Err(DecodeError::Waits { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    blocks.iter().map(decode).collect()
}

/// zstd-1, a stream for each thread.
pub fn zstd(corpus: &Corpus, threads: usize) -> Figure {
    let share = corpus.old.len().div_ceil(threads);
    let turn = || {
        let started = Instant::now();
        let wire_bytes: u64 = thread::scope(|scope| {
            let workers: Vec<_> = corpus
                .old
                .chunks(share)
                .map(|share| {
                    scope.spawn(move || Stream::new(1, false).compress(share).len() as u64)
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        (started.elapsed().as_secs_f64(), wire_bytes)
    };
    let turns: Vec<(f64, u64)> = (0..TURNS).map(|_| turn()).collect();
    Figure {
        threads,
        plain_bytes: corpus.old.len() as u64,
        wire_bytes: turns[0].1,
        encode_seconds: turns.iter().map(|turn| turn.0).fold(f64::MAX, f64::min),
        ..Figure::new(Suite::Threads, corpus.name, Phase::Cold, Who::Zstd1)
    }
}
