//! The pacer against a modelled line, in virtual time.

use super::*;
use crate::state::line::LineSample;

const MS: Duration = Duration::from_millis(1);

/// A line with a queue, fed by a pacer; other traffic may take a part of it, and round trips may shake.
struct Model {
    now: Instant,
    line: LineMeasure,
    pacer: Pacer,
    rate: u64,
    way: Duration,
    queue_bytes: u64,
    delivered_bytes: u64,
    shake: u64,
    random: u64,
}

/// What one run of the model showed.
struct Seen {
    carried_percent: u64,
    queues: Vec<Duration>,
}

impl Seen {
    fn queue(&self, permille: usize) -> Duration {
        let mut sorted = self.queues.clone();
        sorted.sort_unstable();
        sorted[sorted.len() * permille / 1000]
    }
}

impl Model {
    /// A line of 20 Mbit/s and 40 ms that was filled for a while before.
    fn new() -> Self {
        let now = Instant::now();
        let mut model = Self {
            now,
            line: LineMeasure::new(
                LineSample {
                    round_trip: 40 * MS,
                    ..LineSample::default()
                },
                now,
            ),
            pacer: Pacer::new(1, now),
            rate: 2_500_000,
            way: 40 * MS,
            queue_bytes: 0,
            delivered_bytes: 0,
            shake: 0,
            random: 1,
        };
        for _ in 0..1000 {
            model.queue_bytes = 50_000;
            model.pass(MS);
            model.sample(false);
        }
        assert!(model.line.is_settled());
        model
    }

    fn queue_time(&self) -> Duration {
        Duration::from_micros(self.queue_bytes * 1_000_000 / self.rate)
    }

    fn pass(&mut self, span: Duration) {
        let carried = bytes_in(self.rate, span).min(self.queue_bytes);
        self.queue_bytes -= carried;
        self.delivered_bytes += carried;
        self.now += span;
    }

    fn sample(&mut self, is_paced: bool) {
        let late = Duration::from_micros(self.random(self.shake + 1));
        // The congestion control lets so much stand in front of the line.
        let queue_bytes = self.queue_bytes.min(150_000);
        let sample = LineSample {
            delivered_bytes: self.delivered_bytes,
            unsent_bytes: self.queue_bytes - queue_bytes,
            window_bytes: 1 << 20,
            round_trip: self.way
                + Duration::from_micros(queue_bytes * 1_000_000 / self.rate)
                + late,
            ..LineSample::default()
        };
        let round = self.line.take(sample, true, self.now);
        self.pacer.sampled(&self.line, round, is_paced, self.now);
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % below
    }

    /// Sends as fast as the pacer allows, waking up `late` after the time that it names.
    fn run(&mut self, span: Duration, late: Duration) -> Seen {
        let (start, before) = (self.now, self.delivered_bytes);
        let mut queues = Vec::new();
        while self.now < start + span {
            self.sample(true);
            loop {
                if let Some(until) = self.pacer.waits(&self.line, self.now) {
                    assert!(until > self.now, "a wait that is over at once would spin");
                    assert!(until <= self.now + WAIT_MAX);
                    self.pass(until - self.now + late);
                    break;
                }
                self.queue_bytes += 4096;
                self.pacer.sent(4096, self.now);
            }
            queues.push(self.queue_time());
        }
        let possible = bytes_in(self.rate, self.now - start);
        Seen {
            carried_percent: (self.delivered_bytes - before) * 100 / possible,
            queues,
        }
    }
}

#[test]
fn the_line_is_used_and_no_queue_stands() {
    let mut model = Model::new();
    model.run(2000 * MS, Duration::ZERO);
    let seen = model.run(30_000 * MS, Duration::ZERO);
    assert!(seen.carried_percent >= 92, "{}", seen.carried_percent);
    assert!(seen.queue(990) <= 9 * MS, "{:?}", seen.queue(990));
    assert!(seen.queue(500) <= 4 * MS, "{:?}", seen.queue(500));
}

#[test]
fn wake_ups_that_come_late_cost_little() {
    let mut model = Model::new();
    let seen = model.run(30_000 * MS, MS);
    assert!(seen.carried_percent >= 90, "{}", seen.carried_percent);
}

/// A machine that has other work: wake-ups and acknowledgements come late by up to 15 ms.
#[test]
fn a_busy_machine_does_not_starve_bulk() {
    let mut model = Model::new();
    model.shake = 15_000;
    // It does not become less and less.
    for _ in 0..3 {
        let (start, before) = (model.now, model.delivered_bytes);
        for _ in 0..3000 {
            let late = Duration::from_micros(model.random(15_000));
            model.run(MS, late);
        }
        let possible = bytes_in(model.rate, model.now - start);
        let carried = (model.delivered_bytes - before) * 100 / possible;
        // A burst is 8 ms: what a wake-up misses beyond that is lost.
        assert!(carried >= 50, "{carried}");
    }
}

#[test]
fn a_line_that_becomes_slower_is_followed() {
    let mut model = Model::new();
    model.run(5000 * MS, Duration::ZERO);
    model.rate = 1_000_000;
    model.run(5000 * MS, Duration::ZERO);
    let seen = model.run(20_000 * MS, Duration::ZERO);
    assert!(seen.carried_percent >= 85, "{}", seen.carried_percent);
    assert!(seen.queue(500) <= 12 * MS, "{:?}", seen.queue(500));
}

#[test]
fn a_line_that_becomes_faster_is_followed() {
    let mut model = Model::new();
    model.run(5000 * MS, Duration::ZERO);
    model.rate = 10_000_000;
    model.run(15_000 * MS, Duration::ZERO);
    let seen = model.run(10_000 * MS, Duration::ZERO);
    assert!(seen.carried_percent >= 90, "{}", seen.carried_percent);
}

#[test]
fn round_trips_that_shake_do_not_starve_bulk() {
    let mut model = Model::new();
    model.shake = 30_000;
    let seen = model.run(60_000 * MS, Duration::ZERO);
    assert!(seen.carried_percent >= 88, "{}", seen.carried_percent);
}

#[test]
fn a_way_that_becomes_longer_is_not_taken_for_a_queue_for_ever() {
    let mut model = Model::new();
    model.run(5000 * MS, Duration::ZERO);
    model.way = 90 * MS;
    model.run(20_000 * MS, Duration::ZERO);
    let seen = model.run(20_000 * MS, Duration::ZERO);
    assert!(seen.carried_percent >= 90, "{}", seen.carried_percent);
}

#[test]
fn a_full_socket_or_a_tiny_window_holds_bulk_back() {
    let mut model = Model::new();
    model.run(1000 * MS, Duration::ZERO);
    model.pass(20 * MS);
    let mut sample = *model.line.last();
    sample.unsent_bytes = 20_000;
    model.line.take(sample, true, model.now);
    assert!(model.pacer.waits(&model.line, model.now).is_some());
    sample.unsent_bytes = 0;
    model.line.take(sample, true, model.now);
    assert_eq!(model.pacer.waits(&model.line, model.now), None);
    sample.window_bytes = 4 * 1448;
    sample.in_flight_bytes = 3 * 1448;
    model.line.take(sample, true, model.now);
    assert!(model.pacer.waits(&model.line, model.now).is_some());
}
