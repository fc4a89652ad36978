//! Many connections at once, each with its own script: sizes, which side ends first, who resets and where. Both ends
//! know the script, send payloads by offset, check what they get, and say what they saw.

mod script;
mod side;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use script::{Ending, Script};
pub use side::Outcome;

use crate::origin::Server;

/// A storm that has not ended by then has stalled. Far beyond what one takes on a busy machine.
const STALL_LIMIT: Duration = Duration::from_secs(180);

/// Plays the far end of every script.
#[derive(Debug)]
pub struct StormOrigin {
    server: Server,
    outcomes: Outcomes,
}

type Outcomes = Arc<Mutex<HashMap<u64, Outcome>>>;

impl StormOrigin {
    /// Starts it.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start() -> io::Result<Self> {
        let outcomes = Outcomes::default();
        let seen = Arc::clone(&outcomes);
        let server = Server::start(move |connection| serve(connection, Arc::clone(&seen)))?;
        Ok(Self { server, outcomes })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Plays all scripts at once through `entrance`, which must lead here. No connection begins before all are open.
    ///
    /// # Panics
    /// When a connection does not do what its script says, with the script and what both ends saw; when one cannot be
    /// opened; when the storm stalls.
    pub async fn rage(&self, entrance: SocketAddr, scripts: Vec<Script>) {
        let open = Arc::new(Barrier::new(scripts.len()));
        let mut playing = JoinSet::new();
        for script in &scripts {
            playing.spawn(play(entrance, *script, Arc::clone(&open)));
        }
        let near = match timeout(STALL_LIMIT, playing.join_all()).await {
            Ok(outcomes) => outcomes,
            Err(_) => panic!(
                "the storm stalled; the far ends of {} scripts are done",
                self.far_done()
            ),
        };
        let far = crate::eventually("the far ends are done", async || {
            let done = self.far_done();
            if done >= scripts.len() {
                Ok(())
            } else {
                Err(done)
            }
        });
        far.await;
        let mut far =
            std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut wrong = Vec::new();
        for (script, near) in near {
            let far = far.remove(&script.id);
            let right = far.as_ref().is_some_and(|far| script.allows(&near, far));
            if !right {
                wrong.push(format!("{script:?}\n  near: {near:?}\n  far:  {far:?}"));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {} went wrong:\n{}",
            wrong.len(),
            scripts.len(),
            wrong.join("\n")
        );
    }

    fn far_done(&self) -> usize {
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

async fn play(entrance: SocketAddr, script: Script, open: Arc<Barrier>) -> (Script, Outcome) {
    let connected = async {
        let mut connection = TcpStream::connect(entrance).await?;
        connection.set_nodelay(true)?;
        script.introduce(&mut connection).await?;
        Ok::<_, io::Error>(connection)
    };
    let connected = connected.await;
    open.wait().await;
    let begun = match connected {
        Ok(mut connection) => Script::begin(&mut connection).await.map(|()| connection),
        Err(error) => Err(error),
    };
    let outcome = match begun {
        Ok(connection) => side::near(connection, script).await,
        Err(error) => Outcome::not_opened(&error),
    };
    (script, outcome)
}

async fn serve(mut connection: TcpStream, outcomes: Outcomes) -> io::Result<()> {
    let script = Script::learn(&mut connection).await?;
    let outcome = match Script::welcome(&mut connection).await {
        Ok(()) => side::far(connection, script).await,
        // The near end may reset at once, and a reset may overtake what came before it.
        Err(error) => Outcome::not_begun(&error),
    };
    outcomes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(script.id, outcome);
    Ok(())
}

/// Raises the number of descriptors this process may have to what the system lets it: a storm needs two a connection.
///
/// # Errors
/// When the system refuses, or `needed` is more than it allows at all.
pub fn allow_descriptors(needed: u64) -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    match limit.maximum {
        Some(maximum) if maximum < needed => Err(io::Error::other(format!(
            "{needed} descriptors are needed, the hard limit is {maximum}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::line::{Line, LineConfig};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_ending_is_carried_by_plain_tcp() {
        let origin = StormOrigin::start().unwrap();
        origin.rage(origin.address(), Script::many(64, 1)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_ending_is_carried_by_the_emulated_line() {
        let origin = StormOrigin::start().unwrap();
        let line = Line::start(origin.address(), LineConfig::unshaped()).unwrap();
        origin.rage(line.address(), Script::many(64, 2)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "went wrong")]
    async fn a_line_that_is_cut_is_noticed() {
        let origin = StormOrigin::start().unwrap();
        let line = Line::start(
            origin.address(),
            LineConfig::shaped(8_000_000, Duration::from_millis(1)),
        )
        .unwrap();
        let script = Script {
            ending: Ending::Together,
            up_bytes: 10 << 20,
            down_bytes: 0,
            ..Script::many(1, 3)[0]
        };
        let entrance = line.address();
        let cut = async {
            while line.bytes().to_target < 100_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            line.cut();
        };
        tokio::join!(origin.rage(entrance, vec![script]), cut);
    }
}
