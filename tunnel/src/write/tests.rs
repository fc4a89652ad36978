//! Cancelling at every length, and what a sink may do.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use super::*;

type Log = Rc<RefCell<Vec<(usize, Written)>>>;

/// Notes the end of write `index`, and by its `Rc` count whether it lives.
struct Noting {
    index: usize,
    log: Log,
    _alive: Rc<()>,
}

impl WriteOwner for Noting {
    fn written(self, how: Written) {
        self.log.borrow_mut().push((self.index, how));
    }
}

/// Takes at most `step` bytes a call and `total` in all, then blocks.
struct Limited {
    step: usize,
    total: usize,
    taken: Vec<u8>,
}

impl Limited {
    fn new(step: usize, total: usize) -> Self {
        let taken = Vec::new();
        Self { step, total, taken }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!slices.is_empty() && slices.len() <= SLICES_PER_CALL);
        assert!(slices.iter().all(|slice| !slice.is_empty()));
        let room = self.step.min(self.total - self.taken.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = self.taken.len();
        let offered = slices.iter().flat_map(|slice| slice.iter().copied());
        self.taken.extend(offered.take(room));
        Ok(self.taken.len() - before)
    }
}

/// Four writes of 3 + 4, 0, 5 and 1 bytes, with empty slices among them; the bytes count up from 0.
fn four_writes(alive: &Rc<()>) -> (WriteQueue<Noting>, Log) {
    let log = Log::default();
    let mut queue = WriteQueue::new();
    let all = Bytes::from_iter(0..13);
    let shapes: [&[_]; 4] = [&[0..3, 3..3, 3..7], &[], &[7..9, 9..12], &[12..12, 12..13]];
    for (index, shape) in shapes.into_iter().enumerate() {
        let slices = shape.iter().map(|range| all.slice(range.clone())).collect();
        let (log, alive) = (log.clone(), alive.clone());
        queue.push(Write::new(
            slices,
            Noting {
                index,
                log,
                _alive: alive,
            },
        ));
    }
    (queue, log)
}

/// What the log must hold after `total` bytes were written and the rest cancelled.
fn expected(total: usize) -> Vec<(usize, Written)> {
    let mut rest = total;
    let mut broken = false;
    [7, 0, 5, 1]
        .into_iter()
        .enumerate()
        .map(|(index, length)| {
            let own = length.min(rest);
            rest -= own;
            // An empty write is complete when its turn comes.
            broken |= own < length;
            let how = if broken {
                Written::Cancelled(own)
            } else {
                Written::Completed(own)
            };
            (index, how)
        })
        .collect()
}

#[test]
fn every_write_ends_once_whatever_length_it_is_cancelled_at() {
    for step in [1, 2, 3, 5, 64] {
        for total in 0..=13 {
            for by_drop in [false, true] {
                let alive = Rc::new(());
                let (mut queue, log) = four_writes(&alive);
                assert_eq!(Rc::strong_count(&alive), 5);
                let mut sink = Limited::new(step, total);
                let progress = queue.try_write(|slices| sink.write(slices)).unwrap();
                assert_eq!(progress == Progress::Empty, total == 13);
                assert_eq!(sink.taken, (0..13).take(total).collect::<Vec<u8>>());
                assert_eq!(queue.queued_bytes(), 13 - total);
                let done = log.borrow().len();
                assert_eq!(
                    Rc::strong_count(&alive),
                    5 - done,
                    "owners of unfinished writes live"
                );
                assert_eq!(*log.borrow(), expected(total)[..done]);
                if by_drop {
                    drop(queue);
                } else {
                    queue.close();
                    assert!(queue.is_empty());
                    assert_eq!(queue.queued_bytes(), 0);
                }
                assert_eq!(*log.borrow(), expected(total), "step {step}, total {total}");
                assert_eq!(Rc::strong_count(&alive), 1);
            }
        }
    }
}

#[test]
fn an_error_of_the_sink_cancels_with_the_counts() {
    for total in 0..13 {
        let alive = Rc::new(());
        let (mut queue, log) = four_writes(&alive);
        let mut sink = Limited::new(2, total);
        let error = queue
            .try_write(|slices| {
                sink.write(slices)
                    .map_err(|_| io::ErrorKind::BrokenPipe.into())
            })
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(*log.borrow(), expected(total));
        let late = Noting {
            index: 4,
            log: log.clone(),
            _alive: alive.clone(),
        };
        queue.push(Write::single(Bytes::from_static(b"late"), late));
        assert_eq!(log.borrow().last(), Some(&(4, Written::Cancelled(0))));
        assert_eq!(
            queue.try_write(|_| unreachable!()).unwrap(),
            Progress::Empty
        );
    }
}

#[test]
fn a_sink_that_takes_nothing_or_too_much_is_an_error() {
    for (claim, kind) in [
        (0, io::ErrorKind::WriteZero),
        (14, io::ErrorKind::InvalidData),
    ] {
        let (mut queue, log) = four_writes(&Rc::new(()));
        let error = queue.try_write(|_| Ok(claim)).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(*log.borrow(), expected(0));
    }
}

#[test]
fn an_interrupted_sink_is_asked_again() {
    let (mut queue, log) = four_writes(&Rc::new(()));
    let mut sink = Limited::new(64, 13);
    let mut interrupted = false;
    let progress = queue.try_write(|slices| {
        if std::mem::replace(&mut interrupted, true) {
            sink.write(slices)
        } else {
            Err(io::ErrorKind::Interrupted.into())
        }
    });
    assert_eq!(progress.unwrap(), Progress::Empty);
    assert_eq!(*log.borrow(), expected(13));
}

#[test]
fn empty_writes_complete_without_the_sink() {
    let alive = Rc::new(());
    let log = Log::default();
    let mut queue = WriteQueue::new();
    for index in 0..2 {
        let (log, alive) = (log.clone(), alive.clone());
        let slices = vec![Bytes::new(); index];
        queue.push(Write::new(
            slices,
            Noting {
                index,
                log,
                _alive: alive,
            },
        ));
    }
    assert_eq!(
        queue.try_write(|_| unreachable!()).unwrap(),
        Progress::Empty
    );
    assert_eq!(
        *log.borrow(),
        [(0, Written::Completed(0)), (1, Written::Completed(0))]
    );
}

#[test]
fn more_slices_than_one_call_takes_go_in_several() {
    let count = SLICES_PER_CALL + 1;
    let mut queue = WriteQueue::new();
    let ends = Rc::new(RefCell::new(Vec::new()));
    let noted = ends.clone();
    queue.push(Write::new(
        vec![Bytes::from_static(b"ab"); count],
        move |how| {
            noted.borrow_mut().push(how);
        },
    ));
    let mut calls = Vec::new();
    let progress = queue.try_write(|slices| {
        calls.push(slices.len());
        Ok(slices.iter().map(|slice| slice.len()).sum())
    });
    assert_eq!(progress.unwrap(), Progress::Empty);
    assert_eq!(calls, [SLICES_PER_CALL, 1]);
    assert_eq!(*ends.borrow(), [Written::Completed(2 * count)]);
}

#[tokio::test]
async fn a_queue_is_written_to_an_asynchronous_sink_as_it_takes_it() {
    let (near, mut far) = tokio::io::duplex(16);
    let mut near = Box::pin(near);
    let payload = Bytes::from_iter((0..10_000).map(|n| u8::try_from(n % 251).unwrap()));
    let page = Rc::new(());
    let mut queue = WriteQueue::new();
    for part in payload.chunks(700) {
        let write = Write::single(payload.slice_ref(part), Holding(page.clone()));
        queue.push(write);
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert!(queue.poll_write(&mut cx, near.as_mut()).is_pending());
    let writing = async {
        std::future::poll_fn(|cx| queue.poll_write(cx, near.as_mut()))
            .await
            .unwrap();
        drop(near);
    };
    let reading = async {
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut read)
            .await
            .unwrap();
        read
    };
    let ((), read) = tokio::join!(writing, reading);
    assert!(read == payload);
    assert_eq!(Rc::strong_count(&page), 1);
}
