//! One link as the machine sees it: what is asked about its line, and when bulk waits for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codec::frame::StreamId;

use super::lanes::Lane;
use super::line::{LineMeasure, LineSample};
use super::pace::Pacer;
use super::path::Path;
use super::resume::Again;
use super::transmit::LIGHT_FOR;
use super::{LinkId, Side, Tunnel, TunnelConfig};

/// A link is sampled so often in a round trip, within these bounds.
const SAMPLES_PER_ROUND_TRIP: u32 = 4;
/// See [`SAMPLES_PER_ROUND_TRIP`].
const SAMPLE_MIN: Duration = Duration::from_millis(5);
/// See [`SAMPLES_PER_ROUND_TRIP`].
const SAMPLE_MAX: Duration = Duration::from_millis(25);
/// While bulk is held back, what lies in the socket matters at once.
const SAMPLE_PACED: Duration = Duration::from_millis(1);

/// Bulk that was held back within so many round trips is paced.
const PACED_FOR_ROUND_TRIPS: u32 = 4;

/// While the line is full, so much of its time is handed to a link at once, within these bounds.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// See [`BATCH_TIME`].
const BATCH_MIN_BYTES: u64 = 16 << 10;
/// See [`BATCH_TIME`].
const BATCH_MAX_BYTES: u64 = 64 << 10;

/// One link as the machine sees it.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) id: LinkId,
    pub(super) path: Path,
    pub(super) pacer: Pacer,
    /// When bulk that is held back may go.
    pub(super) held_until: Option<Instant>,
    last_held: Option<Instant>,
    /// Something waited for the line since the last sample.
    pub(super) is_busy: bool,
    next_sample: Instant,
    pub(super) pongs: VecDeque<u64>,
    /// What goes again here because the link that it went out on is lost.
    pub(super) again: Again,
    /// Of a link that is not the first.
    pub(super) lane: Lane,
}

impl LinkState {
    pub(super) fn new(id: LinkId, config: &TunnelConfig, now: Instant) -> Self {
        let chance = match config.side {
            Side::Client => 1,
            Side::Server => 2,
        };
        Self {
            id,
            path: Path::new(config.heartbeat, now),
            pacer: Pacer::new(chance, now),
            held_until: None,
            last_held: None,
            is_busy: false,
            next_sample: now,
            pongs: VecDeque::new(),
            again: Again::default(),
            lane: Lane::default(),
        }
    }

    /// The tunnel is over.
    pub(super) fn clear(&mut self) {
        self.again = Again::default();
        self.lane = Lane::default();
    }

    /// Bulk waits until then, and that is the line's doing.
    pub(super) fn hold(&mut self, until: Instant, now: Instant) {
        self.held_until = Some(until);
        self.last_held = Some(now);
        self.next_sample = self.next_sample.min(now + SAMPLE_PACED);
        self.is_busy = true;
    }
}

impl Tunnel {
    /// Whether [`link_sampled`](Self::link_sampled) should be called now, before frames are asked for.
    #[must_use]
    pub fn wants_sample(&self, link: LinkId, now: Instant) -> bool {
        let mut links = self.links.iter();
        links.any(|state| state.id == link && state.next_sample <= now)
    }

    /// What the kernel says of the link's socket, where it says anything.
    pub fn link_sampled(&mut self, link: LinkId, sample: LineSample, now: Instant) {
        let Some(state) = self.link_mut(link) else {
            return;
        };
        let is_busy = std::mem::take(&mut state.is_busy) || sample.unsent_bytes > 0;
        let line = state
            .path
            .line
            .get_or_insert_with(|| LineMeasure::new(sample, now));
        let round = line.take(sample, is_busy, now);
        // A round trip without holding back is within the cycle; several mean that nothing is to be held back.
        let paced_for = sample.round_trip * PACED_FOR_ROUND_TRIPS;
        let was_held = state
            .last_held
            .is_some_and(|at| now.saturating_duration_since(at) <= paced_for);
        let is_paced = was_held && line.is_settled();
        state.pacer.sampled(line, round, is_paced, now);
        state.next_sample = now
            + if was_held {
                SAMPLE_PACED
            } else {
                (sample.round_trip / SAMPLES_PER_ROUND_TRIP).clamp(SAMPLE_MIN, SAMPLE_MAX)
            };
    }

    /// How many bytes of frames the link should be given at once, and twice as many may wait in front of its socket: more would only stand
    /// in the way of what comes next.
    #[must_use]
    pub fn batch_bytes(&self, link: LinkId) -> usize {
        let state = self.links.iter().find(|state| state.id == link);
        let measured = state.and_then(|state| state.path.bytes_in(BATCH_TIME));
        let bytes = measured
            .unwrap_or(BATCH_MAX_BYTES)
            .clamp(BATCH_MIN_BYTES, BATCH_MAX_BYTES);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Whether a stream has something to send and need not wait.
    pub(super) fn may_transmit(&mut self, now: Instant) -> bool {
        let head = self.next_sender();
        head.is_some_and(|id| self.held_back(id, now).is_none())
    }

    /// When the head of the round may go, if it must wait for what is urgent.
    pub(super) fn held_back(&mut self, id: StreamId, now: Instant) -> Option<Instant> {
        self.held_back_on(0, self.scheduler.head_is_urgent(), id, now)
    }

    /// The same on a further link.
    pub(super) fn held_back_on(
        &mut self,
        index: usize,
        is_urgent: bool,
        id: StreamId,
        now: Instant,
    ) -> Option<Instant> {
        if is_urgent || !self.light.is_shared(id, LIGHT_FOR, now) {
            return None;
        }
        let link = self.links.get_mut(index)?;
        let line = link.path.line.as_ref()?;
        if line.is_settled() {
            link.pacer.waits(line, now)
        } else {
            link.pacer.waits_unsettled(line, now)
        }
    }
}
