//! Makes an emulated line, between two network namespaces of its own or as a router between two networks that are there, and holds it until
//! it is told to end.

use std::io::Write;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use edge::config::{Rate, ValueError, duration_between};
use wanproxy_tests::asked_to_end;
use wanproxy_tests::packets::{
    Ask, Carried, Control, FAR, From, Inet, NEAR, PacketCounters, PacketLine, Router, Settings, ask,
};

/// Longest delay and jitter: beyond, it is no line between two sites on this planet.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// How often `cut --after` looks whether it is time.
const LOOK: Duration = Duration::from_millis(5);

/// An emulated line of packets, for trying programs on a bad line.
///
/// Without a command it is between two network namespaces of its own, which needs root; programs are run in them by
/// `ip netns exec NAME PROGRAM`. Real congestion control runs on both sides.
#[derive(Debug, Parser)]
#[command(
    name = "wanproxy-line",
    version,
    args_conflicts_with_subcommands = true
)]
struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    shape: Shape,
    /// Congestion control of both sides, such as bbr or cubic; without it, the system's
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// A command to run in the first namespace; the line ends with it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Be the router between two networks, and the line between them; needs CAP_NET_ADMIN and /dev/net/tun
    Route {
        /// The router's address in the first network, like 10.207.1.2/24; some device is in that network already
        near: Inet,
        /// The router's address in the second network
        far: Inet,
        #[command(flatten)]
        shape: Shape,
    },
    /// Cut the line of the router that runs here: nothing arrives, and nobody is told
    Cut {
        /// Wait until this many more bytes have arrived from the second network: in mid-transfer
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        after: u64,
    },
    /// Let packets pass again
    Restore,
    /// What the line has carried
    Counters {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

/// What a line is like.
#[derive(Debug, Args)]
struct Shape {
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
}

impl Shape {
    fn settings(&self) -> Settings {
        let shaped = self.rate.map_or_else(Settings::default, |rate| {
            Settings::line(rate.bits_per_second(), self.delay * 2)
        });
        Settings {
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss / 100.0,
            queue_bytes: self.queue.unwrap_or(shaped.queue_bytes),
            ..shaped
        }
    }
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
    let options = Options::parse();
    let done = match &options.action {
        None => run(&options),
        Some(action) => act(action).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wanproxy-line: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    PacketLine::possible().map_err(|reason| anyhow!("cannot make a line: {reason}"))?;
    let line = PacketLine::start(options.shape.settings(), options.shape.seed)?;
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

fn act(action: &Action) -> Result<()> {
    match action {
        Action::Route { near, far, shape } => route(*near, *far, shape),
        Action::Cut { after } => {
            if *after > 0 {
                wait_for_bytes(*after)?;
            }
            say(&ask(Ask::Cut)?)
        }
        Action::Restore => say(&ask(Ask::Restore)?),
        Action::Counters { json: false } => say(&ask(Ask::Counters)?),
        Action::Counters { json: true } => print(&serde_json::to_string(&ask(Ask::Counters)?)?),
    }
}

fn route(near: Inet, far: Inet, shape: &Shape) -> Result<()> {
    let router = Router::start(near, far, shape.settings(), shape.seed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before the line of output: whoever reads that may send the signal at once.
        let ended = asked_to_end()?;
        let control = Control::listen().context("cannot listen for cut and restore")?;
        let [near_device, far_device] = router.devices();
        print(&format!(
            "routing {near} at {near_device} and {far} at {far_device}"
        ))?;
        tokio::select! {
            () = ended => {}
            () = control.serve(&router) => {}
        }
        anyhow::Ok(())
    })?;
    say(&Carried {
        near_to_far: router.counters(From::Near),
        far_to_near: router.counters(From::Far),
    })
}

fn wait_for_bytes(more: u64) -> Result<()> {
    let arrived = || anyhow::Ok(ask(Ask::Counters)?.far_to_near.delivered_bytes);
    let end = arrived()?.saturating_add(more);
    // Whoever begins the transfer after reading this is in time.
    print(&format!(
        "the line will be cut after {more} more bytes from the second network"
    ))?;
    while arrived()? < end {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn say(carried: &Carried) -> Result<()> {
    print(&summary("near to far", &carried.near_to_far))?;
    print(&summary("far to near", &carried.far_to_near))
}

fn print(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
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
        asked_to_end()?.await;
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
        cut,
        ..
    } = counters;
    format!(
        "{direction}: {offered} packets offered, {dropped} dropped by the full queue, {lost} lost, {cut} cut off, {delivered} delivered; \
         {carried_bytes} bytes over the bottleneck, {delivered_bytes} delivered"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_with_and_without_a_command() {
        Options::command().debug_assert();
        let line = ["wanproxy-line", "--rate", "1Mbit/s", "--", "route", "x"];
        let options = Options::try_parse_from(line).unwrap();
        assert!(options.action.is_none() && options.command == ["route", "x"]);
        let route = "wanproxy-line route 10.1.1.2/24 10.1.2.2/24 --rate 4Mbit/s --loss 1%";
        let options = Options::try_parse_from(route.split(' ')).unwrap();
        let Some(Action::Route { shape, .. }) = options.action else {
            panic!("not a route: {options:?}");
        };
        assert_eq!(shape.settings().rate_bits_per_s, Some(4_000_000));
        for wrong in [
            "route",
            "route 10.1.1.2 10.1.2.2",
            "cut --after -1",
            "--rate 1Mbit/s cut",
        ] {
            let words = ["wanproxy-line"].into_iter().chain(wrong.split(' '));
            assert!(Options::try_parse_from(words).is_err(), "{wrong}");
        }
    }
}
