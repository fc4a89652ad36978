//! Level `auto`: compresses as hard as the line leaves time for.
//!
//! Two signs are enough, and both are there without a clock of their own. Encoded blocks that wait for the line mean that the line is the bottleneck: a
//! harder level then costs nothing. A line that waits for blocks, or a block that takes long to come back (because it is hard work, or because
//! the pool is busy with others), means that the core is. Rising is slow and by steps, falling is at once and to the bottom.

use std::time::{Duration, Instant};

use codec::encoder::Encoded;
use codec::policy::Level;

use super::Tunnel;
use super::path::Path;

/// The levels that are taken, and the time that each takes relative to the first (measured: 1.0, 1.1, 2.3, 3.6, 4.7 on sources and JSON). Level 3 gives
/// nothing over 2 in blocks of this size, 5 and 7 little over those before them; 12 takes 20 times as long for 3 %.
const STEPS: [Step; 5] = [
    Step::new(1, 10),
    Step::new(2, 12),
    Step::new(4, 25),
    Step::new(6, 45),
    Step::new(9, 60),
];

/// No block's encode shall take longer, waiting for a thread included.
const ENCODE_MAX: Duration = Duration::from_millis(5);

/// Encoded blocks that wait for so much of the line's time mean that the line is the bottleneck.
const LINE_BUSY: Duration = Duration::from_millis(20);

/// The line must have been the bottleneck for so long before the next step up.
const RISE_AFTER: Duration = Duration::from_millis(200);

/// Blocks in a row that found the line idle before the core is taken to be the bottleneck: one does at the start of every burst.
const IDLE_BLOCKS: u32 = 2;

/// What the line takes must stay below this part of what the encoder would give at the next level: a half.
const HEADROOM: u64 = 2;

/// Blocks of fewer plain bytes say little about speed.
const MEASURED_MIN_BYTES: u64 = 32 << 10;

/// Blocks of at most so many plain bytes are likely encoded by the driver itself and somebody waits for them: they get [`SHORT_LEVEL_MAX`] at most.
const SHORT_BYTES: u64 = 16 << 10;

/// See [`SHORT_BYTES`].
const SHORT_LEVEL_MAX: u8 = 2;

/// Weight of the past in the smoothed figures.
const SMOOTHING: u32 = 4;

/// How hard a tunnel compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LevelChoice {
    /// By what line and cores have to spare.
    Auto,
    /// Always so.
    Fixed(Level),
}

#[derive(Debug)]
struct Step {
    level: u8,
    /// Tenths of the first step's time.
    cost: u32,
}

impl Step {
    const fn new(level: u8, cost: u32) -> Self {
        Self { level, cost }
    }
}

/// What is seen of a block when it has been encoded.
#[derive(Debug, Clone, Copy)]
struct Observed {
    plain_bytes: u64,
    encoded_bytes: u64,
    /// From giving the job out to its return.
    took: Duration,
    /// Encoded bytes that wait for the line, in the tunnel and at the socket, without this block's.
    waiting_bytes: u64,
    /// What the line takes, if that is known.
    line_bytes_per_s: Option<u64>,
}

/// The present level of a tunnel.
#[derive(Debug)]
pub(super) struct LevelControl {
    choice: LevelChoice,
    step: usize,
    /// Since when the line has been the bottleneck without a break.
    line_busy_since: Option<Instant>,
    idle_blocks: u32,
    /// Of full blocks at the present step: how long one takes, and what the encoder gives.
    took: Option<Duration>,
    encoded_bytes_per_s: Option<u64>,
}

impl LevelControl {
    pub(super) const fn new(choice: LevelChoice) -> Self {
        Self {
            choice,
            step: 0,
            line_busy_since: None,
            idle_blocks: 0,
            took: None,
            encoded_bytes_per_s: None,
        }
    }

    /// The level for a block of `plain_bytes`.
    pub(super) fn of(&self, plain_bytes: u64) -> Level {
        match self.choice {
            LevelChoice::Fixed(level) => level,
            LevelChoice::Auto => {
                let level = STEPS.get(self.step).map_or(1, |step| step.level);
                Level::zstd(if plain_bytes <= SHORT_BYTES {
                    level.min(SHORT_LEVEL_MAX)
                } else {
                    level
                })
            }
        }
    }

    /// A block has come back from being encoded.
    fn encoded(&mut self, block: Observed, now: Instant) {
        if self.choice != LevelChoice::Auto || block.plain_bytes < MEASURED_MIN_BYTES {
            return;
        }
        self.measure(block);
        if block.waiting_bytes == 0 {
            self.line_busy_since = None;
            self.idle_blocks += 1;
            if self.idle_blocks >= IDLE_BLOCKS {
                self.go_to(0);
            }
            return;
        }
        self.idle_blocks = 0;
        if self.took.is_some_and(|took| took > ENCODE_MAX) {
            self.line_busy_since = None;
            self.go_to(self.step.saturating_sub(1));
            return;
        }
        let Some(rate) = block.line_bytes_per_s else {
            return;
        };
        let waits =
            u128::from(block.waiting_bytes) * 1_000_000 >= u128::from(rate) * LINE_BUSY.as_micros();
        if !waits {
            self.line_busy_since = None;
            return;
        }
        let since = *self.line_busy_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= RISE_AFTER && self.has_time_for_next(rate) {
            self.go_to(self.step + 1);
            self.line_busy_since = Some(now);
        }
    }

    fn measure(&mut self, block: Observed) {
        // What took no time to speak of was not measured (encoded on the spot, or nothing but copies).
        let micros = u64::try_from(block.took.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = block.encoded_bytes.saturating_mul(1_000_000) / micros;
        self.took = Some(smoothed(self.took, block.took));
        let before = self.encoded_bytes_per_s.unwrap_or(rate);
        let weight = u64::from(SMOOTHING);
        self.encoded_bytes_per_s = Some(before / weight * (weight - 1) + rate / weight);
    }

    /// Whether the next step would keep ahead of the line, and each block within its time.
    fn has_time_for_next(&self, line_bytes_per_s: u64) -> bool {
        let (Some(step), Some(next)) = (STEPS.get(self.step), STEPS.get(self.step + 1)) else {
            return false;
        };
        let took = self.took.unwrap_or(ENCODE_MAX) * next.cost / step.cost;
        let gives =
            self.encoded_bytes_per_s.unwrap_or(0) / u64::from(next.cost) * u64::from(step.cost);
        took < ENCODE_MAX && gives / HEADROOM >= line_bytes_per_s
    }

    fn go_to(&mut self, step: usize) {
        if step != self.step {
            self.step = step;
            self.took = None;
            self.encoded_bytes_per_s = None;
        }
    }
}

impl Tunnel {
    /// A block has come back `took` after its job was given out.
    pub(super) fn observe(&mut self, block: &Encoded, took: Duration, now: Instant) {
        let paths = self.links.iter().map(|link| &link.path);
        let observed = Observed {
            plain_bytes: u64::from(block.header().plain_length),
            encoded_bytes: block.encoded_bytes_bound() as u64,
            took,
            waiting_bytes: self.jobs.ready_encoded_bytes()
                + paths.clone().map(Path::backlog_bytes).sum::<usize>() as u64,
            line_bytes_per_s: paths
                .map(Path::rate_bytes_per_s)
                .try_fold(0u64, |sum, rate| Some(sum.saturating_add(rate?)))
                .filter(|rate| *rate > 0),
        };
        self.level.encoded(observed, now);
    }
}

fn smoothed(before: Option<Duration>, sample: Duration) -> Duration {
    before.map_or(sample, |before| {
        (before * (SMOOTHING - 1) + sample) / SMOOTHING
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: u64 = 128 << 10;

    /// A line and a core: what becomes of the level when blocks of 128 KiB, a third of it encoded, come one after another.
    struct Run {
        control: LevelControl,
        now: Instant,
        ready_bytes: u64,
    }

    impl Run {
        fn new() -> Self {
            Self {
                control: LevelControl::new(LevelChoice::Auto),
                now: Instant::now(),
                ready_bytes: 0,
            }
        }

        /// Blocks for `span`, each taking `took` at level 1 (waiting included) and more at others.
        fn run(&mut self, span: Duration, took: Duration, line_bytes_per_s: u64) -> Level {
            let until = self.now + span;
            while self.now < until {
                let cost = STEPS.get(self.control.step).map_or(10, |step| step.cost);
                let took = took * cost / 10;
                self.now += took;
                let taken =
                    u64::try_from(u128::from(line_bytes_per_s) * took.as_micros() / 1_000_000)
                        .unwrap_or(u64::MAX);
                self.ready_bytes = self.ready_bytes.saturating_sub(taken);
                // The encoder stops when it is far ahead of the line.
                while u128::from(self.ready_bytes) * 10 > u128::from(line_bytes_per_s) {
                    self.now += Duration::from_millis(1);
                    self.ready_bytes = self.ready_bytes.saturating_sub(line_bytes_per_s / 1000);
                }
                let block = Observed {
                    plain_bytes: BLOCK_BYTES,
                    encoded_bytes: BLOCK_BYTES / 3,
                    took,
                    waiting_bytes: self.ready_bytes,
                    line_bytes_per_s: Some(line_bytes_per_s),
                };
                self.control.encoded(block, self.now);
                self.ready_bytes += BLOCK_BYTES / 3;
            }
            self.control.of(BLOCK_BYTES)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const HALF_MS: Duration = Duration::from_micros(500);

    #[test]
    fn a_slow_line_gets_a_hard_level_step_by_step() {
        let mut run = Run::new();
        let mut levels = vec![run.control.of(BLOCK_BYTES)];
        for _ in 0..20 {
            let level = run.run(SECOND / 10, HALF_MS, 1_250_000);
            if levels.last() != Some(&level) {
                levels.push(level);
            }
        }
        assert_eq!(levels, [1, 2, 4, 6, 9].map(Level::zstd));
        assert_eq!(run.control.of(1000), Level::zstd(SHORT_LEVEL_MAX));
    }

    #[test]
    fn a_fast_line_keeps_level_one() {
        let mut run = Run::new();
        for _ in 0..50 {
            // The encoder gives 87 MB/s.
            assert_eq!(run.run(SECOND / 10, HALF_MS, 125_000_000), Level::zstd(1));
        }
    }

    #[test]
    fn a_line_that_the_next_level_would_starve_keeps_the_present_one() {
        let mut run = Run::new();
        for _ in 0..50 {
            let level = run.run(SECOND / 10, HALF_MS, 40_000_000);
            assert!(
                level == Level::zstd(1) || level == Level::zstd(2),
                "{level:?}"
            );
        }
    }

    #[test]
    fn a_line_that_becomes_fast_brings_level_one_back_within_a_few_blocks() {
        let mut run = Run::new();
        assert_eq!(run.run(SECOND * 3, HALF_MS, 1_250_000), Level::zstd(9));
        assert_eq!(run.run(SECOND / 10, HALF_MS, 1 << 40), Level::zstd(1));
    }

    #[test]
    fn a_busy_pool_brings_level_one_back() {
        let mut run = Run::new();
        assert_eq!(run.run(SECOND * 3, HALF_MS, 1_250_000), Level::zstd(9));
        assert_eq!(run.run(SECOND, HALF_MS * 12, 1_250_000), Level::zstd(1));
    }

    #[test]
    fn the_start_of_a_burst_is_no_reason_to_fall() {
        let mut run = Run::new();
        assert_eq!(run.run(SECOND * 3, HALF_MS, 1_250_000), Level::zstd(9));
        for _ in 0..10 {
            run.ready_bytes = 0;
            assert_eq!(run.run(SECOND / 10, HALF_MS, 1_250_000), Level::zstd(9));
        }
    }

    #[test]
    fn a_fixed_level_stays() {
        let mut run = Run::new();
        run.control = LevelControl::new(LevelChoice::Fixed(Level::Off));
        assert_eq!(run.run(SECOND * 3, HALF_MS, 1_250_000), Level::Off);
    }
}
