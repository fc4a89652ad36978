//! One direction of a line as a pure model: packets and times in, packets out. Time is an argument, so tests need no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// What the line is like; the same in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Bits per second of each direction, IP headers included; `None` means as fast as the machine.
    pub rate_bits_per_s: Option<u64>,
    /// Time from one end to the other, beside what the rate takes.
    pub delay: Duration,
    /// Up to this much is added to the delay, evenly spread; packets keep their order.
    pub jitter: Duration,
    /// The part of packets that is lost, 0 to 1, each by its own chance.
    pub loss: f64,
    /// Bytes that may wait in front of the bottleneck; what comes then is dropped. No effect without a rate.
    pub queue_bytes: usize,
}

impl Default for Settings {
    /// A line that only counts and can be cut.
    fn default() -> Self {
        Self {
            rate_bits_per_s: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            queue_bytes: usize::MAX,
        }
    }
}

/// What one direction has carried, since it was started. Bytes include IP headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounters {
    /// Packets that were offered.
    pub offered: u64,
    /// Bytes that were offered.
    pub offered_bytes: u64,
    /// Bytes that went over the bottleneck, lost behind it or not.
    pub carried_bytes: u64,
    /// Packets that arrived.
    pub delivered: u64,
    /// Bytes that arrived.
    pub delivered_bytes: u64,
    /// Packets dropped because the queue was full.
    pub dropped: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets lost because the line was cut.
    pub cut: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    settings: Settings,
    random: StdRng,
    /// Packets on their way, in the order of their arrival.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// When the bottleneck has sent all that it took.
    free_at: Option<Instant>,
    is_up: bool,
    counters: PacketCounters,
}

impl Model {
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            random: StdRng::seed_from_u64(seed),
            under_way: VecDeque::new(),
            free_at: None,
            is_up: true,
            counters: PacketCounters::default(),
        }
    }

    pub(super) fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    pub(super) fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
        if !is_up {
            self.counters.cut += self.under_way.len() as u64;
            self.under_way.clear();
            self.free_at = None;
        }
    }

    pub(super) const fn counters(&self) -> PacketCounters {
        self.counters
    }

    /// A packet enters the line.
    pub(super) fn offer(&mut self, packet: Vec<u8>, now: Instant) {
        let bytes = packet.len() as u64;
        self.counters.offered += 1;
        self.counters.offered_bytes += bytes;
        if !self.is_up {
            self.counters.cut += 1;
            return;
        }
        let starts = self.free_at.map_or(now, |free_at| free_at.max(now));
        let leaves = if let Some(rate) = self.settings.rate_bits_per_s {
            let waiting = bytes_in(starts - now, rate);
            if waiting + u128::from(bytes) > self.settings.queue_bytes as u128 {
                self.counters.dropped += 1;
                return;
            }
            starts + time_for(bytes, rate)
        } else {
            now
        };
        self.free_at = Some(leaves);
        self.counters.carried_bytes += bytes;
        // Drawn for every packet, so that a change of one setting does not shift the others' luck.
        let (luck, late) = (self.random.random::<f64>(), self.random.random::<f64>());
        if luck < self.settings.loss {
            self.counters.lost += 1;
            return;
        }
        let arrives = leaves + self.settings.delay + self.settings.jitter.mul_f64(late);
        let last = self.under_way.back().map_or(arrives, |(last, _)| *last);
        self.under_way.push_back((arrives.max(last), packet));
    }

    /// When the next packet arrives.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.under_way.front().map(|(arrives, _)| *arrives)
    }

    /// The next packet that has arrived by `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        let (_, packet) = self.under_way.pop_front()?;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += packet.len() as u64;
        Some(packet)
    }
}

fn time_for(bytes: u64, rate_bits_per_s: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate_bits_per_s.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn bytes_in(time: Duration, rate_bits_per_s: u64) -> u128 {
    time.as_nanos() * u128::from(rate_bits_per_s) / 8_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn settings() -> Settings {
        // 1,000 bytes take 1 ms.
        Settings {
            rate_bits_per_s: Some(8_000_000),
            delay: 10 * MS,
            queue_bytes: 5000,
            ..Settings::default()
        }
    }

    fn drain(model: &mut Model, now: Instant) -> usize {
        std::iter::from_fn(|| model.take(now)).count()
    }

    #[test]
    fn rate_and_delay_set_when_packets_arrive() {
        let start = Instant::now();
        let mut model = Model::new(settings(), 1);
        model.offer(vec![0; 1000], start);
        model.offer(vec![0; 500], start);
        assert_eq!(model.next_arrival(), Some(start + 11 * MS));
        assert_eq!(model.take(start + 10 * MS), None);
        assert_eq!(drain(&mut model, start + 11 * MS), 1);
        assert_eq!(model.next_arrival(), Some(start + 11 * MS + MS / 2));
        model.offer(vec![0; 1000], start + 100 * MS);
        assert_eq!(drain(&mut model, start + 99 * MS), 1);
        assert_eq!(
            model.next_arrival(),
            Some(start + 111 * MS),
            "an idle line saves up nothing"
        );
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        let start = Instant::now();
        let mut model = Model::new(settings(), 1);
        (0..10).for_each(|_| model.offer(vec![0; 1000], start));
        assert_eq!(model.counters().dropped, 5);
        model.offer(vec![0; 1000], start + 2 * MS);
        assert_eq!(model.counters().dropped, 5, "two have left by then");
        assert_eq!(drain(&mut model, start + 1000 * MS), 6);
    }

    #[test]
    fn losses_are_as_many_as_wanted_and_the_same_for_a_seed() {
        let lossy = Settings {
            loss: 0.01,
            ..Settings::default()
        };
        let run = |seed| {
            let mut model = Model::new(lossy.clone(), seed);
            let now = Instant::now();
            (0..100_000).for_each(|_| model.offer(vec![0; 10], now));
            model.counters().lost
        };
        assert!((800..1200).contains(&run(7)), "{}", run(7));
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn jitter_keeps_the_order_and_stays_in_bounds() {
        let start = Instant::now();
        let shaky = Settings {
            delay: 10 * MS,
            jitter: 5 * MS,
            ..Settings::default()
        };
        let mut model = Model::new(shaky, 3);
        (0..200u8).for_each(|n| model.offer(vec![n], start + MS / 10 * u32::from(n)));
        let mut arrivals = Vec::new();
        while let Some(arrival) = model.next_arrival() {
            arrivals.push((arrival, model.take(arrival)));
        }
        assert!(arrivals.is_sorted());
        for (n, (arrival, packet)) in (0..200u8).zip(&arrivals) {
            assert_eq!(packet.as_deref(), Some(&[n][..]));
            let left = start + MS / 10 * u32::from(n);
            assert!(*arrival >= left + 10 * MS && *arrival <= start + 35 * MS);
        }
    }

    #[test]
    fn a_cut_line_loses_what_is_on_it_and_what_comes() {
        let start = Instant::now();
        let mut model = Model::new(settings(), 1);
        model.offer(vec![0; 1000], start);
        model.set_up(false);
        model.offer(vec![0; 1000], start);
        assert_eq!((model.counters().cut, model.next_arrival()), (2, None));
        model.set_up(true);
        model.offer(vec![0; 1000], start);
        assert_eq!(model.next_arrival(), Some(start + 11 * MS));
    }
}
