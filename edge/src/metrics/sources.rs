//! Where the figures of an edge come from: one set of counters behind both `/metrics` and `/api/status`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tunnel::budget::Budget;
use tunnel::environment::Environment;
use tunnel::handle::TunnelHandle;
use tunnel::histories::Histories;
use tunnel::metrics::{CodecCounters, Directions, Kinds, Registry};
use tunnel::pool::{JobState, Pool, Pools};

use super::Refusals;
use crate::admin::{
    CodecBytes, HistoryAccess, HistoryStatus, JobStatus, LinkStatus, MemoryStatus, PoolStatus,
    Pulse, Savings, ServiceStatus, Status, TunnelStatus,
};
use crate::os;

/// The counters of one running edge.
pub struct Sources {
    /// `client` or `server`.
    pub edge: &'static str,
    /// The edge's name.
    pub name: String,
    /// The program's version.
    pub version: &'static str,
    /// When it started.
    pub started: Instant,
    /// By service and peer.
    pub counters: Arc<Registry>,
    /// The pools.
    pub pools: Arc<Pools>,
    /// The memory budget.
    pub budget: Arc<Budget>,
    /// The histories.
    pub histories: Arc<Histories>,
    /// What the policy refused.
    pub refusals: Refusals,
    /// Did the last reload work? True before the first.
    pub reload_success: AtomicBool,
    /// When the certificate ends, in seconds since the epoch.
    pub certificate_expiry_seconds: AtomicU64,
}

/// A service of this edge as its config has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Where it listens.
    pub bind: String,
}

impl Sources {
    /// Those of an edge that starts now, `client` or `server`.
    pub fn new(edge: &'static str, version: &'static str, environment: &Environment) -> Self {
        Self {
            edge,
            name: environment.name.clone(),
            version,
            started: Instant::now(),
            counters: environment.counters.clone(),
            pools: environment.pools.clone(),
            budget: environment.budget.clone(),
            histories: environment.histories.clone(),
            refusals: Refusals::default(),
            reload_success: AtomicBool::new(true),
            certificate_expiry_seconds: AtomicU64::new(0),
        }
    }

    /// For `/api/history`.
    pub fn history(&self) -> HistoryAccess {
        HistoryAccess {
            histories: self.histories.clone(),
            pools: self.pools.clone(),
        }
    }

    /// Notes when the certificate ends.
    pub fn set_certificate_expiry(&self, not_after: SystemTime) {
        let seconds = not_after
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.certificate_expiry_seconds
            .store(seconds, Ordering::Relaxed);
    }

    /// Everything for `/api/status`. `own` are the services that this edge listens for; those of peers follow them.
    pub fn status(&self, tunnels: &[TunnelHandle], own: &[OwnService]) -> Status {
        let (mut by_service, mut by_peer) = (Sums::new(), Sums::new());
        let mut codec = Travelled::default();
        for (service, peer, counters) in self.counters.codecs() {
            let bytes = Travelled::of(&counters);
            by_service.entry(service).or_default().add(bytes);
            by_peer.entry(peer).or_default().add(bytes);
            codec.add(bytes);
        }
        let mut services: Vec<ServiceStatus> = Vec::with_capacity(own.len());
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(own.len());
        for OwnService { name, kind, bind } in own {
            places.entry(name).or_insert(services.len());
            services.push(ServiceStatus {
                name: name.clone(),
                kind: (*kind).to_owned(),
                bind: bind.clone(),
                ..ServiceStatus::default()
            });
        }
        for (name, counters) in self.counters.services() {
            let index = places.get(&*name).copied().unwrap_or_else(|| {
                services.push(ServiceStatus {
                    name: name.to_string(),
                    kind: "remote".to_owned(),
                    ..ServiceStatus::default()
                });
                services.len() - 1
            });
            let Some(service) = services.get_mut(index) else {
                continue;
            };
            service.open = counters.streams_open.get();
            service.total = counters.streams_begun.get();
            service.lan_bytes_to_wan = counters.lan.to_wan.get();
            service.lan_bytes_from_wan = counters.lan.from_wan.get();
            service.wan_bytes_to_wan = counters.wan.to_wan.get();
            service.wan_bytes_from_wan = counters.wan.from_wan.get();
            let bytes = by_service.get(&name).copied().unwrap_or_default();
            service.codec = bytes.sent;
            service.codec_received = bytes.received;
        }
        let (lan_bytes, wan_bytes) = self.carried();
        let stats = self.histories.stats();
        Status {
            edge: self.edge.to_owned(),
            name: self.name.clone(),
            version: self.version.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            tunnels: tunnels
                .iter()
                .map(|tunnel| self.tunnel_status(tunnel, &by_peer))
                .collect(),
            services,
            savings: Savings::new(lan_bytes, wan_bytes),
            codec: codec.sent,
            codec_received: codec.received,
            history: HistoryStatus {
                bytes: stats.held_bytes(),
                capacity_bytes: stats.capacity_bytes,
                index_bytes: stats.index_bytes,
                hit_rate: (stats.lookups > 0).then(|| stats.hits as f64 / stats.lookups as f64),
                memory_bytes: stats.memory_bytes,
                unwritten_bytes: stats.unwritten_bytes,
                directory: self
                    .histories
                    .directory()
                    .map(|path| path.display().to_string()),
                excuse: self.histories.excuse().map(str::to_owned),
                read_only: stats.is_read_only,
                loading: stats.is_loading,
                damaged_pages: stats.damaged_pages,
            },
            jobs: self.jobs(),
            memory: self.memory_status(),
            pools: self.pools.all().map(pool_status).into(),
        }
    }

    /// What the dashboard looks at each second, whether anybody watches or not.
    pub fn pulse(&self, tunnels: &[TunnelHandle]) -> Pulse {
        let (lan_bytes, wan_bytes) = self.carried();
        Pulse {
            lan_bytes,
            wan_bytes,
            integrity_failures: self.counters.integrity_failures.get()
                + self.histories.stats().damaged_pages,
            tunnels: tunnels
                .iter()
                .map(|tunnel| (tunnel.peer().to_string(), state_of(tunnel).to_owned()))
                .collect(),
        }
    }

    /// Bytes on the LAN and on the WAN, both ways, of all peers.
    fn carried(&self) -> (u64, u64) {
        let peers = self.counters.peers();
        peers.iter().fold((0, 0), |(lan, wan), (_, counters)| {
            (lan + both(&counters.lan), wan + both(&counters.wan))
        })
    }

    fn memory_status(&self) -> MemoryStatus {
        let snapshot = self.budget.snapshot();
        let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        MemoryStatus {
            used_bytes: bytes(snapshot.used_bytes.iter().sum()),
            budget_bytes: bytes(snapshot.total_bytes),
            resident_bytes: os::resident_memory_bytes(),
        }
    }

    /// Jobs that have an owner, and verifications that have ended.
    fn jobs(&self) -> Vec<JobStatus> {
        let mut jobs: Vec<JobStatus> = self
            .pools
            .all()
            .iter()
            .flat_map(|pool| pool.jobs())
            .map(|job| JobStatus {
                token: job.token.to_string(),
                who: job.name.who.into_owned(),
                why: job.name.why.to_owned(),
                state: job.state.label().to_owned(),
                ..JobStatus::default()
            })
            .collect();
        for verification in self.histories.verifications() {
            let token = verification.token.to_string();
            let index = jobs
                .iter()
                .position(|job| job.token == token && job.why == "verify")
                .unwrap_or_else(|| {
                    jobs.push(JobStatus {
                        token,
                        who: "histories".to_owned(),
                        why: "verify".to_owned(),
                        // Between its last step and the note of its end.
                        state: JobState::Running.label().to_owned(),
                        ..JobStatus::default()
                    });
                    jobs.len() - 1
                });
            let Some(job) = jobs.get_mut(index) else {
                continue;
            };
            if let Some(ended) = verification.ended {
                job.state = ended.label().to_owned();
            }
            job.total_bytes = Some(verification.found.total_bytes);
            job.done_bytes = Some(verification.found.done_bytes);
            job.damaged_pages = Some(verification.found.damaged_pages);
        }
        jobs
    }

    fn tunnel_status(&self, tunnel: &TunnelHandle, codecs: &Sums) -> TunnelStatus {
        let counters = self.counters.peer(tunnel.peer());
        let bytes = codecs.get(tunnel.peer()).copied().unwrap_or_default();
        let link = |link: tunnel::handle::LinkStatus| LinkStatus {
            // An IPv4 client of a socket for both families shows as IPv4.
            address: SocketAddr::new(link.address.ip().to_canonical(), link.address.port())
                .to_string(),
            rtt_ms: rtt_seconds(link.counters.rtt_us()).map(|seconds| seconds * 1000.0),
            sent_bytes: link.counters.sent_bytes(),
            received_bytes: link.counters.received_bytes(),
        };
        TunnelStatus {
            peer: tunnel.peer().to_string(),
            state: state_of(tunnel).to_owned(),
            links: tunnel.links().into_iter().map(link).collect(),
            resumes: tunnel.resumes(),
            lan_bytes: both(&counters.lan),
            wan_bytes: both(&counters.wan),
            codec: bytes.sent,
            codec_received: bytes.received,
            ..TunnelStatus::default()
        }
    }
}

fn state_of(tunnel: &TunnelHandle) -> &'static str {
    if !tunnel.is_up() {
        "down"
    } else if tunnel.is_draining() {
        "draining"
    } else if tunnel.is_attached() {
        "up"
    } else {
        "detached"
    }
}

fn pool_status(pool: &Pool) -> PoolStatus {
    let snapshot = pool.snapshot();
    PoolStatus {
        name: snapshot.pool.to_owned(),
        threads: u64::try_from(snapshot.threads).unwrap_or(u64::MAX),
        running: snapshot.jobs_in(JobState::Running),
        queued: snapshot.jobs_in(JobState::Queued),
    }
}

fn both(directions: &Directions) -> u64 {
    directions.to_wan.get() + directions.from_wan.get()
}

/// Seconds of a round trip in microseconds, of which 0 means that none was measured.
pub(super) fn rtt_seconds(rtt_us: u64) -> Option<f64> {
    (rtt_us > 0).then(|| rtt_us as f64 / 1e6)
}

/// How bytes travelled, by name of a service or a peer.
type Sums = BTreeMap<Arc<str>, Travelled>;

/// How bytes travelled, each way.
#[derive(Clone, Copy, Default)]
struct Travelled {
    sent: CodecBytes,
    received: CodecBytes,
}

impl Travelled {
    fn of(counters: &CodecCounters) -> Self {
        let bytes = |kinds: &Kinds| CodecBytes {
            copied: kinds.copied.get(),
            compressed: kinds.compressed.get(),
            raw: kinds.raw.get(),
        };
        Self {
            sent: bytes(&counters.sent),
            received: bytes(&counters.received),
        }
    }

    fn add(&mut self, other: Self) {
        let plus = |one: CodecBytes, other: CodecBytes| CodecBytes {
            copied: one.copied + other.copied,
            compressed: one.compressed + other.compressed,
            raw: one.raw + other.raw,
        };
        self.sent = plus(self.sent, other.sent);
        self.received = plus(self.received, other.received);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroUsize;

    use tokio::runtime::Handle;
    use tunnel::histories::{HistoriesConfig, Lean};
    use tunnel::pool::PoolsConfig;

    use super::*;

    /// Counters of an edge that has done nothing.
    pub(crate) fn sources() -> Sources {
        let one = NonZeroUsize::MIN;
        let config = PoolsConfig {
            codec_threads: one,
            crypto_threads: one,
            storage_threads: one,
            resolve_threads: one,
            queue: one,
        };
        Sources {
            edge: "client",
            name: "branch-1".to_owned(),
            version: "0.0.0",
            started: Instant::now(),
            counters: Arc::new(Registry::new()),
            pools: Arc::new(Pools::start(&Handle::current(), config)),
            budget: Arc::new(Budget::new(64 << 20)),
            histories: Arc::new(Histories::new(HistoriesConfig::in_memory(
                Lean::Receiving,
                1 << 20,
            ))),
            refusals: Refusals::default(),
            reload_success: AtomicBool::new(true),
            certificate_expiry_seconds: AtomicU64::new(0),
        }
    }

    #[tokio::test]
    async fn status_lists_own_services_first_and_those_of_peers_after() {
        let sources = sources();
        sources.counters.service("theirs").lan.from_wan.add(9);
        sources.counters.codec("theirs", "server").sent.raw.add(2);
        let codec = sources.counters.codec("theirs", "server");
        codec.received.copied.add(7);
        sources.counters.peer("server").lan.from_wan.add(100);
        sources.counters.peer("server").wan.from_wan.add(10);
        let own = [OwnService {
            name: "files".to_owned(),
            kind: "forward",
            bind: "127.0.0.1:1".to_owned(),
        }];
        let status = sources.status(&[], &own);
        let services: Vec<_> = status
            .services
            .iter()
            .map(|service| (&*service.name, &*service.kind, &*service.bind))
            .collect();
        assert_eq!(
            services,
            [
                ("files", "forward", "127.0.0.1:1"),
                ("theirs", "remote", "")
            ]
        );
        assert_eq!(
            status
                .services
                .get(1)
                .map(|service| service.lan_bytes_from_wan),
            Some(9)
        );
        assert_eq!(status.savings, Savings::new(100, 10));
        assert_eq!(
            status.codec,
            CodecBytes {
                raw: 2,
                ..CodecBytes::default()
            }
        );
        assert_eq!(status.codec_received.copied, 7);
        let theirs = status.services.last().map(|theirs| theirs.codec_received);
        assert_eq!(theirs, Some(status.codec_received));
        assert!(!status.has_tunnel());
    }
}
