//! Workers side by side on one domain: encoders, and decoders that meet ranges which others still fill.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod core_pair;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use bytes::Bytes;
use codec::block::{BlockVersion, Known};
use codec::domain::Log;
use codec::error::DecodeError;
use core_pair::{End, mix, noise, pair, text};

const WORKERS: u64 = 3;
const BLOCKS: u64 = 120;

#[test]
fn parallel_jobs_make_the_same_bytes() {
    let [a, b] = pair(4 << 20);
    let pool = Arc::new([text(400_000, 1), noise(200_000, 1), text(300_000, 2)].concat());
    // What keeps numbers, positions and arrival in one order.
    let link = Mutex::new(());
    let (line, arrivals) = mpsc::channel();
    let arrivals = Mutex::new(arrivals);
    let (decoded, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let mut encoder = End::sharing(Arc::clone(&a.domain));
            let (line, pool, link, receiver) = (
                line.clone(),
                Arc::clone(&pool),
                &link,
                Arc::clone(&b.domain),
            );
            scope.spawn(move || {
                for block in 0..BLOCKS {
                    let random = mix(worker << 32 | block);
                    let start = usize::try_from(random % 800_000).unwrap();
                    let plain = Bytes::copy_from_slice(
                        pool.get(
                            start..start + 1 + usize::try_from(random >> 32).unwrap() % 60_000,
                        )
                        .unwrap(),
                    );
                    let mut encoded = encoder.encode(worker * 2 + 1, &plain);
                    let ordered = link.lock().unwrap();
                    let position = Some(encoded.append_length())
                        .filter(|length| *length > 0)
                        .and_then(|length| encoder.domain.reserve(length));
                    let (header, body) = encoded.wire(position, Known::default());
                    if let Some(position) = position {
                        encoder
                            .domain
                            .commit(position, &encoded.take_append().unwrap());
                    }
                    let header = codec::block::BlockHeader::decode(
                        &mut header.clone(),
                        BlockVersion::Two,
                        |_, _| Known::default(),
                    )
                    .unwrap();
                    if let Some(append) = header.append {
                        receiver.register(append).unwrap();
                    }
                    line.send((header, body, plain)).unwrap();
                    drop(ordered);
                }
            });
        }
        drop(line);
        for _ in 0..WORKERS {
            let mut worker = End::sharing(Arc::clone(&b.domain));
            let (arrivals, decoded, refused, sender) =
                (&arrivals, &decoded, &refused, Arc::clone(&a.domain));
            scope.spawn(move || {
                loop {
                    let next = arrivals.lock().unwrap().recv();
                    let Ok((header, body, plain)) = next else {
                        return;
                    };
                    loop {
                        match worker.decode(&header, &body) {
                            Ok(got) => {
                                assert_eq!(got.plain, plain);
                                decoded.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            Err(DecodeError::Waits { .. }) => thread::yield_now(),
                            Err(DecodeError::Refused { .. }) => {
                                // A mirror that is ahead of its owner's floor; the range is given up.
                                if let Some(append) = header.append {
                                    worker.lose(Log::Mirror, append);
                                    sender.lose(Log::Own, append.position, append.length.into());
                                }
                                refused.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            Err(error @ (DecodeError::NotResident | DecodeError::Violation(_))) => {
                                panic!("{error}")
                            }
                        }
                    }
                }
            });
        }
    });
    let total = usize::try_from(WORKERS * BLOCKS).unwrap();
    assert_eq!(
        decoded.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed),
        total
    );
    assert_eq!(
        refused.load(Ordering::Relaxed),
        0,
        "nothing is evicted: the histories stop at their bound"
    );
    assert!(a.domain.stats().hits > 0);
}
