//! What a run found: figures, and what was not run. Tables, goals and charts are made of nothing else.

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::metric::Metric;

/// Why something was not run that would have been.
pub(super) const NO_TIME: &str = "it did not fit into the time";

/// A run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) figures: Vec<Figure>,
    pub(super) not_run: Vec<NotRun>,
}

/// One measurement, as often as it was taken.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) line: String,
    pub(super) peer: String,
    pub(super) metric: Metric,
    pub(super) unit: String,
    pub(super) values: Vec<f64>,
}

/// What was left out or failed, and why.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotRun {
    pub(super) line: String,
    pub(super) peer: String,
    /// All measures when none is named.
    pub(super) measure: Option<String>,
    pub(super) why: String,
}

impl Figure {
    /// The middle value; of an even number, the mean of both in the middle.
    pub(super) fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let upper = values.get(values.len() / 2).copied().unwrap_or_default();
        if values.len().is_multiple_of(2) {
            let lower = values
                .get((values.len() / 2).saturating_sub(1))
                .copied()
                .unwrap_or_default();
            f64::midpoint(lower, upper)
        } else {
            upper
        }
    }
}

impl Report {
    pub(super) fn add(&mut self, line: &str, peer: &str, metric: Metric, value: f64) {
        let known = self
            .figures
            .iter_mut()
            .find(|figure| figure.line == line && figure.peer == peer && figure.metric == metric);
        match known {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure {
                line: line.to_owned(),
                peer: peer.to_owned(),
                metric,
                unit: metric.form().unit.to_owned(),
                values: vec![value],
            }),
        }
    }

    pub(super) fn leave_out(&mut self, line: &str, peer: &str, measure: Option<&str>, why: &str) {
        let left_out = NotRun {
            line: line.to_owned(),
            peer: peer.to_owned(),
            measure: measure.map(str::to_owned),
            why: why.to_owned(),
        };
        if !self.not_run.contains(&left_out) {
            self.not_run.push(left_out);
        }
    }

    /// Puts lines into this order.
    pub(super) fn sort(&mut self, lines: &[&str]) {
        let place = |name: &str| lines.iter().position(|line| *line == name);
        self.figures.sort_by_key(|figure| place(&figure.line));
        self.not_run.sort_by_key(|one| place(&one.line));
        // What was not run in one repetition and was in another is no news.
        let figures = &self.figures;
        self.not_run.retain(|one| {
            let is_figure_of = |figure: &Figure| {
                figure.line == one.line
                    && figure.peer == one.peer
                    && one.measure.as_deref() == Some(figure.metric.measure().name())
            };
            one.why != NO_TIME || !figures.iter().any(is_figure_of)
        });
    }

    pub(super) fn median(&self, line: &str, peer: &str, metric: Metric) -> Option<f64> {
        let mut figures = self.figures.iter();
        let found = figures
            .find(|figure| figure.line == line && figure.peer == peer && figure.metric == metric)?;
        Some(found.median())
    }

    /// Lines with figures, in the order in which they were run.
    pub(super) fn lines(&self) -> Vec<&str> {
        distinct(self.figures.iter().map(|figure| figure.line.as_str()))
    }

    /// Peers that were run or left out on that line.
    pub(super) fn peers(&self, line: &str) -> Vec<&str> {
        let run = self
            .figures
            .iter()
            .filter(|figure| figure.line == line)
            .map(|figure| figure.peer.as_str());
        let left_out = self
            .not_run
            .iter()
            .filter(|one| one.line == line)
            .map(|one| one.peer.as_str());
        distinct(run.chain(left_out))
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_numbers_of_values() {
        let mut report = Report::default();
        for value in [5.0, 1.0, 2.0] {
            report.add("l", "p", Metric::PingP50, value);
        }
        assert_eq!(report.median("l", "p", Metric::PingP50), Some(2.0));
        report.add("l", "p", Metric::PingP50, 3.0);
        assert_eq!(report.median("l", "p", Metric::PingP50), Some(2.5));
        assert_eq!(report.median("l", "q", Metric::PingP50), None);
    }

    #[test]
    fn lines_are_sorted_and_what_was_run_at_last_is_not_left_out() {
        let mut report = Report::default();
        report.leave_out("b", "p", Some("ping"), NO_TIME);
        report.leave_out("a", "p", Some("ping"), NO_TIME);
        report.leave_out("a", "p", Some("cold"), "failed");
        report.add("b", "p", Metric::PingP50, 1.0);
        report.add("a", "p", Metric::ColdUp, 1.0);
        report.sort(&["a", "b"]);
        assert_eq!(report.lines(), ["a", "b"]);
        let left = report
            .not_run
            .iter()
            .map(|one| (one.line.as_str(), one.why.as_str()));
        assert_eq!(left.collect::<Vec<_>>(), [("a", NO_TIME), ("a", "failed")]);
    }

    #[test]
    fn what_is_left_out_twice_for_one_reason_is_said_once() {
        let mut report = Report::default();
        for _ in 0..2 {
            report.leave_out("l", "p", None, "why");
        }
        assert_eq!(report.not_run.len(), 1);
        assert_eq!(report.peers("l"), ["p"]);
    }
}
