//! `status --watch`: the status of a running edge, asked each second and drawn anew.
//!
//! On a terminal it has a screen of its own, which is put away again however it ends. Elsewhere it is a line a second (with `--json` the whole status a
//! line), for a file or another program. It ends with success when somebody ends it or nobody reads any more, and fails when the edge is away
//! for longer than a restart takes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::status::{Status, ratio};
use super::{Endpoint, summary};
use crate::cli::Failure;
use crate::config::AdminConfig;
use crate::os;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the edge may be away, once it has answered: a restart and the replay of its history.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// Seconds of throughput that the screen shows; a wide terminal's width.
const SHOWN_MAX: usize = 200;

/// What the throughput's curve is drawn with, from nothing to all.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Asks the endpoint of `admin` each second and shows what it says, until somebody ends it. `file` is the configuration, for messages.
///
/// # Errors
/// There is no endpoint to ask, it does not answer (any more), or standard output takes nothing.
pub fn watch_status(file: &Path, admin: Option<&AdminConfig>, json: bool) -> Result<(), Failure> {
    let endpoint = Endpoint::of(file, admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(watch(endpoint, json));
    // A question that is under way is of no use any more.
    runtime.shutdown_background();
    result
}

async fn watch(endpoint: Endpoint, json: bool) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::Failed(format!("cannot listen to signals: {error}"));
    let mut end = Ends {
        interrupt: signal(SignalKind::interrupt()).map_err(cannot)?,
        terminate: signal(SignalKind::terminate()).map_err(cannot)?,
        hangup: signal(SignalKind::hangup()).map_err(cannot)?,
    };
    // Asked before the screen is taken, so that what is wrong from the start is said on the ordinary one.
    let first = look(&endpoint).await?;
    let mut screen = Screen::new(json);
    let mut rates = Rates::default();
    let mut shown = first;
    let mut heard = Instant::now();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        if heard.elapsed() < LOOK_EVERY {
            rates.take(&shown.1, heard);
        }
        match screen.show(&shown, &rates, heard.elapsed()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            result => result
                .map_err(|error| Failure::Failed(format!("cannot write to stdout: {error}")))?,
        }
        let answer = tokio::select! {
            () = end.asked() => return Ok(()),
            answer = async {
                ticks.tick().await;
                look(&endpoint).await
            } => answer,
        };
        match answer {
            Ok(answer) => {
                shown = answer;
                heard = Instant::now();
            }
            Err(failure) if heard.elapsed() >= AWAY_MAX => return Err(failure),
            Err(_) => {}
        }
    }
}

/// The endpoint's answer, and what it says.
async fn look(endpoint: &Endpoint) -> Result<(String, Status), Failure> {
    let endpoint = endpoint.clone();
    tokio::task::spawn_blocking(move || endpoint.ask("/api/status"))
        .await
        .map_err(|_| Failure::Failed("the question was broken off".to_owned()))?
}

/// The signals that end it.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Throughput between looks.
#[derive(Default)]
struct Rates {
    last: Option<(Instant, u64, u64)>,
    /// Bytes a second on the LAN and on the WAN, the newest last.
    seconds: VecDeque<(f64, f64)>,
}

impl Rates {
    fn take(&mut self, status: &Status, now: Instant) {
        let (lan, wan) = (status.savings.lan_bytes, status.savings.wan_bytes);
        if let Some((then, lan_before, wan_before)) = self.last.replace((now, lan, wan)) {
            let seconds = now.saturating_duration_since(then).as_secs_f64();
            // An edge that was restarted counts from zero.
            if seconds > 0.0 {
                let rate = |bytes: u64, before| bytes.saturating_sub(before) as f64 / seconds;
                if self.seconds.len() >= SHOWN_MAX {
                    self.seconds.pop_front();
                }
                self.seconds
                    .push_back((rate(lan, lan_before), rate(wan, wan_before)));
            }
        }
    }

    fn now(&self) -> (f64, f64) {
        self.seconds.back().copied().unwrap_or_default()
    }
}

/// Where it is shown.
struct Screen {
    json: bool,
    is_terminal: bool,
}

impl Screen {
    fn new(json: bool) -> Self {
        let is_terminal = !json && io::stdout().is_terminal();
        if is_terminal {
            // A screen of its own, without a cursor.
            let _ = io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        }
        Self { json, is_terminal }
    }

    fn show(
        &mut self,
        (text, status): &(String, Status),
        rates: &Rates,
        away: Duration,
    ) -> io::Result<()> {
        let is_away = away >= LOOK_EVERY;
        let output = if self.is_terminal {
            let (columns, rows) = os::terminal_size().unwrap_or((80, 24));
            screen(status, rates, is_away.then_some(away), columns, rows)
        } else if is_away {
            format!("no answer for {} s\n", away.as_secs())
        } else if self.json {
            format!("{}\n", text.trim_end())
        } else {
            line(status, rates)
        };
        // What is read by a program stays JSON.
        if self.json && is_away {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(output.as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            let mut stdout = io::stdout().lock();
            let _ = stdout.write_all(b"\x1b[?25h\x1b[?1049l");
            let _ = stdout.flush();
        }
    }
}

/// One look as one line.
fn line(status: &Status, rates: &Rates) -> String {
    let (lan, wan) = rates.now();
    let up = status.tunnels.iter().filter(|t| t.state == "up").count();
    let open: u64 = status.services.iter().map(|service| service.open).sum();
    format!(
        "lan {}, wan {}, ratio {} in all, tunnels up {up} of {}, streams open {open}\n",
        rate(lan),
        rate(wan),
        ratio_text(status),
        status.tunnels.len(),
    )
}

/// One look as a screen: each line is cut to the width and its rest cleared, so that nothing flickers.
fn screen(
    status: &Status,
    rates: &Rates,
    away: Option<Duration>,
    columns: usize,
    rows: usize,
) -> String {
    let (lan, wan) = rates.now();
    let mut lines = vec![match away {
        Some(away) => format!(
            "NO ANSWER for {} s; below is what was last seen",
            away.as_secs()
        ),
        None => "live, Ctrl-C ends".to_owned(),
    }];
    let peak = rates
        .seconds
        .iter()
        .fold(1.0_f64, |peak, (lan, wan)| peak.max(*lan).max(*wan));
    let width = columns.saturating_sub(24).max(10);
    let curve = |of: fn(&(f64, f64)) -> f64| -> String {
        let skipped = rates.seconds.len().saturating_sub(width);
        let seconds = rates.seconds.iter().skip(skipped);
        seconds.map(|second| bar(of(second) / peak)).collect()
    };
    lines.push(String::new());
    lines.push(format!(
        "LAN {:>15}  {}",
        rate(lan),
        curve(|second| second.0)
    ));
    lines.push(format!(
        "WAN {:>15}  {}",
        rate(wan),
        curve(|second| second.1)
    ));
    lines.push(format!("ratio {:>13}  in all", ratio_text(status)));
    lines.push(String::new());
    lines.extend(summary(status).lines().map(str::to_owned));
    let mut text = "\x1b[H".to_owned();
    let left = lines.len().saturating_sub(rows);
    if left > 0 {
        lines.truncate(rows.saturating_sub(1));
        lines.push(format!("… {} more lines", left + 1));
    }
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push_str("\r\n");
        }
        // Names of services may come from another edge.
        let shown = line.chars().take(columns);
        text.extend(shown.map(|c| if c.is_control() { ' ' } else { c }));
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

fn bar(part: f64) -> char {
    let highest = BARS.len() - 1;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bars"
    )]
    let index = (part.clamp(0.0, 1.0) * highest as f64).ceil() as usize;
    BARS.get(index.min(highest)).copied().unwrap_or(' ')
}

fn ratio_text(status: &Status) -> String {
    ratio(status.savings.lan_bytes, status.savings.wan_bytes)
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}"))
}

/// Bytes a second as bits a second, in the unit that reads best.
fn rate(bytes_per_second: f64) -> String {
    let bits = bytes_per_second * 8.0;
    let units = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    for (size, unit) in units {
        if bits >= size {
            return format!("{:.1} {unit}", bits / size);
        }
    }
    format!("{bits:.0} bit/s")
}

#[cfg(test)]
mod tests {
    use super::super::status::{Savings, ServiceStatus};
    use super::*;

    fn status(lan_bytes: u64, wan_bytes: u64) -> Status {
        Status {
            savings: Savings::new(lan_bytes, wan_bytes),
            services: vec![ServiceStatus {
                name: "a\x1b[2Jb".to_owned(),
                open: 3,
                ..ServiceStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn rates_are_between_looks_and_a_restart_is_not_negative() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        rates.take(&status(1_000, 100), at(0));
        assert_eq!(rates.now(), (0.0, 0.0));
        rates.take(&status(5_000, 300), at(2));
        assert_eq!(rates.now(), (2_000.0, 100.0));
        rates.take(&status(10, 10), at(3));
        assert_eq!(rates.now(), (0.0, 0.0));
    }

    #[test]
    fn a_line_says_all_that_matters() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.take(&status(0, 0), start);
        rates.take(&status(250_000, 1_000), start + Duration::from_secs(1));
        assert_eq!(
            line(&status(250_000, 1_000), &rates),
            "lan 2.0 Mbit/s, wan 8.0 kbit/s, ratio 250.0 in all, tunnels up 0 of 0, streams open 3\n"
        );
    }

    #[test]
    fn a_screen_keeps_to_its_size_and_to_its_own_control_characters() {
        let text = screen(&status(9, 3), &Rates::default(), None, 40, 8);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 8);
        for line in lines {
            let shown = line
                .replace("\x1b[H", "")
                .replace("\x1b[K", "")
                .replace("\x1b[J", "");
            assert!(shown.chars().count() <= 40, "{shown}");
            assert!(!shown.contains('\x1b'), "{shown:?}");
        }
        let away = screen(
            &status(9, 3),
            &Rates::default(),
            Some(Duration::from_secs(3)),
            80,
            24,
        );
        assert!(away.contains("NO ANSWER for 3 s"), "{away}");
    }

    #[test]
    fn bars_go_from_nothing_to_all() {
        assert_eq!((bar(0.0), bar(0.01), bar(1.0)), ('▁', '▂', '█'));
        assert_eq!(rate(12.0), "96 bit/s");
        assert_eq!(rate(1.25e8), "1.0 Gbit/s");
    }
}
