//! What is known of the way that a link takes: its round trip, its rate, and whether it is alive.

use std::time::{Duration, Instant};

use super::line::{LineMeasure, bytes_in};

/// Round trip before the first Pong: a long line's, so that windows grow rather too fast than too slowly.
const RTT_BEFORE_FIRST_SAMPLE: Duration = Duration::from_millis(100);

/// A link that carries data, either way, is pinged this often by both ends, so that the round trip follows the line.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A rate is measured over at least this long: shorter spans see the socket buffer and not the line.
const RATE_SPAN: Duration = Duration::from_millis(50);

/// A link is dead after so many silent heartbeats.
const DEAD_AFTER_HEARTBEATS: u32 = 3;

/// A link is not chosen for new blocks while an answer on it takes longer than this, and than [`DOUBTFUL_ROUND_TRIPS`].
const DOUBTFUL_AFTER: Duration = Duration::from_secs(1);
/// See [`DOUBTFUL_AFTER`].
const DOUBTFUL_ROUND_TRIPS: u32 = 4;

/// Weight of the past in the smoothed round trip (RFC 6298) and in the rate.
const SMOOTHING: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Path {
    /// What the kernel says of the line, where it does; better than what the socket took.
    pub(super) line: Option<LineMeasure>,
    heartbeat: Duration,
    rtt_smoothed: Option<Duration>,
    rtt_last: Option<Duration>,
    rtt_min: Option<Duration>,
    last_heard: Instant,
    ping_sent: Option<(u64, Instant)>,
    ping_wanted: bool,
    /// Since when an answer is awaited, sent or not; anything heard later answers it.
    asked: Instant,
    /// Whoever asked waits no longer than a heartbeat.
    is_probed: bool,
    next_ping: Instant,
    /// Data came since the last Ping.
    receives: bool,
    next_token: u64,
    rate_bytes_per_s: Option<u64>,
    span_start: Instant,
    span_bytes: u64,
    /// The socket had a backlog during the whole span, so the line and not the application set the rate.
    span_busy: bool,
    /// What was handed to the link and is not in the socket yet.
    backlog_bytes: usize,
}

/// What a path needs at a deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Dead,
}

impl Path {
    pub(super) fn new(heartbeat: Duration, now: Instant) -> Self {
        Self {
            line: None,
            heartbeat,
            rtt_smoothed: None,
            rtt_last: None,
            rtt_min: None,
            last_heard: now,
            ping_sent: None,
            ping_wanted: true,
            asked: now,
            is_probed: false,
            next_ping: now,
            receives: false,
            next_token: 1,
            rate_bytes_per_s: None,
            span_start: now,
            span_bytes: 0,
            span_busy: false,
            backlog_bytes: 0,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt_smoothed
    }

    pub(super) fn rtt_min(&self) -> Option<Duration> {
        self.rtt_min
    }

    pub(super) fn rtt_or_guess(&self) -> Duration {
        self.rtt_smoothed.unwrap_or(RTT_BEFORE_FIRST_SAMPLE)
    }

    /// What windows are judged by: the queues that stand in the line now count, and a mean over many seconds tells of them too late.
    pub(super) fn rtt_at_present(&self) -> Duration {
        self.rtt_or_guess().max(self.rtt_last.unwrap_or_default())
    }

    /// Bytes a second that the line takes; none until it was busy for a while.
    pub(super) fn rate_bytes_per_s(&self) -> Option<u64> {
        let line = self.line.as_ref().filter(|line| line.is_settled());
        line.map(LineMeasure::rate_bytes_per_s)
            .or(self.rate_bytes_per_s)
    }

    /// What the line takes in `span`.
    pub(super) fn bytes_in(&self, span: Duration) -> Option<u64> {
        Some(bytes_in(self.rate_bytes_per_s()?, span))
    }

    /// What was handed to the link and is not in the socket yet.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.is_probed &= now < self.asked;
    }

    /// Data came: the line may have a queue that only its receiver can know of.
    pub(super) fn received_data(&mut self) {
        self.receives = true;
    }

    /// The token of a Ping that is to be sent now, if one is.
    pub(super) fn take_ping(&mut self, carries_data: bool, now: Instant) -> Option<u64> {
        let is_due = (carries_data || self.receives) && now >= self.next_ping;
        if !self.ping_wanted && !is_due {
            return None;
        }
        if self.ping_sent.is_some() && !self.ping_wanted {
            return None;
        }
        self.ping_wanted = false;
        self.receives = false;
        self.next_ping = now + PING_EVERY;
        let token = self.next_token;
        self.next_token += 1;
        self.ping_sent = Some((token, now));
        Some(token)
    }

    /// The token of the Ping that is sent next.
    pub(super) fn next_token(&self) -> u64 {
        self.next_token
    }

    /// False for a Pong to anything but the newest Ping.
    pub(super) fn pong(&mut self, token: u64, now: Instant) -> bool {
        let Some((expected, sent)) = self.ping_sent else {
            return false;
        };
        if token != expected {
            return false;
        }
        self.ping_sent = None;
        let sample = now.saturating_duration_since(sent);
        self.rtt_min = Some(self.rtt_min.map_or(sample, |min| min.min(sample)));
        self.rtt_last = Some(sample);
        self.rtt_smoothed = Some(match self.rtt_smoothed {
            None => sample,
            Some(smoothed) => (smoothed * (SMOOTHING - 1) + sample) / SMOOTHING,
        });
        true
    }

    /// The socket took `bytes`; `backlog_bytes` still wait for it.
    pub(super) fn written(&mut self, bytes: usize, backlog_bytes: usize, now: Instant) {
        self.span_bytes += bytes as u64;
        self.backlog_bytes = backlog_bytes;
        let span = now.saturating_duration_since(self.span_start);
        if span >= RATE_SPAN {
            let sample = u64::try_from(u128::from(self.span_bytes) * 1_000_000 / span.as_micros())
                .unwrap_or(u64::MAX);
            self.rate_bytes_per_s = match self.rate_bytes_per_s {
                None if self.span_busy => Some(sample),
                Some(rate) if self.span_busy || sample > rate => {
                    let weight = u64::from(SMOOTHING);
                    Some((rate / weight * (weight - 1)).saturating_add(sample / weight))
                }
                unchanged => unchanged,
            };
            self.span_start = now;
            self.span_bytes = 0;
            self.span_busy = true;
        }
        if backlog_bytes == 0 {
            self.span_busy = false;
        }
    }

    /// When to ask, or to give up. Where other links live, a shorter silence will do: what went out here can go there.
    pub(super) fn deadline(&self, is_alone: bool) -> Instant {
        if !self.is_asking() {
            let silent = self.last_heard + self.heartbeat;
            return match self.ping_sent {
                Some((_, sent)) if !is_alone && self.last_heard < sent => {
                    silent.min(sent + self.impatience())
                }
                _ => silent,
            };
        }
        let patience = self.heartbeat * (DEAD_AFTER_HEARTBEATS - 1);
        let usual =
            (self.last_heard + self.heartbeat * DEAD_AFTER_HEARTBEATS).max(self.asked + patience);
        if !is_alone {
            usual.min(self.asked + self.impatience())
        } else if self.is_probed {
            usual.min(self.asked + self.heartbeat)
        } else {
            usual
        }
    }

    /// How long an answer is waited for where other links live.
    fn impatience(&self) -> Duration {
        let usual = self.rtt_smoothed.unwrap_or_default() * DOUBTFUL_ROUND_TRIPS;
        (self.heartbeat / 2).max(usual)
    }

    /// Whether an answer takes so long that something may be wrong.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        let usual = self.rtt_smoothed.unwrap_or_default() * DOUBTFUL_ROUND_TRIPS;
        let pinged = self.ping_sent.filter(|(_, at)| self.last_heard < *at);
        pinged.is_some_and(|(_, at)| now.saturating_duration_since(at) > usual.max(DOUBTFUL_AFTER))
    }

    /// Asks at once whether the link lives; a heartbeat without an answer means that it does not.
    pub(super) fn probe(&mut self, now: Instant) {
        if !self.is_asking() {
            self.ping_wanted = true;
            self.asked = now.max(self.last_heard + Duration::from_nanos(1));
        }
        self.is_probed = true;
    }

    /// A process that was stopped for a while sees all deadlines passed at once; it asks before it gives up.
    pub(super) fn due(&mut self, is_alone: bool, now: Instant) -> Due {
        if now < self.deadline(is_alone) {
            return Due::Nothing;
        }
        if self.is_asking() {
            return Due::Dead;
        }
        self.ping_wanted = true;
        self.asked = now;
        Due::Ping
    }

    fn is_asking(&self) -> bool {
        self.last_heard < self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(5);

    #[test]
    fn a_round_trip_is_measured_by_the_newest_ping() {
        let start = Instant::now();
        let mut path = Path::new(HEARTBEAT, start);
        let token = path.take_ping(false, start).unwrap_or_default();
        path.pong(token + 1, start + Duration::from_millis(1));
        assert_eq!(path.rtt(), None);
        path.pong(token, start + Duration::from_millis(40));
        assert_eq!(path.rtt(), Some(Duration::from_millis(40)));
        assert_eq!(path.take_ping(true, start), None, "the next one has time");
    }

    #[test]
    fn a_link_that_only_receives_measures_too_and_an_idle_one_does_not() {
        let start = Instant::now();
        let mut path = Path::new(HEARTBEAT, start);
        let token = path.take_ping(false, start).unwrap_or_default();
        path.pong(token, start + Duration::from_millis(20));
        let later = start + PING_EVERY;
        assert_eq!(path.take_ping(false, later), None);
        path.received_data();
        let token = path.take_ping(false, later).unwrap_or_default();
        path.pong(token, later + Duration::from_millis(180));
        assert_eq!(path.rtt(), Some(Duration::from_millis(40)));
        assert_eq!(path.rtt_at_present(), Duration::from_millis(180));
        assert_eq!(path.take_ping(false, later + PING_EVERY), None);
    }

    #[test]
    fn a_silent_link_is_pinged_and_dies_after_three_heartbeats() {
        let start = Instant::now();
        let mut path = Path::new(HEARTBEAT, start);
        let token = path.take_ping(false, start).unwrap_or_default();
        path.pong(token, start);
        assert_eq!(
            path.due(true, start + HEARTBEAT - Duration::from_millis(1)),
            Due::Nothing
        );
        assert_eq!(path.due(true, start + HEARTBEAT), Due::Ping);
        assert!(path.take_ping(false, start + HEARTBEAT).is_some());
        assert_eq!(
            path.due(true, start + HEARTBEAT * 3 - Duration::from_millis(1)),
            Due::Nothing
        );
        assert_eq!(path.due(true, start + HEARTBEAT * 3), Due::Dead);
    }

    #[test]
    fn a_process_that_slept_pings_before_it_gives_up() {
        let start = Instant::now();
        let mut path = Path::new(HEARTBEAT, start);
        let token = path.take_ping(false, start).unwrap_or_default();
        path.pong(token, start);
        let woken = start + HEARTBEAT * 100;
        assert_eq!(path.due(true, woken), Due::Ping);
        assert!(path.take_ping(false, woken).is_some());
        assert_eq!(path.due(true, woken), Due::Nothing);
        assert_eq!(path.due(true, woken + HEARTBEAT * 2), Due::Dead);
    }

    #[test]
    fn the_rate_is_learnt_only_while_the_line_is_busy() {
        let start = Instant::now();
        let mut path = Path::new(HEARTBEAT, start);
        let mut now = start;
        for _ in 0..10 {
            now += Duration::from_millis(60);
            path.written(60_000, 0, now);
        }
        assert_eq!(path.rate_bytes_per_s(), None);
        for _ in 0..100 {
            now += Duration::from_millis(60);
            path.written(60_000, 1, now);
        }
        assert_eq!(path.rate_bytes_per_s().map(|rate| rate / 10_000), Some(100));
        assert_eq!(
            path.bytes_in(Duration::from_millis(100))
                .map(|bytes| bytes / 1000),
            Some(100)
        );
    }
}
