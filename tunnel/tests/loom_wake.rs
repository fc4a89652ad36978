//! The loom model of the mailbox: every interleaving of queue, poke, clear and drain, and no lost wake-up in any.
//!
//! It includes the mailbox's own source and puts loom's primitives under it, so it needs no special build: it is checked by
//! `cargo test -p tunnel --test loom_wake`. `LOOM_MAX_PREEMPTIONS=4` (default here 3) widens the search.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::task::{Context, Poll, Wake, Waker};

#[path = "../src/wake/mailbox.rs"]
#[expect(
    dead_code,
    reason = "the model does not call every method of what it includes"
)]
mod mailbox;

mod primitives {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(super) use loom::sync::{Arc, Mutex};
}

/// How a consuming task sleeps in the model: a wake-up that is never given leaves it waiting, which loom reports as a deadlock.
struct Sleep {
    woken: loom::sync::Mutex<bool>,
    changed: loom::sync::Condvar,
}

impl Sleep {
    fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self {
            woken: loom::sync::Mutex::new(false),
            changed: loom::sync::Condvar::new(),
        })
    }

    fn until_woken(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

impl Wake for Sleep {
    fn wake(self: std::sync::Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}

fn receive(receiver: &mut mailbox::Receiver<u32>, wanted: usize) -> VecDeque<u32> {
    let sleep = Sleep::new();
    let waker = Waker::from(sleep.clone());
    let mut out = VecDeque::new();
    while out.len() < wanted {
        if receiver.poll_drain(&mut Context::from_waker(&waker), &mut out) == Poll::Pending {
            sleep.until_woken();
        }
    }
    out
}

#[test]
fn no_wake_up_is_lost_between_one_producer_and_the_consumer() {
    check(|| {
        let (sender, mut receiver) = mailbox::mailbox();
        let producer = loom::thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
        });
        assert_eq!(receive(&mut receiver, 2), [1, 2]);
        producer.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_between_two_producers_and_the_consumer() {
    check(|| {
        let (sender, mut receiver) = mailbox::mailbox();
        let other = sender.clone();
        let first = loom::thread::spawn(move || sender.send(1).unwrap());
        let second = loom::thread::spawn(move || other.send(2).unwrap());
        let mut out = receive(&mut receiver, 2);
        out.make_contiguous().sort_unstable();
        assert_eq!(out, [1, 2]);
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_when_the_consumer_changes_its_waker() {
    check(|| {
        let (sender, mut receiver) = mailbox::mailbox();
        let producer = loom::thread::spawn(move || sender.send(1).unwrap());
        let abandoned = Waker::from(Sleep::new());
        let mut out = VecDeque::new();
        if receiver.poll_drain(&mut Context::from_waker(&abandoned), &mut out) == Poll::Pending {
            out = receive(&mut receiver, 1);
        }
        assert_eq!(out, [1]);
        producer.join().unwrap();
    });
}

#[test]
fn an_empty_poke_among_messages_is_harmless() {
    check(|| {
        let (sender, mut receiver) = mailbox::mailbox();
        let other = sender.clone();
        let poker = loom::thread::spawn(move || other.poke());
        let producer = loom::thread::spawn(move || sender.send(1).unwrap());
        assert_eq!(receive(&mut receiver, 1), [1]);
        poker.join().unwrap();
        producer.join().unwrap();
    });
}

#[test]
fn an_item_is_received_or_given_back_when_the_receiver_leaves() {
    check(|| {
        let (sender, receiver) = mailbox::mailbox();
        let item = loom::sync::Arc::new(());
        let sent = item.clone();
        let producer = loom::thread::spawn(move || drop(sender.send(sent)));
        drop(receiver);
        producer.join().unwrap();
        assert!(
            loom::sync::Arc::try_unwrap(item).is_ok(),
            "the item was dropped exactly once"
        );
    });
}
