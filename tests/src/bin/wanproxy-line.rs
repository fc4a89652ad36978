//! Makes two network namespaces with an emulated line between them, and holds it until it is told to end.

use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use edge::config::{Rate, ValueError, duration_between};
use tokio::signal::unix::{SignalKind, signal};
use wanproxy_tests::packets::{FAR, From, NEAR, PacketCounters, PacketLine, Settings};

/// Longest delay and jitter: beyond, it is no line between two sites on this planet.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Two network namespaces with an emulated line of packets between them, for trying programs on a bad line. Needs root.
///
/// Programs are run in them by `ip netns exec NAME PROGRAM`. Real congestion control runs on both sides.
#[derive(Debug, Parser)]
#[command(name = "wanproxy-line", version)]
struct Options {
    /// Rate of each direction; without it, as fast as the machine
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Time from one end to the other; a round trip takes two
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_delay)]
    delay: Duration,
    /// Up to this much more delay for each packet, which keep their order
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = parse_delay)]
    jitter: Duration,
    /// Percentage of packets that are lost
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = parse_percent)]
    loss: f64,
    /// Bytes that may wait in front of the bottleneck; without it, what fills the line for one round trip
    #[arg(long, value_name = "BYTES")]
    queue: Option<usize>,
    /// Fixes which packets are lost
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Congestion control of both sides, such as bbr or cubic; without it, the system's
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// A command to run in the first namespace; the line ends with it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn parse_delay(text: &str) -> Result<Duration, ValueError> {
    duration_between(text, Duration::ZERO, MAX_DELAY)
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a number from 0 to 100".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wanproxy-line: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    PacketLine::possible().map_err(|reason| anyhow!("cannot make a line: {reason}"))?;
    let line = PacketLine::start(settings(options), options.seed)?;
    if let Some(name) = &options.congestion {
        line.set_congestion_control(name)?;
    }
    eprintln!(
        "{} at {NEAR}, {} at {FAR}; run programs in them by: ip netns exec NAME PROGRAM",
        line.near().name(),
        line.far().name()
    );
    let code = match options.command.split_first() {
        Some((program, arguments)) => {
            let mut command = line.near().command(program);
            command.args(arguments);
            code_of(wait_for(command).with_context(|| format!("cannot run {program}"))?)
        }
        None => {
            wait_for_signal()?;
            ExitCode::SUCCESS
        }
    };
    eprintln!("{}", summary("near to far", &line.counters(From::Near)));
    eprintln!("{}", summary("far to near", &line.counters(From::Far)));
    Ok(code)
}

fn settings(options: &Options) -> Settings {
    let shaped = options.rate.map_or_else(Settings::default, |rate| {
        Settings::line(rate.bits_per_second(), options.delay * 2)
    });
    Settings {
        delay: options.delay,
        jitter: options.jitter,
        loss: options.loss / 100.0,
        queue_bytes: options.queue.unwrap_or(shaped.queue_bytes),
        ..shaped
    }
}

fn wait_for(mut command: Command) -> std::io::Result<ExitStatus> {
    command.spawn()?.wait()
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn wait_for_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn summary(direction: &str, counters: &PacketCounters) -> String {
    let PacketCounters {
        offered,
        carried_bytes,
        delivered,
        delivered_bytes,
        dropped,
        lost,
        ..
    } = counters;
    format!(
        "{direction}: {offered} packets offered, {dropped} dropped by the full queue, {lost} lost, {delivered} delivered; \
         {carried_bytes} bytes over the bottleneck, {delivered_bytes} delivered"
    )
}
