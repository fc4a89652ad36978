//! How a running router is told to cut its line: a socket with an abstract name, which belongs to the router's network namespace and needs no
//! directory that could be written to. One line of text each way; only the router's own user and root are listened to.

use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::{From, PacketCounters, Router};

const NAME: &[u8] = b"wanproxy-line";

/// Nothing that is asked takes time.
const PATIENCE: Duration = Duration::from_secs(20);

/// A longer request is none of ours.
const MAX_REQUEST_BYTES: u64 = 64;

/// What a router can be asked; it answers each with its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Cut the line.
    Cut,
    /// Let packets pass again.
    Restore,
    /// Nothing but the counters.
    Counters,
}

/// What both directions have carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// From the near network to the far one.
    pub near_to_far: PacketCounters,
    /// From the far network to the near one.
    pub far_to_near: PacketCounters,
}

/// A router's ear.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
}

impl Control {
    /// Listens, in the network namespace of this thread. Call it within a runtime.
    ///
    /// # Errors
    /// When another router listens in this namespace.
    pub fn listen() -> io::Result<Self> {
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
        })
    }

    /// Answers, one after the other, until it is dropped.
    pub async fn serve(&self, router: &Router) {
        loop {
            if let Ok((stream, _)) = self.listener.accept().await {
                // Whoever asks nothing in time, or nothing sensible, gets no answer.
                let _answered = timeout(PATIENCE, answer(stream, router)).await;
            } else {
                // Out of descriptors: not at once again.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, router: &Router) -> Result<()> {
    let user = stream.peer_cred()?.uid();
    let (reading, mut writing) = stream.split();
    let mut line = String::new();
    AsyncReader::new(reading.take(MAX_REQUEST_BYTES))
        .read_line(&mut line)
        .await?;
    // Only now, so that whoever has no say has written, and hears that nothing comes.
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        bail!("user {user} has no say here");
    }
    match serde_json::from_str(&line)? {
        Ask::Cut => router.cut(),
        Ask::Restore => router.restore(),
        Ask::Counters => {}
    }
    let carried = Carried {
        near_to_far: router.counters(From::Near),
        far_to_near: router.counters(From::Far),
    };
    let mut text = serde_json::to_string(&carried)?;
    text.push('\n');
    writing.write_all(text.as_bytes()).await?;
    Ok(())
}

/// Asks the router of this network namespace.
///
/// # Errors
/// When none runs here, or it does not listen to this user.
pub fn ask(what: Ask) -> Result<Carried> {
    let address = SocketAddr::from_abstract_name(NAME)?;
    let mut stream = StdStream::connect_addr(&address)
        .context("no line runs here; start one by `wanproxy-line route`")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_string(&what)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        bail!("the line gave no answer; it listens to its own user and to root");
    }
    serde_json::from_str(&answer).context("the line's answer makes no sense")
}
