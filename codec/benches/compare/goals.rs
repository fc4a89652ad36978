//! What the codec is meant to reach, and whether it did in this run.

use crate::bulk::AS_CUT;
use crate::corpus::{Kind, kind};
use crate::messages::HALVES;
use crate::report::{Figure, Phase, Report, Suite, Who};

/// One goal.
pub struct Goal {
    pub text: String,
    /// What was measured, corpus by corpus; empty if it was not run.
    pub measured: Vec<Measured>,
}

/// One figure against its goal.
pub struct Measured {
    pub what: String,
    pub value: String,
    pub met: bool,
}

/// On which side of its bound a figure should be.
#[derive(Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Least(least) => value >= least,
            Self::Most(most) => value <= most,
        }
    }

    /// As many digits as it takes to tell a value from its bound.
    fn show(self, value: f64) -> String {
        let (Self::Least(bound) | Self::Most(bound)) = self;
        if bound >= 100.0 {
            format!("{value:.0}")
        } else if (value - bound).abs() < 0.01 {
            format!("{value:.4}")
        } else {
            format!("{value:.2}")
        }
    }
}

struct Judge<'a> {
    report: &'a Report,
    goals: Vec<Goal>,
}

impl Judge<'_> {
    /// A goal, its bound, and the figures it is about.
    fn goal(&mut self, text: &str, bound: Bound, values: impl IntoIterator<Item = (String, f64)>) {
        let measured = values
            .into_iter()
            .map(|(what, value)| Measured {
                what,
                value: bound.show(value),
                met: bound.holds(value),
            })
            .collect();
        self.goals.push(Goal {
            text: text.to_owned(),
            measured,
        });
    }

    /// A figure for each corpus of some kinds that has it.
    fn each(&self, kinds: &[Kind], value: impl Fn(&str) -> Option<f64>) -> Vec<(String, f64)> {
        self.report
            .corpora(Suite::Bulk)
            .into_iter()
            .filter(|corpus| kinds.contains(&kind(corpus)))
            .filter_map(|corpus| Some((corpus.to_owned(), value(corpus)?)))
            .collect()
    }

    fn ours(&self, corpus: &str, phase: Phase) -> Option<&Figure> {
        self.report.bulk(corpus, phase, Who::Wanproxy, AS_CUT)
    }

    fn peer(&self, corpus: &str, phase: Phase, who: Who) -> Option<&Figure> {
        self.report.bulk(corpus, phase, who, 0)
    }

    /// Our bytes in parts of the peer's.
    fn bytes(&self, corpus: &str, phase: Phase, who: Who) -> Option<f64> {
        let (ours, peer) = (self.ours(corpus, phase)?, self.peer(corpus, phase, who)?);
        Some(ours.wire_bytes as f64 / peer.wire_bytes as f64)
    }

    /// Our speed in parts of what zstd-1 has on the same bytes, cold.
    fn speed(&self, corpus: &str, phase: Phase) -> Option<f64> {
        let (ours, peer) = (
            self.ours(corpus, phase)?,
            self.peer(corpus, Phase::Cold, Who::Zstd1)?,
        );
        Some(ours.encode_rate() / peer.encode_rate())
    }
}

const ALL: [Kind; 5] = [
    Kind::Sources,
    Kind::Binaries,
    Kind::Sql,
    Kind::Other,
    Kind::Random,
];
const NOT_RANDOM: [Kind; 4] = [Kind::Sources, Kind::Binaries, Kind::Sql, Kind::Other];

/// All goals of the codec.
pub fn judge(report: &Report) -> Vec<Goal> {
    use Bound::{Least, Most};
    let mut judge = Judge {
        report,
        goals: Vec::new(),
    };
    let j = &mut judge;

    let values = j.each(&ALL, |corpus| Some(j.ours(corpus, Phase::Warm)?.ratio()));
    j.goal("warm: at least 5,000:1", Least(5000.0), values);
    let values = j.each(&ALL, |corpus| j.speed(corpus, Phase::Warm));
    j.goal(
        "warm: encoded at least 8 times as fast as zstd-1 does it cold",
        Least(8.0),
        values,
    );

    for (text, kinds, most) in [
        (
            "next version of sources: at most 1.3 times the bytes of zstd-3 patch-from",
            Kind::Sources,
            1.3,
        ),
        (
            "next version of binaries: at most 1.1 times the bytes of zstd-3 patch-from",
            Kind::Binaries,
            1.1,
        ),
        (
            "next version of a SQL dump: at most 1.3 times the bytes of zstd-3 patch-from",
            Kind::Sql,
            1.3,
        ),
    ] {
        let values = j.each(&[kinds], |corpus| {
            j.bytes(corpus, Phase::Next, Who::PatchFrom)
        });
        j.goal(text, Most(most), values);
    }

    let values = j.each(&ALL, |corpus| j.bytes(corpus, Phase::Cold, Who::Zstd1));
    j.goal(
        "cold: at most 1.05 times the bytes of zstd-1",
        Most(1.05),
        values,
    );
    let values = sum(j);
    j.goal(
        "cold, all corpora but the random one in sum: at most the bytes of zstd-1",
        Most(1.0),
        values,
    );
    let values = j.each(&NOT_RANDOM, |corpus| j.speed(corpus, Phase::Cold));
    j.goal(
        "cold: encoded at least 0.65 times as fast as by zstd-1",
        Least(0.65),
        values,
    );

    let values = j.each(&[Kind::Random], |corpus| {
        Some(1.0 / j.ours(corpus, Phase::Cold)?.ratio())
    });
    j.goal("random: at most 1.001 times the bytes", Most(1.001), values);
    let values = j.each(&[Kind::Random], |corpus| {
        Some(j.ours(corpus, Phase::Cold)?.encode_rate() / 1000.0)
    });
    j.goal("random: encoded at 1 GB/s or more", Least(1.0), values);

    let half = report
        .of(Suite::Messages)
        .find(|figure| figure.corpus == HALVES[1] && figure.who == Who::Wanproxy);
    let values = half.map(|half| (half.corpus.clone(), half.ratio()));
    j.goal(
        "small messages: at least 3:1 on the second half of a session",
        Least(3.0),
        values,
    );

    let mut values = Vec::new();
    for phase in [Phase::Cold, Phase::Next] {
        let of_phase = j.each(&ALL, |corpus| {
            let ours = j.ours(corpus, phase)?;
            Some(ours.decode_rate()? / ours.encode_rate())
        });
        values.extend(
            of_phase
                .into_iter()
                .map(|(corpus, value)| (format!("{corpus} {}", phase.name()), value)),
        );
    }
    j.goal(
        "decoded at least twice as fast as encoded, except warm",
        Least(2.0),
        values,
    );

    let values = threads(report);
    j.goal(
        "two threads: at least 1.8 times as fast as one",
        Least(1.8),
        values,
    );
    let values = histories(report);
    j.goal(
        "a history of 8 GiB: at most 1.5 times the time of one of 1 GiB",
        Most(1.5),
        values,
    );
    judge.goals
}

/// Our bytes of all corpora that can shrink, in parts of zstd-1's.
fn sum(judge: &Judge<'_>) -> Option<(String, f64)> {
    let pairs: Vec<(u64, u64)> = judge
        .report
        .corpora(Suite::Bulk)
        .into_iter()
        .filter(|corpus| NOT_RANDOM.contains(&kind(corpus)))
        .filter_map(|corpus| {
            let ours = judge.ours(corpus, Phase::Cold)?;
            let peer = judge.peer(corpus, Phase::Cold, Who::Zstd1)?;
            Some((ours.wire_bytes, peer.wire_bytes))
        })
        .collect();
    let ours: u64 = pairs.iter().map(|pair| pair.0).sum();
    let peer: u64 = pairs.iter().map(|pair| pair.1).sum();
    (peer > 0).then(|| {
        (
            format!("{} corpora", pairs.len()),
            ours as f64 / peer as f64,
        )
    })
}

/// Time of one thread in parts of that of two.
fn threads(report: &Report) -> Vec<(String, f64)> {
    let ours = |figure: &&Figure| figure.who == Who::Wanproxy;
    let mut values = Vec::new();
    for one in report
        .of(Suite::Threads)
        .filter(ours)
        .filter(|figure| figure.threads == 1)
    {
        let two = report
            .of(Suite::Threads)
            .filter(ours)
            .find(|two| two.threads == 2 && two.corpus == one.corpus && two.phase == one.phase);
        let Some(two) = two else { continue };
        let name = format!("{} {}", one.corpus, one.phase.name());
        values.push((
            format!("{name} encode"),
            one.encode_seconds / two.encode_seconds,
        ));
        if let (Some(one), Some(two)) = (one.decode_seconds, two.decode_seconds) {
            values.push((format!("{name} decode"), one / two));
        }
    }
    values
}

fn histories(report: &Report) -> Vec<(String, f64)> {
    let of = |history_bytes: u64| {
        report
            .of(Suite::Histories)
            .filter(move |figure| figure.history_bytes == history_bytes && !figure.full)
    };
    let mut values = Vec::new();
    for large in of(8 << 30) {
        let small =
            of(1 << 30).find(|small| small.corpus == large.corpus && small.phase == large.phase);
        let Some(small) = small else { continue };
        let name = format!("{} {}", large.corpus, large.phase.name());
        values.push((
            format!("{name} encode"),
            large.encode_seconds / small.encode_seconds,
        ));
        if let (Some(large), Some(small)) = (large.decode_seconds, small.decode_seconds) {
            values.push((format!("{name} decode"), large / small));
        }
    }
    values
}

impl Goal {
    /// Met, missed, or not run.
    pub fn verdict(&self) -> &'static str {
        if self.measured.is_empty() {
            "not run"
        } else if self.measured.iter().all(|measured| measured.met) {
            "met"
        } else {
            "missed"
        }
    }

    /// What was measured; what misses is marked.
    pub fn figures(&self) -> String {
        let shown: Vec<String> = self
            .measured
            .iter()
            .map(|measured| {
                let mark = if measured.met { "" } else { " (missed)" };
                format!("{} {}{mark}", measured.what, measured.value)
            })
            .collect();
        shown.join(", ")
    }
}
