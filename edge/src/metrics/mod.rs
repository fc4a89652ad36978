//! Metrics: families of samples, taken at each scrape from the counters of the parts, and their text.
//!
//! Nothing here is counted twice: a scrape reads the same atomics that the status page reads.

mod classic;
mod format;
mod refusals;
mod scrape;
mod sources;

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub use format::Format;
pub use refusals::Refusals;
#[cfg(test)]
pub(crate) use sources::tests::sources;
pub use sources::{OwnService, Sources};

use crate::os::ProcessStats;

/// Samples of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricKind,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
    CounterBesideGauge,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
    /// Counts by upper bound, not cumulative, of which the last bound is infinite; and the sum of all values.
    Distribution {
        /// (upper bound, values in this bucket).
        buckets: Vec<(f64, u64)>,
        /// The sum of all values.
        sum: f64,
    },
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl Family {
    /// A counter. `name` is without `_total`, which is appended.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: MetricKind::Counter,
            samples: Vec::new(),
        }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: MetricKind::Gauge,
            samples: Vec::new(),
        }
    }

    /// A histogram; its samples are [`Value::Distribution`].
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: MetricKind::Histogram,
            samples: Vec::new(),
        }
    }

    /// A counter whose name without `_total` is a gauge's. `name` is that name, too. OpenMetrics has one type for a base name, so there this one is of the
    /// whole name and of unknown type; whoever scrapes it sees the same samples in both formats.
    pub const fn counter_beside_gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: MetricKind::CounterBesideGauge,
            samples: Vec::new(),
        }
    }

    /// Adds a sample.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.samples.push(Sample {
            labels,
            value: value.into(),
        });
    }

    /// Adds a sample.
    #[must_use]
    pub fn with(mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) -> Self {
        self.push(labels, value);
        self
    }
}

/// The text of all families.
///
/// # Errors
/// Never in practice: writing to a string does not fail.
pub fn text(families: Vec<Family>, format: Format) -> Result<String, fmt::Error> {
    if format == Format::Classic {
        return classic::text(&families);
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// `process_*`, as Prometheus' own clients name them.
pub fn process_families(stats: &ProcessStats) -> Vec<Family> {
    let gauge = |name, help, value: Value| Family::gauge(name, help).with(&[], value);
    let mut families = vec![
        Family::counter("process_cpu_seconds", "User and system CPU time")
            .with(&[], stats.cpu_seconds),
        gauge(
            "process_open_fds",
            "Open descriptors",
            stats.open_fds.into(),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            stats.resident_memory_bytes.into(),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory",
            stats.virtual_memory_bytes.into(),
        ),
        gauge(
            "process_start_time_seconds",
            "Start of the process since the epoch",
            stats.start_time_seconds.into(),
        ),
        gauge("process_threads", "OS threads", stats.threads.into()),
    ];
    if let Some(max_fds) = stats.max_fds {
        families.push(gauge(
            "process_max_fds",
            "Limit on open descriptors",
            max_fds.into(),
        ));
    }
    families
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let name = Cow::Borrowed(family.name);
            let (name, metric_type) = match family.kind {
                MetricKind::Counter => (name, MetricType::Counter),
                MetricKind::Gauge => (name, MetricType::Gauge),
                MetricKind::Histogram => (name, MetricType::Histogram),
                MetricKind::CounterBesideGauge => (name + "_total", MetricType::Unknown),
            };
            let mut metric = encoder.encode_descriptor(&name, family.help, None, metric_type)?;
            for sample in &family.samples {
                if sample.labels.is_empty() {
                    sample.value.encode(family.kind, &mut metric)?;
                } else {
                    sample
                        .value
                        .encode(family.kind, &mut metric.encode_family(&sample.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, kind: MetricKind, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (MetricKind::Counter, Self::Whole(value)) => {
                metric.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (MetricKind::Counter, Self::Real(value)) => {
                metric.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            (MetricKind::Gauge | MetricKind::CounterBesideGauge, Self::Whole(value)) => {
                metric.encode_gauge(value)
            }
            (MetricKind::Gauge | MetricKind::CounterBesideGauge, Self::Real(value)) => {
                metric.encode_gauge(value)
            }
            (MetricKind::Histogram, Self::Distribution { buckets, sum }) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
            // A family is built with the values of its kind.
            _ => Err(fmt::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn families() -> Vec<Family> {
        vec![
            Family::counter("wanproxy_service_lan_bytes", "Plain bytes")
                .with(&[("service", "fi\"les"), ("direction", "to_wan")], 5u64)
                .with(&[("service", "b"), ("direction", "from_wan")], 0u64),
            Family::gauge("wanproxy_config_reload_success", "Last reload").with(&[], true),
            Family::gauge("wanproxy_link_rtt_seconds", "Round trip")
                .with(&[("peer", "a"), ("link", "0")], 0.25),
            Family::histogram("wanproxy_pool_wait_seconds", "Waits").with(
                &[("pool", "codec")],
                Value::Distribution {
                    buckets: vec![(0.5, 2), (f64::INFINITY, 1)],
                    sum: 3.5,
                },
            ),
            Family::counter_beside_gauge("wanproxy_pool_jobs", "Jobs that ended")
                .with(&[("pool", "codec")], 4u64),
            Family::gauge("wanproxy_pool_jobs", "Jobs").with(&[("pool", "codec")], 1u64),
            Family::counter("wanproxy_empty", "Nothing yet"),
        ]
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let expected = "\
# HELP wanproxy_service_lan_bytes Plain bytes
# TYPE wanproxy_service_lan_bytes counter
wanproxy_service_lan_bytes_total{service=\"fi\\\"les\",direction=\"to_wan\"} 5
wanproxy_service_lan_bytes_total{service=\"b\",direction=\"from_wan\"} 0
# HELP wanproxy_config_reload_success Last reload
# TYPE wanproxy_config_reload_success gauge
wanproxy_config_reload_success 1
# HELP wanproxy_link_rtt_seconds Round trip
# TYPE wanproxy_link_rtt_seconds gauge
wanproxy_link_rtt_seconds{peer=\"a\",link=\"0\"} 0.25
# HELP wanproxy_pool_wait_seconds Waits
# TYPE wanproxy_pool_wait_seconds histogram
wanproxy_pool_wait_seconds_sum{pool=\"codec\"} 3.5
wanproxy_pool_wait_seconds_count{pool=\"codec\"} 3
wanproxy_pool_wait_seconds_bucket{le=\"0.5\",pool=\"codec\"} 2
wanproxy_pool_wait_seconds_bucket{le=\"+Inf\",pool=\"codec\"} 3
# HELP wanproxy_pool_jobs_total Jobs that ended
# TYPE wanproxy_pool_jobs_total unknown
wanproxy_pool_jobs_total{pool=\"codec\"} 4
# HELP wanproxy_pool_jobs Jobs
# TYPE wanproxy_pool_jobs gauge
wanproxy_pool_jobs{pool=\"codec\"} 1
# HELP wanproxy_empty Nothing yet
# TYPE wanproxy_empty counter
# EOF
";
        assert_eq!(text(families(), Format::OpenMetrics).unwrap(), expected);
        let expected = "\
# HELP wanproxy_service_lan_bytes_total Plain bytes
# TYPE wanproxy_service_lan_bytes_total counter
wanproxy_service_lan_bytes_total{service=\"fi\\\"les\",direction=\"to_wan\"} 5
wanproxy_service_lan_bytes_total{service=\"b\",direction=\"from_wan\"} 0
# HELP wanproxy_config_reload_success Last reload
# TYPE wanproxy_config_reload_success gauge
wanproxy_config_reload_success 1
# HELP wanproxy_link_rtt_seconds Round trip
# TYPE wanproxy_link_rtt_seconds gauge
wanproxy_link_rtt_seconds{peer=\"a\",link=\"0\"} 0.25
# HELP wanproxy_pool_wait_seconds Waits
# TYPE wanproxy_pool_wait_seconds histogram
wanproxy_pool_wait_seconds_bucket{pool=\"codec\",le=\"0.5\"} 2
wanproxy_pool_wait_seconds_bucket{pool=\"codec\",le=\"+Inf\"} 3
wanproxy_pool_wait_seconds_sum{pool=\"codec\"} 3.5
wanproxy_pool_wait_seconds_count{pool=\"codec\"} 3
# HELP wanproxy_pool_jobs_total Jobs that ended
# TYPE wanproxy_pool_jobs_total counter
wanproxy_pool_jobs_total{pool=\"codec\"} 4
# HELP wanproxy_pool_jobs Jobs
# TYPE wanproxy_pool_jobs gauge
wanproxy_pool_jobs{pool=\"codec\"} 1
# HELP wanproxy_empty_total Nothing yet
# TYPE wanproxy_empty_total counter
";
        assert_eq!(text(families(), Format::Classic).unwrap(), expected);
    }

    #[test]
    fn what_is_in_no_format_of_numbers_and_lines_is_escaped() {
        let families = vec![
            Family::gauge("a", "\\ and\nline")
                .with(&[("path", "\\\"\n")], f64::NEG_INFINITY)
                .with(&[], f64::NAN),
        ];
        let expected =
            "# HELP a \\\\ and\\nline\n# TYPE a gauge\na{path=\"\\\\\\\"\\n\"} -Inf\na NaN\n";
        assert_eq!(text(families, Format::Classic).unwrap(), expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_tells_about_itself() {
        let families = process_families(&crate::os::process_stats().unwrap());
        let text = text(families, Format::Classic).unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name}: {text}");
        }
    }
}
