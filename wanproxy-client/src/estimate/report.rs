//! What `estimate` says: a table for people, or JSON.

use std::fmt::Write;

use edge::cli::Failure;
use edge::config::Size;
use serde::Serialize;

use super::measure::Sums;

/// What `--help` says about the figures and the keys of `--json`.
pub const EXPLANATION: &str = "\
The files are read in the order given, directories by name, each file as a stream of its own. Symbolic links in directories are not followed.
WAN bytes are what would cross the line in one direction: encoded blocks, frame headers and TLS records (22 bytes for each 16 KiB, and for each block).
Opening streams, acknowledgements and TCP/IP headers are not in them. MB/s is the speed of the codec on one core, without reading the files.

--json prints one object:
  level            as given
  history_bytes    most bytes of history that were kept
  block_bytes      plain bytes of a block; twice as many where nearly all is copied
  paths            one object for each PATH, in their order:
    path             as given
    files            files read to their end
    bytes            their bytes
    wan_bytes        what would cross the line
    ratio            bytes / wan_bytes; null when there are none
    copied_bytes     of bytes: found in the history
    compressed_bytes of bytes: made smaller by zstd
    raw_bytes        of bytes: as they are
    codec_seconds    time in the codec
    mb_per_second    millions of bytes a second of that time; null when there are none
  total            the same over all
  unreadable       what could not be read; each is named on stderr, and the exit code is 1
  symlinks         symbolic links that were not followed
  special          pipes, sockets and devices that were skipped";

/// Columns of the longest name; longer ones lose their beginning, since their ends tell them apart.
const NAME_COLUMNS: usize = 40;

/// The result. Its fields are the keys of `--json`; see [`EXPLANATION`].
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub level: String,
    pub history_bytes: u64,
    pub block_bytes: u64,
    pub paths: Vec<Row>,
    pub total: Row,
    pub unreadable: u64,
    pub symlinks: u64,
    pub special: u64,
}

/// A line of the table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    path: String,
    files: u64,
    bytes: u64,
    wan_bytes: u64,
    ratio: Option<f64>,
    copied_bytes: u64,
    compressed_bytes: u64,
    raw_bytes: u64,
    codec_seconds: f64,
    mb_per_second: Option<f64>,
}

impl Row {
    /// What `path` came to.
    pub(super) fn new(path: String, sums: &Sums) -> Self {
        let codec_seconds = sums.codec_time.as_secs_f64();
        let bytes = sums.bytes as f64;
        Self {
            path,
            files: sums.files,
            bytes: sums.bytes,
            wan_bytes: sums.wan_bytes,
            ratio: (sums.wan_bytes > 0).then(|| bytes / sums.wan_bytes as f64),
            copied_bytes: sums.copied_bytes,
            compressed_bytes: sums.compressed_bytes,
            raw_bytes: sums.raw_bytes,
            codec_seconds,
            mb_per_second: (codec_seconds > 0.0).then(|| bytes / 1e6 / codec_seconds),
        }
    }
}

impl Report {
    /// One JSON object and a newline.
    ///
    /// # Errors
    /// None that could be provoked: all numbers are finite.
    pub(super) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))
    }

    /// The table, and what it rests on.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _ok = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let rows = || self.paths.iter().chain([&self.total]);
        let width = rows()
            .map(|row| row.path.chars().count())
            .max()
            .unwrap_or(0)
            .min(NAME_COLUMNS);
        writeln!(
            text,
            "{:width$}  {:>7}  {:>9}  {:>9}  {:>8}  {:>9}  {:>10}  {:>9}  {:>6}",
            "path", "files", "bytes", "WAN bytes", "ratio", "copied", "compressed", "raw", "MB/s"
        )?;
        for row in rows() {
            writeln!(
                text,
                "{:width$}  {:>7}  {:>9}  {:>9}  {:>8}  {:>9}  {:>10}  {:>9}  {:>6}",
                shortened(&row.path, width),
                row.files,
                sized(row.bytes),
                sized(row.wan_bytes),
                figure(row.ratio, if row.ratio < Some(10.0) { 3 } else { 1 }),
                sized(row.copied_bytes),
                sized(row.compressed_bytes),
                sized(row.raw_bytes),
                figure(row.mb_per_second, 0),
            )?;
        }
        writeln!(
            text,
            "\nOne direction, an empty history of at most {}, level {}; MB/s is the codec's on one core.",
            about(self.history_bytes),
            self.level
        )?;
        for (count, one, many) in [
            (self.unreadable, "could not be read", "could not be read"),
            (
                self.symlinks,
                "symbolic link was not followed",
                "symbolic links were not followed",
            ),
            (
                self.special,
                "special file was skipped",
                "special files were skipped",
            ),
        ] {
            if count > 0 {
                writeln!(text, "{count} {}", if count == 1 { one } else { many })?;
            }
        }
        Ok(())
    }
}

/// At most `width` characters, the first of them dots where something is missing.
fn shortened(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let kept = name.chars().skip(count + 1 - width);
    std::iter::once('…').chain(kept).collect()
}

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// A number of bytes in the decimal unit that gives it up to three digits before its point.
fn sized(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    for (unit, name) in UNITS {
        if bytes >= unit {
            return format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit);
        }
    }
    format!("{bytes} B")
}

/// A size as it was given, or in whole MiB where it came from the machine's memory.
fn about(bytes: u64) -> Size {
    const MIB: u64 = 1 << 20;
    Size::from_bytes(if bytes.is_multiple_of(1 << 10) && bytes < 16 * MIB {
        bytes
    } else {
        bytes / MIB * MIB
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        let sums = Sums {
            files: 2,
            bytes: 3_000_000,
            wan_bytes: 1_500_000,
            copied_bytes: 1_000_000,
            compressed_bytes: 1_999_001,
            raw_bytes: 999,
            codec_time: Duration::from_millis(10),
        };
        Report {
            level: "auto".to_owned(),
            history_bytes: 512 << 20,
            block_bytes: 131_072,
            paths: vec![
                Row::new("a".repeat(60) + "/end", &sums),
                Row::new("empty".to_owned(), &Sums::default()),
            ],
            total: Row::new("total".to_owned(), &sums),
            unreadable: 1,
            symlinks: 2,
            special: 0,
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_path_and_the_total() {
        let text = report().text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("path ") && lines[0].ends_with("MB/s"));
        assert!(
            lines[1].starts_with("…aaa") && lines[1].contains("/end "),
            "{text}"
        );
        assert!(
            lines[1]
                .ends_with("3.0 MB     1.5 MB     2.000     1.0 MB      1.9 MB      999 B     300"),
            "{text}"
        );
        assert!(lines[2].starts_with("empty ") && lines[2].ends_with(" -"));
        assert!(lines[3].starts_with("total "));
        assert_eq!(
            lines.first().map(|line| line.chars().count()),
            lines.get(3).map(|line| line.chars().count())
        );
        assert!(text.contains("at most 512MiB, level auto;"));
        assert!(text.ends_with("\n1 could not be read\n2 symbolic links were not followed\n"));
    }

    #[test]
    fn every_key_of_the_json_is_explained() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        let explained = |key: &str| {
            EXPLANATION
                .lines()
                .any(|line| line.split_whitespace().next() == Some(key))
        };
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        for key in keys(&json).into_iter().chain(keys(&json["total"])) {
            assert!(explained(&key), "{key}");
        }
        assert_eq!(json["paths"][1]["ratio"], serde_json::Value::Null);
        assert_eq!(json["total"]["ratio"], 2.0);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(sized(999), "999 B");
        assert_eq!(sized(1_000), "1.0 kB");
        assert_eq!(sized(999_999), "999.9 kB");
        assert_eq!(sized(u64::MAX), "18446744.0 TB");
        assert_eq!(about((400 << 20) + 12_345).to_string(), "400MiB");
        assert_eq!(about(64 << 10).to_string(), "64KiB");
    }
}
