//! A tunnel as the programs see it: open streams, ask how it is, end it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use codec::frame::{Reason, Renewed};
use rustls_pki_types::CertificateDer;
use tokio::sync::{oneshot, watch};

use crate::driver::{Command, Mail, PendingOpen};
use crate::histories::DomainSpec;
use crate::link::{Link, LinkCounters};
use crate::state::OpenSpec;
use crate::stream::{Shared, StreamHandle};
use crate::wake::Sender;

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndCause {
    /// The last link ended and no other took its place; the text says how.
    #[error("{0}")]
    LinkLost(String),
    /// The peer broke the protocol; the text names what it did.
    #[error("protocol violation by the other edge: {0}")]
    Violation(String),
    /// It was drained, here or there, and its last stream has ended.
    #[error("drained")]
    Drained,
    /// This program ended it.
    #[error("{0}")]
    Closed(String),
}

/// One link's address and counters.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// Which it is, for as long as the tunnel lives.
    pub(crate) name: LinkName,
    /// The peer's address.
    pub address: std::net::SocketAddr,
    /// Live counters.
    pub counters: Arc<LinkCounters>,
}

/// Names a link by what its Hello said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkName {
    pub(crate) generation: u64,
    pub(crate) index: u64,
}

/// What a driver publishes for others to read.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) peer: Arc<str>,
    /// What the peer's Hello says that it understands.
    pub(crate) peer_features: u64,
    /// As shown on the last link: a tunnel may be resumed with a renewed certificate.
    pub(crate) chain: Arc<ArcSwap<Vec<CertificateDer<'static>>>>,
    pub(crate) links: Arc<Mutex<Vec<LinkStatus>>>,
    /// A link is up.
    pub(crate) attached: watch::Sender<bool>,
    /// The links that are up.
    pub(crate) names: watch::Sender<Vec<LinkName>>,
    pub(crate) resumes: watch::Sender<u64>,
    /// Client edge: since the line was lost, every server was asked in vain to carry on.
    pub(crate) was_sought: watch::Sender<bool>,
    pub(crate) streams_open: Arc<AtomicUsize>,
    pub(crate) ended: watch::Sender<Option<EndCause>>,
    /// The peer has said GoAway, or this side has.
    pub(crate) draining: watch::Sender<bool>,
}

impl Published {
    pub(crate) fn new(
        peer: Arc<str>,
        peer_features: u64,
        chain: &[CertificateDer<'static>],
    ) -> Self {
        Self {
            peer,
            peer_features,
            chain: Arc::new(ArcSwap::from_pointee(chain.to_vec())),
            links: Arc::default(),
            attached: watch::Sender::new(true),
            names: watch::Sender::new(vec![LinkName::default()]),
            resumes: watch::Sender::new(0),
            was_sought: watch::Sender::new(false),
            streams_open: Arc::default(),
            ended: watch::Sender::new(None),
            draining: watch::Sender::new(false),
        }
    }

    /// The tunnel is over; the first cause counts.
    pub(crate) fn end(&self, cause: EndCause) {
        self.set_links(Vec::new());
        self.streams_open.store(0, Ordering::Relaxed);
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(cause);
            first
        });
    }

    pub(crate) fn set_links(&self, links: Vec<LinkStatus>) {
        let attached = !links.is_empty();
        let names = links.iter().map(|link| link.name).collect();
        let _ = self.names.send_replace(names);
        let _ = self
            .attached
            .send_if_modified(|before| std::mem::replace(before, attached) != attached);
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = links;
    }
}

/// A running tunnel. Cheap to clone; dropping all handles does not end it.
#[derive(Clone)]
pub struct TunnelHandle {
    mail: Sender<Mail>,
    published: Published,
}

/// The tunnel is gone or takes no new streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tunnel takes no new streams")]
pub struct TunnelGone;

impl TunnelHandle {
    pub(crate) fn new(mail: Sender<Mail>, published: Published) -> Self {
        Self { mail, published }
    }

    /// Name of the peer, from its certificate.
    pub fn peer(&self) -> &Arc<str> {
        &self.published.peer
    }

    /// What the peer's Hello says that it understands, such as [`FEATURE_SOURCE`](codec::frame::FEATURE_SOURCE).
    pub fn peer_features(&self) -> u64 {
        self.published.peer_features
    }

    /// The peer's certificate chain, leaf first, as it was shown last.
    pub fn peer_chain(&self) -> Arc<Vec<CertificateDer<'static>>> {
        self.published.chain.load_full()
    }

    /// Opens a stream. Bytes may be sent at once; whether the target was reached is learnt from
    /// [`StreamHandle::opened`]. While the peer allows no more Opens the stream waits in the driver.
    pub fn open(&self, spec: OpenSpec) -> Result<StreamHandle, TunnelGone> {
        if *self.published.draining.borrow() {
            return Err(TunnelGone);
        }
        let shared = Shared::new(self.mail.clone());
        let pending = PendingOpen {
            spec,
            shared: shared.clone(),
        };
        self.mail
            .send(Mail::Command(Command::Open(pending)))
            .map_err(|_| TunnelGone)?;
        Ok(StreamHandle::new(shared))
    }

    /// The same, and waits until the tunnel has taken the stream. When it has turned out to go away instead, nothing of the stream has left this
    /// edge, and another tunnel may have it.
    pub async fn open_taken(&self, spec: OpenSpec) -> Result<StreamHandle, TunnelGone> {
        let mut stream = self.open(spec)?;
        match stream.taken().await {
            Err(Reason::GoingAway | Reason::TunnelLost) => Err(TunnelGone),
            Ok(()) | Err(_) => Ok(stream),
        }
    }

    /// Uses the histories of one more domain of this edge's services from now on. Streams may name it at once; until both sides have agreed on
    /// it they go without.
    pub fn use_domain(&self, domain: DomainSpec) {
        let _ = self.mail.send(Mail::Command(Command::WantDomain(domain)));
    }

    /// Asks the peer for a new certificate with a PKCS #10 request in DER. `None` when the tunnel ended before the answer.
    pub async fn renew(&self, request: Bytes) -> Option<Renewed> {
        let (answer, answered) = oneshot::channel();
        self.mail
            .send(Mail::Command(Command::Renew(request, answer)))
            .ok()?;
        answered.await.ok()
    }

    /// Answers the peer's request for a certificate.
    pub(crate) fn renewed(&self, answer: Renewed) {
        let _ = self.mail.send(Mail::Command(Command::Renewed(answer)));
    }

    /// Says GoAway: no new streams on either side; the tunnel ends when the last one has.
    pub fn go_away(&self, reason: Reason) {
        let _ = self.published.draining.send_replace(true);
        let _ = self.mail.send(Mail::Command(Command::GoAway(reason)));
    }

    /// Ends the tunnel now; its streams are reset.
    pub fn close(&self, cause: EndCause) {
        let _ = self.mail.send(Mail::Command(Command::Close(cause)));
    }

    /// Carries on over `link`, whose other end has proved that it may: in `generation`, and only if that is newer than the present one.
    pub(crate) fn attach(&self, link: Link, generation: u64) {
        let _ = self
            .mail
            .send(Mail::Command(Command::Attach(Box::new(link), generation)));
    }

    /// Takes `link` as a further one of the present generation. False if there is none, or another by now.
    pub(crate) async fn join(&self, link: Link, name: LinkName) -> bool {
        let (answer, answered) = oneshot::channel();
        let command = Command::Join(Box::new(link), name, answer);
        self.mail.send(Mail::Command(command)).is_ok() && answered.await.unwrap_or(false)
    }

    /// Waits until a link is lost, or the tunnel has ended.
    pub(crate) async fn lost_link(&self, name: LinkName) {
        let mut names = self.published.names.subscribe();
        tokio::select! {
            _ = names.wait_for(|names| !names.contains(&name)) => {}
            _ = self.ended() => {}
        }
    }

    /// Asks over all links whether the peer lives; a link that does not answer within a heartbeat is lost.
    pub(crate) fn probe(&self) {
        let _ = self.mail.send(Mail::Command(Command::Probe));
    }

    /// Whether a link is up. Without one the tunnel waits to be resumed, or has ended.
    pub fn is_attached(&self) -> bool {
        self.is_up() && *self.published.attached.borrow()
    }

    /// Waits until a link is up (`true`) or lost (`false`), or the tunnel has ended.
    pub async fn becomes_attached(&self, is_attached: bool) {
        let mut attached = self.published.attached.subscribe();
        tokio::select! {
            _ = attached.wait_for(|now| *now == is_attached) => {}
            _ = self.ended() => {}
        }
    }

    /// Notes whether every server was asked in vain to carry on with the tunnel.
    pub(crate) fn set_sought(&self, in_vain: bool) {
        let _ = self.published.was_sought.send_replace(in_vain);
    }

    /// Waits until every server was asked in vain to carry on with the tunnel.
    pub(crate) async fn sought_in_vain(&self) {
        let mut sought = self.published.was_sought.subscribe();
        let _ = sought.wait_for(|in_vain| *in_vain).await;
    }

    /// How often the tunnel was resumed.
    pub fn resumes(&self) -> u64 {
        *self.published.resumes.borrow()
    }

    /// Waits until it was resumed once more than `times`, or has ended.
    pub(crate) async fn resumed_after(&self, times: u64) {
        let mut resumes = self.published.resumes.subscribe();
        tokio::select! {
            _ = resumes.wait_for(|now| *now > times) => {}
            _ = self.ended() => {}
        }
    }

    /// Streams that are open now.
    pub fn streams_open(&self) -> usize {
        self.published.streams_open.load(Ordering::Relaxed)
    }

    /// True once no new streams are taken.
    pub fn is_draining(&self) -> bool {
        *self.published.draining.borrow()
    }

    /// True until the tunnel has ended.
    pub fn is_up(&self) -> bool {
        self.published.ended.borrow().is_none()
    }

    /// Waits until the tunnel has ended; says why.
    pub async fn ended(&self) -> EndCause {
        let mut ended = self.published.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or(EndCause::Drained),
            Err(_) => EndCause::Closed("the tunnel's driver has stopped".to_owned()),
        }
    }

    /// Waits until no new streams are taken or the tunnel has ended.
    pub async fn unusable(&self) {
        let mut draining = self.published.draining.subscribe();
        tokio::select! {
            _ = draining.wait_for(|d| *d) => {}
            _ = self.ended() => {}
        }
    }

    /// The links and their counters.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.published
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Smoothed round trip of the first link, if one was measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.links()
            .first()
            .map(|l| l.counters.rtt_us())
            .filter(|us| *us > 0)
            .map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::num::NonZeroU16;

    use codec::frame::Target;

    use super::*;
    use crate::wake::mailbox;

    fn spec() -> OpenSpec {
        OpenSpec {
            domain: None,
            target: Target::Name {
                host: "origin".to_owned(),
                port: 80,
            },
            service: "files".to_owned(),
            weight: NonZeroU16::MIN,
            source: None,
        }
    }

    #[tokio::test]
    async fn a_stream_that_a_tunnel_going_away_did_not_take_may_be_anothers() {
        for (reason, is_gone) in [(Reason::GoingAway, true), (Reason::Limit, false)] {
            let (sender, mut receiver) = mailbox();
            let tunnel = TunnelHandle::new(sender, Published::new("hq".into(), 0, &[]));
            let opening = tokio::spawn(async move { tunnel.open_taken(spec()).await });
            let mut batch = std::collections::VecDeque::new();
            receiver.drain(&mut batch).await;
            let Some(Mail::Command(Command::Open(pending))) = batch.pop_front() else {
                panic!("no Open");
            };
            pending.shared.fail(reason);
            assert_eq!(opening.await.unwrap().is_err(), is_gone, "{reason:?}");
        }
    }

    #[tokio::test]
    async fn an_open_that_no_driver_ever_looks_at_tells_its_handle() {
        let (sender, receiver) = mailbox();
        let published = Published::new("hq".into(), 0, &[]);
        let tunnel = TunnelHandle::new(sender, published.clone());
        let mut stream = tunnel.open(spec()).unwrap();
        let end = stream.end();
        // As a driver that panicked leaves it.
        drop(receiver);
        assert_eq!(stream.opened().await, Err(Reason::TunnelLost));
        let (mut send, mut recv) = stream.split();
        assert_eq!(send.stopped().await, Reason::TunnelLost);
        assert!(recv.recv().await.is_err());
        assert_eq!(end.summary().await, None);
        assert_eq!(tunnel.open(spec()).err(), Some(TunnelGone));
    }

    #[tokio::test]
    async fn the_first_cause_of_an_end_counts() {
        let (sender, _receiver) = mailbox();
        let published = Published::new("hq".into(), 0, &[]);
        let tunnel = TunnelHandle::new(sender, published.clone());
        assert!(tunnel.is_up());
        published.end(EndCause::Drained);
        published.end(EndCause::Closed("later".to_owned()));
        assert_eq!(tunnel.ended().await, EndCause::Drained);
        assert!(!tunnel.is_up());
    }
}
