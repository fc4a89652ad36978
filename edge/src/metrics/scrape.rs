//! Everything that `/metrics` says, read from the counters at each scrape.

use std::sync::atomic::Ordering;

use tunnel::budget::Use;
use tunnel::handle::TunnelHandle;
use tunnel::metrics::{Directions, StreamResult, refuse_label};
use tunnel::pool::{JobState, PoolSnapshot, WAIT_BOUNDS_SECONDS};

use super::sources::rtt_seconds;
use super::{Family, Sources, Value, process_families};
use crate::os;

const TO_WAN: &str = "to_wan";
const FROM_WAN: &str = "from_wan";

impl Sources {
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
                ("copied", &counters.sent.copied),
                ("compressed", &counters.sent.compressed),
                ("raw", &counters.sent.raw),
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
        let damaged = self.counters.integrity_failures.get() + self.histories.stats().damaged_pages;
        let failures = Family::counter(
            "wanproxy_integrity_failures",
            "Blocks and pages of histories whose checksum was wrong",
        )
        .with(&[], damaged);
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
                .filter(|tunnel| tunnel.is_attached() && *tunnel.peer() == peer)
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
        let stats = self.histories.stats();
        let mut memory = Family::gauge("wanproxy_memory_bytes", "Memory in use, by what for");
        for usage in Use::ALL {
            // Histories have room of their own beside the budget of streams.
            let bytes = match usage {
                Use::History => stats.memory_bytes,
                Use::Index => stats.index_bytes,
                _ => u64::try_from(snapshot.used_for(usage)).unwrap_or(u64::MAX),
            };
            memory.push(&[("use", usage.label())], bytes);
        }
        let capacity = Family::gauge("wanproxy_history_capacity_bytes", "Bound on all histories")
            .with(&[], stats.capacity_bytes);
        vec![memory, capacity]
    }
}

fn directions(family: &mut Family, label: (&'static str, &str), directions: &Directions) {
    family.push(&[label, ("direction", TO_WAN)], directions.to_wan.get());
    family.push(&[label, ("direction", FROM_WAN)], directions.from_wan.get());
}

fn pool_families(pools: &[PoolSnapshot]) -> Vec<Family> {
    let mut ended = Family::counter_beside_gauge("wanproxy_pool_jobs", "Jobs that have ended");
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::Format;
    use super::super::sources::tests::sources;

    #[tokio::test]
    async fn every_metric_of_the_contract_is_there() {
        let sources = sources();
        sources.counters.service("files").lan.to_wan.add(5);
        sources.counters.peer("server").wan.from_wan.add(7);
        sources.counters.codec("files", "server").sent.copied.add(3);
        sources.refusals.count("loopback");
        sources.set_certificate_expiry(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let text = |format| super::super::text(sources.families(&[]), format).unwrap();
        let (classic, open_metrics) = (text(Format::Classic), text(Format::OpenMetrics));
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
            "wanproxy_pool_wait_seconds_count{pool=\"codec\"} 0",
        ] {
            for text in [&classic, &open_metrics] {
                assert!(text.lines().any(|found| found == line), "{line} in {text}");
            }
        }
        for text in [&classic, &open_metrics] {
            assert!(text.contains("# TYPE wanproxy_link_rtt_seconds gauge"));
        }
        // Samples that are counted keep their type wherever a format has one for them.
        assert!(classic.contains("# TYPE wanproxy_pool_jobs_total counter"));
        assert!(open_metrics.contains("# TYPE wanproxy_pool_jobs_total unknown"));
    }
}
