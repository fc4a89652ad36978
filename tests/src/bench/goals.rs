//! What the figures of a run were to be, and whether they are.

use std::fmt::Write;

use super::metric::Metric;
use super::place::LineKind;
use super::report::Report;
use super::rival::{Rival, per_edge};
use super::table::number;

/// What a figure of ours is held against.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// So much.
    Value(f64),
    /// So many times a peer's figure of the same run.
    Times(f64, Rival),
    /// So many times the rate of the line.
    OfLine(f64),
}

struct Goal {
    line: LineKind,
    metric: Metric,
    bound: Bound,
}

const GOALS: [Goal; 14] = [
    goal(
        LineKind::Loopback,
        Metric::RandomUp,
        Bound::Times(1.0, Rival::Stunnel),
    ),
    goal(
        LineKind::Loopback,
        Metric::RandomDown,
        Bound::Times(1.0, Rival::Stunnel),
    ),
    goal(
        LineKind::Loopback,
        Metric::ColdUp,
        Bound::Times(8.0, Rival::Ssh),
    ),
    goal(
        LineKind::Loopback,
        Metric::ColdDown,
        Bound::Times(8.0, Rival::Ssh),
    ),
    goal(LineKind::Loopback, Metric::WarmUp, Bound::Value(1000.0)),
    goal(LineKind::Loopback, Metric::WarmDown, Bound::Value(1000.0)),
    goal(
        LineKind::Loopback,
        Metric::PingP50,
        Bound::Times(1.0, Rival::Stunnel),
    ),
    goal(
        LineKind::Loopback,
        Metric::PingP99,
        Bound::Times(1.5, Rival::Stunnel),
    ),
    goal(
        LineKind::Loopback,
        Metric::Connections,
        Bound::Value(8000.0),
    ),
    goal(
        LineKind::Loopback,
        Metric::IdleMemory,
        Bound::Value(per_edge(16.0)),
    ),
    goal(
        LineKind::Loopback,
        Metric::CrowdMemory,
        Bound::Value(per_edge(16.0)),
    ),
    goal(LineKind::Lossy, Metric::RandomUp, Bound::OfLine(0.9)),
    goal(LineKind::Lossy, Metric::RandomDown, Bound::OfLine(0.9)),
    goal(LineKind::Lossy, Metric::WarmDown, Bound::OfLine(20.0)),
];

const fn goal(line: LineKind, metric: Metric, bound: Bound) -> Goal {
    Goal {
        line,
        metric,
        bound,
    }
}

/// A judged goal.
#[derive(Debug, PartialEq)]
struct Judged {
    what: String,
    wanted: String,
    found: String,
    verdict: &'static str,
}

impl Goal {
    fn judge(&self, report: &Report) -> Judged {
        let line = self.line.name();
        let form = self.metric.form();
        let bound = match self.bound {
            Bound::Value(value) => Some(value),
            Bound::Times(times, rival) => report
                .median(line, rival.name(), self.metric)
                .map(|value| value * times),
            Bound::OfLine(times) => self
                .line
                .rate_bits_per_s()
                .map(|rate| rate as f64 / 8e6 * times),
        };
        let sign = if form.more_is_better { "≥" } else { "≤" };
        let wanted = match self.bound {
            Bound::Value(value) => format!("{sign} {} {}", number(value), form.unit),
            Bound::Times(times, rival) => format!("{sign} {times} × {}", rival.name()),
            Bound::OfLine(times) => format!("{sign} {times} × the line"),
        };
        let ours = report.median(line, Rival::Wanproxy.name(), self.metric);
        let (found, verdict) = match (ours, bound) {
            (Some(ours), Some(bound)) => {
                let is_met = if form.more_is_better {
                    ours >= bound
                } else {
                    ours <= bound
                };
                let found = match self.bound {
                    Bound::Value(_) => format!("{} {}", number(ours), form.unit),
                    Bound::Times(times, _) | Bound::OfLine(times) => {
                        format!(
                            "{} × ({} {})",
                            number(ours / bound * times),
                            number(ours),
                            form.unit
                        )
                    }
                };
                (found, if is_met { "met" } else { "missed" })
            }
            _ => (String::new(), "not run"),
        };
        Judged {
            what: format!("{line}: {}", form.label),
            wanted,
            found,
            verdict,
        }
    }
}

/// For a terminal.
pub(super) fn text(report: &Report) -> String {
    let mut text = "\nGoals\n".to_owned();
    for goal in &GOALS {
        let Judged {
            what,
            wanted,
            found,
            verdict,
        } = goal.judge(report);
        let _ = writeln!(text, "  {verdict:8} {what:52} {wanted:22} {found}");
    }
    text
}

/// For a page of documentation.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = "\n### Goals\n\n| what | goal | found | |\n|---|---|---|---|\n".to_owned();
    for goal in &GOALS {
        let Judged {
            what,
            wanted,
            found,
            verdict,
        } = goal.judge(report);
        let _ = writeln!(text, "| {what} | {wanted} | {found} | {verdict} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_each_kind_of_bound() {
        let mut report = Report::default();
        let lossy = LineKind::Lossy.name();
        report.add("loopback", "stunnel", Metric::PingP99, 2.0);
        for (metric, value, verdict) in [
            (Metric::PingP99, 3.0, "met"),
            (Metric::PingP99, 3.1, "missed"),
            (Metric::Connections, 8000.0, "met"),
            (Metric::Connections, 7999.0, "missed"),
            (Metric::PingP50, 1.0, "not run"),
        ] {
            report.figures.retain(|figure| figure.peer != "wanproxy");
            report.add("loopback", "wanproxy", metric, value);
            let goal = GOALS.iter().find(|goal| goal.metric == metric);
            assert_eq!(
                goal.map(|goal| goal.judge(&report).verdict),
                Some(verdict),
                "{metric:?}"
            );
        }
        report.add(lossy, "wanproxy", Metric::RandomUp, 11.25);
        let goal = GOALS.iter().find(|goal| goal.line == LineKind::Lossy);
        assert_eq!(goal.map(|goal| goal.judge(&report).verdict), Some("met"));
    }
}
