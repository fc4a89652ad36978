//! The thread that carries one direction: reads what the near device sends, lets the model decide, writes what has arrived to the far device.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use super::From;
use super::model::{Model, PacketCounters, Settings};

/// A thread that has nothing to do looks this often whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Packets read before those that have arrived are written: a burst must not hold up what is due.
const READS_MAX: usize = 32;

/// Room for a packet and more.
const PACKET_MAX_BYTES: usize = 2048;

/// Both directions of a running line; ends when dropped.
#[derive(Debug)]
pub(super) struct Directions {
    near_to_far: Forwarder,
    far_to_near: Forwarder,
}

impl Directions {
    /// Between two devices; `seed` fixes what happens to packets.
    pub(super) fn start(
        near: Arc<SyncDevice>,
        far: Arc<SyncDevice>,
        settings: Settings,
        seed: u64,
    ) -> io::Result<Self> {
        Ok(Self {
            near_to_far: Forwarder::start(near.clone(), far.clone(), settings.clone(), seed)?,
            far_to_near: Forwarder::start(far, near, settings, !seed)?,
        })
    }

    pub(super) fn set(&self, settings: &Settings) {
        self.near_to_far.set(settings.clone());
        self.far_to_near.set(settings.clone());
    }

    /// Whether packets pass.
    pub(super) fn set_up(&self, is_up: bool) {
        self.near_to_far.set_up(is_up);
        self.far_to_near.set_up(is_up);
    }

    /// What one direction has carried.
    pub(super) fn counters(&self, from: From) -> PacketCounters {
        match from {
            From::Near => self.near_to_far.counters(),
            From::Far => self.far_to_near.counters(),
        }
    }
}

/// One direction of it.
#[derive(Debug)]
struct Forwarder {
    model: Arc<Mutex<Model>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    fn start(
        source: Arc<SyncDevice>,
        target: Arc<SyncDevice>,
        settings: Settings,
        seed: u64,
    ) -> io::Result<Self> {
        let model = Arc::new(Mutex::new(Model::new(settings, seed)));
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            source,
            target,
            model: model.clone(),
            stop: stop.clone(),
        };
        let thread = thread::Builder::new()
            .name("line".to_owned())
            .spawn(move || work.run())?;
        Ok(Self {
            model,
            stop,
            thread: Some(thread),
        })
    }

    fn set(&self, settings: Settings) {
        lock(&self.model).set(settings);
    }

    fn set_up(&self, is_up: bool) {
        lock(&self.model).set_up(is_up);
    }

    fn counters(&self) -> PacketCounters {
        lock(&self.model).counters()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It returns nothing; a panic in it has been printed.
            let _ended = thread.join();
        }
    }
}

struct Work {
    source: Arc<SyncDevice>,
    target: Arc<SyncDevice>,
    model: Arc<Mutex<Model>>,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let next = lock(&self.model).next_arrival();
            let wait = next.map_or(LOOK, |next| {
                next.saturating_duration_since(Instant::now()).min(LOOK)
            });
            if self.wait(wait) {
                self.read();
            }
            self.write();
        }
    }

    /// Whether the near device has packets, within `time`.
    fn wait(&self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).unwrap_or_default();
        let mut descriptors = [PollFd::new(&*self.source, PollFlags::IN)];
        matches!(poll(&mut descriptors, Some(&timeout)), Ok(ready) if ready > 0)
    }

    fn read(&self) {
        for _ in 0..READS_MAX {
            let mut packet = vec![0; PACKET_MAX_BYTES];
            // Would block, or the device is going away: the loop looks again.
            let Ok(length) = self.source.recv(&mut packet) else {
                return;
            };
            packet.truncate(length);
            lock(&self.model).offer(packet, Instant::now());
        }
    }

    fn write(&self) {
        let now = Instant::now();
        loop {
            let Some(packet) = lock(&self.model).take(now) else {
                return;
            };
            // A device that takes no packet loses it, as a full queue would.
            let _sent = self.target.send(&packet);
        }
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}
