//! `estimate` as somebody runs it who wonders whether a tunnel would pay.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::indexing_slicing, reason = "absent JSON keys are null")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What the command said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// The JSON of a run in which all was well.
    fn json(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

/// A directory to put files into, and to run in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn estimate(&self, args: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_wanproxy-client"))
            .arg("estimate")
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed << 40;
    (0..length.div_ceil(8))
        .flat_map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ z >> 31).to_le_bytes()
        })
        .take(length)
        .collect()
}

fn text(lines: u32) -> Vec<u8> {
    (0..lines)
        .flat_map(|line| {
            format!("{line}: the branch asks headquarters for line {line}\n").into_bytes()
        })
        .collect()
}

#[test]
fn the_same_again_is_nearly_free() {
    let place = Place::new();
    place.file("one", &noise(3_000_000, 1));
    place.file("two", &noise(3_000_000, 1));
    let json = place.estimate(&["--json", "one", "two", "one"]).json();
    let paths = json["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 3);
    for again in &paths[1..] {
        assert!(again["ratio"].as_f64().unwrap() > 500.0, "{again}");
        assert!(
            again["copied_bytes"].as_u64().unwrap() > 2_999_000,
            "{again}"
        );
    }
    assert_eq!(paths[2]["path"], "one");
    let total = &json["total"];
    assert_eq!(
        (&total["files"], &total["bytes"]),
        (&3.into(), &9_000_000.into())
    );
    for key in ["wan_bytes", "copied_bytes", "compressed_bytes", "raw_bytes"] {
        let sum: u64 = paths.iter().map(|row| row[key].as_u64().unwrap()).sum();
        assert_eq!(total[key].as_u64().unwrap(), sum, "{key}");
    }
}

#[test]
fn random_bytes_cost_what_they_are_and_text_much_less() {
    let place = Place::new();
    place.file("random", &noise(2_000_000, 2));
    place.file("text", &text(40_000));
    let json = place.estimate(&["--json", "random", "text"]).json();
    let [random, text] = [&json["paths"][0], &json["paths"][1]];
    let wan_bytes = random["wan_bytes"].as_u64().unwrap();
    assert!((2_000_000..2_010_000).contains(&wan_bytes), "{random}");
    assert_eq!(random["raw_bytes"], 2_000_000);
    assert!(text["ratio"].as_f64().unwrap() > 4.0, "{text}");
    assert_eq!(random["copied_bytes"], 0);
}

#[test]
fn the_order_counts_where_the_history_is_short() {
    let place = Place::new();
    place.file("a", &noise(1_000_000, 3));
    place.file("b", &noise(8_000_000, 4));
    let wan = |args: &[&str]| -> u64 {
        let args = [&["--json", "--history", "4MiB"], args].concat();
        let json = place.estimate(&args).json();
        assert_eq!(json["history_bytes"], 4 << 20);
        json["total"]["wan_bytes"].as_u64().unwrap()
    };
    let (near, far) = (wan(&["a", "a", "b"]), wan(&["a", "b", "a"]));
    assert!(near < 9_100_000, "{near}");
    assert!(far > 10_000_000, "{far}");
}

#[test]
fn a_directory_is_walked_without_links_and_special_files() {
    let place = Place::new();
    place.file("tree/a", &noise(300_000, 5));
    place.file("tree/deep/er/a", &noise(300_000, 5));
    place.file("tree/empty", b"");
    place.file("outside", &noise(500_000, 6));
    symlink("../outside", place.0.path().join("tree/link")).unwrap();
    symlink(".", place.0.path().join("tree/circle")).unwrap();
    let _socket = UnixListener::bind(place.0.path().join("tree/socket")).unwrap();
    let said = place.estimate(&["tree", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.err,
        "wanproxy-client: skipped tree/socket: it is a socket\n"
    );
    let json: Value = serde_json::from_str(&said.out).unwrap();
    let row = &json["paths"][0];
    assert_eq!((&row["files"], &row["bytes"]), (&3.into(), &600_000.into()));
    assert!(row["copied_bytes"].as_u64().unwrap() > 299_000, "{row}");
    assert_eq!(
        (&json["symlinks"], &json["special"]),
        (&2.into(), &1.into())
    );
}

#[test]
fn an_empty_file_costs_nothing() {
    let place = Place::new();
    place.file("empty", b"");
    let json = place.estimate(&["--json", "empty"]).json();
    let row = &json["paths"][0];
    assert_eq!((&row["files"], &row["wan_bytes"]), (&1.into(), &0.into()));
    assert_eq!(
        (&row["ratio"], &row["mb_per_second"]),
        (&Value::Null, &Value::Null)
    );
    let said = place.estimate(&["empty"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_estimated() {
    let place = Place::new();
    place.file("good", &noise(400_000, 7));
    let said = place.estimate(&["missing", "good", "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(lines.len(), 2, "{said:?}");
    assert!(lines[0].starts_with("wanproxy-client: cannot read missing: "));
    assert!(lines[1].starts_with("wanproxy-client: 1 file or directory could not be read"));
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["unreadable"], 1);
    assert_eq!(json["paths"][0]["files"], 0);
    assert_eq!(json["paths"][1]["bytes"], 400_000);
    assert_eq!(json["total"]["files"], 1);
}

/// It opens, and its first page cannot be read.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_fails_while_it_is_read_is_named_too() {
    let place = Place::new();
    place.file("good", b"a few good bytes");
    let said = place.estimate(&["/proc/self/mem", "good"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err
            .starts_with("wanproxy-client: cannot read /proc/self/mem: "),
        "{said:?}"
    );
    assert!(said.out.contains("\n1 could not be read\n"), "{said:?}");
}

#[test]
fn nothing_to_read_is_a_failure() {
    let place = Place::new();
    fs::create_dir(place.0.path().join("bare")).unwrap();
    for (path, part) in [
        ("bare", "no PATH is a file"),
        ("missing", "no file could be read"),
    ] {
        let said = place.estimate(&[path]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
        assert!(said.err.lines().last().unwrap().contains(part), "{said:?}");
    }
}

#[test]
fn a_wrong_command_line_is_usage() {
    let place = Place::new();
    for (args, part) in [
        (vec![], "<PATH>"),
        (vec!["x", "--level", "20"], "--level"),
        (vec!["x", "--history", "much"], "--history"),
    ] {
        let said = place.estimate(&args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
        assert!(said.err.contains(part), "{said:?}");
    }
}

#[test]
fn people_get_a_table_and_help_that_explains_it() {
    let place = Place::new();
    place.file("text", &text(20_000));
    let said = place.estimate(&["text", "--level", "off"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let first: Vec<&str> = said
        .out
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(first, ["path", "text", "total", "One"]);
    assert!(said.out.contains("level off"));
    let help = place.estimate(&["--help"]);
    assert_eq!(help.code, 0);
    for part in ["wan_bytes", "22 bytes", "--history"] {
        assert!(help.out.contains(part), "{part}: {}", help.out);
    }
}
