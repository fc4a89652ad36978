//! How much of each load goes over which line.

use std::time::Duration;

use super::metric::Measure;
use super::place::LineKind;

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

const MIB: usize = 1 << 20;

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
            ping_time: Duration::from_millis(if quick { 200 } else { 4000 }),
            // On a line they wait most of the time, and more of them make more figures.
            ping_connections: if matches!(line, LineKind::Loopback) {
                1
            } else {
                8
            },
            connections_time: Duration::from_millis(if quick { 200 } else { 3000 }),
            idle_streams: if quick { 20 } else { 2000 },
            crowd_streams: if quick { 50 } else { CROWD_STREAMS },
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
