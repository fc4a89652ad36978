//! Fills a line of packets in both directions and prints what a byte's round trip is meanwhile, and how even the shares are. Needs root.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Parser;
use edge::config::{Rate, ValueError, duration_between};
use tokio::time::sleep;
use wanproxy_tests::load::{
    Arrived, Bulk, PingPong, RoundTrips, Way, bulk_origin, echo_origin, stalled_origin,
};
use wanproxy_tests::packets::{From, PacketLine, Settings};
use wanproxy_tests::pair::{Pair, Show};

/// Time between an answer and the next ping: not a multiple of anything in the programs.
const PING_PAUSE: Duration = Duration::from_millis(7);

/// Fairness and latency under load on an emulated line of packets, between two edges. Needs root.
#[derive(Debug, Parser)]
#[command(name = "wanproxy-fair", version)]
struct Options {
    /// Rate of each direction
    #[arg(long, value_name = "RATE", default_value = "20Mbit/s")]
    rate: Rate,
    /// Round trip of the empty line
    #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = parse_time)]
    round_trip: Duration,
    /// Bulk streams in each direction
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    streams: u16,
    /// How long is measured, after as long a time of settling but 10 s at most
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_time)]
    time: Duration,
    /// Congestion control of both sides; without it, what the edges choose
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Lines of TOML merged into both configurations
    #[arg(long, value_name = "TOML", default_value = "")]
    toml: String,
    /// A stream that nobody reads from is opened first
    #[arg(long)]
    stalled: bool,
}

fn parse_time(text: &str) -> Result<Duration, ValueError> {
    duration_between(text, Duration::from_millis(1), Duration::from_secs(600))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wanproxy-fair: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    PacketLine::possible().map_err(|reason| anyhow!("cannot make a line: {reason}"))?;
    wanproxy_tests::pair::Programs::find(Show::Progress)?;
    let settings = Settings::line(options.rate.bits_per_second(), options.round_trip);
    let line = PacketLine::start(settings, 7)?;
    if let Some(name) = &options.congestion {
        line.set_congestion_control(name)?;
    }
    let arrived = Arrived::default();
    let bulk = bulk_origin(&line.far().place(), arrived.clone())?;
    let echo = echo_origin(&line.far().place())?;
    let deaf = stalled_origin(&line.far().place())?;
    let pair = Pair::builder()
        .across(&line)
        .forward("bulk", bulk.address())
        .forward("echo", echo.address())
        .forward("deaf", deaf.address())
        .client_toml(&options.toml)
        .server_toml(&options.toml)
        .start()
        .await?;

    let idle = PingPong::start(pair.client(), "echo", PING_PAUSE)?;
    sleep(Duration::from_secs(2)).await;
    eprintln!("idle:        {}", shown(&idle.finish()?));

    let streams = options.streams;
    let _stalled = if options.stalled {
        Some(Bulk::start(pair.client(), "deaf", Way::Up, 1000..1001, &arrived).await?)
    } else {
        None
    };
    let up = Bulk::start(pair.client(), "bulk", Way::Up, 0..streams, &arrived).await?;
    let down = Bulk::start(pair.client(), "bulk", Way::Down, 0..streams, &arrived).await?;
    let settling = options.time.min(Duration::from_secs(10));
    let early = PingPong::start(pair.client(), "echo", PING_PAUSE)?;
    sleep(settling).await;
    eprintln!("settling:    {}", shown(&early.finish()?));

    let count = usize::from(streams);
    let before = [up.arrived().snapshot(count), down.arrived().snapshot(count)];
    let lines = [line.counters(From::Near), line.counters(From::Far)];
    let pings = PingPong::start(pair.client(), "echo", PING_PAUSE)?;
    sleep(options.time).await;
    let loaded = pings.finish()?;
    let after = [up.arrived().snapshot(count), down.arrived().snapshot(count)];
    eprintln!("under load:  {}", shown(&loaded));
    let ends = [line.counters(From::Near), line.counters(From::Far)];
    for (way, ((before, after), (first, last))) in ["up", "down"]
        .into_iter()
        .zip(before.iter().zip(&after).zip(lines.iter().zip(&ends)))
    {
        let got: Vec<u64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
        let total: u64 = got.iter().sum();
        let seconds = options.time.as_secs_f64();
        let megabits = |bytes: u64| bytes as f64 * 8.0 / 1e6 / seconds;
        let mean = total as f64 / got.len().max(1) as f64;
        let (least, most) = (
            got.iter().min().copied().unwrap_or(0) as f64 / mean,
            got.iter().max().copied().unwrap_or(0) as f64 / mean,
        );
        eprintln!(
            "{way:>4}: {:.2} Mbit/s of payload, {:.2} on the line, {} packets dropped; shares {least:.2} to {most:.2} of the mean",
            megabits(total),
            megabits(last.carried_bytes - first.carried_bytes),
            last.dropped - first.dropped,
        );
    }
    Ok(())
}

fn shown(trips: &RoundTrips) -> String {
    let ms = |permille| trips.permille(permille).as_secs_f64() * 1e3;
    format!(
        "{} pings, p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        trips.count(),
        ms(500),
        ms(900),
        ms(990),
        ms(1000)
    )
}
