//! What a link counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::metrics::PeerCounters;

/// Counters of one link, for the admin endpoint. Bytes are those written to and read from TCP.
#[derive(Debug, Default)]
pub struct LinkCounters {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    rtt_us: AtomicU64,
    peer: OnceLock<Arc<PeerCounters>>,
}

impl LinkCounters {
    /// Bytes written to TCP, TLS included.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Bytes read from TCP, TLS included.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Smoothed round trip in microseconds; 0 before the first Pong.
    pub fn rtt_us(&self) -> u64 {
        self.rtt_us.load(Ordering::Relaxed)
    }

    pub(crate) fn set_rtt_us(&self, rtt_us: u64) {
        self.rtt_us.store(rtt_us, Ordering::Relaxed);
    }

    /// From now on the bytes count for the peer as well, and so do those of before.
    pub(crate) fn count_for(&self, peer: Arc<PeerCounters>) {
        peer.wan.to_wan.add(self.sent_bytes());
        peer.wan.from_wan.add(self.received_bytes());
        // A link has one peer.
        let _ = self.peer.set(peer);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(peer) = self.peer.get() {
            peer.wan.to_wan.add(bytes as u64);
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(peer) = self.peer.get() {
            peer.wan.from_wan.add(bytes as u64);
        }
    }
}
