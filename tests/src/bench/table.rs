//! The figures as tables: a line of the emulator each, a measure a row, a peer a column.

use super::metric::Metric;
use super::report::{NotRun, Report};
use super::sheet::{Medium, Sheet};

/// What stands where there is no figure.
pub(super) const NOT_RUN: &str = "not run";

/// Everything that was found, and what was not run.
pub(super) fn all(report: &Report, medium: Medium) -> String {
    let mut text = format!("{}\n", report.machine.text());
    for line in report.lines() {
        let peers = report.peers(line);
        let names = peers.iter().map(|peer| (*peer).to_owned());
        let mut sheet = Sheet::new(std::iter::once(String::new()).chain(names).collect(), 1);
        for metric in metrics(report, line) {
            let cells = peers.iter().map(|peer| cell(report, line, peer, metric));
            sheet.add(std::iter::once(label(metric)).chain(cells).collect());
        }
        text += &medium.title(line);
        text += &sheet.write(medium);
    }
    text + &medium.list("Not run", &sentences(&report.not_run))
}

/// Those of which there is any figure on that line.
fn metrics(report: &Report, line: &str) -> Vec<Metric> {
    let has = |metric: &Metric| {
        report
            .figures
            .iter()
            .any(|figure| figure.line == line && figure.metric == *metric)
    };
    Metric::ALL.into_iter().filter(has).collect()
}

fn label(metric: Metric) -> String {
    let form = metric.form();
    format!("{}, {}", form.label, form.unit)
}

fn cell(report: &Report, line: &str, peer: &str, metric: Metric) -> String {
    report
        .median(line, peer, metric)
        .map_or_else(|| NOT_RUN.to_owned(), number)
}

/// Three digits that say something.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Peers of each line.
type Places<'a> = Vec<(&'a str, Vec<&'a str>)>;

/// One for each measure and reason, with everything that it holds for.
fn sentences(left_out: &[NotRun]) -> Vec<String> {
    let mut groups: Vec<(&NotRun, Places<'_>)> = Vec::new();
    for one in left_out {
        let known = groups
            .iter()
            .position(|(first, _)| first.measure == one.measure && first.why == one.why);
        let place = known.unwrap_or(groups.len());
        if known.is_none() {
            groups.push((one, Vec::new()));
        }
        let Some((_, lines)) = groups.get_mut(place) else {
            continue;
        };
        match lines.iter_mut().find(|(line, _)| *line == one.line) {
            Some((_, peers)) => peers.push(&one.peer),
            None => lines.push((&one.line, vec![&one.peer])),
        }
    }
    let sentence = |(first, lines): (&NotRun, Places<'_>)| {
        let measure = first.measure.as_deref().unwrap_or("all");
        let places = lines
            .into_iter()
            .map(|(line, peers)| format!("{line} ({})", peers.join(", ")));
        format!(
            "{measure}, {}: {}",
            first.why,
            places.collect::<Vec<_>>().join(", ")
        )
    };
    groups.into_iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_figure_is_not_run_and_says_why() {
        let mut report = Report::default();
        report.add("loopback", "wanproxy", Metric::RandomUp, 1234.5);
        report.add("loopback", "direct", Metric::PingP50, 0.0123);
        report.leave_out("loopback", "stunnel", None, "stunnel is not installed");
        let text = all(&report, Medium::Page);
        assert!(text.contains("| | wanproxy | direct | stunnel |"), "{text}");
        assert!(
            text.contains("| random, up, MB/s | 1234 | not run | not run |"),
            "{text}"
        );
        assert!(
            text.contains("| ping-pong p50, ms | not run | 0.012 | not run |"),
            "{text}"
        );
        assert!(
            text.contains("- all, stunnel is not installed: loopback (stunnel)"),
            "{text}"
        );
    }
}
