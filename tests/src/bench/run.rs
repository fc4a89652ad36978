//! A run: every line, every peer, every load, as often as asked for.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::exchange::Load;
use super::interrupt::Interrupt;
use super::load::{Direction, Pings};
use super::machine::{Machine, Watch, own_cpu_seconds};
use super::metric::{Measure, Metric};
use super::options::Options;
use super::place::{LineKind, Place};
use super::plan::{CROWD_STREAMS, Plan, part_that_fits};
use super::report::{NO_TIME, Report};
use super::rival::Rival;
use super::sheet::Medium;
use super::stage::{Stage, Tools};
use super::{docs, goals, samples, table};
use crate::pair::{Programs, Show};
use crate::payload::Payload;

/// Descriptors of the largest crowd: both ends of each connection are ours.
const DESCRIPTORS: u64 = 2 * CROWD_STREAMS as u64 + SPARE_DESCRIPTORS;

/// For everything but the crowd.
const SPARE_DESCRIPTORS: u64 = 500;

/// Runs what the options say, and prints tables on stdout.
///
/// # Errors
/// When nothing can be measured at all. A peer that fails is "not run".
pub fn run(options: &Options) -> Result<()> {
    options.check()?;
    let report = match options.from() {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} holds no run", file.display()))?
        }
        None => measure(options)?,
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(table::all(&report, Medium::Terminal).as_bytes())?;
    stdout.write_all(goals::all(&report, Medium::Terminal).as_bytes())?;
    stdout.flush()?;
    if let Some(file) = options.json() {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(directory) = options.docs() {
        docs::write(&report, directory)?;
    }
    Ok(())
}

fn measure(options: &Options) -> Result<Report> {
    let descriptors = allow_descriptors().context("cannot raise the limit of descriptors")?;
    let crowd =
        usize::try_from(descriptors.saturating_sub(SPARE_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    let mut lines = options.lines();
    // What has a goal comes first, so that it is there if the time runs out.
    lines.sort_by_key(|line| !goals::are_on(*line));
    let rivals = options.rivals();
    let part = options.time().map_or(1.0, |time| {
        part_that_fits(time, &lines, &rivals, &options.measures())
    });
    let plan_of = |line| {
        let plan = Plan::of(line, options.quick()).shortened(part);
        Plan {
            crowd_streams: plan.crowd_streams.min(crowd),
            ..plan
        }
    };
    let tools = Tools {
        programs: Programs::find(Show::Progress)?,
        interrupt: Interrupt::listen()?,
    };
    if cfg!(debug_assertions) && !options.quick() {
        eprintln!("this is a debug build: figures of speed mean nothing (cargo run --release …)");
    }
    let mut run = Run {
        report: Report {
            machine: Machine::here(),
            ..Report::default()
        },
        tools,
        measures: options.measures(),
        others: Vec::new(),
        stolen: Vec::new(),
        seed: 0,
        end: options.time().map(|time| Instant::now() + time),
    };
    run.report.machine.crowd_streams = plan_of(LineKind::Loopback).crowd_streams;
    run.report.machine.peers = rivals.iter().filter_map(|rival| rival.version()).collect();
    let most = lines
        .iter()
        .map(|line| plan_of(*line).software_bytes)
        .max()
        .unwrap_or(0);
    let software = samples::software(options.software(), most)?;
    let software_for = |plan: &Plan| {
        let whole = software.clone();
        whole.map(|sample| sample.slice(..plan.software_bytes))
    };
    let first = lines
        .iter()
        .find(|line| Place::impossible(**line).is_none());
    if let Some(line) = first.filter(|_| !options.quick()) {
        eprintln!("{}, not counted: {}", line.name(), Rival::Wanproxy.name());
        let plan = plan_of(*line);
        run.warm_up(*line, &plan, &software_for(&plan))?;
    }
    // Everything once before anything twice.
    for round in 1..=options.repeat() {
        let begin = Instant::now();
        for line in &lines {
            if let Some(why) = Place::impossible(*line) {
                for rival in &rivals {
                    run.report.leave_out(line.name(), rival.name(), None, &why);
                }
                continue;
            }
            let plan = plan_of(*line);
            let software = software_for(&plan);
            for rival in &rivals {
                if !rival.is_for(*line) {
                    continue;
                }
                eprintln!("{}, round {round}: {}", line.name(), rival.name());
                run.one(*line, *rival, &plan, &software)?;
            }
        }
        run.report.machine.repeat = round;
        if run
            .end
            .is_some_and(|end| Instant::now() + begin.elapsed() > end)
        {
            break;
        }
    }
    run.report.sort(&LineKind::ALL.map(LineKind::name));
    run.report.machine.others = usual_and_most(run.others);
    run.report.machine.stolen = usual_and_most(run.stolen);
    Ok(run.report)
}

/// The middle one, and the largest.
fn usual_and_most(mut parts: Vec<f64>) -> [f64; 2] {
    parts.sort_by(f64::total_cmp);
    [parts.len() / 2, parts.len().saturating_sub(1)]
        .map(|place| parts.get(place).copied().unwrap_or_default())
}

struct Run {
    report: Report,
    tools: Tools,
    measures: Vec<Measure>,
    /// See [`Machine::others`].
    others: Vec<f64>,
    /// See [`Machine::stolen`].
    stolen: Vec<f64>,
    /// Of the random bytes: never the same twice.
    seed: u64,
    /// Nothing is begun after it.
    end: Option<Instant>,
}

impl Run {
    /// Moves much before anything counts: whoever comes first on a virtual machine pays for memory that its host has to find.
    fn warm_up(&mut self, line: LineKind, plan: &Plan, software: &[Bytes; 2]) -> Result<()> {
        let measures = std::mem::replace(&mut self.measures, vec![Measure::Random, Measure::Cold]);
        let report = std::mem::take(&mut self.report);
        self.one(line, Rival::Wanproxy, plan, software)?;
        (self.report, self.measures) = (report, measures);
        self.others.clear();
        self.stolen.clear();
        Ok(())
    }

    /// All measures of one pair. An error ends the run; a peer that fails is "not run".
    fn one(
        &mut self,
        line: LineKind,
        rival: Rival,
        plan: &Plan,
        software: &[Bytes; 2],
    ) -> Result<()> {
        if let Some(program) = rival.missing() {
            let why = format!("{program} is not installed");
            self.report.leave_out(line.name(), rival.name(), None, &why);
            return Ok(());
        }
        let mut stage = None;
        for measure in Measure::ALL {
            if !self.measures.contains(&measure) || !Plan::has(line, measure) {
                continue;
            }
            if let Some(why) = self.spared(line, rival, measure, plan) {
                self.report
                    .leave_out(line.name(), rival.name(), Some(measure.name()), why);
                continue;
            }
            if let Err(error) = self.try_one(&mut stage, line, rival, measure, plan, software) {
                self.tools.interrupt.check()?;
                let said = stage.as_ref().map(Stage::said).unwrap_or_default();
                eprintln!("  {} {}: {error:#} {said}", rival.name(), measure.name());
                let why = format!("failed: {error:#}");
                self.report
                    .leave_out(line.name(), rival.name(), Some(measure.name()), &why);
                stage = None;
            }
        }
        Ok(())
    }

    /// Why this is left out, if so.
    fn spared(
        &self,
        line: LineKind,
        rival: Rival,
        measure: Measure,
        plan: &Plan,
    ) -> Option<&'static str> {
        let has_time = self
            .end
            .is_none_or(|end| Instant::now() + plan.expected(line, rival, measure) <= end);
        rival
            .spared(line, measure)
            .or_else(|| (!has_time).then_some(NO_TIME))
    }

    fn try_one(
        &mut self,
        stage: &mut Option<Stage>,
        line: LineKind,
        rival: Rival,
        measure: Measure,
        plan: &Plan,
        software: &[Bytes; 2],
    ) -> Result<()> {
        let running = match stage.take() {
            Some(running) => running,
            None if measure == Measure::Warm => bail!("the software was not moved before"),
            None => Stage::set(line, rival, &self.tools)?,
        };
        let running = stage.insert(running);
        let (watch, known) = (Watch::start(), own_cpu_seconds() + running.cpu_seconds());
        let (figures, is_whole) = self.load(running, measure, plan, software)?;
        let known = own_cpu_seconds() + running.cpu_seconds() - known;
        self.others.push(watch.others(known));
        self.stolen.push(watch.stolen());
        for (metric, value) in figures {
            eprintln!(
                "  {:36} {value:10.3} {}",
                metric.form().label,
                metric.form().unit
            );
            self.report.add(line.name(), rival.name(), metric, value);
        }
        // What is still on its way would burden the next measure.
        if !is_whole || matches!(measure, Measure::Memory | Measure::Crowd | Measure::Ping) {
            *stage = None;
        }
        Ok(())
    }

    /// Puts one load on a running pair: its figures, and whether all was moved.
    fn load(
        &mut self,
        stage: &mut Stage,
        measure: Measure,
        plan: &Plan,
        software: &[Bytes; 2],
    ) -> Result<(Vec<(Metric, f64)>, bool)> {
        let kib = |bytes: f64| bytes / 1024.0;
        let figures = match measure {
            Measure::Memory => vec![(Metric::IdleMemory, kib(stage.memory(plan.idle_streams)?))],
            Measure::Crowd => vec![(Metric::CrowdMemory, kib(stage.memory(plan.crowd_streams)?))],
            Measure::Connections => vec![(
                Metric::Connections,
                stage.connections(plan.connections_time)?,
            )],
            Measure::Ping => pings(stage, plan)?,
            Measure::Random => {
                let mut fresh = || {
                    self.seed += 1;
                    Load {
                        sample: Payload::random(self.seed)
                            .bytes(0, plan.random_bytes)
                            .into(),
                        times: 1,
                    }
                };
                let loads = [fresh(), fresh()];
                return both(
                    stage,
                    loads,
                    plan,
                    [Metric::RandomUp, Metric::RandomDown, Metric::RandomCpu],
                );
            }
            Measure::Cold => {
                let loads = software.clone().map(|sample| Load { sample, times: 1 });
                return both(
                    stage,
                    loads,
                    plan,
                    [Metric::ColdUp, Metric::ColdDown, Metric::ColdCpu],
                );
            }
            Measure::Warm => {
                let loads = software.clone().map(|sample| Load {
                    sample,
                    times: plan.again_times,
                });
                return both(
                    stage,
                    loads,
                    plan,
                    [Metric::WarmUp, Metric::WarmDown, Metric::WarmCpu],
                );
            }
        };
        Ok((figures, true))
    }
}

fn pings(stage: &Stage, plan: &Plan) -> Result<Vec<(Metric, f64)>> {
    let ping = |beside_flood| {
        stage.ping(Pings {
            connections: plan.ping_connections,
            time: plan.ping_time,
            beside_flood,
        })
    };
    let (p50, p99) = ping(false)?;
    let (loaded_p50, loaded_p99) = ping(true)?;
    Ok(vec![
        (Metric::PingP50, p50),
        (Metric::PingP99, p99),
        (Metric::LoadedPingP50, loaded_p50),
        (Metric::LoadedPingP99, loaded_p99),
    ])
}

/// One transfer up, one down, the processor time of both programs for them, and whether all was moved.
fn both(
    stage: &mut Stage,
    loads: [Load; 2],
    plan: &Plan,
    [up, down, cpu]: [Metric; 3],
) -> Result<(Vec<(Metric, f64)>, bool)> {
    let mut figures = Vec::new();
    let (mut bytes, mut seconds, mut is_whole) = (0, 0.0, true);
    for ((direction, metric), load) in [(Direction::Up, up), (Direction::Down, down)]
        .into_iter()
        .zip(loads)
    {
        if !is_whole {
            // The rest of the first transfer would be in the way of the second.
            stage.renew()?;
        }
        let (moved, cpu_seconds) = stage.bulk(direction, load, plan.limit)?;
        figures.push((metric, moved.megabytes_per_s()));
        bytes += moved.bytes;
        seconds += cpu_seconds;
        is_whole &= moved.is_whole;
    }
    if stage.has_programs() {
        figures.push((cpu, seconds / (bytes as f64 / 1e9)));
    }
    Ok((figures, is_whole))
}

/// Raises the limit of descriptors as far as the system lets us; programs that are started inherit it. How many there may be.
fn allow_descriptors() -> std::io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let Some(hard) = limit.maximum else {
        return Ok(DESCRIPTORS);
    };
    let set = |maximum: u64| {
        let limit = Rlimit {
            current: Some(maximum),
            maximum: Some(maximum),
        };
        setrlimit(Resource::Nofile, limit).map(|()| maximum)
    };
    // Only root may have more than it was given, and not everywhere.
    Ok(set(hard.max(DESCRIPTORS)).or_else(|_| set(hard))?)
}
