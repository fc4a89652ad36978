//! Where the figures of an edge come from: one set of counters behind both `/metrics` and `/api/status`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tunnel::budget::{Budget, Use};
use tunnel::handle::TunnelHandle;
use tunnel::histories::Histories;
use tunnel::metrics::{CodecCounters, Directions, Registry, StreamResult, refuse_label};
use tunnel::pool::{JobState, PoolSnapshot, Pools, WAIT_BOUNDS_SECONDS};

use super::{Family, Refusals, Value, process_families};
use crate::admin::{
    CodecBytes, HistoryStatus, LinkStatus, Savings, ServiceStatus, Status, TunnelStatus,
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

const TO_WAN: &str = "to_wan";
const FROM_WAN: &str = "from_wan";

impl Sources {
    /// Notes when the certificate ends.
    pub fn set_certificate_expiry(&self, not_after: SystemTime) {
        let seconds = not_after
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.certificate_expiry_seconds
            .store(seconds, Ordering::Relaxed);
    }

    /// Everything for `/metrics`.
    pub fn families(&self, tunnels: &[TunnelHandle]) -> Vec<Family> {
        let mut families = self.traffic();
        families.extend(self.tunnels(tunnels));
        families.extend(self.memory());
        families.extend(pool_families(&self.pools.all().map(|pool| pool.snapshot())));
        families.push(
            Family::gauge(
                "wanproxy_config_reload_success",
                "1 when the last reload worked",
            )
            .with(&[], self.reload_success.load(Ordering::Relaxed)),
        );
        families.push(
            Family::gauge(
                "wanproxy_certificate_expiry_timestamp_seconds",
                "When this edge's certificate ends",
            )
            .with(&[], self.certificate_expiry_seconds.load(Ordering::Relaxed)),
        );
        families.push(
            Family::gauge("wanproxy_build_info", "The program's version")
                .with(&[("version", self.version)], 1),
        );
        families.extend(os::process_stats().iter().flat_map(process_families));
        families
    }

    fn traffic(&self) -> Vec<Family> {
        let mut service_lan = Family::counter(
            "wanproxy_service_lan_bytes",
            "Plain bytes of a service's streams",
        );
        let mut service_wan = Family::counter(
            "wanproxy_service_wan_bytes",
            "Bytes of the frames of a service's streams",
        );
        let mut open = Family::gauge("wanproxy_streams_open", "Streams open now");
        let mut streams = Family::counter("wanproxy_streams", "Streams that have ended");
        for (service, counters) in self.counters.services() {
            directions(&mut service_lan, ("service", &service), &counters.lan);
            directions(&mut service_wan, ("service", &service), &counters.wan);
            open.push(&[("service", &service)], counters.streams_open.get());
            for result in StreamResult::ALL {
                streams.push(
                    &[("service", &service), ("result", result.label())],
                    counters.streams(result),
                );
            }
        }
        let mut peer_lan =
            Family::counter("wanproxy_peer_lan_bytes", "Plain bytes of a peer's streams");
        let mut peer_wan = Family::counter(
            "wanproxy_peer_wan_bytes",
            "Bytes written to and read from a peer's TCP connections",
        );
        let mut resumes =
            Family::counter("wanproxy_tunnel_resumes", "Times that a tunnel was resumed");
        for (peer, counters) in self.counters.peers() {
            directions(&mut peer_lan, ("peer", &peer), &counters.lan);
            directions(&mut peer_wan, ("peer", &peer), &counters.wan);
            resumes.push(&[("peer", &peer)], counters.resumes.get());
        }
        let mut codec = Family::counter(
            "wanproxy_codec_bytes",
            "Plain bytes sent, by what the codec made of them",
        );
        for (service, peer, counters) in self.counters.codecs() {
            for (kind, count) in [
                ("copied", &counters.copied),
                ("compressed", &counters.compressed),
                ("raw", &counters.raw),
            ] {
                codec.push(
                    &[("service", &service), ("peer", &peer), ("kind", kind)],
                    count.get(),
                );
            }
        }
        let mut refused = Family::counter(
            "wanproxy_refused_blocks",
            "Blocks that could not be decoded and were sent again",
        );
        for (reason, count) in self.counters.refused() {
            refused.push(&[("reason", refuse_label(reason))], count);
        }
        let failures = Family::counter(
            "wanproxy_integrity_failures",
            "Blocks whose checksum was wrong",
        )
        .with(&[], self.counters.integrity_failures.get());
        let mut refusals = Family::counter(
            "wanproxy_policy_refusals",
            "Streams refused by policy or limits",
        );
        for (reason, count) in self.refusals.counts() {
            refusals.push(&[("reason", reason)], count);
        }
        vec![
            service_lan,
            service_wan,
            open,
            streams,
            peer_lan,
            peer_wan,
            resumes,
            codec,
            refused,
            failures,
            refusals,
        ]
    }

    fn tunnels(&self, tunnels: &[TunnelHandle]) -> Vec<Family> {
        let mut up = Family::gauge("wanproxy_tunnel_up", "1 while a tunnel with the peer is up");
        let mut rtt = Family::gauge("wanproxy_link_rtt_seconds", "Smoothed round trip of a link");
        let mut history = Family::gauge("wanproxy_history_bytes", "Bytes held in histories");
        for (peer, _) in self.counters.peers() {
            let of_peer: Vec<&TunnelHandle> = tunnels
                .iter()
                .filter(|tunnel| tunnel.is_up() && *tunnel.peer() == peer)
                .collect();
            up.push(&[("peer", &peer)], !of_peer.is_empty());
            for (index, link) in of_peer.iter().flat_map(|tunnel| tunnel.links()).enumerate() {
                if let Some(seconds) = rtt_seconds(link.counters.rtt_us()) {
                    rtt.push(&[("peer", &peer), ("link", &index.to_string())], seconds);
                }
            }
            let (own, mirror) = self.histories.peer_bytes(&peer);
            history.push(&[("peer", &peer), ("kind", "own")], own);
            history.push(&[("peer", &peer), ("kind", "mirror")], mirror);
        }
        vec![up, rtt, history]
    }

    fn memory(&self) -> Vec<Family> {
        let snapshot = self.budget.snapshot();
        let mut memory = Family::gauge("wanproxy_memory_bytes", "Memory in use, by what for");
        for usage in Use::ALL {
            memory.push(
                &[("use", usage.label())],
                u64::try_from(snapshot.used_for(usage)).unwrap_or(u64::MAX),
            );
        }
        let capacity = Family::gauge("wanproxy_history_capacity_bytes", "Bound on all histories")
            .with(&[], self.histories.stats().capacity_bytes);
        vec![memory, capacity]
    }

    /// Everything for `/api/status`. `own` are the services that this edge listens for; those of peers follow them.
    pub fn status(&self, tunnels: &[TunnelHandle], own: &[OwnService]) -> Status {
        let by_service = sum_codecs(
            self.counters
                .codecs()
                .into_iter()
                .map(|(service, _, counters)| (service, counters)),
        );
        let by_peer = sum_codecs(
            self.counters
                .codecs()
                .into_iter()
                .map(|(_, peer, counters)| (peer, counters)),
        );
        let mut services: Vec<ServiceStatus> = Vec::new();
        for OwnService { name, kind, bind } in own {
            services.push(ServiceStatus {
                name: name.clone(),
                kind: (*kind).to_owned(),
                bind: bind.clone(),
                ..ServiceStatus::default()
            });
        }
        for (name, counters) in self.counters.services() {
            let index = services
                .iter()
                .position(|service| *service.name == *name)
                .unwrap_or_else(|| {
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
            service.total = StreamResult::ALL
                .iter()
                .map(|result| counters.streams(*result))
                .sum::<u64>()
                + service.open;
            service.lan_bytes_to_wan = counters.lan.to_wan.get();
            service.lan_bytes_from_wan = counters.lan.from_wan.get();
            service.wan_bytes_to_wan = counters.wan.to_wan.get();
            service.wan_bytes_from_wan = counters.wan.from_wan.get();
            service.codec = by_service.get(&name).copied().unwrap_or_default();
        }
        let (mut lan_bytes, mut wan_bytes) = (0, 0);
        for (_, counters) in self.counters.peers() {
            lan_bytes += both(&counters.lan);
            wan_bytes += both(&counters.wan);
        }
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
            codec: by_peer.values().copied().fold(CodecBytes::default(), plus),
            history: HistoryStatus {
                bytes: stats.own_bytes + stats.mirror_bytes,
                capacity_bytes: stats.capacity_bytes,
                index_bytes: stats.index_bytes,
                hit_rate: (stats.lookups > 0).then(|| stats.hits as f64 / stats.lookups as f64),
            },
            // No job of this version outlives its stream.
            jobs: Vec::new(),
        }
    }

    fn tunnel_status(
        &self,
        tunnel: &TunnelHandle,
        codecs: &BTreeMap<Arc<str>, CodecBytes>,
    ) -> TunnelStatus {
        let counters = self.counters.peer(tunnel.peer());
        let state = match (tunnel.is_up(), tunnel.is_draining()) {
            (false, _) => "down",
            (true, true) => "draining",
            (true, false) => "up",
        };
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
            state: state.to_owned(),
            links: tunnel.links().into_iter().map(link).collect(),
            resumes: counters.resumes.get(),
            lan_bytes: both(&counters.lan),
            wan_bytes: both(&counters.wan),
            codec: codecs.get(tunnel.peer()).copied().unwrap_or_default(),
        }
    }
}

fn directions(family: &mut Family, label: (&'static str, &str), directions: &Directions) {
    family.push(&[label, ("direction", TO_WAN)], directions.to_wan.get());
    family.push(&[label, ("direction", FROM_WAN)], directions.from_wan.get());
}

fn both(directions: &Directions) -> u64 {
    directions.to_wan.get() + directions.from_wan.get()
}

/// Seconds of a round trip in microseconds, of which 0 means that none was measured.
fn rtt_seconds(rtt_us: u64) -> Option<f64> {
    (rtt_us > 0).then(|| rtt_us as f64 / 1e6)
}

fn plus(one: CodecBytes, other: CodecBytes) -> CodecBytes {
    CodecBytes {
        copied: one.copied + other.copied,
        compressed: one.compressed + other.compressed,
        raw: one.raw + other.raw,
    }
}

fn sum_codecs(
    counters: impl Iterator<Item = (Arc<str>, Arc<CodecCounters>)>,
) -> BTreeMap<Arc<str>, CodecBytes> {
    let mut sums: BTreeMap<Arc<str>, CodecBytes> = BTreeMap::new();
    for (name, counters) in counters {
        let bytes = CodecBytes {
            copied: counters.copied.get(),
            compressed: counters.compressed.get(),
            raw: counters.raw.get(),
        };
        let sum = sums.entry(name).or_default();
        *sum = plus(*sum, bytes);
    }
    sums
}

fn pool_families(pools: &[PoolSnapshot]) -> Vec<Family> {
    let mut ended = Family::untyped("wanproxy_pool_jobs_total", "Jobs that have ended");
    let mut jobs = Family::gauge("wanproxy_pool_jobs", "Jobs by state");
    let mut waits = Family::histogram(
        "wanproxy_pool_wait_seconds",
        "How long jobs waited for their first thread",
    );
    for pool in pools {
        for (result, count) in [
            ("finished", pool.finished_total),
            ("stopped", pool.stopped_total),
            ("panicked", pool.panicked_total),
        ] {
            ended.push(&[("pool", pool.pool), ("result", result)], count);
        }
        for state in JobState::ALL {
            jobs.push(
                &[("pool", pool.pool), ("state", state.label())],
                pool.jobs_in(state),
            );
        }
        let bounds = WAIT_BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
        let buckets = bounds.zip(pool.wait.counts).collect();
        waits.push(
            &[("pool", pool.pool)],
            Value::Distribution {
                buckets,
                sum: pool.wait.sum_seconds,
            },
        );
    }
    vec![ended, jobs, waits]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::num::NonZeroUsize;

    use tokio::runtime::Handle;
    use tunnel::histories::Lean;
    use tunnel::pool::PoolsConfig;

    use super::*;

    fn sources() -> Sources {
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
            histories: Arc::new(Histories::new(1 << 20, Lean::Receiving)),
            refusals: Refusals::default(),
            reload_success: AtomicBool::new(true),
            certificate_expiry_seconds: AtomicU64::new(0),
        }
    }

    #[tokio::test]
    async fn every_metric_of_the_contract_is_there() {
        let sources = sources();
        sources.counters.service("files").lan.to_wan.add(5);
        sources.counters.peer("server").wan.from_wan.add(7);
        sources.counters.codec("files", "server").copied.add(3);
        sources.refusals.count("loopback");
        sources.set_certificate_expiry(UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000));
        let text = super::super::text(sources.families(&[])).unwrap();
        for line in [
            "wanproxy_service_lan_bytes_total{service=\"files\",direction=\"to_wan\"} 5",
            "wanproxy_service_wan_bytes_total{service=\"files\",direction=\"from_wan\"} 0",
            "wanproxy_peer_lan_bytes_total{peer=\"server\",direction=\"to_wan\"} 0",
            "wanproxy_peer_wan_bytes_total{peer=\"server\",direction=\"from_wan\"} 7",
            "wanproxy_codec_bytes_total{service=\"files\",peer=\"server\",kind=\"copied\"} 3",
            "wanproxy_refused_blocks_total{reason=\"damaged\"} 0",
            "wanproxy_streams_total{service=\"files\",result=\"completed\"} 0",
            "wanproxy_tunnel_resumes_total{peer=\"server\"} 0",
            "wanproxy_integrity_failures_total 0",
            "wanproxy_policy_refusals_total{reason=\"loopback\"} 1",
            "wanproxy_pool_jobs_total{pool=\"codec\",result=\"finished\"} 0",
            "wanproxy_streams_open{service=\"files\"} 0",
            "wanproxy_tunnel_up{peer=\"server\"} 0",
            "wanproxy_history_bytes{peer=\"server\",kind=\"own\"} 0",
            "wanproxy_history_capacity_bytes 1048576",
            "wanproxy_pool_jobs{pool=\"codec\",state=\"running\"} 0",
            "wanproxy_memory_bytes{use=\"credit\"} 0",
            "wanproxy_config_reload_success 1",
            "wanproxy_certificate_expiry_timestamp_seconds 1800000000",
            "wanproxy_build_info{version=\"0.0.0\"} 1",
            "wanproxy_pool_wait_seconds_bucket{le=\"+Inf\",pool=\"codec\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("# TYPE wanproxy_link_rtt_seconds gauge"));
    }

    #[tokio::test]
    async fn status_lists_own_services_first_and_those_of_peers_after() {
        let sources = sources();
        sources.counters.service("theirs").lan.from_wan.add(9);
        sources.counters.codec("theirs", "server").raw.add(2);
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
        assert!(!status.has_tunnel());
    }
}
