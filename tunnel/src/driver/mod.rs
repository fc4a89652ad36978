//! One task a tunnel: owns the state machine, polls the tunnel's links, its mailbox and one timer.
//!
//! Nothing here blocks. What costs CPU goes to the pools and comes back as mail, except what is small enough to be done
//! on the spot. Each poll clears the pokes first, then drains what was queued, until nothing moves any more.

mod domains;
mod events;
mod jobs;
mod links;
mod mail;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use codec::domain::Domain;
use codec::frame::{DomainId, Reason, StreamId};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use crate::handle::{EndCause, LinkName, Published};
use crate::histories::{DomainSpec, Histories};
use crate::link::{Link, LinkError, OpenOutput};
use crate::metrics::PeerCounters;
use crate::pool::{Outcome, Pools, SlotWaiter};
use crate::state::{CodecDone, CodecJob, JobId, LineSample, LinkId, OpenSpec, Tunnel};
use crate::stream::{IncomingStream, Shared};
use crate::tls::TlsError;
use crate::wake::{Receiver, Sender};

pub(crate) use links::LINKS_MAX;

/// Rounds of "look at everything once" in one poll before the driver lets other tasks of its worker run: bounds how
/// long one busy tunnel keeps a worker (about 16 batches, a millisecond).
const ROUNDS_PER_POLL: usize = 16;

/// A piece of at most this much may be waited for by a person or a program: its relay, which was woken and which no other worker takes while the
/// driver keeps this one, comes before further batches.
const WAITED_FOR_MAX_BYTES: usize = 4 << 10;

/// An ended tunnel's last sealed bytes and `close_notify` get this long to reach the socket.
const FLUSH_MAX: std::time::Duration = std::time::Duration::from_millis(500);

/// With fewer threads in pool `crypto` than this (by default: fewer cores), links seal and open whole batches on the spot. Sealing 64 KiB takes 8 µs,
/// a hop to a thread that shares the driver's cores several times that: measured on two cores, random bulk went from 0.33 to
/// 0.67 times an stunnel pair's speed without the hops. With more cores the hop is a gain, for system calls and sealing overlap.
const CRYPTO_THREADS_WORTH_A_HOP: usize = 3;

/// The largest batch of frames or wire bytes, frame headers included: what "on the spot" means then.
const WHOLE_BATCH_BYTES: usize = crate::tls::BATCH_MAX + 4096;

/// Up to how many bytes a link's batch is sealed and opened by the driver itself.
fn link_inline_below_bytes(inline_below_bytes: usize, crypto_threads: usize) -> usize {
    match inline_below_bytes {
        0 => 0,
        bytes if crypto_threads < CRYPTO_THREADS_WORTH_A_HOP => bytes.max(WHOLE_BATCH_BYTES),
        bytes => bytes,
    }
}

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
    Open(PendingOpen),
    /// The target of an incoming stream is connected.
    Accept(Arc<Shared>, Option<SocketAddr>),
    /// The target of an incoming stream cannot be had.
    Refuse(Arc<Shared>, Reason),
    /// Use the histories of one more domain of this edge's.
    WantDomain(DomainSpec),
    /// The histories of a domain are at hand.
    AttachDomain(DomainId, String, Arc<Domain>),
    /// Ask the peer for a new certificate (client edge).
    Renew(Bytes, oneshot::Sender<codec::frame::Renewed>),
    /// Answer the peer's request for a certificate (server edge).
    Renewed(codec::frame::Renewed),
    /// Accept no new streams; end when the last one has.
    GoAway(Reason),
    /// Carry on over another link, in a newer generation.
    Attach(Box<Link>, u64),
    /// Take a further link of the present generation; tells whether it did.
    Join(Box<Link>, LinkName, oneshot::Sender<bool>),
    /// Find out whether the peer lives.
    Probe,
    /// End now; streams are reset.
    Close(EndCause),
}

/// A stream that is to be opened. However it is dropped before it was (the mailbox closes, the driver ends or panics), whoever
/// holds its handle is told.
pub(crate) struct PendingOpen {
    pub(crate) spec: OpenSpec,
    pub(crate) shared: Arc<Shared>,
}

impl Drop for PendingOpen {
    fn drop(&mut self) {
        if !self.shared.has_id() {
            self.shared.fail(Reason::TunnelLost);
        }
    }
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
    /// Where domains are found, those of this edge and those that the peer offers; none where the peer is to have none.
    pub(crate) histories: Option<Arc<Histories>>,
    /// Counters of the peer.
    pub(crate) counters: Arc<PeerCounters>,
    /// Domains to begin with.
    pub(crate) domains: Vec<DomainSpec>,
    pub(crate) published: Published,
    /// What the kernel says of a link's socket.
    pub(crate) sample: fn(&TcpStream) -> Option<LineSample>,
}

/// The driver; a future that resolves with why the tunnel ended.
pub(crate) struct Driver {
    tunnel: Tunnel,
    links: Vec<Link>,
    streams: HashMap<StreamId, Arc<Shared>>,
    /// Streams that wait until the peer's credit allows another Open.
    waiting: VecDeque<PendingOpen>,
    /// How many of them nobody wants any more.
    abandoned: usize,
    pools: Arc<Pools>,
    codec_slots: SlotWaiter,
    jobs_out: usize,
    /// A job that waits for a place in the pool's queue.
    job_held: Option<(JobId, CodecJob)>,
    inline_below_bytes: usize,
    link_inline_below_bytes: usize,
    sender: Sender<Mail>,
    receiver: Receiver<Mail>,
    batch: VecDeque<Mail>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    /// A relay has got a piece of [`WAITED_FOR_MAX_BYTES`] at most in the last round.
    gave_small_piece: bool,
    incoming: mpsc::UnboundedSender<IncomingStream>,
    renewals: Option<mpsc::UnboundedSender<Bytes>>,
    renewed: Option<oneshot::Sender<codec::frame::Renewed>>,
    histories: Option<Arc<Histories>>,
    counters: Arc<PeerCounters>,
    published: Published,
    sample: fn(&TcpStream) -> Option<LineSample>,
    draining: bool,
    /// How often the client has proved anew that the tunnel is its own, in attempts; links of older ones are dead.
    generation: u64,
    links_made: u64,
    /// How the last link ended, and whether another was waited for.
    lost: Option<(LinkError, bool)>,
    /// Why it ends, and until when what is sealed may still be flushed.
    ending: Option<(EndCause, Instant)>,
}

impl Future for Driver {
    type Output = EndCause;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let driver = self.get_mut();
        for _ in 0..ROUNDS_PER_POLL {
            let relay_waits = std::mem::take(&mut driver.gave_small_piece);
            let moved = driver.round(cx);
            if let Some((cause, _)) = driver.ending.clone()
                && driver.poll_ended(cx)
            {
                return Poll::Ready(cause);
            }
            if !moved && !driver.poll_timer(cx) {
                return Poll::Pending;
            }
            // Not after the round that gave it: mostly there is no other, and going on later costs the wake-up of a worker.
            if relay_waits {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let (sender, receiver) = parts.mail;
        let crypto_threads = parts.pools.crypto.threads();
        let mut driver = Self {
            tunnel: parts.tunnel,
            links: Vec::new(),
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            abandoned: 0,
            codec_slots: parts.pools.codec.slot_waiter(),
            pools: parts.pools,
            jobs_out: 0,
            job_held: None,
            link_inline_below_bytes: link_inline_below_bytes(
                parts.inline_below_bytes,
                crypto_threads,
            ),
            inline_below_bytes: parts.inline_below_bytes,
            sender,
            receiver,
            batch: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            timer_at: None,
            gave_small_piece: false,
            incoming: parts.incoming,
            renewals: parts.renewals,
            renewed: None,
            histories: parts.histories,
            counters: parts.counters,
            published: parts.published,
            sample: parts.sample,
            draining: false,
            generation: 0,
            links_made: 0,
            lost: None,
            ending: None,
        };
        driver.add_link(parts.link, LinkName::default(), Instant::now());
        for DomainSpec { id, name } in parts.domains {
            driver.want_domain(id, name, Instant::now());
        }
        driver
    }

    /// Looks at everything once; true when anything moved.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let mut moved = self.take_mail(cx, now);
        if self.ending.is_none() {
            moved |= self.receive(cx, now);
        }
        if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
            self.tunnel.handle_timeout(now);
            moved = true;
        }
        moved |= self.run_jobs(cx, now);
        moved |= self.take_events(now);
        moved |= self.transmit(cx, now);
        self.published
            .streams_open
            .store(self.streams.len(), Ordering::Relaxed);
        if self.draining && self.streams.is_empty() && self.tunnel.is_quiet() {
            self.begin_end(EndCause::Drained);
        }
        moved
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

    /// The tunnel is over: its streams end, its histories are free for the next tunnel and its handles know, all before
    /// the last bytes are flushed, which a dead line may never take.
    fn begin_end(&mut self, cause: EndCause) {
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        self.ending = Some((cause.clone(), now + FLUSH_MAX));
        for link in &mut self.links {
            let _ = link.start_close();
        }
        self.tunnel.close(now);
        // What came before the end, and may have been acknowledged, still reaches its streams.
        self.take_events(now);
        self.release(cause);
    }

    /// Streams and handles learn that the tunnel is over.
    fn release(&mut self, cause: EndCause) {
        for (_, shared) in self.streams.drain() {
            shared.fail(Reason::TunnelLost);
        }
        self.waiting.clear();
        self.published.end(cause);
    }

    /// True once the links are flushed and the peer has closed its side, or when that takes too long.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        self.links
            .retain_mut(|link| link.poll_finish(cx).is_pending());
        self.links.is_empty()
            || self
                .ending
                .as_ref()
                .is_some_and(|(_, until)| *until <= Instant::now())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // After an orderly end there is nothing left to do. A driver that panicked, or whose runtime ends, leaves nobody waiting.
        self.release(EndCause::Closed(
            "the tunnel's driver has stopped".to_owned(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_hop_to_the_crypto_pool_only_where_it_has_cores_of_its_own() {
        let small = 16 << 10;
        assert_eq!(link_inline_below_bytes(small, 2), WHOLE_BATCH_BYTES);
        assert_eq!(
            link_inline_below_bytes(small, CRYPTO_THREADS_WORTH_A_HOP),
            small
        );
    }

    #[test]
    fn zero_sends_everything_to_the_pools_on_any_machine() {
        assert_eq!(link_inline_below_bytes(0, 1), 0);
        assert_eq!(link_inline_below_bytes(0, 16), 0);
    }
}
