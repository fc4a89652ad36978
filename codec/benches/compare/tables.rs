//! The tables of a run, as text and as Markdown.

use std::fmt::Write;

use crate::bulk::{AS_CUT, BLOCK_BYTES};
use crate::goals::judge;
use crate::report::{Figure, Phase, Report, Suite, Who};

/// A table: its first column says what, the others are figures.
pub struct Table {
    pub title: String,
    pub note: &'static str,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// All tables of a run.
pub fn of(report: &Report) -> Vec<Table> {
    let mut tables = vec![goals(report)];
    tables.extend(Phase::ALL.map(|phase| bulk(report, phase)));
    tables.extend([
        blocks(report),
        threads(report),
        messages(report),
        histories(report),
        scanner(report),
    ]);
    tables.push(not_run(report));
    tables.retain(|table| !table.rows.is_empty());
    tables
}

fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

fn goals(report: &Report) -> Table {
    Table {
        title: "Goals".to_owned(),
        note: "Judged with blocks as the tunnel cuts them: 128 KiB, and 256 KiB after one of which nearly all was copied. Only figures of this run are compared.",
        head: head(&["goal", "", "measured"]),
        rows: judge(report)
            .iter()
            .map(|goal| vec![goal.text.clone(), goal.verdict().to_owned(), goal.figures()])
            .collect(),
    }
}

fn bulk(report: &Report, phase: Phase) -> Table {
    let (title, note, who): (_, _, &[Who]) = match phase {
        Phase::Cold => (
            "Cold",
            "Nothing is known. Ratio, and MB/s encoded / decoded. Blocks as the tunnel cuts them for ours, one stream for the others.",
            &[
                Who::Wanproxy,
                Who::Zstd1,
                Who::Zstd3,
                Who::Zstd3Long,
                Who::FastCdc,
            ],
        ),
        Phase::Warm => (
            "Warm",
            "The same again. For patch-from the last version is the same one; what zstd alone would do is its cold figure.",
            &[Who::Wanproxy, Who::PatchFrom, Who::FastCdc],
        ),
        Phase::Again => (
            "Next version again",
            "The first repeat of what came as a difference.",
            &[Who::Wanproxy],
        ),
        Phase::Next => (
            "Next version",
            "After the last version was sent, once cold and once warm. zstd-1 and zstd-3 begin anew; `zstd-3 long` had the last version in its window.",
            &[
                Who::Wanproxy,
                Who::PatchFrom,
                Who::Zstd3Long,
                Who::FastCdc,
                Who::Zstd1,
                Who::Zstd3,
            ],
        ),
    };
    let mut columns = vec!["corpus".to_owned(), "MB".to_owned()];
    columns.extend(who.iter().map(|who| who.name().to_owned()));
    let mut rows = Vec::new();
    for corpus in report.corpora(Suite::Bulk) {
        let found = |who| report.bulk(corpus, phase, who, AS_CUT);
        let Some(plain_bytes) = who.iter().find_map(|who| Some(found(*who)?.plain_bytes)) else {
            continue;
        };
        let mut row = vec![
            corpus.to_owned(),
            format!("{:.1}", plain_bytes as f64 / 1e6),
        ];
        row.extend(
            who.iter()
                .map(|who| found(*who).map_or("not run".to_owned(), cell)),
        );
        rows.push(row);
    }
    Table {
        title: title.to_owned(),
        note,
        head: columns,
        rows,
    }
}

/// Ratio and both speeds.
fn cell(figure: &Figure) -> String {
    format!(
        "{}, {} / {}",
        ratio(figure.ratio()),
        rate(Some(figure.encode_rate())),
        rate(figure.decode_rate())
    )
}

fn blocks(report: &Report) -> Table {
    let mut columns = vec!["corpus".to_owned(), String::new()];
    columns.extend(BLOCK_BYTES.map(|bytes| format!("{} KiB", bytes >> 10)));
    columns.push("as cut".to_owned());
    let mut rows = Vec::new();
    for corpus in report.corpora(Suite::Bulk) {
        for phase in Phase::ALL {
            let mut row = vec![corpus.to_owned(), phase.name().to_owned()];
            row.extend(BLOCK_BYTES.into_iter().chain([AS_CUT]).map(|bytes| {
                report
                    .bulk(corpus, phase, Who::Wanproxy, bytes)
                    .map_or(String::new(), |figure| {
                        format!(
                            "{} at {}",
                            ratio(figure.ratio()),
                            rate(Some(figure.encode_rate()))
                        )
                    })
            }));
            if row.iter().skip(2).any(|cell| !cell.is_empty()) {
                rows.push(row);
            }
        }
    }
    Table {
        title: "Blocks of five sizes".to_owned(),
        note: "Ratio, and MB/s encoded.",
        head: columns,
        rows,
    }
}

fn threads(report: &Report) -> Table {
    Table {
        title: "One core and all".to_owned(),
        note: "Workers on one domain, each with a stream of its own; clock time, the fastest of three turns. zstd-1 has a context for each thread.",
        head: head(&["corpus", "", "", "threads", "encode MB/s", "decode MB/s"]),
        rows: report
            .of(Suite::Threads)
            .map(|figure| {
                vec![
                    figure.corpus.clone(),
                    figure.phase.name().to_owned(),
                    figure.who.name().to_owned(),
                    figure.threads.to_string(),
                    rate(Some(figure.encode_rate())),
                    rate(figure.decode_rate()),
                ]
            })
            .collect(),
    }
}

fn messages(report: &Report) -> Table {
    let each =
        |figure: &Figure, seconds: f64| format!("{:.1}", seconds * 1e6 / figure.messages as f64);
    Table {
        title: "Small messages".to_owned(),
        note: "A session of requests and answers, and the sources cut into messages of one length. zstd-1 and zstd-3 keep a context in each direction and flush after each message.",
        head: head(&["", "", "bytes each", "ratio", "encode µs", "decode µs"]),
        rows: report
            .of(Suite::Messages)
            .map(|figure| {
                vec![
                    figure.corpus.clone(),
                    figure.who.name().to_owned(),
                    format!("{:.0}", figure.plain_bytes as f64 / figure.messages as f64),
                    ratio(figure.ratio()),
                    each(figure, figure.encode_seconds),
                    figure
                        .decode_seconds
                        .filter(|seconds| *seconds > 0.0)
                        .map_or(String::new(), |seconds| each(figure, seconds)),
                ]
            })
            .collect(),
    }
}

fn histories(report: &Report) -> Table {
    Table {
        title: "Large histories".to_owned(),
        note: "The corpus on top of what fills the history, or in a full one in its place; decoding is the sender's rebuilding from its own history, which appends nothing.",
        head: head(&[
            "corpus",
            "",
            "history",
            "ratio",
            "encode MB/s",
            "decode MB/s",
        ]),
        rows: report
            .of(Suite::Histories)
            .map(|figure| {
                vec![
                    figure.corpus.clone(),
                    figure.phase.name().to_owned(),
                    history(figure.history_bytes, figure.full),
                    ratio(figure.ratio()),
                    rate(Some(figure.encode_rate())),
                    rate(figure.decode_rate()),
                ]
            })
            .collect(),
    }
}

/// How large, and whether it drops.
pub fn history(bytes: u64, full: bool) -> String {
    let full = if full { ", full" } else { "" };
    format!("{} GiB{full}", bytes >> 30)
}

fn scanner(report: &Report) -> Table {
    let name = |who| {
        if who == Who::Wanproxy {
            "anchors"
        } else {
            "memcpy"
        }
    };
    Table {
        title: "Scanner".to_owned(),
        note: "Finding anchors, and copying the same bytes to memory.",
        head: head(&["corpus", "", "MB/s"]),
        rows: report
            .of(Suite::Scanner)
            .map(|figure| {
                vec![
                    figure.corpus.clone(),
                    name(figure.who).to_owned(),
                    rate(Some(figure.encode_rate())),
                ]
            })
            .collect(),
    }
}

fn not_run(report: &Report) -> Table {
    Table {
        title: "Not run".to_owned(),
        note: "",
        head: head(&["what", "why"]),
        rows: report
            .not_run
            .iter()
            .map(|left_out| vec![left_out.what.clone(), left_out.why.clone()])
            .collect(),
    }
}

fn ratio(ratio: f64) -> String {
    match ratio {
        ..1.1 => format!("{ratio:.4}"),
        ..100.0 => format!("{ratio:.2}"),
        _ => format!("{ratio:.0}"),
    }
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or(String::new(), |rate| format!("{rate:.0}"))
}

impl Table {
    /// In columns; the last may be long and is not padded.
    pub fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = std::iter::once(&self.head).chain(&self.rows);
                cells
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = format!("{}\n{}\n", self.title.to_uppercase(), self.note);
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// As Markdown has it.
    pub fn markdown(&self) -> String {
        let mut out = format!("### {}\n", self.title);
        if !self.note.is_empty() {
            let _ = writeln!(out, "{}\n", self.note);
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        out.push_str(&line(&self.head));
        out.push_str(&line(&vec!["---".to_owned(); self.head.len()]));
        for row in &self.rows {
            out.push_str(&line(row));
        }
        out
    }
}
