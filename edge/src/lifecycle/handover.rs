//! Replacing a running program by another one without a refused connection.
//!
//! A program that is started with `--handover PATH` takes over from the one that listens at PATH, if there is one, and then listens there for its
//! own successor. What they say to each other, over that Unix socket:
//!
//! 1. The old one sends its listening sockets; it keeps accepting. The new one opens what is not among them, and checks all that a start checks.
//! 2. *Prepared*, says the new one. Until here the old one goes on undisturbed if the new one fails or goes away.
//! 3. The old one stops accepting, says GoAway, writes its histories, gives up their lock (it goes on reading them), and says *released*.
//! 4. The new one opens the histories and accepts. Connections that came meanwhile have waited in the sockets.
//!
//! The old one then drains, and ends.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cli::Failure;
use crate::os;

/// What each side says first: so that whatever else is at PATH is not taken for an edge.
const GREETING: &[u8; 20] = b"wanproxy handover 1\n";
const PREPARED: &[u8; 1] = b"p";
const RELEASED: &[u8; 1] = b"r";

/// How long the other side may take for one step. Reading a configuration takes no time; writing histories may take a while.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// The newcomer's side.
#[derive(Debug, Default)]
pub struct Handover {
    path: Option<PathBuf>,
    predecessor: Option<UnixStream>,
    /// What the predecessor listened at for successors, as long as this program does not.
    control: Option<std::os::unix::net::UnixListener>,
}

impl Handover {
    /// Takes what a service manager has passed, and the sockets of the program that listens at `path`. Before anything listens.
    ///
    /// # Errors
    /// There is a program at `path` that does not hand over.
    pub async fn begin(path: Option<&Path>) -> Result<Self, Failure> {
        let passed = os::adopt_passed_sockets().map_err(|error| {
            Failure::Failed(format!(
                "cannot use the sockets that the service manager passes: {error}"
            ))
        })?;
        if passed > 0 {
            tracing::info!(
                sockets = passed,
                "sockets were passed by the service manager"
            );
        }
        let Some(path) = path.map(Path::to_owned) else {
            return Ok(Self::default());
        };
        let at = path.clone();
        let predecessor = blocking(move || meet_predecessor(&at))
            .await
            .map_err(|error| cannot_take_over(&path, &error))?;
        match &predecessor {
            Some(stream) => tracing::info!(
                process = os::peer_process(stream),
                "taking over from the running program"
            ),
            None => tracing::info!(path = %path.display(), "there is no program to take over from"),
        }
        let control = match predecessor {
            Some(_) => {
                Some(os::listen_private(&path).map_err(|error| cannot_listen(&path, &error))?)
            }
            None => None,
        };
        Ok(Self {
            path: Some(path),
            predecessor,
            control,
        })
    }

    /// Everything is there that this program needs but the histories: the other one stops accepting, and leaves them. After an error it may have
    /// begun to drain already: it has ended, or did not answer.
    ///
    /// # Errors
    /// The other program has gone, or does not answer.
    pub async fn prepared(&mut self) -> Result<(), Failure> {
        let (Some(mut stream), Some(path)) = (self.predecessor.take(), &self.path) else {
            return Ok(());
        };
        blocking(move || {
            stream.write_all(PREPARED)?;
            expect(&mut stream, RELEASED)
        })
        .await
        .map_err(|error| {
            Failure::Failed(format!(
                "the program at {} did not leave its place: {error}; look at its log, and start this one anew",
                path.display()
            ))
        })
    }

    /// Listens for a successor. Everything listens that is going to: what was passed and nobody wanted is closed.
    ///
    /// # Errors
    /// The path cannot be listened at.
    pub fn listen(self) -> Result<Successors, Failure> {
        for address in os::close_unclaimed_sockets() {
            tracing::warn!(
                address,
                "a socket was passed that the configuration does not name; it is closed"
            );
        }
        let (told, asked) = mpsc::channel(1);
        let Some(path) = self.path else {
            return Ok(Successors { asked, task: None });
        };
        let listener = self
            .control
            .map_or_else(|| os::listen_private(&path), Ok)
            .and_then(UnixListener::from_std)
            .map_err(|error| cannot_listen(&path, &error))?;
        let task = tokio::spawn(meet_successors(listener, told));
        Ok(Successors {
            asked,
            task: Some(task),
        })
    }
}

fn cannot_listen(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot listen at {} for a successor: {error}",
        path.display()
    ))
}

fn cannot_take_over(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot take over from the program at {}: {error}; it goes on as before",
        path.display()
    ))
}

fn meet_predecessor(path: &Path) -> io::Result<Option<UnixStream>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    greet(&mut stream)?;
    os::receive_listening_sockets(&stream)?;
    Ok(Some(stream))
}

/// Both sides begin alike: only the same user is spoken to, and only an edge.
fn greet(stream: &mut UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    if !os::is_same_user(stream)? {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it runs as another user",
        ));
    }
    stream.write_all(GREETING)?;
    expect(stream, GREETING)
}

fn expect<const N: usize>(stream: &mut UnixStream, expected: &[u8; N]) -> io::Result<()> {
    let mut heard = [0; N];
    stream
        .read_exact(&mut heard)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(error.kind(), "the other program has ended")
            }
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "the other program does not answer")
            }
            _ => error,
        })?;
    if heard == *expected {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the other program says something else than an edge would",
        ))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Where a running program hears of its successor.
#[derive(Debug)]
pub struct Successors {
    asked: mpsc::Receiver<Successor>,
    task: Option<JoinHandle<()>>,
}

impl Successors {
    /// The one that is prepared to take over. Can be dropped and asked again.
    pub async fn next(&mut self) -> Successor {
        match self.asked.recv().await {
            Some(successor) => successor,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A program that has all it needs but the histories.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
}

impl Successor {
    /// Its process.
    pub fn process(&self) -> Option<i32> {
        os::peer_process(&self.stream)
    }

    /// Tells it that the histories are its own now.
    pub async fn released(self) {
        let mut stream = self.stream;
        if let Err(error) = blocking(move || stream.write_all(RELEASED)).await {
            tracing::warn!(%error, "the program that takes over has gone");
        }
    }
}

/// One at a time: whoever comes while another prepares waits.
async fn meet_successors(listener: UnixListener, told: mpsc::Sender<Successor>) {
    /// The pause after a connection that could not be accepted, for want of descriptors perhaps.
    const RETRY_DELAY: Duration = Duration::from_millis(200);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream.into_std(),
            Err(error) => {
                tracing::debug!(%error, "a successor's connection was not accepted");
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
        };
        let met = blocking(move || {
            let mut stream = stream?;
            greet(&mut stream)?;
            tracing::info!(
                process = os::peer_process(&stream),
                "a program asks to take over"
            );
            os::send_listening_sockets(&stream)?;
            expect(&mut stream, PREPARED)?;
            Ok(Successor { stream })
        })
        .await;
        match met {
            Ok(successor) => {
                // Nobody else may take over from here on.
                let _ = told.send(successor).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a program did not take over; this one goes on");
            }
        }
    }
}
