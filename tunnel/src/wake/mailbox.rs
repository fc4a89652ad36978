//! The mailbox and the poke under it: the one way by which other threads reach a task.

use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::primitives::{Arc, AtomicBool, Mutex, Ordering};

/// Makes a mailbox: any number of producers on any threads, one consuming task.
pub fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            items: VecDeque::new(),
            receiver_gone: false,
        }),
        poke: Poke::new(),
    });
    let sender = Sender {
        shared: shared.clone(),
    };
    (sender, Receiver { shared })
}

/// The producers' end of a mailbox.
///
/// The mailbox itself sets no bound on what waits in it. Whatever is sent must be bounded by its origin: results by the number of jobs
/// that were admitted, requests by the number of streams.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Queues `item`, then pokes the consumer. Never blocks beyond the short lock around the queue.
    ///
    /// # Errors
    /// Gives the item back when the receiver is gone.
    pub fn send(&self, item: T) -> Result<(), T> {
        {
            let mut queue = self
                .shared
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if queue.receiver_gone {
                return Err(item);
            }
            queue.items.push_back(item);
        }
        self.shared.poke.poke();
        Ok(())
    }

    /// Wakes the consumer without a message. It finds an empty mailbox, which is harmless.
    pub fn poke(&self) {
        self.shared.poke.poke();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The consumer's end of a mailbox. Dropping it drops what waits in the mailbox, and later sends fail.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// Moves everything that waits to the end of `out`, in the order in which it was sent.
    ///
    /// `Ready` means that at least one item was moved. `Pending` means that there was none, and that the task of `cx` is woken once
    /// there may be: a wake-up that then finds nothing is possible and harmless. When all senders are gone it stays pending; the
    /// owner of the mailbox knows by its own state when nothing more can come.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<T>) -> Poll<()> {
        // The poke is cleared before the queue is looked at. The other way round, an item queued between the look and the clear
        // would lie there with its poke erased.
        let _poked = self.shared.poke.clear(cx.waker());
        if self.try_drain(out) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Waits until something can be moved to the end of `out`. Safe to cancel: nothing is taken before it is in `out`.
    pub async fn drain(&mut self, out: &mut VecDeque<T>) {
        std::future::poll_fn(|cx| self.poll_drain(cx, out)).await;
    }

    /// Moves everything that waits to the end of `out` without asking to be woken. Returns whether there was anything.
    pub fn try_drain(&mut self, out: &mut VecDeque<T>) -> bool {
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if queue.items.is_empty() {
            return false;
        }
        if out.is_empty() {
            // The usual case costs a swap of two buffers, so that both keep their capacity and nothing is copied.
            std::mem::swap(&mut queue.items, out);
        } else {
            out.append(&mut queue.items);
        }
        true
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut queue = self
                .shared
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            queue.receiver_gone = true;
            std::mem::take(&mut queue.items)
        };
        // Outside the lock: an item's own drop may send to this very mailbox.
        drop(left);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// A flag and the waker of the one task that looks at it.
///
/// The rule for both sides: the producer makes its news visible and then pokes; the consumer clears the poke and then looks. Pokes
/// coalesce: between two clears one poke at most wakes the task.
pub struct Poke {
    poked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Poke {
    /// A poke that nobody has given and nobody waits for.
    // Not const, because loom's primitives are not.
    #[must_use]
    pub fn new() -> Self {
        Self {
            poked: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// Wakes the consumer unless a poke is outstanding already. Returns whether this was the poke that did it.
    pub fn poke(&self) -> bool {
        // The swap comes after the producer's news and pairs with the consumer's clear. Whoever finds the flag set already may go:
        // the consumer's clear is still to come, so it sees the news of everybody who swapped before.
        if self.poked.swap(true, Ordering::AcqRel) {
            return false;
        }
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Outside the lock: waking runs the runtime's code.
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Registers `waker` for the next poke and clears the one outstanding. Returns whether there was one.
    pub fn clear(&self, waker: &Waker) -> bool {
        // Registered before the flag is cleared: a producer that sets the flag right after the clear finds the waker.
        let replaced = {
            let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            match slot.as_ref() {
                Some(present) if present.will_wake(waker) => None,
                _ => slot.replace(waker.clone()),
            }
        };
        drop(replaced);
        self.poked.swap(false, Ordering::AcqRel)
    }
}

impl Default for Poke {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Poke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poke").finish_non_exhaustive()
    }
}

struct Queue<T> {
    items: VecDeque<T>,
    receiver_gone: bool,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    poke: Poke,
}
