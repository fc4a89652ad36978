//! The corpora of one run.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::core_pair::noise;
use crate::generate;
use crate::report::NotRun;

/// Most bytes taken of a file: all of the sources, a part of the largest binaries.
pub const CORPUS_BYTES: usize = 96 << 20;

/// Bytes of what is generated.
const GENERATED_BYTES: usize = 50_000_000;

/// What a corpus is of, by which the goals differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sources,
    Binaries,
    Sql,
    Other,
    Random,
}

/// Bytes, and where there is one their next version.
pub struct Corpus {
    pub name: &'static str,
    pub old: Vec<u8>,
    pub new: Option<Vec<u8>>,
}

/// All that a run may measure on. The first four are files that `corpora.sh` makes.
pub const NAMES: [(&str, Kind); 7] = [
    ("django-patch", Kind::Sources),
    ("django-minor", Kind::Sources),
    ("office", Kind::Binaries),
    ("kernel", Kind::Binaries),
    ("sql", Kind::Sql),
    ("json-logs", Kind::Other),
    ("random", Kind::Random),
];

/// The name of what --files names, instead of all these.
pub const FILES: &str = "files";

/// Of a name in a report, which need not be of this run.
pub fn kind(name: &str) -> Kind {
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(Kind::Other, |(_, kind)| *kind)
}

/// Makes or reads a corpus.
///
/// # Errors
/// Why it cannot be had.
pub fn load(
    name: &'static str,
    directory: Option<&Path>,
    files: &[PathBuf],
) -> Result<Corpus, NotRun> {
    let read = |path: &Path| {
        head(path).map_err(|error| NotRun::new(name, &format!("{}: {error}", path.display())))
    };
    let (old, new) = match kind(name) {
        Kind::Sql => {
            let (old, new) = generate::sql(GENERATED_BYTES);
            (old, Some(new))
        }
        Kind::Other if name == FILES => {
            let (old, new) = (files.first(), files.get(1));
            let old = old.ok_or_else(|| NotRun::new(name, "no --files FILE"))?;
            (read(old)?, new.map(|new| read(new)).transpose()?)
        }
        Kind::Other => (generate::logs(GENERATED_BYTES), None),
        Kind::Random => (noise(GENERATED_BYTES, 3), None),
        Kind::Sources | Kind::Binaries => {
            let directory = directory.ok_or_else(|| NotRun::new(name, "no --corpora DIR"))?;
            let version = |age: &str| read(&directory.join(format!("{name}.{age}.tar")));
            (version("old")?, Some(version("new")?))
        }
    };
    Ok(Corpus { name, old, new })
}

fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(CORPUS_BYTES as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
