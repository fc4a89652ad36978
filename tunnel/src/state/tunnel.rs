//! The whole tunnel: what it holds, its links, its time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::domain::Domain;
use codec::frame::{DomainId, Frame, Reason, Renewed, StreamId};
use codec::policy::Level;

use super::control::{Opens, Outbox};
use super::credit::WINDOW_AT_OPEN_BYTES;
use super::domains::Domains;
use super::encode::JobBoard;
use super::inbound::Inbound;
use super::known::KnownEnds;
use super::lanes::UnderWay;
use super::level::LevelControl;
use super::link::LinkState;
use super::memory::Memory;
use super::path::{Due, Path};
use super::reassembly::Scattered;
use super::resume::Detached;
use super::retention::Retention;
use super::scheduler::Scheduler;
use super::stream::Stream;
use super::timers::{Timer, Timers};
use super::transmit::Activity;
use super::{Event, LinkId, TunnelConfig, Violation};
use crate::budget::Budget;
use crate::metrics::{Registry, Series};

/// Services whose counters a tunnel remembers; the registry bounds names, this bounds what a peer can make one tunnel keep.
const SERIES_MAX: usize = 1_024;

/// While a stream waits for memory, the budget is asked again this often: other tunnels give back without telling.
const MEMORY_RETRY: Duration = Duration::from_millis(100);

/// One tunnel between two edges. See the module.
pub struct Tunnel {
    pub(super) config: TunnelConfig,
    pub(super) registry: Arc<Registry>,
    series: HashMap<String, Arc<Series>>,
    pub(super) memory: Memory,
    pub(super) streams: HashMap<StreamId, Box<Stream>>,
    /// Counts what of them waits in small pieces.
    pub(super) scattered: Scattered,
    pub(super) next_own: Option<StreamId>,
    pub(super) last_peer: StreamId,
    pub(super) tombstones: BTreeSet<StreamId>,
    pub(super) opens: Opens,
    pub(super) links: Vec<LinkState>,
    /// Without a link: until when one is waited for.
    pub(super) detached: Option<Detached>,
    /// The first of `links`, or the one that was before all were lost.
    pub(super) first_link: LinkId,
    /// Append ranges of what is not acknowledged, by link.
    pub(super) under_way: UnderWay,
    pub(super) retention: Retention,
    pub(super) inbound: Inbound,
    /// Of blocks that went, and of those that came.
    pub(super) sent_ends: KnownEnds,
    pub(super) received_ends: KnownEnds,
    pub(super) domains: Domains,
    pub(super) jobs: JobBoard,
    pub(super) level: LevelControl,
    pub(super) scheduler: Scheduler,
    pub(super) outbox: Outbox,
    pub(super) timers: Timers,
    pub(super) events: VecDeque<Event>,
    pub(super) activity: Activity,
    /// Streams that send little.
    pub(super) light: Activity,
    pub(super) starved: VecDeque<StreamId>,
    memory_retry: Option<Instant>,
    /// This side has said GoAway, or is about to.
    pub(super) going_away: bool,
    pub(super) goaway_to_send: Option<Reason>,
    /// The peer has acknowledged it. What it opened before is served like any other stream.
    pub(super) goaway_is_known: bool,
    pub(super) peer_going_away: bool,
    /// The number of the peer's GoAway, which is acted on once the Opens that were made before it are sent: it refuses those that come behind
    /// its acknowledgement.
    pub(super) peer_goaway: Option<u64>,
    /// The peer's request for a certificate is being answered; further ones are not looked at until then.
    pub(super) is_renewing: bool,
    pub(super) is_over: bool,
    /// What windows of streams reached lately, in bytes.
    pub(super) window_recent_bytes: u64,
}

/// Figures of a tunnel at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelStats {
    /// Streams not yet closed.
    pub streams_open: usize,
    /// Smoothed round trip of the first link.
    pub rtt: Option<Duration>,
    /// Shortest round trip of the first link.
    pub rtt_min: Option<Duration>,
    /// What the first link's line takes, in bytes a second.
    pub rate_bytes_per_s: Option<u64>,
    /// Encoded bytes sent and not acknowledged.
    pub unacknowledged_encoded_bytes: u64,
    /// Plain bytes sent and not acknowledged.
    pub unacknowledged_plain_bytes: u64,
    /// Plain bytes that wait to be encoded or are being so.
    pub queued_bytes: u64,
    /// Encoded bytes of received blocks that wait for others.
    pub parked_bytes: u64,
    /// Codec jobs given out and not come back.
    pub jobs: usize,
    /// How hard the next long block is compressed.
    pub level: Level,
    /// What the streams' windows hold beyond their reserve, in bytes.
    pub window_growth_bytes: u64,
}

impl Tunnel {
    /// A tunnel after Hello, without a link. What it keeps is charged to `budget`, what it does is counted in `registry`.
    #[must_use]
    pub fn new(
        config: TunnelConfig,
        budget: Arc<Budget>,
        registry: Arc<Registry>,
        now: Instant,
    ) -> Self {
        Self {
            memory: Memory::new(&budget),
            opens: Opens::new(&config),
            next_own: Some(StreamId::first(config.side)),
            level: LevelControl::new(config.level),
            config,
            registry,
            series: HashMap::new(),
            streams: HashMap::new(),
            scattered: Scattered::default(),
            last_peer: StreamId::TUNNEL,
            tombstones: BTreeSet::new(),
            links: Vec::new(),
            detached: None,
            first_link: LinkId::from(0),
            under_way: UnderWay::default(),
            retention: Retention::new(),
            inbound: Inbound::default(),
            sent_ends: KnownEnds::default(),
            received_ends: KnownEnds::default(),
            domains: Domains::default(),
            jobs: JobBoard::default(),
            scheduler: Scheduler::default(),
            outbox: Outbox::default(),
            timers: Timers::default(),
            events: VecDeque::new(),
            activity: Activity::new(now),
            light: Activity::new(now),
            starved: VecDeque::new(),
            memory_retry: None,
            going_away: false,
            goaway_to_send: None,
            goaway_is_known: false,
            peer_going_away: false,
            peer_goaway: None,
            is_renewing: false,
            is_over: false,
            window_recent_bytes: WINDOW_AT_OPEN_BYTES,
        }
    }

    /// Uses `domain`'s histories for blocks of domain `id`, as soon as no other tunnel holds them and the peer has agreed. `name` is `shared` (or
    /// empty), `c:SERVICE` or `s:SERVICE`. Beyond 16 domains, or for one that is attached already, nothing happens.
    pub fn attach_domain(&mut self, id: DomainId, name: String, domain: Arc<Domain>, now: Instant) {
        if !self.is_over {
            let frames = self.domains.attach(id, name, domain, now);
            self.outbox.extend(frames);
        }
    }

    /// Whether a domain of that number is there, agreed upon or not.
    pub fn has_domain(&self, id: DomainId) -> bool {
        self.domains.is_attached(id)
    }

    // ---- links ----

    /// A link is up: Hello was exchanged on it. If it is the only one, everything that may have been lost with those before it goes again.
    pub fn link_up(&mut self, link: LinkId, now: Instant) {
        if self.is_over {
            return;
        }
        self.links.push(LinkState::new(link, &self.config, now));
        if self.links.len() == 1 {
            self.carry_on(link, now);
        }
    }

    /// A link is gone. What went out on it and is not acknowledged goes again on the next one. Without a next one the tunnel is
    /// [detached](Self::is_detached), or over, if it is not to be resumed; then [`Event::TunnelLost`] comes.
    pub fn link_lost(&mut self, link: LinkId, now: Instant) {
        let Some(index) = self.links.iter().position(|state| state.id == link) else {
            return;
        };
        self.links.remove(index);
        if self.is_over {
            return;
        }
        if self.links.is_empty() {
            self.detach(now);
        } else {
            self.leave_link(link, index, now);
        }
    }

    /// Asks over all links whether the peer lives. One on which nothing is heard for a heartbeat from now on is lost.
    pub fn probe(&mut self, now: Instant) {
        for link in &mut self.links {
            link.path.probe(now);
        }
    }

    /// Ends the tunnel: streams that were delivered both ways are complete, all others are lost.
    pub fn close(&mut self, now: Instant) {
        if !self.is_over {
            self.close_delivered(now);
            self.events.push_back(Event::TunnelLost);
            self.end();
        }
    }

    /// The link's socket took `bytes`, and `backlog_bytes` still wait for it: measures the line.
    pub fn link_written(&mut self, link: LinkId, bytes: usize, backlog_bytes: usize, now: Instant) {
        if let Some(state) = self.link_mut(link) {
            state.path.written(bytes, backlog_bytes, now);
            state.is_busy |= backlog_bytes > 0;
        }
    }

    /// Smoothed round trip of a link, once measured.
    #[must_use]
    pub fn rtt(&self, link: LinkId) -> Option<Duration> {
        self.links.iter().find(|state| state.id == link)?.path.rtt()
    }

    pub(super) fn link_mut(&mut self, link: LinkId) -> Option<&mut LinkState> {
        self.links.iter_mut().find(|state| state.id == link)
    }

    /// The first link's path.
    pub(super) fn path(&self) -> Option<&Path> {
        self.links.first().map(|link| &link.path)
    }

    pub(super) fn round_trip(&self) -> Duration {
        // A stream's bytes are in order when those of the longest way have come.
        let all = self.links.iter().map(|link| link.path.rtt_at_present());
        all.max().unwrap_or(Duration::ZERO)
    }

    // ---- the tunnel's own frames ----

    /// No new streams from now on, on either side; those that run go on, and nothing is appended to histories any more. A tunnel that goes away is
    /// not resumed: without a link it is over.
    pub fn go_away(&mut self, reason: Reason, now: Instant) {
        if !self.going_away {
            self.going_away = true;
            self.goaway_to_send = Some(reason);
        }
        if self.is_detached() {
            self.close(now);
        }
    }

    /// Asks the peer for a certificate: a PKCS #10 request in DER, 1 to 8,192 bytes.
    pub fn renew(&mut self, request: Bytes) {
        self.outbox.push(Frame::Renew { request });
    }

    /// Answers the peer's request for a certificate.
    pub fn renewed(&mut self, answer: Renewed) {
        self.is_renewing = false;
        self.outbox.push(Frame::Renewed(answer));
    }

    // ---- events and time ----

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let fixed = [
            self.inbound.ack_deadline(),
            self.outbox.credit_deadline(),
            self.domains.lease_retry(),
            self.domains.floor_deadline(),
            self.timers.next(),
            self.memory_retry,
            self.detached.map(|detached| detached.until),
        ];
        let is_alone = self.links.len() == 1;
        let links = self.links.iter();
        let of_links = links.flat_map(|link| [link.held_until, Some(link.path.deadline(is_alone))]);
        fixed.into_iter().chain(of_links).flatten().min()
    }

    /// A deadline has passed. Too early a call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_over {
            return;
        }
        if self.detached.is_some_and(|detached| detached.until <= now) {
            self.close(now);
            return;
        }
        for link in &mut self.links {
            // What is held back is looked at again when frames are asked for.
            link.held_until = link.held_until.filter(|until| *until > now);
        }
        self.inbound.handle_timeout(now);
        self.outbox.handle_timeout(now);
        if self.domains.lease_retry().is_some_and(|at| at <= now) {
            let frames = self.domains.try_leases(now);
            self.outbox.extend(frames);
        }
        self.raise_floors(now);
        while let Some((stream, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Gap => self.gap_timer(stream, now),
                Timer::Idle => self.idle_timer(stream, now),
            }
        }
        if self.memory_retry.is_some_and(|at| at <= now) {
            self.memory_retry = None;
            self.wake_starved();
            self.expect_memory(now);
        }
        let is_alone = self.links.len() == 1;
        let dead: Vec<LinkId> = self
            .links
            .iter_mut()
            .filter_map(|link| (link.path.due(is_alone, now) == Due::Dead).then_some(link.id))
            .collect();
        for link in dead {
            self.events.push_back(Event::LinkDead { link });
            self.link_lost(link, now);
        }
    }

    /// Streams wait for memory that others may give back.
    pub(super) fn expect_memory(&mut self, now: Instant) {
        if !self.starved.is_empty() {
            self.memory_retry.get_or_insert(now + MEMORY_RETRY);
        }
    }

    /// Drops what may be dropped, and tells the peer what has changed about room.
    pub(super) fn raise_floors(&mut self, now: Instant) {
        if self.is_detached() {
            // A peer that cannot hear has no time to answer in; floors are raised when it can.
            return;
        }
        let frames = self.domains.raise_floors(self.jobs.next_id(), now);
        self.outbox.extend(frames);
        let quotas = self.domains.renew_quotas();
        self.outbox.extend(quotas);
    }

    pub(super) fn series(&mut self, service: &str) -> Arc<Series> {
        if let Some(series) = self.series.get(service) {
            return series.clone();
        }
        let series = Arc::new(Series::new(&self.registry, service, &self.config.peer_name));
        if self.series.len() < SERIES_MAX {
            self.series.insert(service.to_owned(), series.clone());
        }
        series
    }

    // ---- the end ----

    /// Figures for status.
    #[must_use]
    pub fn stats(&self) -> TunnelStats {
        TunnelStats {
            streams_open: self.streams.len(),
            rtt: self.path().and_then(Path::rtt),
            rtt_min: self.path().and_then(Path::rtt_min),
            rate_bytes_per_s: self.path().and_then(Path::rate_bytes_per_s),
            unacknowledged_encoded_bytes: self.retention.encoded_bytes(),
            unacknowledged_plain_bytes: self.retention.plain_bytes(),
            queued_bytes: self.memory.queued.used_bytes() as u64,
            parked_bytes: self.memory.parked.used_bytes() as u64,
            jobs: self.jobs.outstanding(),
            level: self.level.of(u64::from(codec::block::BLOCK_PLAIN_MAX)),
            window_growth_bytes: self
                .streams
                .values()
                .map(|stream| stream.recv.window.charged_bytes())
                .sum(),
        }
    }

    /// Whether the tunnel can end without a trace: no stream is open, and everything sent and received was acknowledged.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.streams.is_empty()
            && self.goaway_to_send.is_none()
            && self.retention.is_empty()
            && self.inbound.owes_nothing()
    }

    /// Whether the tunnel has ended, by the loss of its links or a violation.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The peer did what a job found to be a violation.
    pub(super) fn violated(&mut self, violation: Violation) {
        if !self.is_over {
            self.events.push_back(Event::Violated(violation));
            self.end();
        }
    }

    /// Nothing is sent or taken any more; memory, histories and counters are given back.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.detached = None;
        for link in &mut self.links {
            link.clear();
        }
        self.under_way = UnderWay::default();
        self.streams.clear();
        self.starved.clear();
        self.domains = Domains::default();
        self.inbound = Inbound::default();
        (self.sent_ends, self.received_ends) = Default::default();
        self.retention = Retention::new();
        self.scheduler = Scheduler::default();
        self.jobs.clear();
        self.memory.clear();
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("side", &self.config.side)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
