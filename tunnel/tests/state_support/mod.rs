//! Two ends of a tunnel under virtual time: a line with delay and rate between them, jobs that come back late and in any order, and applications
//! whose bytes are a function of their offset.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test program uses a part")]

pub mod app;
pub mod line;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::block::BlockVersion;
use codec::domain::{Domain, DomainConfig};
use codec::frame::{DomainId, Reason, StreamId, Target};
use codec::policy::Level;
use tunnel::budget::{Budget, Use};
use tunnel::metrics::{Registry, StreamResult};
use tunnel::state::{
    CodecJob, CodecScratch, Event, JobId, LevelChoice, Limits, LinkId, OpenError, OpenSpec, Side,
    StreamSummary, Tunnel, TunnelConfig, Violation,
};

use app::{App, Ending, Kind, Plan};
use line::Line;

/// xorshift64*: deterministic, and enough to shuffle.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(
            seed.wrapping_mul(2)
                .wrapping_add(1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// What a world is made with.
#[derive(Debug, Clone)]
pub struct Setting {
    pub seed: u64,
    /// The wire version that both ends speak.
    pub blocks: BlockVersion,
    pub delay: Duration,
    pub bytes_per_s: Option<u64>,
    pub budget_bytes: usize,
    pub limits: Limits,
    pub level: LevelChoice,
    pub history_bytes: u64,
    pub job_delay_max: Duration,
    /// How much a link takes at once.
    pub transmit_bytes: usize,
    pub codec_threads: usize,
    /// Of 1,000 jobs, how many panic.
    pub lost_jobs_per_mille: u64,
    /// For how long the ends wait for another link.
    pub resume_window: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            seed: 1,
            blocks: BlockVersion::Two,
            delay: Duration::from_millis(10),
            bytes_per_s: None,
            budget_bytes: 256 << 20,
            limits: Limits::default(),
            level: LevelChoice::Fixed(Level::default()),
            history_bytes: 16 << 20,
            job_delay_max: Duration::from_millis(2),
            transmit_bytes: 256 << 10,
            codec_threads: 2,
            lost_jobs_per_mille: 0,
            resume_window: Duration::ZERO,
        }
    }
}

/// Random worlds speak one or the other.
pub fn blocks_of(seed: u64) -> BlockVersion {
    if seed.is_multiple_of(2) {
        BlockVersion::Two
    } else {
        BlockVersion::One
    }
}

/// A job under way.
struct Pending {
    done_at: Instant,
    id: JobId,
    job: CodecJob,
    /// It was given back by a thread that must not wait for a disk.
    may_wait: bool,
}

/// One edge.
pub struct End {
    pub tunnel: Tunnel,
    pub budget: Arc<Budget>,
    pub registry: Arc<Registry>,
    pub apps: BTreeMap<StreamId, App>,
    pub closed: BTreeMap<StreamId, StreamSummary>,
    pub events: Vec<String>,
    pub lost: bool,
    /// Jobs that had to wait for a disk.
    pub waited: usize,
    jobs: Vec<Pending>,
    scratch: CodecScratch,
    /// Plans for streams that the other end opens, by the id that they will have.
    pub expected: BTreeMap<StreamId, Plan>,
    /// How incoming streams are answered.
    pub refuses: Option<Reason>,
}

/// One link's line.
pub struct Wire {
    pub lines: [Line; 2],
    /// The link, as long as each end believes in it.
    pub links: [Option<LinkId>; 2],
}

/// Two edges and the lines.
pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub ends: [End; 2],
    /// The oldest first; there is always one.
    pub wires: Vec<Wire>,
    pub random: Random,
    last_link: u64,
    setting: Setting,
    to_open: Vec<(usize, OpenSpec, Plan, Plan)>,
}

pub const LINK: u64 = 0;

/// Rounds at one moment of virtual time: a line without a rate may carry a lot at once, and nothing goes on for ever.
const ROUNDS_MAX: usize = 100_000;

/// Moments in one run: an hour of heartbeats and all that these worlds send take far fewer.
const STEPS_MAX: usize = 1_000_000;

pub fn domain(history_bytes: u64, seed: u64) -> Arc<Domain> {
    let mut epoch = [0; 16];
    epoch[..8].copy_from_slice(&seed.to_le_bytes());
    let config = DomainConfig {
        own_capacity_bytes: history_bytes,
        mirror_capacity_bytes: history_bytes,
        index_capacity_bytes: history_bytes / 8,
        epoch,
    };
    Arc::new(Domain::in_memory(config))
}

pub fn spec(domain: Option<DomainId>) -> OpenSpec {
    OpenSpec {
        domain,
        target: Target::Name {
            host: "files.example".to_owned(),
            port: 445,
        },
        service: "files".to_owned(),
        weight: NonZeroU16::MIN,
        source: None,
    }
}

pub fn config(side: Side, setting: &Setting) -> TunnelConfig {
    TunnelConfig {
        side,
        blocks: setting.blocks,
        peer_name: "peer".to_owned(),
        local: setting.limits,
        peer: setting.limits,
        heartbeat: Duration::from_secs(5),
        level: setting.level,
        codec_threads: setting.codec_threads,
        admit_opens: true,
        peer_features: codec::frame::FEATURE_SOURCE,
        resume_window: setting.resume_window,
    }
}

fn lines(delay: Duration, bytes_per_s: Option<u64>, blocks: BlockVersion) -> [Line; 2] {
    [(); 2].map(|()| Line::new(delay, bytes_per_s, blocks))
}

impl World {
    pub fn new(setting: Setting) -> Self {
        let domains = [
            domain(setting.history_bytes, setting.seed * 2),
            domain(setting.history_bytes, setting.seed * 2 + 1),
        ];
        Self::with_domains(setting, &domains)
    }

    pub fn with_domains(setting: Setting, domains: &[Arc<Domain>; 2]) -> Self {
        Self::starting_at(Instant::now(), setting, domains)
    }

    pub fn starting_at(start: Instant, setting: Setting, domains: &[Arc<Domain>; 2]) -> Self {
        let end = |side, domain: &Arc<Domain>| {
            let budget = Arc::new(Budget::new(setting.budget_bytes));
            let registry = Arc::new(Registry::new());
            let mut tunnel = Tunnel::new(
                config(side, &setting),
                budget.clone(),
                registry.clone(),
                start,
            );
            tunnel.attach_domain(DomainId::SHARED, String::new(), domain.clone(), start);
            tunnel.link_up(LinkId::from(LINK), start);
            End {
                tunnel,
                budget,
                registry,
                apps: BTreeMap::new(),
                closed: BTreeMap::new(),
                events: Vec::new(),
                lost: false,
                waited: 0,
                jobs: Vec::new(),
                scratch: CodecScratch::default(),
                expected: BTreeMap::new(),
                refuses: None,
            }
        };
        let [client, server] = domains;
        Self {
            now: start,
            start,
            ends: [end(Side::Client, client), end(Side::Server, server)],
            wires: vec![Wire {
                lines: lines(setting.delay, setting.bytes_per_s, setting.blocks),
                links: [Some(LinkId::from(LINK)); 2],
            }],
            random: Random::new(setting.seed),
            last_link: LINK,
            setting,
            to_open: Vec::new(),
        }
    }

    /// Opens a stream at end `from`, now or when credit allows.
    pub fn open(&mut self, from: usize, spec: OpenSpec, here: Plan, there: Plan) {
        self.to_open.push((from, spec, here, there));
        self.open_waiting();
    }

    fn open_waiting(&mut self) {
        let mut waiting = Vec::new();
        for (from, spec, here, there) in std::mem::take(&mut self.to_open) {
            match self.ends[from].tunnel.open(spec.clone(), self.now) {
                Ok(id) => {
                    self.ends[from]
                        .apps
                        .insert(id, App::new(id, from, here, self.now));
                    self.ends[1 - from].expected.insert(id, there);
                }
                Err(OpenError::Limit | OpenError::Memory) => {
                    waiting.push((from, spec, here, there))
                }
                // Nobody waits for it any more.
                Err(OpenError::TunnelLost) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.to_open = waiting;
    }

    /// Runs until nothing more is to be done, or `limit` of virtual time has passed. Panics on a violation.
    pub fn run(&mut self, limit: Duration) {
        self.try_run(limit).unwrap();
    }

    pub fn try_run(&mut self, limit: Duration) -> Result<(), Violation> {
        let until = self.now + limit;
        let mut steps = 0;
        while self.now < until && !self.is_done() {
            steps += 1;
            assert!(
                steps < STEPS_MAX,
                "no end after {:?}: {:#?}",
                self.now - self.start,
                self.ends.each_ref().map(|end| (&end.tunnel, &end.apps))
            );
            self.step()?;
            // What happens next from outside is not skipped over.
            self.now = self.now.min(until);
        }
        Ok(())
    }

    pub fn is_done(&self) -> bool {
        let idle = |end: &End| {
            end.lost
                || end.apps.is_empty()
                    && end.jobs.is_empty()
                    && end.tunnel.stats().streams_open == 0
        };
        self.to_open.is_empty() && self.ends.iter().all(idle)
    }

    /// Everything that is due now, then on to the next moment at which something is.
    pub fn step(&mut self) -> Result<(), Violation> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(
                rounds < ROUNDS_MAX,
                "the tunnel makes work for itself: {:?}",
                self.ends.each_ref().map(|end| &end.tunnel)
            );
            let mut moved = false;
            let first = usize::try_from(self.random.below(2)).unwrap();
            for side in [first, 1 - first] {
                moved |= self.step_end(side)?;
            }
            if !moved {
                break;
            }
        }
        let next = self.next_moment();
        self.now = next
            .unwrap_or(self.now + Duration::from_secs(3600))
            .max(self.now + Duration::from_nanos(1));
        Ok(())
    }

    fn next_moment(&self) -> Option<Instant> {
        let timeouts = self.ends.iter().filter_map(|end| end.tunnel.poll_timeout());
        let jobs = self
            .ends
            .iter()
            .flat_map(|end| end.jobs.iter().map(|job| job.done_at));
        let lines = self
            .wires
            .iter()
            .flat_map(|wire| &wire.lines)
            .filter_map(|line| line.next_moment(self.now));
        let apps = self
            .ends
            .iter()
            .filter(|end| !end.lost)
            .flat_map(|end| end.apps.values().filter_map(|app| app.next_moment()));
        timeouts.chain(jobs).chain(lines).chain(apps).min()
    }

    fn step_end(&mut self, side: usize) -> Result<bool, Violation> {
        let (now, random) = (self.now, &mut self.random);
        let end = &mut self.ends[side];
        if end.lost {
            // What comes back later is for nobody.
            end.jobs.clear();
            return Ok(false);
        }
        let mut moved = false;
        for wire in &mut self.wires {
            for frame in wire.lines[1 - side].receive(now, random) {
                moved = true;
                if let Some(link) = wire.links[side] {
                    end.tunnel.handle_frame(link, frame, now)?;
                }
            }
        }
        if end.tunnel.poll_timeout().is_some_and(|at| at <= now) {
            end.tunnel.handle_timeout(now);
            moved = true;
        }
        // Jobs start in the order given and end in any.
        while let Some((id, job)) = end.tunnel.poll_job(now) {
            let late = u64::try_from(self.setting.job_delay_max.as_micros()).unwrap();
            end.jobs.push(Pending {
                done_at: now + Duration::from_micros(random.below(late + 1)),
                id,
                job,
                may_wait: false,
            });
            moved = true;
        }
        while let Some(index) = end.jobs.iter().position(|job| job.done_at <= now) {
            let Pending {
                id, job, may_wait, ..
            } = end.jobs.swap_remove(index);
            assert_eq!(id, job.id());
            if random.below(1000) < self.setting.lost_jobs_per_mille {
                end.tunnel.job_lost(id, now);
            } else {
                let done = if may_wait {
                    Ok(job.run(&mut end.scratch))
                } else {
                    job.try_run(&mut end.scratch)
                };
                match done {
                    Ok(done) => end.tunnel.handle_job(done, now),
                    Err(job) => {
                        assert_eq!(job.id(), id, "the same job");
                        end.waited += 1;
                        let late = u64::try_from(self.setting.job_delay_max.as_micros()).unwrap();
                        end.jobs.push(Pending {
                            done_at: now + Duration::from_micros(random.below(late + 1)),
                            id,
                            job: *job,
                            may_wait: true,
                        });
                    }
                }
            }
            moved = true;
        }
        let mut opens_available = false;
        while let Some(event) = end.tunnel.poll_event() {
            moved = true;
            opens_available |= event == Event::OpensAvailable;
            if let Event::LinkDead { link } = event {
                for wire in &mut self.wires {
                    wire.links[side] = wire.links[side].filter(|known| *known != link);
                }
            }
            end.take(event, side, now);
        }
        if let Some(violation) = end.violation() {
            return Err(violation);
        }
        for app in end.apps.values_mut() {
            moved |= app.act(&mut end.tunnel, random, now);
        }
        for Wire { lines, links } in &mut self.wires {
            let line = &mut lines[side];
            while let Some(link) = links[side].filter(|_| line.takes(now)) {
                let mut out = Vec::new();
                let bytes =
                    end.tunnel
                        .poll_transmit(link, self.setting.transmit_bytes, now, &mut out);
                assert_eq!(bytes, out.iter().map(Bytes::len).sum::<usize>());
                if bytes == 0 {
                    break;
                }
                moved = true;
                line.send(&out, now);
                end.tunnel
                    .link_written(link, bytes, line.backlog_bytes(now), now);
            }
        }
        if opens_available {
            self.open_waiting();
        }
        Ok(moved)
    }

    /// The line carries nothing any more, and what is under way is lost; the ends do not know.
    pub fn black_hole(&mut self) {
        for wire in 0..self.wires.len() {
            self.black_hole_of(wire);
        }
    }

    /// The same of one line.
    pub fn black_hole_of(&mut self, wire: usize) {
        for line in &mut self.wires[wire].lines {
            line.lose();
        }
    }

    /// End `side` learns that its links are lost.
    pub fn notice(&mut self, side: usize) {
        for wire in 0..self.wires.len() {
            self.notice_of(wire, side);
        }
    }

    /// The same of one link.
    pub fn notice_of(&mut self, wire: usize, side: usize) {
        if let Some(link) = self.wires[wire].links[side].take() {
            self.ends[side].tunnel.link_lost(link, self.now);
        }
    }

    /// A new link is up at both ends, in a new generation; whoever still believed in an old one learns better.
    pub fn reconnect(&mut self) {
        self.black_hole();
        self.last_link += 1;
        let link = LinkId::from(self.last_link);
        self.notice(0);
        self.notice(1);
        self.wires.truncate(1);
        for side in [0, 1] {
            self.wires[0].lines[side].restore();
            self.ends[side].tunnel.link_up(link, self.now);
            self.wires[0].links[side] = Some(link);
        }
    }

    /// A further link joins at both ends; of old lines that neither end believes in any more nothing is kept.
    pub fn join(&mut self, delay: Duration, bytes_per_s: Option<u64>) {
        self.wires.retain(|wire| wire.links != [None; 2]);
        self.last_link += 1;
        let link = LinkId::from(self.last_link);
        for end in &mut self.ends {
            end.tunnel.link_up(link, self.now);
        }
        self.wires.push(Wire {
            lines: lines(delay, bytes_per_s, self.setting.blocks),
            links: [Some(link); 2],
        });
    }

    /// The line is cut: both ends learn it.
    pub fn cut(&mut self) {
        self.black_hole();
        for side in [0, 1] {
            self.notice(side);
            let end = &mut self.ends[side];
            while let Some(event) = end.tunnel.poll_event() {
                end.lost |= event == Event::TunnelLost;
            }
        }
    }

    /// Bytes sent so far in both directions.
    pub fn wire_bytes(&self) -> u64 {
        self.lines().map(|line| line.sent_bytes).sum()
    }

    /// All lines, both ways.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.wires.iter().flat_map(|wire| &wire.lines)
    }

    /// Everything is over, and nothing is held for it any more.
    pub fn assert_clean(&self) {
        let [client, server] = &self.ends;
        for (id, here) in &client.closed {
            let Some(there) = server.closed.get(id) else {
                continue;
            };
            if [here.result, there.result] == [StreamResult::Completed; 2] {
                assert_eq!(
                    here.lan_to_wan_bytes, there.lan_from_wan_bytes,
                    "stream {id} lost bytes to the server"
                );
                assert_eq!(
                    here.lan_from_wan_bytes, there.lan_to_wan_bytes,
                    "stream {id} lost bytes to the client"
                );
            }
        }
        for (side, end) in self.ends.iter().enumerate() {
            assert!(
                end.apps.is_empty(),
                "end {side} stalls at {:?}: {:#?} {:#?}\n{:#?}",
                self.now - self.start,
                end.apps,
                end.tunnel,
                end.events
            );
            let stats = end.tunnel.stats();
            assert_eq!(
                (
                    stats.streams_open,
                    stats.unacknowledged_encoded_bytes,
                    stats.unacknowledged_plain_bytes,
                    stats.queued_bytes,
                    stats.jobs
                ),
                (0, 0, 0, 0, 0),
                "end {side}"
            );
            assert_eq!(
                (stats.parked_bytes, stats.window_growth_bytes),
                (0, 0),
                "end {side}"
            );
            for usage in [
                Use::Send,
                Use::Retained,
                Use::Credit,
                Use::Parked,
                Use::Undelivered,
            ] {
                assert_eq!(
                    end.budget.snapshot().used_for(usage),
                    0,
                    "end {side}: {usage:?}"
                );
            }
            assert_eq!(
                end.registry.service("files").streams_open.get(),
                0,
                "end {side}"
            );
        }
    }
}

impl End {
    fn take(&mut self, event: Event, side: usize, now: Instant) {
        match event {
            Event::Incoming { stream, open } => {
                assert_eq!(open.service, "files");
                let plan = self
                    .expected
                    .remove(&stream)
                    .unwrap_or_else(|| panic!("stream {stream} was not opened"));
                match self.refuses {
                    Some(reason) => self.tunnel.refuse(stream, reason, now),
                    None => {
                        self.tunnel.accept(stream, None, now);
                        self.apps.insert(stream, App::new(stream, side, plan, now));
                    }
                }
            }
            Event::Data { stream, data } => self.app(stream).receive(&data, now),
            Event::Finished { stream } => self.app(stream).finished(),
            Event::Reset { stream, reason } => self.app(stream).reset(reason),
            Event::StopSending { stream, reason } => {
                if let Some(app) = self.apps.get_mut(&stream) {
                    app.stopped(reason);
                }
            }
            Event::Closed { stream, summary } => {
                self.apps.remove(&stream);
                let before = self.closed.insert(stream, summary);
                assert_eq!(before, None, "stream {stream} closed twice");
            }
            Event::TunnelLost => self.lost = true,
            Event::Violated(_) | Event::LinkDead { .. } => self.events.push(format!("{event:?}")),
            Event::Opened { .. }
            | Event::Writable { .. }
            | Event::OpensAvailable
            | Event::GoAway { .. } => {}
            Event::DomainOffered { .. } | Event::Renew { .. } | Event::Renewed(_) => {
                self.events.push(format!("{event:?}"))
            }
        }
    }

    fn app(&mut self, stream: StreamId) -> &mut App {
        self.apps
            .get_mut(&stream)
            .unwrap_or_else(|| panic!("an event for stream {stream}, which is closed"))
    }

    fn violation(&self) -> Option<Violation> {
        self.events
            .iter()
            .any(|event| event.starts_with("Violated"))
            .then(|| panic!("{:?}", self.events))
    }
}

/// A plan that sends `bytes` and finishes.
pub fn send(bytes: u64) -> Plan {
    Plan {
        bytes,
        ending: Ending::Finish,
        ..Plan::default()
    }
}

/// The same of bytes that nothing shortens.
pub fn noise(bytes: u64) -> Plan {
    Plan {
        kind: Kind::Noise,
        ..send(bytes)
    }
}
