//! What the figures of a run were to be, and whether they are.

use super::metric::Metric;
use super::place::LineKind;
use super::report::Report;
use super::rival::{Rival, per_edge};
use super::sheet::{Medium, Sheet};
use super::table::{NOT_RUN, number};

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

const GOALS: [Goal; 15] = [
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
    goal(LineKind::Lossy, Metric::WarmUp, Bound::OfLine(20.0)),
    goal(LineKind::Lossy, Metric::WarmDown, Bound::OfLine(20.0)),
];

const fn goal(line: LineKind, metric: Metric, bound: Bound) -> Goal {
    Goal {
        line,
        metric,
        bound,
    }
}

/// Whether there is a goal on that line.
pub(super) fn are_on(line: LineKind) -> bool {
    GOALS.iter().any(|goal| goal.line == line)
}

/// A judged goal.
#[derive(Debug, PartialEq)]
struct Judged {
    verdict: &'static str,
    what: String,
    wanted: String,
    /// The figure, in that which the goal is given in; or whose figure is missing.
    ratio: String,
    /// The figure itself, and what it is held against.
    found: String,
}

impl Goal {
    fn judge(&self, report: &Report) -> Judged {
        let form = self.metric.form();
        let line = self.line.name();
        let figure = |rival: Rival| report.median(line, rival.name(), self.metric);
        let with_unit = |value: f64| format!("{} {}", number(value), form.unit);
        let sign = if form.more_is_better { "≥" } else { "≤" };
        // How much of what, what that is in this run, and who has to be run for it.
        let (times, unit, whole, who) = match self.bound {
            Bound::Value(value) => (1.0, "the goal", Some(value), Rival::Wanproxy),
            Bound::Times(times, rival) => (times, rival.name(), figure(rival), rival),
            Bound::OfLine(times) => {
                let rate = self.line.rate_bits_per_s();
                let whole = rate.map(|rate| rate as f64 / 8e6);
                (times, "the line", whole, Rival::Wanproxy)
            }
        };
        let wanted = match self.bound {
            Bound::Value(value) => format!("{sign} {}", with_unit(value)),
            Bound::Times(..) | Bound::OfLine(_) => format!("{sign} {times} × {unit}"),
        };
        let (verdict, ratio, found) = match (figure(Rival::Wanproxy), whole) {
            (Some(ours), Some(whole)) => {
                let bound = whole * times;
                let is_met = if form.more_is_better {
                    ours >= bound
                } else {
                    ours <= bound
                };
                let ratio = format!("{} × {unit}", number(ours / whole));
                let found = match self.bound {
                    Bound::Value(_) => with_unit(ours),
                    _ => format!("{}, {unit} {}", with_unit(ours), number(whole)),
                };
                (if is_met { "met" } else { "missed" }, ratio, found)
            }
            (None, _) => {
                let why = format!("no figure of {}", Rival::Wanproxy.name());
                (NOT_RUN, String::new(), why)
            }
            (Some(ours), None) => {
                let why = format!("{}, no figure of {}", with_unit(ours), who.name());
                (NOT_RUN, String::new(), why)
            }
        };
        Judged {
            verdict,
            what: format!("{line}: {}", form.label),
            wanted,
            ratio,
            found,
        }
    }
}

/// All goals, with what was found.
pub(super) fn all(report: &Report, medium: Medium) -> String {
    let head = ["what", "goal", "ratio", "found", "verdict"];
    let mut sheet = Sheet::new(head.map(str::to_owned).to_vec(), head.len());
    for goal in &GOALS {
        let judged = goal.judge(report);
        let verdict = judged.verdict.to_owned();
        sheet.add(vec![
            judged.what,
            judged.wanted,
            judged.ratio,
            judged.found,
            verdict,
        ]);
    }
    medium.title("Goals") + &sheet.write(medium)
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
        // What is missing is named.
        let goal = GOALS.iter().find(|goal| goal.metric == Metric::PingP50);
        let found = goal.map(|goal| goal.judge(&report).found);
        assert_eq!(found.as_deref(), Some("1.00 ms, no figure of stunnel"));
        let text = all(&report, Medium::Page);
        let row = "| loopback: connections | ≥ 8000 1/s | | no figure of wanproxy | not run |";
        assert!(text.contains(row), "{text}");
        report.add("loopback", "wanproxy", Metric::PingP99, 2.5);
        let text = all(&report, Medium::Page);
        let row = "| loopback: ping-pong p99 | ≤ 1.5 × stunnel | 1.25 × stunnel | 2.50 ms, stunnel 2.00 | met |";
        assert!(text.contains(row), "{text}");
        report.add(lossy, "wanproxy", Metric::RandomUp, 11.25);
        let goal = GOALS.iter().find(|goal| goal.line == LineKind::Lossy);
        assert_eq!(goal.map(|goal| goal.judge(&report).verdict), Some("met"));
    }
}
