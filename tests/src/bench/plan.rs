//! How much of each load goes over which line.

use std::time::Duration;

use super::metric::Measure;
use super::place::LineKind;
use super::rival::Rival;

/// Loads for one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes of a random transfer.
    pub(super) random_bytes: usize,
    /// Bytes of each archive of software.
    pub(super) software_bytes: usize,
    /// Times that an archive is sent again, in one transfer.
    pub(super) again_times: usize,
    /// A transfer that is not whole by then counts as far as it came.
    pub(super) limit: Duration,
    /// It is never less.
    pub(super) least_limit: Duration,
    /// How long messages go to and fro.
    pub(super) ping_time: Duration,
    /// On how many connections.
    pub(super) ping_connections: usize,
    /// How long connections are opened.
    pub(super) connections_time: Duration,
    /// Idle streams.
    pub(super) idle_streams: usize,
    /// Very many idle streams.
    pub(super) crowd_streams: usize,
}

/// Fewer where a process may not have that many descriptors.
pub(super) const CROWD_STREAMS: usize = 20_000;

/// Between all that a sample may take and the least.
const PART_STEPS: u32 = 20;

const MIB: usize = 1 << 20;

/// To start a pair, to end it, and for the load to be made.
const START: Duration = Duration::from_millis(1500);

/// To let memory settle, and to open connections, for each of two crowds.
const CROWD: Duration = Duration::from_secs(5);

/// What a pair moves on loopback, about.
const LOOPBACK_BYTES_PER_S: u64 = 250_000_000;

/// Samples never take less than this, or the start of a connection and the machine's other work decide: what has no time is not run.
const LEAST_TIME: Duration = Duration::from_secs(2);

impl Plan {
    pub(super) const fn of(line: LineKind, quick: bool) -> Self {
        let (random_bytes, software_bytes, again_times) = match line {
            _ if quick => (MIB, MIB, 2),
            LineKind::Loopback => (512 * MIB, 256 * MIB, 4),
            LineKind::Slow => (5 * MIB, 5 * MIB, 8),
            // Long enough that the start of a connection does not decide.
            LineKind::Long | LineKind::Lossy => (96 * MIB, 64 * MIB, 4),
            LineKind::Fast => (256 * MIB, 256 * MIB, 4),
        };
        Self {
            random_bytes,
            software_bytes,
            again_times,
            limit: Duration::from_secs(if quick { 60 } else { 15 }),
            least_limit: Duration::from_secs(match line {
                // What is random takes 8.4 s of a full line.
                LineKind::Long | LineKind::Lossy => 9,
                _ => 5,
            }),
            ping_time: Duration::from_millis(if quick { 200 } else { 4000 }),
            // On a line they wait most of the time, and more of them make more figures.
            ping_connections: if matches!(line, LineKind::Loopback) {
                1
            } else {
                8
            },
            connections_time: Duration::from_millis(if quick { 200 } else { 4000 }),
            idle_streams: if quick { 20 } else { 2000 },
            crowd_streams: if quick { 50 } else { CROWD_STREAMS },
        }
    }

    /// About how long `measure` takes with one peer: mostly by what the line carries. Nobody knows what a peer makes of it, and one that is slow
    /// ends at the limit.
    pub(super) fn expected(&self, line: LineKind, rival: Rival, measure: Measure) -> Duration {
        if !Self::has(line, measure) || rival.spared(line, measure).is_some() {
            return Duration::ZERO;
        }
        let rate = line
            .rate_bits_per_s()
            .map_or(LOOPBACK_BYTES_PER_S, |bits| bits / 8);
        let moved = |bytes: usize| {
            let time = Duration::from_secs(bytes as u64) / u32::try_from(rate).unwrap_or(u32::MAX);
            2 * match line {
                // Who takes loss for a full line takes as long as it may.
                LineKind::Lossy => self.limit,
                _ => time.min(self.limit),
            }
        };
        match measure {
            Measure::Memory | Measure::Crowd => START + CROWD,
            // The flood has to begin, and everything is started anew after it.
            Measure::Ping => 2 * START + START + 2 * self.ping_time,
            Measure::Connections => START + self.connections_time,
            Measure::Random => START + moved(self.random_bytes),
            Measure::Cold => moved(self.software_bytes),
            // Our own only, and far faster than the line.
            Measure::Warm => START,
        }
    }

    /// The loads that take `part` of the time, but no sample less than it needs. How much is moved at most stays, for that is part of what is
    /// measured.
    pub(super) fn shortened(self, part: f64) -> Self {
        let time = |time: Duration, least: Duration| time.mul_f64(part).max(time.min(least));
        Self {
            limit: time(self.limit, self.least_limit),
            ping_time: time(self.ping_time, LEAST_TIME),
            connections_time: time(self.connections_time, LEAST_TIME),
            ..self
        }
    }

    /// Whether the line has anything to do with it: processor and memory are the same on all lines.
    pub(super) fn has(line: LineKind, measure: Measure) -> bool {
        let only_loopback = matches!(
            measure,
            Measure::Memory | Measure::Crowd | Measure::Connections
        );
        line == LineKind::Loopback || !only_loopback
    }
}

/// The part of the time that all samples may take, so that one repetition of everything takes no longer than `time`; when even the least does not
/// fit, the last ones will not be run.
pub(super) fn part_that_fits(
    time: Duration,
    lines: &[LineKind],
    rivals: &[Rival],
    measures: &[Measure],
) -> f64 {
    let expected = |part: f64| -> Duration {
        let mut sum = Duration::ZERO;
        for line in lines {
            let plan = Plan::of(*line, false).shortened(part);
            for rival in rivals.iter().filter(|rival| rival.is_for(*line)) {
                let each = measures
                    .iter()
                    .map(|one| plan.expected(*line, *rival, *one));
                sum += each.sum::<Duration>();
            }
        }
        sum
    };
    // In steps, for not everything becomes shorter.
    let mut fits = (0..=PART_STEPS)
        .rev()
        .map(|step| f64::from(step) / f64::from(PART_STEPS));
    let part = fits.find(|part| expected(*part) <= time).unwrap_or(0.0);
    eprintln!(
        "everything once takes about {:.1} of {:.1} minutes",
        expected(part).as_secs_f64() / 60.0,
        time.as_secs_f64() / 60.0
    );
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_loads_take_less_and_stay_loads() {
        for line in LineKind::ALL {
            let whole = Plan::of(line, false);
            let half = whole.shortened(0.5);
            let time = |plan: &Plan| -> Duration {
                let each = Measure::ALL.map(|one| plan.expected(line, Rival::Wanproxy, one));
                each.into_iter().sum()
            };
            assert!(time(&half) < time(&whole), "{}", line.name());
            assert_eq!(half.random_bytes, whole.random_bytes);
            let least = whole.shortened(0.0);
            assert_eq!(
                (least.ping_time, least.limit),
                (LEAST_TIME, whole.least_limit)
            );
            let quick = Plan::of(line, true);
            assert_eq!(quick.shortened(0.0).ping_time, quick.ping_time);
        }
    }

    #[test]
    fn what_is_random_is_whole_on_a_full_line_within_the_least_limit() {
        for line in LineKind::ALL {
            let Some(rate) = line.rate_bits_per_s() else {
                continue;
            };
            let plan = Plan::of(line, false);
            // Headers take three or four bytes of a hundred.
            let seconds = plan.random_bytes as f64 * 8.0 / (rate as f64 * 0.96);
            assert!(seconds < plan.least_limit.as_secs_f64(), "{}", line.name());
        }
    }
}
