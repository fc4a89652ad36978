//! Where a pair of programs runs: both on loopback, or at the two ends of an emulated line.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::runtime::Runtime;

use crate::free_port;
use crate::packets::{FAR, PacketLine, Settings, Space};

/// Fixes which packets of a lossy line are lost.
const SEED: u64 = 20_260;

/// Threads that make the load, on each side. The programs under test have the machine's cores as well.
const LOAD_THREADS: usize = 2;

/// A line that is benchmarked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// No line at all.
    Loopback,
    /// 10 Mbit/s, 40 ms.
    Slow,
    /// 100 Mbit/s, 80 ms.
    Long,
    /// 100 Mbit/s, 80 ms, one packet of a hundred lost.
    Lossy,
    /// 1 Gbit/s, 20 ms.
    Fast,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Where the load is made and the client edge runs.
    Near,
    /// Where the origin and the server edge run.
    Far,
}

/// The two ends and what is between them.
#[derive(Debug)]
pub(super) enum Place {
    /// The machine's own loopback, which others use as well.
    Loopback,
    /// The loopback of a namespace that has nothing else: nothing that ran before, or runs beside, has a port there.
    Alone(Space),
    Line(Box<PacketLine>),
}

impl LineKind {
    pub(super) const ALL: [Self; 5] = [
        Self::Loopback,
        Self::Slow,
        Self::Long,
        Self::Lossy,
        Self::Fast,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Slow => "10M-40ms",
            Self::Long => "100M-80ms",
            Self::Lossy => "100M-80ms-1%",
            Self::Fast => "1G-20ms",
        }
    }

    /// Bits a second; none on loopback.
    pub(super) const fn rate_bits_per_s(self) -> Option<u64> {
        match self {
            Self::Loopback => None,
            Self::Slow => Some(10_000_000),
            Self::Long | Self::Lossy => Some(100_000_000),
            Self::Fast => Some(1_000_000_000),
        }
    }

    fn settings(self) -> Option<Settings> {
        let round_trip = Duration::from_millis(match self {
            Self::Loopback => return None,
            Self::Slow => 40,
            Self::Long | Self::Lossy => 80,
            Self::Fast => 20,
        });
        let loss = if self == Self::Lossy { 0.01 } else { 0.0 };
        Some(Settings {
            loss,
            ..Settings::line(self.rate_bits_per_s()?, round_trip)
        })
    }
}

impl Place {
    /// Why this line cannot be had here, if so.
    pub(super) fn impossible(line: LineKind) -> Option<String> {
        line.settings()?;
        PacketLine::possible().err()
    }

    /// A line of its own for each pair: nothing of the one before is still on its way. `congestion` is what new connections use that do not choose
    /// for themselves; `None` means the system's.
    pub(super) fn make(line: LineKind, congestion: Option<&str>) -> Result<Self> {
        let Some(settings) = line.settings() else {
            return match PacketLine::possible() {
                Ok(()) => Ok(Self::Alone(Space::alone("loopback")?)),
                Err(_) => Ok(Self::Loopback),
            };
        };
        let line = PacketLine::start(settings, SEED)?;
        if let Some(name) = congestion {
            line.set_congestion_control(name)?;
        }
        Ok(Self::Line(Box::new(line)))
    }

    /// A command that runs `program` on that side, as its own process.
    pub(super) fn command(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self.space(side) {
            Some(space) => space.command(program),
            None => Command::new(program),
        }
    }

    /// Where the far side is reached over the line.
    pub(super) fn far_ip(&self) -> Ipv4Addr {
        match self {
            Self::Loopback | Self::Alone(_) => Ipv4Addr::LOCALHOST,
            Self::Line(_) => FAR,
        }
    }

    /// A [`free_port`] of that side.
    pub(super) fn free_port(&self, side: Side) -> Result<u16> {
        self.run(side, free_port)
    }

    /// A runtime whose sockets belong to that side, as long as they are made by its tasks.
    pub(super) fn runtime(&self, side: Side) -> Result<Runtime> {
        // Threads stay in the namespace of the thread that starts them.
        self.run(side, || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(LOAD_THREADS)
                .thread_name("load")
                .enable_all()
                .build()
        })
    }

    fn run<T: Send>(&self, side: Side, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        match self.space(side) {
            Some(space) => space.run(work),
            None => work().map_err(|error| anyhow!(error)),
        }
    }

    fn space(&self, side: Side) -> Option<&Space> {
        match (self, side) {
            (Self::Loopback, _) => None,
            (Self::Alone(space), _) => Some(space),
            (Self::Line(line), Side::Near) => Some(line.near()),
            (Self::Line(line), Side::Far) => Some(line.far()),
        }
    }
}
