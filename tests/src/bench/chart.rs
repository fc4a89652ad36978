//! The figures as charts: which there are, and what each shows.

use super::bars::{Bars, Scale};
use super::metric::Metric;
use super::place::LineKind;
use super::report::Report;
use super::rival::Rival;

/// File names and SVG texts; those without a figure are left out.
pub(super) fn all(report: &Report) -> Vec<(String, String)> {
    let charts = [
        by_line(
            report,
            "tunnel-random",
            Metric::RandomDown,
            "Random bytes, down: MB/s (logarithmic)",
        ),
        by_line(
            report,
            "tunnel-software",
            Metric::ColdDown,
            "Software, down, not seen before: MB/s (logarithmic)",
        ),
        by_line(
            report,
            "tunnel-again",
            Metric::WarmDown,
            "The same software again, down: MB/s (logarithmic)",
        ),
        by_line(
            report,
            "tunnel-ping",
            Metric::PingP50,
            "Ping-pong, half are answered within: ms (logarithmic)",
        ),
        by_line(
            report,
            "tunnel-ping-loaded",
            Metric::LoadedPingP99,
            "Ping-pong beside a download, 99 of 100 are answered within: ms (logarithmic)",
        ),
        settings(
            report,
            "tunnel-settings",
            &[Metric::RandomDown, Metric::ColdDown, Metric::WarmDown],
            "Our own edges with other settings, loopback: MB/s",
        ),
        on_loopback(
            report,
            "tunnel-cpu",
            &[Metric::RandomCpu, Metric::ColdCpu, Metric::WarmCpu],
            "Processor time of both programs: seconds for each GB",
        ),
        on_loopback(
            report,
            "tunnel-connections",
            &[Metric::Connections],
            "Short connections: each second",
        ),
        on_loopback(
            report,
            "tunnel-memory",
            &[Metric::IdleMemory, Metric::CrowdMemory],
            "Memory of an idle stream, both programs: KiB",
        ),
    ];
    charts
        .into_iter()
        .filter_map(|(name, bars)| Some((format!("{name}.svg"), bars.draw()?)))
        .collect()
}

/// A group a line, a bar a peer.
fn by_line(report: &Report, name: &str, metric: Metric, title: &str) -> (String, Bars) {
    let lines = report.lines();
    let peers = peers(report, &lines);
    let groups = lines.iter().map(|line| {
        let values = peers.iter().map(|peer| report.median(line, peer, metric));
        ((*line).to_owned(), values.collect())
    });
    (
        name.to_owned(),
        bars(title, metric, &peers, groups.collect(), Scale::Logarithmic),
    )
}

/// A group a figure, a bar a peer.
fn on_loopback(report: &Report, name: &str, metrics: &[Metric], title: &str) -> (String, Bars) {
    let peers = peers(report, &[LineKind::Loopback.name()]);
    by_metric(report, name, metrics, title, &peers)
}

/// A group a figure, a bar a setting; empty if none was asked for.
fn settings(report: &Report, name: &str, metrics: &[Metric], title: &str) -> (String, Bars) {
    let peers = report.peers(LineKind::Loopback.name());
    let others = peers.into_iter().filter(|peer| is_setting(peer));
    let mut own: Vec<&str> = others.collect();
    if !own.is_empty() {
        own.insert(0, Rival::Wanproxy.name());
    }
    by_metric(report, name, metrics, title, &own)
}

fn by_metric(
    report: &Report,
    name: &str,
    metrics: &[Metric],
    title: &str,
    peers: &[&str],
) -> (String, Bars) {
    let line = LineKind::Loopback.name();
    let groups = metrics.iter().map(|metric| {
        let values = peers.iter().map(|peer| report.median(line, peer, *metric));
        (metric.form().label.to_owned(), values.collect())
    });
    let first = metrics.first().copied().unwrap_or(Metric::RandomCpu);
    (
        name.to_owned(),
        bars(title, first, peers, groups.collect(), Scale::Linear),
    )
}

fn bars(
    title: &str,
    metric: Metric,
    peers: &[&str],
    groups: Vec<(String, Vec<Option<f64>>)>,
    scale: Scale,
) -> Bars {
    let note = if metric.form().more_is_better {
        "Longer is better."
    } else {
        "Shorter is better."
    };
    Bars {
        title: title.to_owned(),
        note: note.to_owned(),
        series: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        groups,
        scale,
    }
}

fn is_setting(peer: &str) -> bool {
    Rival::SWEEP.iter().any(|setting| setting.name() == peer)
}

/// All that were compared, without other settings of our own edges.
fn peers<'a>(report: &'a Report, lines: &[&str]) -> Vec<&'a str> {
    let mut peers = Vec::new();
    for peer in lines.iter().flat_map(|line| report.peers(line)) {
        if !peers.contains(&peer) && !is_setting(peer) {
            peers.push(peer);
        }
    }
    peers
}
