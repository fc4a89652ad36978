//! Counters by service and peer: written by the tunnels, read by the admin endpoint while they run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::encoder::Tally;
use codec::frame::RefuseReason;

/// Names of services, and pairs of service and peer, that get counters of their own. A server learns services' names from its clients, so
/// what a client can make it remember needs a bound; what comes beyond is counted under [`OTHER`].
const NAMES_MAX: usize = 1_024;

/// The name under which services beyond the bound are counted.
pub const OTHER: &str = "other";

/// A counter that only grows, or a gauge that goes both ways.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away; for gauges.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes in each direction.
#[derive(Debug, Default)]
pub struct Directions {
    /// Towards the WAN.
    pub to_wan: Count,
    /// From the WAN.
    pub from_wan: Count,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamResult {
    /// Finish both ways, everything delivered.
    Completed,
    /// One direction was reset or stopped.
    Reset,
    /// The target was not reached, or not allowed.
    Refused,
    /// The tunnel ended first.
    TunnelLost,
}

impl StreamResult {
    /// All results.
    pub const ALL: [Self; 4] = [
        Self::Completed,
        Self::Reset,
        Self::Refused,
        Self::TunnelLost,
    ];

    /// The label of `wanproxy_streams_total`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::TunnelLost => "tunnel_lost",
        }
    }
}

/// How plain bytes travelled.
#[derive(Debug, Default)]
pub struct Kinds {
    /// Plain bytes that were references.
    pub copied: Count,
    /// Plain bytes that were compressed.
    pub compressed: Count,
    /// Plain bytes as they were.
    pub raw: Count,
}

impl Kinds {
    /// Adds those of a block.
    pub fn add(&self, block: Tally) {
        self.copied.add(block.copied_bytes.into());
        self.compressed.add(block.compressed_bytes.into());
        self.raw.add(block.raw_bytes.into());
    }
}

/// What the codecs made of plain bytes.
#[derive(Debug, Default)]
pub struct CodecCounters {
    /// This edge's, of what it sent.
    pub sent: Kinds,
    /// The other edge's, of what was received.
    pub received: Kinds,
}

/// Counters of one service over all peers.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    /// Plain bytes, read from and delivered to the LAN side.
    pub lan: Directions,
    /// Bytes of the frames of its streams.
    pub wan: Directions,
    /// Streams open now.
    pub streams_open: Count,
    /// Streams that were ever open.
    pub streams_begun: Count,
    streams: [Count; StreamResult::ALL.len()],
}

impl ServiceCounters {
    /// Streams that ended with `result`.
    pub fn streams(&self, result: StreamResult) -> u64 {
        self.count(result).map_or(0, Count::get)
    }

    fn count(&self, result: StreamResult) -> Option<&Count> {
        self.streams.get(result as usize)
    }
}

/// Counters of one peer over all services.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Plain bytes, read from and delivered to the LAN side.
    pub lan: Directions,
    /// Bytes written to and read from TCP; the links count them.
    pub wan: Directions,
    /// Times that a tunnel with it was resumed.
    pub resumes: Count,
}

/// All counters of one program.
#[derive(Debug, Default)]
pub struct Registry {
    names: Mutex<Names>,
    refused: [Count; REFUSE_REASONS.len()],
    /// Blocks whose checksum was wrong.
    pub integrity_failures: Count,
}

#[derive(Debug, Default)]
struct Names {
    services: BTreeMap<Arc<str>, Arc<ServiceCounters>>,
    peers: BTreeMap<Arc<str>, Arc<PeerCounters>>,
    codec: BTreeMap<(Arc<str>, Arc<str>), Arc<CodecCounters>>,
}

const REFUSE_REASONS: [RefuseReason; 4] = [
    RefuseReason::Damaged,
    RefuseReason::Evicted,
    RefuseReason::Overload,
    RefuseReason::Unreadable,
];

/// The label of `wanproxy_refused_blocks_total`.
#[must_use]
pub const fn refuse_label(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::Damaged => "damaged",
        RefuseReason::Evicted => "evicted",
        RefuseReason::Overload => "overload",
        RefuseReason::Unreadable => "unreadable",
    }
}

impl Registry {
    /// Without any names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of a service, made at first use.
    pub fn service(&self, name: &str) -> Arc<ServiceCounters> {
        let services = &mut self.lock().services;
        let name = if services.len() < NAMES_MAX || services.contains_key(name) {
            name
        } else {
            OTHER
        };
        services.entry(name.into()).or_default().clone()
    }

    /// The counters of a peer, made at first use. Peers' names come from certificates, so they need no bound.
    pub fn peer(&self, name: &str) -> Arc<PeerCounters> {
        self.lock().peers.entry(name.into()).or_default().clone()
    }

    /// The codec's counters for a service and a peer, made at first use.
    pub fn codec(&self, service: &str, peer: &str) -> Arc<CodecCounters> {
        let codec = &mut self.lock().codec;
        let key: (Arc<str>, Arc<str>) = (service.into(), peer.into());
        let key = if codec.len() < NAMES_MAX || codec.contains_key(&key) {
            key
        } else {
            (OTHER.into(), key.1)
        };
        codec.entry(key).or_default().clone()
    }

    /// All services' names and counters.
    pub fn services(&self) -> Vec<(Arc<str>, Arc<ServiceCounters>)> {
        self.lock()
            .services
            .iter()
            .map(|(name, counters)| (name.clone(), counters.clone()))
            .collect()
    }

    /// All peers' names and counters.
    pub fn peers(&self) -> Vec<(Arc<str>, Arc<PeerCounters>)> {
        self.lock()
            .peers
            .iter()
            .map(|(name, counters)| (name.clone(), counters.clone()))
            .collect()
    }

    /// The codec's counters by service and peer.
    pub fn codecs(&self) -> Vec<(Arc<str>, Arc<str>, Arc<CodecCounters>)> {
        self.lock()
            .codec
            .iter()
            .map(|((service, peer), counters)| (service.clone(), peer.clone(), counters.clone()))
            .collect()
    }

    /// Blocks refused by this edge or by a peer, by reason.
    pub fn refused(&self) -> [(RefuseReason, u64); REFUSE_REASONS.len()] {
        let mut index = 0;
        REFUSE_REASONS.map(|reason| {
            let count = self.refused.get(index).map_or(0, Count::get);
            index += 1;
            (reason, count)
        })
    }

    pub(crate) fn count_refused(&self, reason: RefuseReason) {
        let index = REFUSE_REASONS.iter().position(|known| *known == reason);
        if let Some(count) = index.and_then(|index| self.refused.get(index)) {
            count.add(1);
        }
        if reason == RefuseReason::Damaged {
            self.integrity_failures.add(1);
        }
    }
}

/// The counters that one service's streams with one peer write to.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: Arc<str>,
    pub(crate) service: Arc<ServiceCounters>,
    pub(crate) peer: Arc<PeerCounters>,
    pub(crate) codec: Arc<CodecCounters>,
}

impl Series {
    pub(crate) fn new(registry: &Registry, service: &str, peer: &str) -> Self {
        Self {
            name: service.into(),
            service: registry.service(service),
            peer: registry.peer(peer),
            codec: registry.codec(service, peer),
        }
    }
}

/// An open stream in the counters: however it goes away, it is counted once.
#[derive(Debug)]
pub(crate) struct CountedStream {
    pub(crate) series: Arc<Series>,
    pub(crate) result: StreamResult,
}

impl CountedStream {
    pub(crate) fn new(series: Arc<Series>) -> Self {
        series.service.streams_begun.add(1);
        series.service.streams_open.add(1);
        Self {
            series,
            result: StreamResult::TunnelLost,
        }
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.series.service.streams_open.subtract(1);
        if let Some(count) = self.series.service.count(self.result) {
            count.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_counted_once_however_it_goes() {
        let registry = Registry::new();
        let series = Arc::new(Series::new(&registry, "files", "branch-1"));
        let mut done = CountedStream::new(series.clone());
        let lost = CountedStream::new(series);
        assert_eq!(registry.service("files").streams_open.get(), 2);
        done.result = StreamResult::Completed;
        drop((done, lost));
        let files = registry.service("files");
        assert_eq!(files.streams_open.get(), 0);
        assert_eq!(files.streams_begun.get(), 2);
        assert_eq!(files.streams(StreamResult::Completed), 1);
        assert_eq!(files.streams(StreamResult::TunnelLost), 1);
        assert_eq!(files.streams(StreamResult::Reset), 0);
    }

    #[test]
    fn names_that_a_client_invents_are_bounded() {
        let registry = Registry::new();
        for n in 0..NAMES_MAX * 2 {
            registry.service(&format!("s{n}")).lan.to_wan.add(1);
            registry.codec(&format!("s{n}"), "branch-1").sent.raw.add(1);
        }
        assert!(registry.services().len() <= NAMES_MAX + 1);
        assert!(registry.codecs().len() <= NAMES_MAX + 1);
        assert_eq!(registry.service(OTHER).lan.to_wan.get(), NAMES_MAX as u64);
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let registry = Registry::new();
        registry.count_refused(RefuseReason::Damaged);
        registry.count_refused(RefuseReason::Overload);
        registry.count_refused(RefuseReason::Overload);
        assert_eq!(registry.integrity_failures.get(), 1);
        let counts: Vec<_> = registry
            .refused()
            .into_iter()
            .map(|(reason, n)| (refuse_label(reason), n))
            .collect();
        assert_eq!(
            counts,
            [
                ("damaged", 1),
                ("evicted", 0),
                ("overload", 2),
                ("unreadable", 0)
            ]
        );
    }
}
