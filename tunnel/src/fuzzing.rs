//! The body of the fuzz target `sequences`, here so that an ordinary test replays its corpus with the same code.
//!
//! A tunnel meets frames of a peer in any order, mixed with what applications and the line do, under virtual time. It panics where the
//! tunnel breaks a promise; on no bytes at all may it do so.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use codec::block::{BlockHeader, BlockVersion, BodyKind, Known};
use codec::domain::{Domain, DomainConfig};
use codec::frame::{Data, DomainId, Frame, FrameCodec, Reason, Renewed, Side, StreamId, Target};
use tokio_util::codec::Decoder;

use crate::budget::Budget;
use crate::metrics::Registry;
use crate::state::{
    CodecJob, CodecScratch, Event, JobId, LevelChoice, Limits, LinkId, OpenSpec, Tunnel,
    TunnelConfig,
};

/// Above all types of frames: a byte from here on is an action of this side, and the byte behind it says how.
const ACTIONS: u8 = 0x80;
/// What the whole edge may keep: little, so that its limits are met.
const BUDGET_BYTES: usize = 4 << 20;
/// What a log may keep.
const HISTORY_BYTES: u64 = 256 << 10;
/// Bytes asked of a link at a time.
const TRANSMIT_BYTES: usize = 16 << 10;
/// A tunnel without a link waits this long for another.
const RESUME_WINDOW: Duration = Duration::from_secs(30);
/// Rounds in which a tunnel that hears nothing must come to rest: it must not make work for itself.
const ROUNDS_MAX: usize = 1_000;

/// Runs `data`: frames as a link brings them, and actions between them.
pub fn sequences(data: &[u8]) {
    for blocks in BlockVersion::ALL {
        sequence(data, blocks);
    }
}

fn sequence(data: &[u8], blocks: BlockVersion) {
    let mut world = World::new(blocks);
    let mut rest = BytesMut::from(data);
    while let Some(&first) = rest.first() {
        if first >= ACTIONS {
            rest.advance(1);
            let how = if rest.is_empty() { 0 } else { rest.get_u8() };
            world.act(first, how);
        } else {
            let Ok(Some(frame)) = FrameCodec.decode(&mut rest) else {
                break;
            };
            if !world.hear(frame) {
                break;
            }
        }
        world.settle();
    }
    world.end();
}

/// Puts the right checksum into a raw block of one fragment: chance does not find it.
fn mend(data: &mut Data, blocks: BlockVersion) {
    let mut body = data.bytes.clone();
    let header = BlockHeader::decode(&mut body, blocks, |_, _| Known::default());
    let (0, true, Ok(header)) = (data.offset, data.last, header) else {
        return;
    };
    if header.body != BodyKind::Raw || header.checksum.is_none() {
        return;
    }
    // It is the header's end in both versions, and the rest stays as it is: it was written against what is not known here.
    let checksum = BlockHeader::checksum_of(blocks, &body).to_le_bytes();
    let checksum_bytes = header.checksum_bytes();
    let end = data.bytes.len() - body.len();
    let mut whole = BytesMut::from(&data.bytes[..]);
    let place = whole.get_mut(end - checksum_bytes..end);
    if let (Some(place), Some(checksum)) = (place, checksum.get(..checksum_bytes)) {
        place.copy_from_slice(checksum);
    }
    data.bytes = whole.freeze();
}

struct World {
    blocks: BlockVersion,
    tunnel: Tunnel,
    budget: Arc<Budget>,
    domain: Arc<Domain>,
    now: Instant,
    link: LinkId,
    links: u64,
    scratch: CodecScratch,
    /// Jobs that were taken and are not done yet; they are done in any order.
    jobs: Vec<(JobId, CodecJob)>,
    /// Whether jobs wait for an action.
    holds_jobs: bool,
    streams: BTreeMap<StreamId, Stream>,
}

/// What the application at this side knows of a stream.
#[derive(Default)]
struct Stream {
    /// Bytes given out and not consumed yet.
    undelivered_bytes: u64,
    /// Whether Finished or Reset was told.
    is_over: bool,
}

impl World {
    fn new(blocks: BlockVersion) -> Self {
        let now = Instant::now();
        let limits = Limits {
            streams_max: 8,
            ..Limits::default()
        };
        let config = TunnelConfig {
            side: Side::Server,
            blocks,
            peer_name: "peer".into(),
            local: limits,
            peer: limits,
            heartbeat: Duration::from_secs(5),
            level: LevelChoice::Auto,
            codec_threads: 2,
            admit_opens: true,
            peer_features: codec::frame::FEATURE_SOURCE,
            resume_window: RESUME_WINDOW,
        };
        let domain = Arc::new(Domain::in_memory(DomainConfig {
            own_capacity_bytes: HISTORY_BYTES,
            mirror_capacity_bytes: HISTORY_BYTES,
            index_capacity_bytes: 0,
            epoch: [1; 16],
        }));
        let budget = Arc::new(Budget::new(BUDGET_BYTES));
        let mut tunnel = Tunnel::new(config, Arc::clone(&budget), Arc::new(Registry::new()), now);
        let link = LinkId::from(1);
        tunnel.link_up(link, now);
        tunnel.attach_domain(DomainId::SHARED, "shared".into(), Arc::clone(&domain), now);
        let mut world = Self {
            blocks,
            tunnel,
            budget,
            domain,
            now,
            link,
            links: 1,
            scratch: CodecScratch::default(),
            jobs: Vec::new(),
            holds_jobs: false,
            streams: BTreeMap::new(),
        };
        world.settle();
        world
    }

    /// A frame comes; false if it ended the tunnel.
    fn hear(&mut self, mut frame: Frame) -> bool {
        if let Frame::Data(data) = &mut frame {
            mend(data, self.blocks);
        }
        let heard = self.tunnel.handle_frame(self.link, frame, self.now);
        assert!(
            heard.is_ok() || self.tunnel.is_over(),
            "a violation ends the tunnel: {heard:?}"
        );
        heard.is_ok()
    }

    /// Something happens at this side.
    fn act(&mut self, what: u8, how: u8) {
        let now = self.now;
        let nth = usize::from(how) % self.streams.len().max(1);
        let stream = self
            .streams
            .keys()
            .nth(nth)
            .copied()
            .unwrap_or(StreamId(u64::from(how)));
        match what & 0x0f {
            0 => self.later(Duration::from_millis(u64::from(how) * u64::from(how))),
            1 => {
                let domain = (how & 1 == 0).then_some(DomainId::SHARED);
                let target = Target::Name {
                    host: "target".into(),
                    port: 80,
                };
                let spec = OpenSpec {
                    domain,
                    target,
                    service: "service".into(),
                    weight: NonZeroU16::MIN.saturating_add(how.into()),
                    source: None,
                };
                if let Ok(stream) = self.tunnel.open(spec, now) {
                    assert_eq!(stream.opener(), Some(Side::Server));
                    let before = self.streams.insert(stream, Stream::default());
                    assert!(before.is_none(), "stream {stream} was used before");
                }
            }
            2 => self.tunnel.accept(stream, None, now),
            3 => self.tunnel.refuse(stream, Reason::from_code(how), now),
            4 => {
                let wanted = usize::from(how) * usize::from(how);
                let bytes = self.tunnel.send_capacity(stream).min(wanted);
                if bytes > 0 {
                    self.tunnel
                        .write(stream, Bytes::from(vec![how; bytes]), now);
                }
            }
            5 => self.tunnel.finish(stream, now),
            6 => self.tunnel.reset(stream, Reason::from_code(how), now),
            7 => self
                .tunnel
                .stop_sending(stream, Reason::from_code(how), now),
            8 => self.consume(stream),
            9 => self.tunnel.relay_waiting(stream, now),
            10 => self.holds_jobs = how & 1 == 1,
            11 => self.finish_job(how),
            12 => {
                if let Some((id, _)) = self.jobs.pop() {
                    self.tunnel.job_lost(id, now);
                }
            }
            13 => self.tunnel.go_away(Reason::from_code(how), now),
            14 => self.tunnel.renewed(Renewed::Refused {
                status: 1,
                message: String::new(),
            }),
            _ => {
                self.links += 1;
                let next = LinkId::from(self.links);
                // An even one: the new link is up before the old one is lost.
                if how & 1 == 1 {
                    self.tunnel.link_lost(self.link, now);
                    self.later(Duration::from_millis(u64::from(how) * u64::from(how)));
                    self.settle();
                    self.tunnel.link_up(next, self.now);
                } else {
                    self.tunnel.link_up(next, now);
                    self.tunnel.link_lost(self.link, now);
                }
                self.link = next;
            }
        }
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
        self.tunnel.handle_timeout(self.now);
    }

    fn consume(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let bytes = std::mem::take(&mut stream.undelivered_bytes);
            if bytes > 0 {
                self.tunnel.consumed(id, bytes, self.now);
            }
        }
    }

    fn finish_job(&mut self, which: u8) {
        if !self.jobs.is_empty() {
            let (_, job) = self.jobs.swap_remove(usize::from(which) % self.jobs.len());
            let done = job.run(&mut self.scratch);
            self.tunnel.handle_job(done, self.now);
        }
    }

    /// Polls all there is until nothing is left.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            while let Some(event) = self.tunnel.poll_event() {
                self.note(event);
                moved = true;
            }
            while let Some(job) = self.tunnel.poll_job(self.now) {
                self.jobs.push(job);
                moved = true;
            }
            if !self.holds_jobs && !self.jobs.is_empty() {
                self.finish_job(0);
                moved = true;
            }
            moved |= self.transmit();
            if !moved {
                self.check();
                return;
            }
        }
        panic!("the tunnel does not come to rest");
    }

    /// What goes out must be frames that a peer can read.
    fn transmit(&mut self) -> bool {
        let mut out = Vec::new();
        let bytes = self
            .tunnel
            .poll_transmit(self.link, TRANSMIT_BYTES, self.now, &mut out);
        let mut wire = BytesMut::from(out.concat().as_slice());
        assert_eq!(wire.len(), bytes, "what is sent is what is said");
        while !wire.is_empty() {
            let frame = FrameCodec.decode(&mut wire);
            assert!(
                matches!(frame, Ok(Some(_))),
                "an unreadable frame was sent: {frame:?}"
            );
        }
        self.tunnel.link_written(self.link, bytes, 0, self.now);
        bytes > 0
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Incoming { stream, open } => {
                assert_eq!((stream, stream.opener()), (open.stream, Some(Side::Client)));
                let before = self.streams.insert(stream, Stream::default());
                assert!(before.is_none(), "stream {stream} came twice");
            }
            Event::Data { stream, data } => {
                let known = self.known(stream);
                assert!(
                    !known.is_over && !data.is_empty(),
                    "data of stream {stream} after its end"
                );
                known.undelivered_bytes += data.len() as u64;
            }
            Event::Finished { stream } => {
                let known = self.known(stream);
                assert!(!known.is_over, "stream {stream} ended twice");
                known.is_over = true;
            }
            Event::Reset { stream, .. } => {
                let known = self.known(stream);
                assert!(!known.is_over, "stream {stream} was reset after its end");
                known.is_over = true;
            }
            Event::Opened { stream, .. }
            | Event::StopSending { stream, .. }
            | Event::Writable { stream } => {
                self.known(stream);
            }
            Event::Closed { stream, .. } => {
                self.known(stream);
                self.streams.remove(&stream);
            }
            Event::DomainOffered { domain, .. } => assert_ne!(domain, DomainId::SHARED),
            _ => {}
        }
    }

    fn known(&mut self, id: StreamId) -> &mut Stream {
        let known = self.streams.get_mut(&id);
        assert!(
            known.is_some(),
            "an event of stream {id}, which is not open"
        );
        known.unwrap_or_else(|| unreachable!("asserted"))
    }

    /// What holds whenever nothing is left to do.
    fn check(&self) {
        let stats = self.domain.stats();
        assert!(
            stats.mirror_bytes <= 8 * HISTORY_BYTES + (2 << 20),
            "the mirror is bounded: {stats:?}"
        );
        let timeout = self.tunnel.poll_timeout();
        assert!(
            self.tunnel.is_over() || timeout.is_some(),
            "a tunnel that lives hears of its heartbeat"
        );
    }

    /// Applications take what is left, and the line is lost: all memory comes back.
    fn end(mut self) {
        self.holds_jobs = false;
        self.settle();
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.consume(stream);
        }
        self.later(Duration::from_secs(60));
        self.settle();
        self.tunnel.link_lost(self.link, self.now);
        self.settle();
        self.later(RESUME_WINDOW);
        self.settle();
        assert!(
            self.tunnel.is_over(),
            "a lost tunnel does not last for ever"
        );
        let Self {
            tunnel,
            budget,
            jobs,
            ..
        } = self;
        drop((tunnel, jobs));
        let left: usize = budget.snapshot().used_bytes.iter().sum();
        assert_eq!(left, 0, "memory that nobody holds is charged");
    }
}
