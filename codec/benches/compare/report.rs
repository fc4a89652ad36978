//! What a run found: figures, and what was not run. The tables, the goals and the charts are made of nothing else.

use serde::{Deserialize, Serialize};

/// A run.
#[derive(Serialize, Deserialize, Default)]
pub struct Report {
    pub machine: Machine,
    pub figures: Vec<Figure>,
    pub not_run: Vec<NotRun>,
}

/// Where and when.
#[derive(Serialize, Deserialize, Default)]
pub struct Machine {
    pub date: String,
    pub commit: String,
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub zstd: String,
    /// The load average of one minute, before and after.
    pub load: [String; 2],
}

/// One measurement.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
pub struct Figure {
    pub suite: Suite,
    pub corpus: String,
    pub phase: Phase,
    pub who: Who,
    /// Plain bytes of a block; 0 where there are no blocks, or they are cut as the tunnel does.
    pub block_bytes: usize,
    pub threads: usize,
    /// What the history held before, in bytes.
    pub history_bytes: u64,
    /// Whether it was full, so that what came made it drop what was there.
    #[serde(default)]
    pub full: bool,
    pub messages: usize,
    pub plain_bytes: u64,
    /// Encoded bytes: a block's header and body. Frames around them, TLS and TCP come on top, for the peers as for us.
    pub wire_bytes: u64,
    /// A thread's time on one thread, otherwise time.
    #[serde(rename = "encode_nanoseconds", with = "nanoseconds")]
    pub encode_seconds: f64,
    #[serde(rename = "decode_nanoseconds", with = "nanoseconds::optional", default)]
    pub decode_seconds: Option<f64>,
}

/// Whole numbers in JSON, so that a report that is read and written again is the same.
mod nanoseconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((seconds * 1e9).round())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(f64::deserialize(deserializer)? / 1e9)
    }

    pub mod optional {
        use super::{Deserialize, Deserializer, Serialize, Serializer};

        pub fn serialize<S: Serializer>(
            seconds: &Option<f64>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            seconds
                .map(|seconds| (seconds * 1e9).round())
                .serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<f64>, D::Error> {
            Ok(Option::<f64>::deserialize(deserializer)?.map(|nanoseconds| nanoseconds / 1e9))
        }
    }
}

/// What a run consists of.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Each corpus cold, warm and as its next version, as the tunnel cuts it and in blocks of five sizes.
    Bulk,
    /// One core and all.
    Threads,
    /// Short messages.
    Messages,
    /// The same on top of large histories.
    Histories,
    /// Anchors against memcpy.
    Scanner,
}

/// What is known when a corpus is sent.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing of it.
    Cold,
    /// All of it.
    Warm,
    /// Its last version.
    Next,
    /// The next version, once more.
    Again,
}

/// Whose figure it is.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    #[serde(rename = "wanproxy")]
    Wanproxy,
    /// The same with the headers of the frames that it travels in.
    #[serde(rename = "wanproxy framed")]
    WanproxyFramed,
    /// One stream at level 1.
    #[serde(rename = "zstd-1")]
    Zstd1,
    /// One stream at level 3.
    #[serde(rename = "zstd-3")]
    Zstd3,
    /// One stream at level 3 with a window of 2^27 and long-distance matching, which had what came before.
    #[serde(rename = "zstd-3 long")]
    Zstd3Long,
    /// Level 3 with the whole last version as prefix.
    #[serde(rename = "zstd-3 patch-from")]
    PatchFrom,
    /// Level 1, each message alone.
    #[serde(rename = "zstd-1 alone")]
    Zstd1Alone,
    /// Content-defined chunks named by 16 bytes.
    #[serde(rename = "FastCDC")]
    FastCdc,
    /// Copying.
    #[serde(rename = "memcpy")]
    Memcpy,
}

/// What was left out.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct NotRun {
    pub what: String,
    pub why: String,
}

impl NotRun {
    pub fn new(what: &str, why: &str) -> Self {
        Self {
            what: what.to_owned(),
            why: why.to_owned(),
        }
    }
}

impl Figure {
    /// Nothing measured yet.
    pub fn new(suite: Suite, corpus: &str, phase: Phase, who: Who) -> Self {
        Self {
            suite,
            corpus: corpus.to_owned(),
            phase,
            who,
            block_bytes: 0,
            threads: 1,
            history_bytes: 0,
            full: false,
            messages: 0,
            plain_bytes: 0,
            wire_bytes: 0,
            encode_seconds: 0.0,
            decode_seconds: None,
        }
    }

    pub fn ratio(&self) -> f64 {
        self.plain_bytes as f64 / self.wire_bytes as f64
    }

    /// Millions of plain bytes a second.
    pub fn encode_rate(&self) -> f64 {
        self.plain_bytes as f64 / 1e6 / self.encode_seconds
    }

    pub fn decode_rate(&self) -> Option<f64> {
        Some(self.plain_bytes as f64 / 1e6 / self.decode_seconds?)
    }
}

impl Report {
    /// The figures of a suite.
    pub fn of(&self, suite: Suite) -> impl Iterator<Item = &Figure> {
        self.figures
            .iter()
            .filter(move |figure| figure.suite == suite)
    }

    /// The figure of [`Suite::Bulk`] for a corpus; `block_bytes` is looked at for ours alone.
    pub fn bulk(
        &self,
        corpus: &str,
        phase: Phase,
        who: Who,
        block_bytes: usize,
    ) -> Option<&Figure> {
        self.of(Suite::Bulk).find(|figure| {
            figure.corpus == corpus
                && figure.phase == phase
                && figure.who == who
                && (who != Who::Wanproxy || figure.block_bytes == block_bytes)
        })
    }

    /// The corpora of a suite, in the order in which they were measured.
    pub fn corpora(&self, suite: Suite) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for figure in self.of(suite) {
            if !names.contains(&figure.corpus.as_str()) {
                names.push(&figure.corpus);
            }
        }
        names
    }
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Cold, Self::Warm, Self::Next, Self::Again];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Next => "next version",
            Self::Again => "next version again",
        }
    }
}

impl Who {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wanproxy => "wanproxy",
            Self::WanproxyFramed => "wanproxy in frames",
            Self::Zstd1 => "zstd-1",
            Self::Zstd3 => "zstd-3",
            Self::Zstd3Long => "zstd-3 long",
            Self::PatchFrom => "zstd-3 patch-from",
            Self::Zstd1Alone => "zstd-1, each alone",
            Self::FastCdc => "FastCDC store",
            Self::Memcpy => "memcpy",
        }
    }
}
