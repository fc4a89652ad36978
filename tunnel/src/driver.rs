//! One task a tunnel: owns the state machine, polls the tunnel's links, its mailbox and one timer.
//!
//! Nothing here blocks. What costs CPU goes to the pools and comes back as mail, except what is small enough to be done
//! on the spot. Each poll clears the pokes first, then drains what was queued, until nothing moves any more.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use codec::frame::{Reason, StreamId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::handle::{EndCause, Published};
use crate::histories::Histories;
use crate::link::{Link, LinkContext, LinkError, OpenOutput};
use crate::pool::{Job, JobName, Outcome, Pools, Priority, SlotWaiter, Step, StepContext};
use crate::state::{CodecDone, CodecJob, CodecScratch, Event, JobId, LinkId, OpenSpec, Tunnel};
use crate::stream::{IncomingStream, Shared};
use crate::tls::TlsError;
use crate::wake::{Receiver, Sender};

/// Rounds of "look at everything once" in one poll before the driver lets other tasks of its worker run: bounds how
/// long one busy tunnel keeps a worker (about 64 batches).
const ROUNDS_PER_POLL: usize = 64;

/// Small blocks are encoded on the spot even while jobs are outstanding when they are this much below `inline_below`:
/// a keystroke does not queue behind another stream's bulk.
const ALWAYS_INLINE_DIVISOR: usize = 4;

/// Codec jobs that may be outstanding a tunnel beyond the pool's threads: keeps workers fed while results travel back.
const JOBS_BEYOND_THREADS: usize = 4;

/// An ended tunnel's last sealed bytes and `close_notify` get this long to reach the socket.
const FLUSH_MAX: std::time::Duration = std::time::Duration::from_millis(500);

/// What arrives in a driver's mailbox.
pub(crate) enum Mail {
    /// A stream's record has something for the driver.
    Stream(Arc<Shared>),
    /// Somebody wants something of the tunnel.
    Command(Command),
    /// A codec job ended.
    Codec(JobId, Outcome<CodecDone>),
    /// An open job ended.
    Opened(LinkId, Outcome<OpenOutput>),
    /// A seal job ended.
    Sealed(LinkId, Outcome<Result<Bytes, TlsError>>),
}

/// What others ask of a tunnel.
pub(crate) enum Command {
    /// Open a stream.
    Open(OpenSpec, Arc<Shared>),
    /// The target of an incoming stream is connected.
    Accept(Arc<Shared>, Option<SocketAddr>),
    /// The target of an incoming stream cannot be had.
    Refuse(Arc<Shared>, Reason),
    /// Ask the peer for a new certificate (client edge).
    Renew(Bytes, oneshot::Sender<codec::frame::Renewed>),
    /// Answer the peer's request for a certificate (server edge).
    Renewed(codec::frame::Renewed),
    /// Accept no new streams; end when the last one has.
    GoAway(Reason),
    /// End now; streams are reset.
    Close(EndCause),
}

/// What a driver is started with.
pub(crate) struct Parts {
    pub(crate) tunnel: Tunnel,
    pub(crate) link: Link,
    pub(crate) pools: Arc<Pools>,
    pub(crate) inline_below_bytes: usize,
    pub(crate) mail: (Sender<Mail>, Receiver<Mail>),
    pub(crate) incoming: mpsc::UnboundedSender<IncomingStream>,
    pub(crate) renewals: Option<mpsc::UnboundedSender<Bytes>>,
    /// Where a domain that the peer offers is found; none where the peer is to have none.
    pub(crate) histories: Option<Arc<Histories>>,
    pub(crate) published: Published,
}

/// The driver; a future that resolves with why the tunnel ended.
pub(crate) struct Driver {
    tunnel: Tunnel,
    links: Vec<Link>,
    streams: HashMap<StreamId, Arc<Shared>>,
    /// Streams that wait until the peer's credit allows another Open.
    waiting: VecDeque<(OpenSpec, Arc<Shared>)>,
    pools: Arc<Pools>,
    codec_slots: SlotWaiter,
    jobs_out: usize,
    /// A job that waits for a place in the pool's queue.
    job_held: Option<(JobId, CodecJob)>,
    inline_below_bytes: usize,
    sender: Sender<Mail>,
    receiver: Receiver<Mail>,
    batch: VecDeque<Mail>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    incoming: mpsc::UnboundedSender<IncomingStream>,
    renewals: Option<mpsc::UnboundedSender<Bytes>>,
    renewed: Option<oneshot::Sender<codec::frame::Renewed>>,
    histories: Option<Arc<Histories>>,
    published: Published,
    draining: bool,
    /// Why it ends, and until when what is sealed may still be flushed.
    ending: Option<(EndCause, Instant)>,
}

thread_local! {
    /// Compression contexts for what is done on the spot: one set a runtime worker, not one a tunnel.
    static SCRATCH: RefCell<CodecScratch> = RefCell::default();
}

fn run_inline(job: CodecJob) -> CodecDone {
    SCRATCH.with_borrow_mut(|scratch| job.run(scratch))
}

/// A codec job on its way through pool `codec`.
struct PooledCodecJob(Option<CodecJob>);

impl Job for PooledCodecJob {
    type Output = CodecDone;

    fn name(&self) -> JobName {
        match &self.0 {
            Some(job) if job.is_decode() => JobName {
                who: "stream".into(),
                why: "decode",
            },
            _ => JobName {
                who: "stream".into(),
                why: "encode",
            },
        }
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Step<Self::Output> {
        match self.0.take() {
            Some(job) => Step::Finished(job.run(cx.scratch::<CodecScratch>())),
            None => Step::Stopped,
        }
    }
}

impl Future for Driver {
    type Output = EndCause;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let driver = self.get_mut();
        for _ in 0..ROUNDS_PER_POLL {
            let moved = driver.round(cx);
            if let Some((cause, _)) = driver.ending.clone()
                && driver.poll_ended(cx)
            {
                return Poll::Ready(cause);
            }
            if !moved && !driver.poll_timer(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let (sender, receiver) = parts.mail;
        let mut driver = Self {
            tunnel: parts.tunnel,
            links: Vec::new(),
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            codec_slots: parts.pools.codec.slot_waiter(),
            pools: parts.pools,
            jobs_out: 0,
            job_held: None,
            inline_below_bytes: parts.inline_below_bytes,
            sender,
            receiver,
            batch: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            timer_at: None,
            incoming: parts.incoming,
            renewals: parts.renewals,
            renewed: None,
            histories: parts.histories,
            published: parts.published,
            draining: false,
            ending: None,
        };
        driver.add_link(parts.link);
        driver
    }

    fn add_link(&mut self, link: Link) {
        self.tunnel.link_up(link.id, Instant::now());
        self.links.push(link);
        let status = self.links.iter().map(|l| crate::handle::LinkStatus {
            address: l.peer_address,
            counters: l.counters.clone(),
        });
        self.published.set_links(status.collect());
    }

    /// Looks at everything once; true when anything moved.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let mut moved = self.take_mail(cx, now);
        moved |= self.receive(cx, now);
        if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
            self.tunnel.handle_timeout(now);
            moved = true;
        }
        moved |= self.run_jobs(cx, now);
        moved |= self.take_events(now);
        moved |= self.transmit(cx, now);
        if self.draining && self.streams.is_empty() && self.waiting.is_empty() && self.is_quiet() {
            self.begin_end(EndCause::Drained);
        }
        moved
    }

    /// No stream is open and everything sent was acknowledged.
    fn is_quiet(&self) -> bool {
        let stats = self.tunnel.stats();
        stats.streams_open == 0 && stats.unacknowledged_encoded_bytes == 0
    }

    /// Arms the timer for the machine's next deadline; true when it has passed already.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let flush_until = self.ending.as_ref().map(|(_, until)| *until);
        let Some(at) = self
            .tunnel
            .poll_timeout()
            .into_iter()
            .chain(flush_until)
            .min()
        else {
            self.timer_at = None;
            return false;
        };
        if self.timer_at != Some(at) {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(at.into());
        }
        let fired = self.timer.as_mut().poll(cx).is_ready();
        if fired {
            self.timer_at = None;
        }
        fired
    }

    // ---- mail ----

    fn take_mail(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let moved = self.receiver.poll_drain(cx, &mut batch).is_ready() && !batch.is_empty();
        for mail in batch.drain(..) {
            match mail {
                Mail::Stream(shared) => self.stream_changed(&shared, now),
                Mail::Command(command) => self.obey(command, now),
                Mail::Codec(id, outcome) => {
                    self.jobs_out -= 1;
                    match outcome {
                        Outcome::Finished(done) => self.tunnel.handle_job(done, now),
                        Outcome::Stopped | Outcome::Panicked => self.tunnel.job_lost(id, now),
                    }
                }
                Mail::Opened(id, outcome) => self.link_opened(id, outcome, now),
                Mail::Sealed(id, outcome) => {
                    let result = self.link_mut(id).map(|link| match outcome {
                        Outcome::Finished(result) => link.sealed(result),
                        Outcome::Stopped | Outcome::Panicked => Err(TlsError::PoolStopped.into()),
                    });
                    if let Some(Err(e)) = result {
                        self.link_ended(id, &e, now);
                    }
                }
            }
        }
        self.batch = batch;
        moved
    }

    fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    fn link_opened(&mut self, id: LinkId, outcome: Outcome<OpenOutput>, now: Instant) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let result = match outcome {
            Outcome::Finished(output) => link.opened(output),
            Outcome::Stopped | Outcome::Panicked => Err(TlsError::PoolStopped.into()),
        };
        self.handle_received(id, result, now);
    }

    /// A relay has queued something in its stream's record.
    fn stream_changed(&mut self, shared: &Arc<Shared>, now: Instant) {
        // While it waits for its Open, what is queued stays in the record; opening looks at it.
        let Some((id, outgoing)) = shared.take() else {
            return;
        };
        self.apply(id, shared, outgoing, now);
    }

    fn apply(
        &mut self,
        id: StreamId,
        shared: &Arc<Shared>,
        outgoing: crate::stream::Outgoing,
        now: Instant,
    ) {
        if outgoing.consumed > 0 {
            self.tunnel.consumed(id, outgoing.consumed, now);
        }
        for data in outgoing.data {
            self.tunnel.write(id, data, now);
        }
        if let Some(reason) = outgoing.abort {
            self.tunnel.reset(id, reason, now);
        } else if outgoing.finish {
            self.tunnel.finish(id, now);
        } else {
            let capacity = self.tunnel.send_capacity(id);
            shared.set_capacity(capacity);
            if capacity > 0 {
                // The relay's next step is to read its LAN socket again.
                self.tunnel.relay_waiting(id, now);
            }
        }
        if let Some(reason) = outgoing.stop {
            self.tunnel.stop_sending(id, reason, now);
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open(spec, shared) => {
                if self.draining || self.ending.is_some() {
                    shared.fail(Reason::GoingAway);
                } else {
                    self.waiting.push_back((spec, shared));
                    self.open_waiting(now);
                }
            }
            Command::Accept(shared, bound) => {
                if let Some((id, outgoing)) = shared.take() {
                    self.tunnel.accept(id, bound, now);
                    self.apply(id, &shared, outgoing, now);
                }
            }
            Command::Refuse(shared, reason) => {
                if let Some((id, _)) = shared.take() {
                    self.tunnel.refuse(id, reason, now);
                }
            }
            Command::Renew(request, answer) => {
                self.renewed = Some(answer);
                self.tunnel.renew(request);
            }
            Command::Renewed(answer) => self.tunnel.renewed(answer),
            Command::GoAway(reason) => {
                self.draining = true;
                self.tunnel.go_away(reason, now);
            }
            Command::Close(cause) => self.begin_end(cause),
        }
    }

    fn open_waiting(&mut self, now: Instant) {
        while let Some((spec, shared)) = self.waiting.pop_front() {
            if shared.is_abandoned() {
                shared.fail(Reason::Cancelled);
                continue;
            }
            match self.tunnel.open(spec.clone(), now) {
                Ok(id) => {
                    shared.set_id(id);
                    shared.set_capacity(self.tunnel.send_capacity(id));
                    self.streams.insert(id, shared.clone());
                    self.stream_changed(&shared, now);
                }
                Err(crate::state::OpenError::Limit) => {
                    self.waiting.push_front((spec, shared));
                    break;
                }
                Err(_) => shared.fail(Reason::GoingAway),
            }
        }
    }

    // ---- links ----

    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        for index in 0..self.links.len() {
            let Some(link) = self.links.get_mut(index) else {
                break;
            };
            let at = LinkContext {
                crypto: &self.pools.crypto,
                mail: &self.sender,
                inline_below_bytes: self.inline_below_bytes,
            };
            let id = link.id;
            if let Poll::Ready(result) = link.poll_receive(cx, &at) {
                moved = true;
                self.handle_received(id, result, now);
            }
        }
        moved
    }

    fn handle_received(
        &mut self,
        id: LinkId,
        result: Result<Vec<codec::frame::Frame>, LinkError>,
        now: Instant,
    ) {
        match result {
            Ok(frames) => {
                for frame in frames {
                    if let Err(violation) = self.tunnel.handle_frame(id, frame, now) {
                        self.begin_end(EndCause::Violation(violation.to_string()));
                        return;
                    }
                }
            }
            Err(e @ LinkError::Frame(_)) => self.begin_end(EndCause::Violation(e.to_string())),
            Err(e) => self.link_ended(id, &e, now),
        }
    }

    fn link_ended(&mut self, id: LinkId, error: &LinkError, now: Instant) {
        self.links.retain(|link| link.id != id);
        self.tunnel.link_lost(id, now);
        if self.links.is_empty() {
            let drained = matches!(error, LinkError::Closed)
                && (self.draining || *self.published.draining.borrow())
                && self.streams.is_empty();
            let cause = if drained {
                EndCause::Drained
            } else {
                EndCause::LinkLost(error.to_string())
            };
            self.begin_end(cause);
        }
    }

    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let mut failed = Vec::new();
        for link in &mut self.links {
            let at = LinkContext {
                crypto: &self.pools.crypto,
                mail: &self.sender,
                inline_below_bytes: self.inline_below_bytes,
            };
            loop {
                let room = if self.ending.is_some() {
                    0
                } else {
                    link.room_bytes()
                };
                let mut plain = Vec::new();
                let took = if room > 0 {
                    self.tunnel.poll_transmit(link.id, room, now, &mut plain)
                } else {
                    0
                };
                let mut result = Ok(());
                if took > 0 {
                    moved = true;
                    result = link.send(plain, &at);
                }
                let mut written = 0;
                if result.is_ok() {
                    match link.poll_send(cx) {
                        Poll::Ready(Ok(n)) => written = n,
                        Poll::Ready(Err(e)) => result = Err(e),
                        Poll::Pending => {}
                    }
                }
                if let Err(e) = result {
                    failed.push((link.id, e));
                    break;
                }
                if written > 0 {
                    moved = true;
                    self.tunnel
                        .link_written(link.id, written, link.backlog_bytes(), now);
                }
                if took == 0 {
                    break;
                }
            }
            if let Some(rtt) = self.tunnel.rtt(link.id) {
                link.counters
                    .set_rtt_us(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
            }
        }
        for (id, e) in failed {
            self.link_ended(id, &e, now);
        }
        moved
    }

    // ---- jobs ----

    fn run_jobs(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let jobs_max = self.pools.codec.threads() + JOBS_BEYOND_THREADS;
        while self.jobs_out < jobs_max {
            let Some((id, job)) = self.job_held.take().or_else(|| self.tunnel.poll_job(now)) else {
                break;
            };
            let plain_bytes = job.plain_len_hint();
            let small = plain_bytes <= self.inline_below_bytes;
            let tiny = plain_bytes <= self.inline_below_bytes / ALWAYS_INLINE_DIVISOR;
            if tiny || (small && self.jobs_out == 0) {
                let done = run_inline(job);
                self.tunnel.handle_job(done, now);
                moved = true;
                continue;
            }
            let slot = match self.codec_slots.poll_slot(cx) {
                Poll::Ready(Some(slot)) => slot,
                // The pool is closed: this program is ending, and the streams with it.
                Poll::Ready(None) => {
                    self.tunnel.job_lost(id, now);
                    continue;
                }
                Poll::Pending => {
                    self.job_held = Some((id, job));
                    break;
                }
            };
            let priority = if job.is_decode() {
                Priority::First
            } else {
                Priority::Second
            };
            let mail = self.sender.clone();
            slot.submit(PooledCodecJob(Some(job)), priority, move |outcome| {
                let _ = mail.send(Mail::Codec(id, outcome));
            });
            self.jobs_out += 1;
            moved = true;
        }
        moved
    }

    // ---- events ----

    fn take_events(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(event) = self.tunnel.poll_event() {
            moved = true;
            self.handle_event(event, now);
        }
        moved
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Incoming { stream, open } => {
                let shared = Shared::new(self.sender.clone());
                shared.set_id(stream);
                self.streams.insert(stream, shared.clone());
                if self
                    .incoming
                    .send(IncomingStream::new(
                        shared,
                        open,
                        self.published.peer.clone(),
                    ))
                    .is_err()
                {
                    self.tunnel.refuse(stream, Reason::GoingAway, now);
                }
            }
            Event::Opened { stream, bound } => self.with(stream, |shared| shared.opened(Ok(bound))),
            Event::Data { stream, data } => self.with(stream, |shared| shared.deliver(data)),
            Event::Finished { stream } => self.with(stream, Shared::finished),
            Event::Reset { stream, reason } => self.with(stream, |shared| shared.reset(reason)),
            Event::StopSending { stream, reason } => {
                self.with(stream, |shared| shared.stop_sending(reason))
            }
            Event::Writable { stream } => {
                let capacity = self.tunnel.send_capacity(stream);
                self.with(stream, |shared| shared.set_capacity(capacity));
            }
            Event::Closed { stream, summary } => {
                if let Some(shared) = self.streams.remove(&stream) {
                    shared.close(Some(summary));
                }
            }
            Event::OpensAvailable => self.open_waiting(now),
            Event::GoAway { .. } => {
                let _ = self.published.draining.send_replace(true);
                for (_, shared) in self.waiting.drain(..) {
                    shared.fail(Reason::GoingAway);
                }
            }
            Event::DomainOffered { domain, name } => {
                if let Some(histories) = &self.histories {
                    let histories = histories.domain(&self.published.peer, &name);
                    self.tunnel.attach_domain(domain, name, histories, now);
                }
            }
            Event::Renew { request } => match &self.renewals {
                Some(renewals) if renewals.send(request).is_ok() => {}
                _ => self.tunnel.renewed(codec::frame::Renewed::Refused {
                    status: 1,
                    message: "this edge issues no certificates".to_owned(),
                }),
            },
            Event::Renewed(answer) => {
                if let Some(waiting) = self.renewed.take() {
                    let _ = waiting.send(answer);
                }
            }
            Event::LinkDead { link } => self.link_ended(link, &LinkError::Silent, now),
            Event::TunnelLost => self.begin_end(EndCause::LinkLost(LinkError::Lost.to_string())),
            Event::Violated(violation) => {
                self.begin_end(EndCause::Violation(violation.to_string()))
            }
        }
    }

    fn with(&self, stream: StreamId, act: impl FnOnce(&Shared)) {
        if let Some(shared) = self.streams.get(&stream) {
            act(shared);
        }
    }

    // ---- the end ----

    /// The tunnel is over: its streams end, its histories are free for the next tunnel and its handles know, all before
    /// the last bytes are flushed, which a dead line may never take.
    fn begin_end(&mut self, cause: EndCause) {
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        for link in &mut self.links {
            let _ = link.start_close();
            self.tunnel.link_lost(link.id, now);
        }
        let open = self.streams.drain().map(|(_, shared)| shared);
        for shared in open.chain(self.waiting.drain(..).map(|(_, shared)| shared)) {
            shared.fail(Reason::TunnelLost);
        }
        self.published.set_links(Vec::new());
        let _ = self.published.ended.send_replace(Some(cause.clone()));
        self.ending = Some((cause, now + FLUSH_MAX));
    }

    /// True once nothing more can be flushed.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        self.links.retain_mut(|link| {
            !matches!(link.poll_send(cx), Poll::Ready(Err(_))) && !link.is_flushed()
        });
        self.links.is_empty()
            || self
                .ending
                .as_ref()
                .is_some_and(|(_, until)| *until <= Instant::now())
    }
}
