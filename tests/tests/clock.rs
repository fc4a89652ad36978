//! Machines whose date jumps by years while the edges run: what lasts, lasts as long as it should, and nothing is lost that the right date would not lose.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::line::LineConfig;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{EdgeProcess, Pair, Signal};
use wanproxy_tests::preload::Preload;
use wanproxy_tests::{eventually, skip};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

const YEAR_SECONDS: i64 = 365 * 86_400;

/// An edge asks soon whether a silent line lives, but a pause of this program, which is the line, is not taken for its end: nobody would
/// get in again while the date is wrong.
const QUICK: &str = "[tunnel]\nheartbeat = \"3s\"\n";

/// Streams that a client may open in a second.
const A_SECOND: usize = 40;

struct Scene {
    pair: Pair,
    preload: Preload,
    _echo: Server,
    held: TcpStream,
    began: Instant,
}

/// Whose date jumps.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Both,
    Client,
    Server,
}

impl Scene {
    async fn set(whose: Whose) -> Option<Self> {
        let preload = Preload::build()
            .map_err(|error| {
                let why = format!("no library to load before the programs: {error}");
                skip("a date that jumps", &why);
            })
            .ok()?;
        let echo = origin::echo().unwrap();
        let policy = format!(
            "{QUICK}[[client]]\nname = \"branch-*\"\nallow = [\"127.0.0.1:*\"]\nnew_streams_per_second = {A_SECOND}\n"
        );
        let mut builder = Pair::builder()
            .forward("echo", echo.address())
            .forward("forbidden", "10.9.9.9:9".parse().unwrap())
            .line(LineConfig::unshaped())
            .client_toml(QUICK)
            .server_toml(&policy);
        if matches!(whose, Whose::Both | Whose::Client) {
            builder = builder.client_environment(preload.environment());
        }
        if matches!(whose, Whose::Both | Whose::Server) {
            builder = builder.server_environment(preload.environment());
        }
        let pair = builder.start().await.unwrap();
        let mut held = connected(&pair, "echo").await;
        exchange(&mut held).await;
        Some(Self {
            pair,
            preload,
            _echo: echo,
            held,
            began: Instant::now(),
        })
    }

    fn set_years_ahead(&self, years: i64) {
        self.preload.set_date_ahead(years * YEAR_SECONDS).unwrap();
    }

    /// How many lines the server has for what its policy refuses, and how many there may be.
    fn lines(&self) -> (u64, u64) {
        let log = self.pair.server().log();
        let refused = log
            .lines()
            .filter(|line| line.contains("stream refused by policy"));
        let minutes = 1 + self.began.elapsed().as_secs() / 60;
        (refused.count() as u64, minutes)
    }
}

async fn connected(pair: &Pair, name: &str) -> TcpStream {
    TcpStream::connect(pair.client().address(name).unwrap())
        .await
        .unwrap()
}

/// Whether a byte comes back. A refusal may come before the connection is there, while it asks, or after.
async fn is_served(pair: &Pair, name: &str) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect(pair.client().address(name).unwrap()).await?;
        connection.write_all(b"?").await?;
        connection.read(&mut [0; 1]).await
    };
    let answer = timeout(LIMIT, ask).await;
    matches!(answer.expect("neither served nor refused"), Ok(1))
}

async fn exchange(connection: &mut TcpStream) {
    connection.write_all(b"what time is it?").await.unwrap();
    let mut back = [0; 16];
    let read = timeout(LIMIT, connection.read_exact(&mut back)).await;
    read.expect("no answer").unwrap();
    assert_eq!(&back, b"what time is it?");
}

/// The year of the newest line in an edge's log.
fn logged_year(edge: &EdgeProcess) -> i64 {
    let log = edge.log();
    let last = log.lines().next_back().unwrap_or_default().to_owned();
    let years = last.split('-').next().unwrap_or_default();
    years
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap_or_else(|_| panic!("no date in {last:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_goes_on_and_what_is_counted_by_time_is_not_fooled() {
    let Some(mut scene) = Scene::set(Whose::Both).await else {
        return;
    };
    let this_year = logged_year(scene.pair.server());
    let mut refused = 0.0;
    for years in [0, 10, -10, 3, 0] {
        scene.set_years_ahead(years);
        exchange(&mut scene.held).await;
        exchange(&mut connected(&scene.pair, "echo").await).await;
        for _ in 0..3 {
            assert!(!is_served(&scene.pair, "forbidden").await);
            refused += 1.0;
        }
        let metrics = scene.pair.server().metrics().await.unwrap();
        let counted = metrics.sum(
            "wanproxy_policy_refusals_total",
            &[("reason", "not_allowed")],
        );
        assert_eq!(
            counted,
            Some(refused),
            "{years} years ahead: {}",
            scene.pair.server().last_log_lines()
        );
        // A jump is no minute: the same reason is still said once.
        let (lines, most) = scene.lines();
        assert!(
            (1..=most).contains(&lines),
            "{lines} lines, {years} years ahead"
        );
        // Lines of streams that have ended bear the new date: it has reached the program.
        eventually("the date has jumped", async || {
            let year = logged_year(scene.pair.server());
            if (year - this_year - years).abs() <= 1 {
                Ok(())
            } else {
                Err(year)
            }
        })
        .await;
        for edge in [scene.pair.client(), scene.pair.server()] {
            assert!(edge.is_ready().await);
            let status = edge.status_json().await.unwrap();
            assert_eq!(status["tunnels"].as_array().unwrap().len(), 1, "{status}");
        }
    }
    // Nor does it let a client open more streams than it may, and a reload in the midst of jumps sends nobody away.
    let asked = 10 * A_SECOND;
    let began = Instant::now();
    let mut served = 0;
    for asked in 0..asked {
        scene.set_years_ahead(i64::try_from(asked % 7).unwrap());
        if asked % 5 == 0 {
            scene.pair.server().signal(Signal::HUP).unwrap();
        }
        served += usize::from(is_served(&scene.pair, "echo").await);
    }
    let most = A_SECOND as f64 * (1.0 + began.elapsed().as_secs_f64()) + 1.0;
    assert!(
        served as f64 <= most,
        "{served} streams, {most} were allowed"
    );
    exchange(&mut scene.held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_lost_while_the_date_is_wrong_comes_back_with_the_right_one() {
    for whose in [Whose::Both, Whose::Client, Whose::Server] {
        let Some(mut scene) = Scene::set(whose).await else {
            return;
        };
        for years in [10, -10] {
            // Certificates are over, or not valid yet: nobody gets in, whoever has the wrong date, and the stream waits.
            scene.set_years_ahead(years);
            scene.pair.line().unwrap().cut();
            eventually("both edges know that the line is lost", async || {
                let mut links = Vec::new();
                for edge in [scene.pair.client(), scene.pair.server()] {
                    let status = edge.status_json().await.unwrap();
                    let tunnel = &status["tunnels"][0];
                    links.push(tunnel["links"].as_array().map_or(0, Vec::len));
                }
                if links == [0, 0] { Ok(()) } else { Err(links) }
            })
            .await;
            scene.held.write_all(b"meanwhile").await.unwrap();
            let before = scene.pair.client().log().len();
            scene.pair.line().unwrap().restore();
            eventually("the client says that it is not let in", async || {
                let log = scene.pair.client().log();
                let news = log.get(before..).unwrap_or_default().to_lowercase();
                if news.contains("certificate") {
                    Ok(())
                } else {
                    Err(news)
                }
            })
            .await;
            scene.set_years_ahead(0);
            let mut back = [0; 9];
            let read = timeout(LIMIT, scene.held.read_exact(&mut back)).await;
            read.unwrap_or_else(|_| panic!("{whose:?}, {years} years: nothing comes back"))
                .unwrap_or_else(|error| panic!("{whose:?}, {years} years: {error}"));
            assert_eq!(&back, b"meanwhile");
            exchange(&mut scene.held).await;
            exchange(&mut connected(&scene.pair, "echo").await).await;
        }
    }
}
