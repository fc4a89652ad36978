//! From start to end of a program: its runtime, its signals, its `listening` lines, its drain and its exit.
//!
//! A program parses everything, binds, announces its sockets, runs, drains, and is gone. SIGTERM and SIGINT drain, a second one ends
//! at once, SIGHUP reloads, and so does a change of the files that it was started with.

mod end;
mod environment;
mod handover;
mod histories;
mod notify;
mod watch;

use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

pub use end::{LastSecond, release_histories};
pub use environment::{Resources, environment};
pub use handover::{Handover, Successor, Successors};
pub use histories::{budget_bytes, resize_histories, size_on_disk};

use crate::cli::Failure;
use crate::config::{Bind, LogConfig};
use crate::log::Log;
use crate::os;
use watch::Watch;

/// How long blocking threads may finish what they are at, after everything else has ended, jobs of pools included. Then the process is gone, whatever they
/// do.
const THREADS_TIMEOUT: Duration = Duration::from_millis(100);

/// Starts a runtime, runs `work` to its end, and leaves no thread behind that could hold the process up.
///
/// # Errors
/// That of `work`, or the system gives no threads.
pub fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime: Runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("wanproxy")
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(work);
    // Jobs that still run are left behind: when main returns, the process ends and they with it.
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    result
}

/// What a program has before anything else.
pub struct Start {
    /// Where it logs to.
    pub log: Log,
    /// What it is asked for.
    pub signals: Signals,
    /// How many descriptors it may have open.
    pub descriptors: Option<u64>,
}

impl Start {
    /// Starts logging, takes the signals, raises the limit on descriptors, and from here on waits for addresses that are in use. Within a runtime.
    ///
    /// # Errors
    /// The system gives no signals.
    pub fn new(log: &LogConfig) -> Result<Self, Failure> {
        os::wait_for_addresses(PREDECESSOR_GONE_WITHIN);
        Ok(Self {
            log: Log::start(log),
            signals: Signals::install()
                .map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")))?,
            descriptors: os::raise_descriptor_limit(),
        })
    }
}

/// A program that was killed before this one was started has given back what it held after this time: its addresses, and the lock of its histories.
/// Taking apart some GB of memory takes half a second.
const PREDECESSOR_GONE_WITHIN: Duration = Duration::from_secs(2);

/// Something that a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: drain; a second one: end at once.
    End,
    /// SIGHUP: read everything anew.
    Reload,
}

/// The signals that a program listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on these signals do not end the process by themselves.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::End,
            _ = self.interrupt.recv() => Request::End,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}

/// What a running program does when it is asked to.
pub trait Running {
    /// Reads everything anew; on an error everything stays as it was.
    ///
    /// # Errors
    /// One line that says what is wrong.
    fn reload(&mut self) -> impl Future<Output = Result<(), String>>;
    /// The files that [`reload`](Self::reload) would read.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    /// Closes what a successor needs and drains nothing: the admin endpoint, at once; and, once it is polled, the histories, whose directory is left to
    /// another program.
    fn release(&mut self) -> impl Future<Output = ()> + 'static;
    /// Accepts nothing new; resolves when what was accepted has its stream, or soon after.
    fn settle(&mut self) -> impl Future<Output = ()> {
        std::future::ready(())
    }
    /// Takes nothing new; resolves when everything that runs has ended.
    fn drain(&mut self) -> impl Future<Output = ()>;
    /// Resolves when the program cannot go on by itself; the line says why.
    fn failed(&mut self) -> impl Future<Output = String>;
    /// How long a drain may take.
    fn drain_timeout(&self) -> Duration;
}

/// The files behind a running edge: its configuration, what that names as it is used, and what it names as it stands there `next`, though it
/// could not be used yet: what it lacks may come.
pub fn files_behind(
    config: PathBuf,
    used: Vec<PathBuf>,
    next: Option<Vec<PathBuf>>,
) -> Vec<PathBuf> {
    let mut files = vec![config];
    files.extend(used);
    files.extend(next.into_iter().flatten());
    files
}

/// Serves signals until the program is to end or is replaced. Streams that still run then are reset by whoever drops them.
///
/// # Errors
/// The program could not go on.
pub async fn attend<R: Running>(
    signals: &mut Signals,
    successors: Successors,
    running: &mut R,
) -> Result<(), Failure> {
    notify::ready();
    let _life = notify::watchdog_interval().map(Life::start);
    let successor = match serve(signals, successors, running).await? {
        Ending::Asked => {
            notify::stopping();
            None
        }
        Ending::Replaced(successor) => {
            notify::replaced();
            os::leave_socket_files();
            tracing::info!(process = successor.process(), "replaced by another program");
            Some(successor)
        }
    };
    let timeout = running.drain_timeout();
    tracing::info!(
        timeout_seconds = timeout.as_secs(),
        "draining: no new streams, the running ones may finish"
    );
    tokio::select! {
        () = drain(successor, running) => tracing::info!("drained"),
        () = tokio::time::sleep(timeout) => tracing::warn!("the drain has taken too long; what still runs is reset"),
        () = second_end(signals) => tracing::warn!("asked a second time; what still runs is reset"),
    }
    Ok(())
}

/// Why a program stops serving.
enum Ending {
    /// By a signal.
    Asked,
    /// By another program that takes its place.
    Replaced(Successor),
}

async fn serve<R: Running>(
    signals: &mut Signals,
    mut successors: Successors,
    running: &mut R,
) -> Result<Ending, Failure> {
    let mut watch = Watch::new(running.files());
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::End => return Ok(Ending::Asked),
                Request::Reload => {
                    watch.about_to_read();
                    reload(running).await;
                    watch.set_files(running.files());
                }
            },
            () = watch.changed() => {
                tracing::info!("a file of the configuration has changed");
                reload(running).await;
                watch.set_files(running.files());
            }
            successor = successors.next() => return Ok(Ending::Replaced(successor)),
            error = running.failed() => return Err(Failure::Failed(error)),
        }
    }
}

async fn reload<R: Running>(running: &mut R) {
    notify::reloading();
    match running.reload().await {
        Ok(()) => {
            tracing::info!("the configuration was read anew");
            notify::reloaded("running");
        }
        Err(error) => {
            tracing::error!(%error, "the configuration stays as it was");
            notify::reloaded("running; the new configuration is wrong, see the log");
        }
    }
}

/// Drains, and on the way leaves to a successor what it waits for.
async fn drain<R: Running>(successor: Option<Successor>, running: &mut R) {
    running.settle().await;
    let Some(successor) = successor else {
        return running.drain().await;
    };
    let release = running.release();
    let mut let_go = pin!(async {
        release.await;
        successor.released().await;
    });
    let mut drained = pin!(running.drain());
    // The drain is polled first: it closes the listening sockets and says GoAway, after which histories do not grow.
    tokio::select! {
        biased;
        () = &mut drained => let_go.await,
        () = &mut let_go => drained.await,
    }
}

/// Tells a service manager that the program lives, for as long as it can run a task.
struct Life(JoinHandle<()>);

impl Life {
    fn start(interval: Duration) -> Self {
        Self(tokio::spawn(async move {
            let mut due = tokio::time::interval(interval);
            loop {
                due.tick().await;
                notify::alive();
            }
        }))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn second_end(signals: &mut Signals) {
    while signals.next().await != Request::End {}
}

/// A socket that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The service's name, `tunnel` or `admin`.
    pub name: String,
    /// `tunnel`, `admin` or the service's kind.
    pub kind: &'static str,
    /// Its address, with the port that the system chose when 0 was asked for.
    pub address: Bind,
}

/// Tells whoever started the program which sockets are ready: one line each on standard output.
pub fn announce(sockets: &[Listening]) {
    // Nobody may be reading; that is no reason to stop.
    if let Err(error) = write_announcement(&mut io::stdout().lock(), sockets) {
        tracing::debug!(%error, "standard output does not take the listening lines");
    }
}

fn write_announcement(output: &mut impl Write, sockets: &[Listening]) -> io::Result<()> {
    for Listening {
        name,
        kind,
        address,
    } in sockets
    {
        writeln!(output, "listening {name} {kind} {address}")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal as Sent, getpid, kill_process};

    use super::*;

    #[test]
    fn the_lines_are_those_of_the_contract() {
        let sockets = [
            Listening {
                name: "tunnel".to_owned(),
                kind: "tunnel",
                address: "[::]:7443".parse().unwrap(),
            },
            Listening {
                name: "files".to_owned(),
                kind: "forward",
                address: "127.0.0.1:8445".parse().unwrap(),
            },
        ];
        let mut output = Vec::new();
        write_announcement(&mut output, &sockets).unwrap();
        assert_eq!(
            output,
            b"listening tunnel tunnel [::]:7443\nlistening files forward 127.0.0.1:8445\n"
        );
    }

    #[test]
    fn a_thread_that_never_ends_does_not_hold_the_program_up() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        run(async move {
            tokio::task::spawn_blocking(move || held.recv());
            Ok(())
        })
        .unwrap();
        // The thread is still there: its end of the channel is.
        hold.send(()).unwrap();
    }

    /// Counts what it was asked for, and drains for ever.
    #[derive(Default)]
    struct Counting {
        reloads: AtomicU32,
        drains: AtomicU32,
    }

    impl Running for &Counting {
        async fn reload(&mut self) -> Result<(), String> {
            self.reloads.fetch_add(1, Ordering::Relaxed);
            kill_process(getpid(), Sent::TERM).map_err(|error| error.to_string())
        }

        fn release(&mut self) -> impl Future<Output = ()> + 'static {
            std::future::ready(())
        }

        async fn drain(&mut self) {
            self.drains.fetch_add(1, Ordering::Relaxed);
            kill_process(getpid(), Sent::INT).unwrap();
            std::future::pending().await
        }

        async fn failed(&mut self) -> String {
            std::future::pending().await
        }

        fn drain_timeout(&self) -> Duration {
            Duration::from_secs(3_600)
        }
    }

    struct Broken;

    impl Running for Broken {
        async fn reload(&mut self) -> Result<(), String> {
            Ok(())
        }

        fn release(&mut self) -> impl Future<Output = ()> + 'static {
            std::future::ready(())
        }

        async fn drain(&mut self) {}

        async fn failed(&mut self) -> String {
            "the listener is gone".to_owned()
        }

        fn drain_timeout(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// One test, since signals go to the whole process: what cannot go on fails; a hangup reloads (which here asks for the end), the
    /// end drains, and a second one ends at once although the drain never would.
    #[tokio::test]
    async fn signals_reload_drain_and_end() {
        let mut signals = Signals::install().unwrap();
        let nobody = || Handover::default().listen().unwrap();
        let failure = attend(&mut signals, nobody(), &mut Broken)
            .await
            .unwrap_err();
        assert_eq!(failure, Failure::Failed("the listener is gone".to_owned()));
        let counting = Counting::default();
        kill_process(getpid(), Sent::HUP).unwrap();
        assert_eq!(attend(&mut signals, nobody(), &mut &counting).await, Ok(()));
        assert_eq!(
            (
                counting.reloads.load(Ordering::Relaxed),
                counting.drains.load(Ordering::Relaxed)
            ),
            (1, 1)
        );
    }
}
