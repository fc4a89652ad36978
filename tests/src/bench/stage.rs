//! One pair under test with everything around it: the line, the origin on the far side, and the load on the near side.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::exchange::{Exchange, Load, Purpose};
use super::interrupt::Interrupt;
use super::load::{Bulk, Crowd, Direction, Pings, bulk, ping, short_connections};
use super::place::{LineKind, Place, Side};
use super::process::Process;
use super::rival::{Rival, Setup};
use crate::origin::Server;
use crate::pair::Programs;

/// A pair that has carried no byte by then never will.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// One attempt to carry a byte.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// A load that has not ended by then has stalled.
const STALL: Duration = Duration::from_secs(60);

/// After many connections, what is freed late is freed.
const SETTLE: Duration = Duration::from_secs(1);

/// Connections before memory is looked at for the first time, so that what only the first ones cost is not counted for each.
const FIRST_CONNECTIONS: usize = 64;

/// What is needed to set any stage.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) programs: Programs,
    pub(super) interrupt: Interrupt,
}

/// A pair that carries bytes. Dropping it ends everything.
#[derive(Debug)]
pub(super) struct Stage {
    line: LineKind,
    rival: Rival,
    tools: Tools,
    entrance: SocketAddr,
    exchange: Arc<Exchange>,
    // The order is the order of ending.
    processes: Vec<Process>,
    _origin: Server,
    near: Runtime,
    _far: Runtime,
    _place: Place,
    _directory: TempDir,
}

impl Stage {
    /// Starts `rival` on `line` and returns when it has carried a byte to the origin and back.
    pub(super) fn set(line: LineKind, rival: Rival, tools: &Tools) -> Result<Self> {
        tools.interrupt.check()?;
        let place = Place::make(line, rival.congestion())?;
        let (near, far) = (place.runtime(Side::Near)?, place.runtime(Side::Far)?);
        let exchange = Arc::new(Exchange::default());
        let origin = origin(&far, Arc::clone(&exchange))?;
        let directory = tempfile::Builder::new()
            .prefix("wanproxy-bench-")
            .tempdir()?;
        let pair = rival.start(&Setup {
            place: &place,
            programs: &tools.programs,
            origin: (Ipv4Addr::LOCALHOST, origin.address().port()).into(),
            directory: directory.path(),
        })?;
        let mut stage = Self {
            line,
            rival,
            tools: tools.clone(),
            entrance: pair.entrance,
            exchange,
            processes: pair.processes,
            _origin: origin,
            near,
            _far: far,
            _place: place,
            _directory: directory,
        };
        stage.wait_for_byte()?;
        Ok(stage)
    }

    /// Ends everything and starts the same anew, with nothing on its way.
    pub(super) fn renew(&mut self) -> Result<()> {
        let tools = self.tools.clone();
        *self = Self::set(self.line, self.rival, &tools)?;
        Ok(())
    }

    /// One transfer, and the processor time of both programs in seconds.
    pub(super) fn bulk(
        &self,
        direction: Direction,
        load: Load,
        limit: Duration,
    ) -> Result<(Bulk, f64)> {
        let before = self.cpu_seconds();
        let exchange = Arc::clone(&self.exchange);
        let moved = self.play(bulk(exchange, self.entrance, direction, load, limit))?;
        if moved.bytes == 0 {
            bail!("no byte arrived within {limit:?}");
        }
        Ok((moved, self.cpu_seconds() - before))
    }

    /// Round trips in milliseconds: p50 and p99.
    pub(super) fn ping(&self, pings: Pings) -> Result<(f64, f64)> {
        self.play(ping(self.entrance, pings, self.exchange.number()))
    }

    /// Connections a second.
    pub(super) fn connections(&self, time: Duration) -> Result<f64> {
        self.play(short_connections(self.entrance, time))
    }

    /// Memory of each of `count` idle streams in both programs, in bytes.
    pub(super) fn memory(&self, count: usize) -> Result<f64> {
        drop(self.play(Crowd::gather(self.entrance, FIRST_CONNECTIONS))?);
        std::thread::sleep(SETTLE);
        let before = self.resident_bytes();
        let crowd = self.play(Crowd::gather(self.entrance, count))?;
        std::thread::sleep(SETTLE);
        let after = self.resident_bytes();
        drop(crowd);
        Ok((after as f64 - before as f64) / count as f64)
    }

    /// Whether there is anything but the line.
    pub(super) const fn has_programs(&self) -> bool {
        !self.processes.is_empty()
    }

    /// The programs' last words, for an error.
    pub(super) fn said(&self) -> String {
        self.processes
            .iter()
            .map(Process::said)
            .collect::<Vec<_>>()
            .join(" | ")
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    fn resident_bytes(&self) -> u64 {
        self.processes.iter().map(Process::resident_bytes).sum()
    }

    fn wait_for_byte(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.tools.interrupt.check()?;
            for process in &mut self.processes {
                process.check()?;
            }
            let entrance = self.entrance;
            let attempt = async move { timeout(ATTEMPT_TIMEOUT, carry_byte(entrance)).await? };
            match self.play(attempt) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let said = self.said();
                    return Err(error.context(format!("no byte within {START_TIMEOUT:?}: {said}")));
                }
                Err(_) => std::thread::sleep(ATTEMPT_PAUSE),
            }
        }
    }

    /// Runs a load on the near side's threads.
    fn play<T: Send + 'static>(
        &self,
        load: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let asked = self.tools.interrupt.clone().asked();
        let played = self.near.spawn(async move {
            tokio::select! {
                played = timeout(STALL, load) => {
                    Ok(played.map_err(|_| anyhow!("it stalled for {STALL:?}"))??)
                }
                () = asked => bail!("interrupted"),
            }
        });
        self.near.block_on(played).context("the load panicked")?
    }
}

fn origin(far: &Runtime, exchange: Arc<Exchange>) -> Result<Server> {
    let started = far.spawn(async move {
        Server::start_on((Ipv4Addr::UNSPECIFIED, 0).into(), move |connection| {
            let exchange = Arc::clone(&exchange);
            async move { exchange.serve(connection).await }
        })
    });
    Ok(far.block_on(started)??)
}

async fn carry_byte(entrance: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(entrance).await?;
    connection.write_all(&Purpose::Echo.greeting(0)).await?;
    connection.write_all(&[7]).await?;
    connection.read_u8().await.map(drop)
}
