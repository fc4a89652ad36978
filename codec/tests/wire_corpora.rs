//! Replays what the fuzz targets have found worth keeping: fuzz/corpus, with the targets' own code.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn frames() {
    replay("frames", codec::fuzzing::frames);
}

#[test]
fn blocks() {
    replay("blocks", codec::fuzzing::blocks);
}
