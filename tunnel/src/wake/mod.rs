//! Wake-ups: producers queue, then poke; the consumer clears the poke, then drains.
//!
//! A task of the tunnel has one wait. Sockets and timers wake it through the runtime; results of jobs and requests of other tasks come
//! through a [`mailbox`], which wakes it through the same waker. Pokes coalesce and never block, an empty wake is harmless, and as no
//! descriptor is involved, a child process inherits none of it (`tests/child_descriptors.rs`).
//!
//! `tests/loom_wake.rs` checks every interleaving of queue, poke, clear and drain for lost wake-ups.

mod mailbox;
mod primitives;

pub use mailbox::{Poke, Receiver, Sender, mailbox};

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counting_waker() -> (Arc<CountingWaker>, Waker) {
        let counter = Arc::new(CountingWaker::default());
        (counter.clone(), Waker::from(counter))
    }

    #[test]
    fn items_arrive_in_the_order_in_which_they_were_sent() {
        let (sender, mut receiver) = mailbox();
        let mut out = VecDeque::from([0]);
        for n in 1..=5 {
            sender.clone().send(n).unwrap();
        }
        assert!(receiver.try_drain(&mut out));
        assert_eq!(out, [0, 1, 2, 3, 4, 5]);
        assert!(!receiver.try_drain(&mut out));
    }

    #[test]
    fn many_pokes_wake_once_until_they_are_cleared() {
        let (sender, mut receiver) = mailbox();
        let (wakes, waker) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        let mut out = VecDeque::new();
        assert_eq!(receiver.poll_drain(&mut cx, &mut out), Poll::Pending);
        for n in 0..100 {
            sender.send(n).unwrap();
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(receiver.poll_drain(&mut cx, &mut out), Poll::Ready(()));
        assert_eq!(out.len(), 100);
        sender.send(100).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_empty_wake_is_harmless() {
        let (sender, mut receiver) = mailbox::<u8>();
        let (wakes, waker) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        let mut out = VecDeque::new();
        assert_eq!(receiver.poll_drain(&mut cx, &mut out), Poll::Pending);
        sender.poke();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(receiver.poll_drain(&mut cx, &mut out), Poll::Pending);
        sender.send(7).unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
        assert_eq!(receiver.poll_drain(&mut cx, &mut out), Poll::Ready(()));
        assert_eq!(out, [7]);
    }

    #[test]
    fn the_latest_waker_is_the_one_that_is_woken() {
        let (sender, mut receiver) = mailbox();
        let (old_wakes, old) = counting_waker();
        let (new_wakes, new) = counting_waker();
        let mut out = VecDeque::new();
        assert!(
            receiver
                .poll_drain(&mut Context::from_waker(&old), &mut out)
                .is_pending()
        );
        assert!(
            receiver
                .poll_drain(&mut Context::from_waker(&new), &mut out)
                .is_pending()
        );
        sender.send(()).unwrap();
        assert_eq!(old_wakes.0.load(Ordering::SeqCst), 0);
        assert_eq!(new_wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_send_to_a_receiver_that_is_gone_gives_the_item_back() {
        let (sender, receiver) = mailbox();
        let item = Arc::new(());
        sender.send(item.clone()).unwrap();
        drop(receiver);
        assert_eq!(
            Arc::strong_count(&item),
            1,
            "what waited was dropped with the receiver"
        );
        assert!(sender.send(item).is_err());
    }

    #[test]
    fn an_item_that_sends_while_it_is_dropped_with_the_receiver_does_not_deadlock() {
        #[derive(Debug)]
        struct Probe(Sender<Option<Probe>>, Arc<AtomicUsize>);
        impl Drop for Probe {
            fn drop(&mut self) {
                if self.0.send(None).is_err() {
                    self.1.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        let refused = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = mailbox();
        sender
            .send(Some(Probe(sender.clone(), refused.clone())))
            .unwrap();
        drop(receiver);
        assert_eq!(refused.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_in_a_storm_of_many_threads() {
        const PRODUCERS: usize = 8;
        const EACH: usize = 20_000;
        let (sender, mut receiver) = mailbox();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        sender.send((producer, n)).unwrap();
                        if n % 1_000 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; PRODUCERS];
        let mut received = 0;
        let mut drains = 0;
        let mut out = VecDeque::new();
        while received < PRODUCERS * EACH {
            receiver.drain(&mut out).await;
            drains += 1;
            for (producer, n) in out.drain(..) {
                assert_eq!(next[producer], n, "order within producer {producer}");
                next[producer] += 1;
                received += 1;
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(next, [EACH; PRODUCERS]);
        assert!(drains <= received);
        assert!(!receiver.try_drain(&mut out));
    }

    #[tokio::test]
    async fn a_drain_that_was_cancelled_loses_nothing() {
        let (sender, mut receiver) = mailbox();
        let mut out = VecDeque::new();
        {
            let mut drain = Box::pin(receiver.drain(&mut out));
            let (_, waker) = counting_waker();
            assert!(
                drain
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            sender.send(1).unwrap();
        }
        receiver.drain(&mut out).await;
        assert_eq!(out, [1]);
    }
}
