//! The result: a table and bars for people, JSON for machines.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use super::Options;
use super::stage::Measured;

/// Columns of the longest bar.
const BAR_COLUMNS: f64 = 44.0;

/// Longest file name shown in full.
const NAME_COLUMNS: usize = 28;

/// What the tunnel knew when the file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Nothing of the file.
    Cold,
    /// The same file.
    Warm,
    /// An earlier version of it.
    Changed,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    file: String,
    phase: Phase,
    direct_seconds: f64,
    direct_wan_bytes: u64,
    tunnel_seconds: f64,
    lan_bytes: u64,
    wan_bytes: u64,
    ratio: f64,
}

impl Row {
    pub(super) fn new(file: &str, phase: Phase, direct: Measured, tunnel: Measured) -> Self {
        Self {
            file: file.to_owned(),
            phase,
            direct_seconds: direct.seconds,
            direct_wan_bytes: direct.wan_bytes,
            tunnel_seconds: tunnel.seconds,
            lan_bytes: tunnel.lan_bytes,
            wan_bytes: tunnel.wan_bytes,
            ratio: ratio(tunnel.lan_bytes, tunnel.wan_bytes),
        }
    }

    /// The sum of the rows of a phase.
    fn total(phase: Phase, rows: &[Self]) -> Self {
        let of_phase = || rows.iter().filter(|row| row.phase == phase);
        let lan_bytes = of_phase().map(|row| row.lan_bytes).sum();
        let wan_bytes = of_phase().map(|row| row.wan_bytes).sum();
        Self {
            file: "all files".to_owned(),
            phase,
            direct_seconds: of_phase().map(|row| row.direct_seconds).sum(),
            direct_wan_bytes: of_phase().map(|row| row.direct_wan_bytes).sum(),
            tunnel_seconds: of_phase().map(|row| row.tunnel_seconds).sum(),
            lan_bytes,
            wan_bytes,
            ratio: ratio(lan_bytes, wan_bytes),
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    line: LineReport,
    /// Of larger files only so many bytes were moved.
    cut_bytes: Option<u64>,
    /// Every transfer's bytes had the hash of what was sent; otherwise there is no report.
    verified: bool,
    transfers: Vec<Row>,
    totals: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct LineReport {
    rate_bits_per_s: u64,
    delay_ms: u64,
}

impl Report {
    pub(super) fn new(options: &Options, transfers: Vec<Row>, cut_bytes: Option<u64>) -> Self {
        let line = LineReport {
            rate_bits_per_s: options.rate().bits_per_second(),
            delay_ms: u64::try_from(options.delay().as_millis()).unwrap_or(u64::MAX),
        };
        let totals = [Phase::Cold, Phase::Warm, Phase::Changed]
            .map(|phase| Row::total(phase, &transfers))
            .to_vec();
        Self {
            line,
            cut_bytes,
            verified: true,
            transfers,
            totals,
        }
    }

    /// One JSON object and a newline.
    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The table and the bars.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).unwrap_or_default();
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let rows = || self.transfers.iter().chain(&self.totals);
        let width = rows()
            .map(|row| row.file.chars().count())
            .max()
            .unwrap_or(0)
            .min(NAME_COLUMNS);
        writeln!(
            text,
            "\n{:width$}  {:7}  {:>8}  {:>8}  {:>12}  {:>12}  {:>8}",
            "file", "version", "direct s", "tunnel s", "LAN bytes", "WAN bytes", "ratio"
        )?;
        for row in rows() {
            let name = shortened(&row.file, width);
            writeln!(
                text,
                "{name:width$}  {:7}  {:>8.2}  {:>8.2}  {:>12}  {:>12}  {:>8}",
                row.phase.name(),
                row.direct_seconds,
                row.tunnel_seconds,
                grouped(row.lan_bytes),
                grouped(row.wan_bytes),
                format!("{:.1}", row.ratio),
            )?;
        }
        let direct = self
            .totals
            .first()
            .map_or((0.0, 0), |row| (row.direct_seconds, row.direct_wan_bytes));
        writeln!(text, "\nseconds, all files")?;
        bars(
            text,
            direct.0,
            self.totals
                .iter()
                .map(|row| (row.phase, row.tunnel_seconds)),
            |value| format!("{value:.2} s"),
        )?;
        writeln!(text, "\nbytes on the line, all files")?;
        #[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
        bars(
            text,
            direct.1 as f64,
            self.totals
                .iter()
                .map(|row| (row.phase, row.wan_bytes as f64)),
            |value| format!("{:.3} MB", value / 1e6),
        )?;
        if let Some(bytes) = self.cut_bytes {
            writeln!(
                text,
                "\nOf larger files the first {} were moved; --file moves whole files.",
                megabytes(bytes)
            )?;
        }
        writeln!(
            text,
            "\nEvery transfer was checked by hash. The changed version is an edit of the real file: in every 128 KiB\n\
             one run of up to 512 bytes was inserted, deleted or replaced. WAN bytes are counted at the emulated line,\n\
             in both directions; the direct transfers used a line of their own, which remembers nothing: their seconds\n\
             for cold and warm are one measurement. The line has rate and delay, but no loss and no congestion control:\n\
             its seconds say nothing about a real line's."
        )
    }
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Changed => "changed",
        }
    }
}

/// One bar for the direct transfer and one for each phase, to the same scale.
fn bars(
    text: &mut String,
    direct: f64,
    phases: impl Iterator<Item = (Phase, f64)>,
    label: impl Fn(f64) -> String,
) -> std::fmt::Result {
    let all: Vec<(&str, f64)> = std::iter::once(("direct", direct))
        .chain(phases.map(|(phase, value)| (phase.name(), value)))
        .collect();
    let longest = all
        .iter()
        .map(|(_, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    for (name, value) in all {
        writeln!(text, "  {name:8} {} {}", bar(value / longest), label(value))?;
    }
    Ok(())
}

/// A bar of eighths of a column; never shorter than the thinnest.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 8 times the columns"
    )]
    let eighths = (share.clamp(0.0, 1.0) * BAR_COLUMNS * 8.0).round().max(1.0) as usize;
    let rest = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    "█".repeat(eighths / 8) + rest
}

/// At most `width` characters, the last of them dots where something is missing.
fn shortened(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    let kept: String = name.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

/// LAN bytes a WAN byte.
fn ratio(lan_bytes: u64, wan_bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = lan_bytes as f64 / wan_bytes.max(1) as f64;
    ratio
}

/// Millions of bytes with one digit.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    fn report() -> Report {
        let direct = Measured {
            seconds: 10.0,
            lan_bytes: 2_000_000,
            wan_bytes: 2_000_100,
        };
        let tunnel = Measured {
            seconds: 2.5,
            lan_bytes: 2_000_000,
            wan_bytes: 4_000,
        };
        let rows = ["a", "b"]
            .iter()
            .flat_map(|file| {
                [Phase::Cold, Phase::Warm, Phase::Changed]
                    .map(|phase| Row::new(file, phase, direct, tunnel))
            })
            .collect();
        Report::new(
            &Options::try_parse_from(["wanproxy-demo"]).unwrap(),
            rows,
            None,
        )
    }

    #[test]
    fn the_table_has_a_row_for_each_file_and_phase_and_totals() {
        let text = report().text();
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("2,000,000"))
            .collect();
        assert_eq!(rows.len(), 6, "{text}");
        assert!(rows.iter().all(|row| row.ends_with("500.0")), "{text}");
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("4,000,000"))
                .count(),
            3,
            "{text}"
        );
    }

    #[test]
    fn the_json_holds_the_same() {
        let value: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(value["line"]["rate_bits_per_s"], 20_000_000);
        assert_eq!(value["transfers"].as_array().unwrap().len(), 6);
        assert_eq!(value["transfers"][1]["phase"], "warm");
        assert_eq!(value["totals"][0]["lan_bytes"], 4_000_000);
        assert_eq!(value["verified"], true);
    }

    #[test]
    fn bars_are_to_scale_and_never_vanish() {
        assert_eq!(bar(1.0), "█".repeat(44));
        assert_eq!(bar(0.5), "█".repeat(22));
        assert_eq!(bar(0.0), "▏");
        assert_eq!(bar(f64::NAN.max(0.0)), "▏");
    }

    #[test]
    fn long_names_are_shortened_visibly() {
        assert_eq!(shortened("short", 10), "short");
        assert_eq!(shortened("librustc_driver.so", 10), "librustc_…");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(megabytes(24_050_000), "24.0 MB");
    }
}
