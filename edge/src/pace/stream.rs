//! A stream's halves that keep to rates.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::frame::Reason;
use tokio::time::{Sleep, sleep};

use super::{Direction, Pace, now};
use crate::relay::{StreamReceive, StreamSend};

/// Pieces that are taken out of the tunnel ahead of their turn, so that a reset is noticed while one waits. The stream's window bounds them too.
const AHEAD_MAX: usize = 16;

/// One who waits looks whether the rate has changed at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Holds both halves of a stream to all of `paces`.
pub fn paced<S: StreamSend, R: StreamReceive>(
    send: S,
    receive: R,
    paces: &[Arc<Pace>],
) -> (PacedSend<S>, PacedReceive<R>) {
    let send = PacedSend {
        inner: send,
        turn: Turn::new(paces, Direction::ToWan),
    };
    let receive = PacedReceive {
        inner: receive,
        turn: Turn::new(paces, Direction::FromWan),
        ahead: VecDeque::new(),
        is_finished: false,
    };
    (send, receive)
}

/// One direction's place in the queue for its rates.
#[derive(Debug)]
struct Turn {
    paces: Vec<Arc<Pace>>,
    direction: Direction,
    held: Option<Held>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is reserved, of each pace in its order.
#[derive(Debug)]
struct Held {
    bytes: usize,
    generations: Vec<u64>,
    until: Instant,
}

impl Turn {
    fn new(paces: &[Arc<Pace>], direction: Direction) -> Self {
        Self {
            paces: paces.to_vec(),
            direction,
            held: None,
            timer: None,
        }
    }

    fn is_limited(&self) -> bool {
        self.held.is_some() || self.paces.iter().any(|pace| pace.is_limited())
    }

    /// Ready with how many of `wanted` bytes, at least one, may pass now; [`used`](Self::used) says how many did.
    fn poll(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            if !self.is_limited() {
                return Poll::Ready(wanted);
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
                self.timer = None;
            }
            let held = match self.held.take() {
                Some(held) if self.is_valid(&held) => held,
                _ => self.reserve(wanted),
            };
            let left = held.until.saturating_duration_since(now());
            let bytes = held.bytes;
            self.held = Some(held);
            if left.is_zero() {
                return Poll::Ready(bytes.min(wanted));
            }
            self.timer = Some(Box::pin(sleep(left.min(LOOK_EVERY))));
        }
    }

    fn is_valid(&self, held: &Held) -> bool {
        let mut both = self.paces.iter().zip(&held.generations);
        both.all(|(pace, generation)| pace.generation() == *generation)
    }

    fn reserve(&self, wanted: usize) -> Held {
        let quanta = self.paces.iter().filter_map(|pace| pace.quantum_bytes());
        let bytes = quanta.fold(wanted, usize::min);
        let mut generations = Vec::with_capacity(self.paces.len());
        let mut wait = Duration::ZERO;
        let now = now();
        for pace in &self.paces {
            let reservation = pace.reserve(self.direction, bytes, now);
            generations.push(reservation.generation);
            wait = wait.max(reservation.wait);
        }
        Held {
            bytes,
            generations,
            until: now + wait,
        }
    }

    /// So many bytes have passed; what else is held is for others.
    fn used(&mut self, bytes: usize) {
        if let Some(held) = self.held.take() {
            let left = held.bytes.saturating_sub(bytes);
            for (pace, generation) in self.paces.iter().zip(held.generations) {
                pace.give_back(self.direction, left, generation);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.used(0);
    }
}

/// LAN to WAN, at a rate.
#[derive(Debug)]
pub struct PacedSend<S> {
    inner: S,
    turn: Turn,
}

impl<S: StreamSend> StreamSend for PacedSend<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        let room = match ready!(self.inner.poll_ready(cx)) {
            Ok(room) => room,
            Err(reason) => return Poll::Ready(Err(reason)),
        };
        match self.turn.poll(room, cx) {
            Poll::Ready(bytes) => Poll::Ready(Ok(bytes)),
            // Whoever waits for its turn still hears that it need not.
            Poll::Pending => self.inner.poll_stopped(cx).map(Err),
        }
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.inner.poll_stopped(cx)
    }

    fn send(&mut self, bytes: Bytes) -> Result<(), Reason> {
        self.turn.used(bytes.len());
        self.inner.send(bytes)
    }

    fn finish(self) {
        self.inner.finish();
    }

    fn reset(self, reason: Reason) {
        self.inner.reset(reason);
    }
}

/// WAN to LAN, at a rate: credit follows what is taken, so the other edge sends no faster.
#[derive(Debug)]
pub struct PacedReceive<R> {
    inner: R,
    turn: Turn,
    ahead: VecDeque<Bytes>,
    is_finished: bool,
}

impl<R: StreamReceive> StreamReceive for PacedReceive<R> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>> {
        while !self.is_finished && self.ahead.len() < AHEAD_MAX {
            match self.inner.poll_receive(cx) {
                Poll::Ready(Ok(Some(piece)))
                    if self.turn.is_limited() || !self.ahead.is_empty() =>
                {
                    self.ahead.push_back(piece);
                }
                Poll::Ready(Ok(Some(piece))) => return Poll::Ready(Ok(Some(piece))),
                Poll::Ready(Ok(None)) => self.is_finished = true,
                Poll::Ready(Err(reason)) => {
                    self.ahead.clear();
                    return Poll::Ready(Err(reason));
                }
                Poll::Pending => break,
            }
        }
        let Some(piece) = self.ahead.front_mut() else {
            return if self.is_finished {
                Poll::Ready(Ok(None))
            } else {
                Poll::Pending
            };
        };
        let count = ready!(self.turn.poll(piece.len(), cx));
        let taken = piece.split_to(count.min(piece.len()));
        if piece.is_empty() {
            self.ahead.pop_front();
        }
        self.turn.used(taken.len());
        Poll::Ready(Ok(Some(taken)))
    }

    fn consumed(&mut self, bytes: usize) {
        self.inner.consumed(bytes);
    }

    fn stop(self, reason: Reason) {
        self.inner.stop(reason);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::future::poll_fn;

    use super::*;

    /// Takes all it is given.
    struct Open;

    impl StreamSend for Open {
        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
            Poll::Ready(Ok(1 << 20))
        }
        fn poll_stopped(&mut self, _cx: &mut Context<'_>) -> Poll<Reason> {
            Poll::Pending
        }
        fn send(&mut self, _bytes: Bytes) -> Result<(), Reason> {
            Ok(())
        }
        fn finish(self) {}
        fn reset(self, _reason: Reason) {}
    }

    /// Gives pieces of 100,000 bytes, and then what `end` says.
    struct Pieces(usize, Result<(), Reason>);

    impl StreamReceive for Pieces {
        fn poll_receive(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>> {
            if self.0 == 0 {
                return Poll::Ready(self.1.map(|()| None));
            }
            self.0 -= 1;
            Poll::Ready(Ok(Some(Bytes::from(vec![0; 100_000]))))
        }
        fn consumed(&mut self, _bytes: usize) {}
        fn stop(self, _reason: Reason) {}
    }

    fn pace(rate: &str) -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        pace.set_rate(Some(rate.parse().unwrap()));
        pace
    }

    fn zeros(count: usize) -> Bytes {
        Bytes::from(vec![0; count])
    }

    async fn send_for(mut send: PacedSend<Open>, time: Duration) -> usize {
        let end = tokio::time::Instant::now() + time;
        let mut sent = 0;
        let sending = async {
            loop {
                let room = poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
                send.send(zeros(room)).unwrap();
                sent += room;
            }
        };
        let _elapsed = tokio::time::timeout_at(end, sending).await;
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn streams_share_a_rate_in_turns() {
        let shared = [pace("8Mbit/s")];
        let time = Duration::from_secs(10);
        let sending = (0..4).map(|_| {
            let (send, _) = paced(Open, Pieces(0, Ok(())), &shared);
            tokio::spawn(send_for(send, time))
        });
        let mut sums = Vec::new();
        for sent in sending.collect::<Vec<_>>() {
            sums.push(sent.await.unwrap());
        }
        let all: usize = sums.iter().sum();
        // Ten seconds at 1 MB/s, and a burst of 100 kB.
        assert!((9_800_000..=10_100_000).contains(&all), "{sums:?}");
        for sum in &sums {
            assert!((2_300_000..=2_700_000).contains(sum), "{sums:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_slower_of_two_rates_counts_and_a_new_rate_at_once() {
        let paces = [pace("8Mbit/s"), pace("800kbit/s")];
        let (send, _) = paced(Open, Pieces(0, Ok(())), &paces);
        let sent = send_for(send, Duration::from_secs(10)).await;
        assert!((990_000..=1_020_000).contains(&sent), "{sent}");
        let (send, _) = paced(Open, Pieces(0, Ok(())), &paces);
        let sending = tokio::spawn(send_for(send, Duration::from_secs(20)));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let [_, slow] = &paces;
        slow.set_rate(None);
        let sent = sending.await.unwrap();
        assert!((9_500_000..=11_200_000).contains(&sent), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_received_waits_too_and_a_reset_does_not() {
        let begun = tokio::time::Instant::now();
        let (_, mut receive) = paced(Open, Pieces(10, Ok(())), &[pace("8Mbit/s")]);
        let mut sum = 0;
        while let Some(piece) = poll_fn(|cx| receive.poll_receive(cx)).await.unwrap() {
            sum += piece.len();
        }
        assert_eq!(sum, 1_000_000);
        let took = begun.elapsed();
        assert!((850..=950).contains(&took.as_millis()), "{took:?}");

        let (_, mut receive) = paced(Open, Pieces(3, Err(Reason::TunnelLost)), &[pace("1kbit/s")]);
        let ended = poll_fn(|cx| receive.poll_receive(cx)).await;
        assert_eq!(ended, Err(Reason::TunnelLost));
    }
}
