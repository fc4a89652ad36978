//! Short messages: a session of requests and answers, and messages of four lengths.

use bytes::Bytes;
use codec::frame::data_header;

use crate::bulk::wire_bytes;
use crate::chunk_store::ChunkStore;
use crate::clock::timed;
use crate::core_pair::{End, Flight, agree};
use crate::corpus::Corpus;
use crate::generate::{Side, session};
use crate::report::{Figure, Phase, Suite, Who};
use crate::zstd_peers::{Cost, Stream, alone};

/// What each side may keep; a session does not fill it.
const HISTORY_BYTES: u64 = 1 << 28;

/// Requests of a session, each with its answer.
const PAIRS: usize = 20_000;

/// The names of the session's two halves in the report.
pub const HALVES: [&str; 2] = ["session, first half", "session, second half"];

/// What the names of messages of one length begin with.
pub const LENGTHS_PREFIX: &str = "messages of ";

/// A session, whose second half can draw on the first.
pub fn of_a_session() -> Vec<Figure> {
    let messages = session(PAIRS);
    let (mut a, mut b) = (End::new(HISTORY_BYTES, 1), End::new(HISTORY_BYTES, 2));
    agree(&a, &b);
    // An answer brings the Ack of what it answers, and the next request that of the answer.
    (a.in_turns, b.in_turns) = (true, true);
    let mut streams = [1, 3].map(|level| {
        (
            level,
            [Stream::new(level, false), Stream::new(level, false)],
        )
    });
    let mut store = ChunkStore::new();
    let mut context = zstd_safe::CCtx::create();
    let mut scratch = Vec::new();
    let mut figures = Vec::new();
    let mut number = 0;
    for (half, messages) in HALVES.into_iter().zip(messages.chunks(PAIRS)) {
        let figure = |who| Figure {
            messages: messages.len(),
            ..Figure::new(Suite::Messages, half, Phase::Next, who)
        };
        let mut ours = figure(Who::Wanproxy);
        let mut framed = figure(Who::WanproxyFramed);
        let mut others = [Who::Zstd1Alone, Who::Zstd1, Who::Zstd3, Who::FastCdc].map(figure);
        let plain: Vec<(Side, Bytes)> = messages
            .iter()
            .map(|(side, message)| (*side, Bytes::from(message.clone())))
            .collect();
        for (side, message) in &plain {
            number += 1;
            let (from, to) = match side {
                Side::Client => (&mut a, &mut b),
                Side::Server => (&mut b, &mut a),
            };
            let cost = one(from, to, message);
            add(&mut ours, message, &cost);
            let header = data_header(number, 0, true, usize::try_from(cost.wire_bytes).unwrap());
            let framed_cost = Cost {
                wire_bytes: cost.wire_bytes + header.len() as u64,
                ..cost
            };
            add(&mut framed, message, &framed_cost);
            let costs = [
                alone(&mut context, message, &mut scratch),
                streams[0].1[usize::from(*side == Side::Server)].send(message),
                streams[1].1[usize::from(*side == Side::Server)].send(message),
                store.send(message),
            ];
            for (figure, cost) in others.iter_mut().zip(&costs) {
                add(figure, message, cost);
            }
        }
        figures.push(ours);
        figures.push(framed);
        figures.extend(others);
    }
    figures
}

fn one(from: &mut End, to: &mut End, message: &Bytes) -> Cost {
    let (flight, encode_seconds) = timed(|| from.send(1, message));
    let header = to.register(&flight);
    let (decoded, decode_seconds) = timed(|| {
        let body = std::slice::from_ref(&flight.body);
        to.decoder.decode(Some(&to.domain), &header, body)
    });
    assert_eq!(decoded.unwrap().plain, message);
    Cost {
        wire_bytes: wire_bytes(&flight),
        encode_seconds,
        decode_seconds,
    }
}

fn add(figure: &mut Figure, message: &Bytes, cost: &Cost) {
    figure.plain_bytes += message.len() as u64;
    figure.wire_bytes += cost.wire_bytes;
    figure.encode_seconds += cost.encode_seconds;
    *figure.decode_seconds.get_or_insert(0.0) += cost.decode_seconds;
}

/// A corpus cut into messages of one length.
pub fn of_lengths(corpus: &Corpus) -> Vec<Figure> {
    [16, 100, 1000, 10_000]
        .map(|length| {
            let (mut a, mut b) = (End::new(HISTORY_BYTES, 1), End::new(HISTORY_BYTES, 2));
            agree(&a, &b);
            let messages: Vec<Bytes> = corpus
                .old
                .chunks_exact(length)
                .take(PAIRS)
                .map(Bytes::copy_from_slice)
                .collect();
            let (flights, encode_seconds): (Vec<Flight>, f64) =
                timed(|| messages.iter().map(|message| a.send(1, message)).collect());
            let headers: Vec<_> = flights.iter().map(|flight| b.register(flight)).collect();
            let (decoded, decode_seconds): (Vec<Bytes>, f64) = timed(|| {
                headers
                    .iter()
                    .zip(&flights)
                    .map(|(header, flight)| b.decode(header, &flight.body).unwrap().plain)
                    .collect()
            });
            assert!(decoded == messages, "every message came back");
            let name = format!("{LENGTHS_PREFIX}{length} bytes of {}", corpus.name);
            Figure {
                messages: messages.len(),
                plain_bytes: (messages.len() * length) as u64,
                wire_bytes: flights.iter().map(wire_bytes).sum(),
                encode_seconds,
                decode_seconds: Some(decode_seconds),
                ..Figure::new(Suite::Messages, &name, Phase::Cold, Who::Wanproxy)
            }
        })
        .into()
}
