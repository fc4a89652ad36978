//! Replays what the fuzz target `sequences` has found worth keeping, with the target's own code.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

#[test]
fn sequences() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/sequences");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        tunnel::fuzzing::sequences(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}
