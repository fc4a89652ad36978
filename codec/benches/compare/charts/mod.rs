//! Charts of a run: groups of horizontal bars, as SVG, readable on light and on dark pages.

mod bars;

use std::path::Path;

use bars::Chart;

use crate::bulk::{AS_CUT, BLOCK_BYTES};
use crate::messages::HALVES;
use crate::report::{Figure, Phase, Report, Suite, Who};
use crate::tables;

/// Writes all charts that the run has figures for into a directory.
///
/// # Errors
/// A file cannot be written.
pub fn write(report: &Report, directory: &Path) -> std::io::Result<Vec<&'static str>> {
    std::fs::create_dir_all(directory)?;
    let mut files = Vec::new();
    for mut chart in all(report) {
        chart
            .groups
            .retain(|(_, values)| values.iter().any(Option::is_some));
        if !chart.groups.is_empty() {
            svg::save(directory.join(chart.file), &chart.draw())?;
            files.push(chart.file);
        }
    }
    Ok(files)
}

fn all(report: &Report) -> Vec<Chart> {
    vec![
        phase(
            report,
            Phase::Cold,
            &[Who::Wanproxy, Who::Zstd1, Who::Zstd3, Who::FastCdc],
            "cold.svg",
            "Cold: plain bytes for each encoded byte",
            false,
        ),
        phase(
            report,
            Phase::Warm,
            &[Who::Wanproxy, Who::PatchFrom, Who::FastCdc],
            "warm.svg",
            "The same again: plain bytes for each encoded byte (logarithmic)",
            true,
        ),
        phase(
            report,
            Phase::Next,
            &[
                Who::Wanproxy,
                Who::PatchFrom,
                Who::Zstd3Long,
                Who::FastCdc,
                Who::Zstd1,
            ],
            "next.svg",
            "The next version: plain bytes for each encoded byte (logarithmic)",
            true,
        ),
        speed(report),
        blocks(report),
        messages(report),
        histories(report),
    ]
}

fn phase(
    report: &Report,
    phase: Phase,
    who: &[Who],
    file: &'static str,
    title: &'static str,
    logarithmic: bool,
) -> Chart {
    let ratio = |corpus: &str, who| Some(report.bulk(corpus, phase, who, AS_CUT)?.ratio());
    Chart {
        file,
        title,
        note: "Longer is better. Ours as the tunnel cuts them.",
        series: who.iter().map(|who| who.name().to_owned()).collect(),
        groups: report
            .corpora(Suite::Bulk)
            .into_iter()
            .map(|corpus| {
                (
                    corpus.to_owned(),
                    who.iter().map(|who| ratio(corpus, *who)).collect(),
                )
            })
            .collect(),
        logarithmic,
        digits: 1,
    }
}

/// Parts of zstd-1's speed, since only those mean something on another machine.
fn speed(report: &Report) -> Chart {
    let phases = [Phase::Cold, Phase::Warm, Phase::Next];
    let mut series: Vec<String> = phases
        .iter()
        .map(|phase| format!("wanproxy, {}", phase.name()))
        .collect();
    series.extend([Who::Zstd3, Who::FastCdc].map(|who| format!("{}, cold", who.name())));
    let groups = report
        .corpora(Suite::Bulk)
        .into_iter()
        .map(|corpus| {
            let rate = |phase, who| Some(report.bulk(corpus, phase, who, AS_CUT)?.encode_rate());
            let unit = rate(Phase::Cold, Who::Zstd1);
            let part = |phase, who| Some(rate(phase, who)? / unit?);
            let mut values: Vec<Option<f64>> = phases
                .iter()
                .map(|phase| part(*phase, Who::Wanproxy))
                .collect();
            values.extend([Who::Zstd3, Who::FastCdc].map(|who| part(Phase::Cold, who)));
            (corpus.to_owned(), values)
        })
        .collect();
    Chart {
        file: "speed.svg",
        title: "Encoding on one core, in parts of zstd-1's speed (logarithmic)",
        note: "Longer is better. zstd-1 is 1.",
        series,
        groups,
        logarithmic: true,
        digits: 2,
    }
}

fn blocks(report: &Report) -> Chart {
    let groups = report.corpora(Suite::Bulk).into_iter().map(|corpus| {
        let ratio = |bytes| {
            Some(
                report
                    .bulk(corpus, Phase::Next, Who::Wanproxy, bytes)?
                    .ratio(),
            )
        };
        (
            corpus.to_owned(),
            BLOCK_BYTES.iter().map(|bytes| ratio(*bytes)).collect(),
        )
    });
    Chart {
        file: "blocks.svg",
        title: "The next version in blocks of five sizes: plain bytes for each encoded byte (logarithmic)",
        note: "Longer is better.",
        series: BLOCK_BYTES
            .map(|bytes| format!("{} KiB", bytes >> 10))
            .to_vec(),
        groups: groups.collect(),
        logarithmic: true,
        digits: 1,
    }
}

fn messages(report: &Report) -> Chart {
    let who = [Who::Wanproxy, Who::Zstd1Alone, Who::Zstd1, Who::FastCdc];
    let groups = HALVES.map(|half| {
        let ratio = |who| {
            let found = report
                .of(Suite::Messages)
                .find(|figure| figure.corpus == half && figure.who == who);
            found.map(Figure::ratio)
        };
        (half.to_owned(), who.iter().map(|who| ratio(*who)).collect())
    });
    Chart {
        file: "messages.svg",
        title: "A session of small messages: plain bytes for each encoded byte",
        note: "Longer is better. zstd-1 keeps a context in each direction.",
        series: who.map(|who| who.name().to_owned()).to_vec(),
        groups: groups.to_vec(),
        logarithmic: false,
        digits: 2,
    }
}

fn histories(report: &Report) -> Chart {
    let mut histories: Vec<(u64, bool)> = Vec::new();
    for figure in report.of(Suite::Histories) {
        let history = (figure.history_bytes, figure.full);
        if !histories.contains(&history) {
            histories.push(history);
        }
    }
    let mut groups = Vec::new();
    for phase in Phase::ALL {
        for (name, seconds) in [
            (
                "encode",
                (|figure| Some(figure.encode_seconds)) as fn(&Figure) -> Option<f64>,
            ),
            ("decode", |figure| figure.decode_seconds),
        ] {
            // Over all corpora: what each takes is in the table.
            let total = |history: (u64, bool)| {
                let of_size = report.of(Suite::Histories).filter(|figure| {
                    figure.phase == phase && (figure.history_bytes, figure.full) == history
                });
                of_size
                    .map(seconds)
                    .sum::<Option<f64>>()
                    .filter(|seconds| *seconds > 0.0)
            };
            let unit = histories.first().and_then(|history| total(*history));
            let part = |history| Some(total(history)? / unit?);
            groups.push((
                format!("{}, {name}", phase.name()),
                histories.iter().map(|history| part(*history)).collect(),
            ));
        }
    }
    Chart {
        file: "histories.svg",
        title: "Time on top of a history, in parts of that on top of an empty one",
        note: "Shorter is better.",
        series: histories
            .iter()
            .map(|(bytes, full)| tables::history(*bytes, *full))
            .collect(),
        groups,
        logarithmic: false,
        digits: 2,
    }
}
