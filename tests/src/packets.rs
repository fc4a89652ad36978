//! An emulated line between two network namespaces, at the level of IP packets: what TCP meets on a long, thin or lossy line.
//!
//! Each namespace has one TUN device; a thread for each direction carries packets from one to the other and gives them a rate, a delay, jitter,
//! loss and a drop-tail queue. The kernel's own TCP, with its congestion control, runs on both sides, so what is measured here may be quoted, with the
//! settings beside it. Root only: making a namespace and a TUN device needs it.

mod forward;
mod model;
mod space;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

pub use model::{PacketCounters, Settings};
pub use space::{Place, Space};

use forward::Forwarder;

/// Name of the TUN device in both namespaces.
pub const DEVICE: &str = "wan0";

/// Address of the first namespace.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Address of the second namespace.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Bytes of a packet at most, as on Ethernet.
const MTU_BYTES: u16 = 1500;

/// Most that TCP may buffer for a connection in these namespaces. With the usual 4 MB, BBR on 100 Mbit/s and 80 ms never leaves its
/// start-up phase and loses thousands of packets.
const TCP_BUFFER_MAX_BYTES: u32 = 32 << 20;

static MADE: AtomicU32 = AtomicU32::new(0);

/// The side that packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The first namespace.
    Near,
    /// The second namespace.
    Far,
}

/// Two namespaces with a line between them. Dropping it ends the line and removes the namespaces; programs that still run in them keep
/// theirs, without the line, until they end.
#[derive(Debug)]
pub struct PacketLine {
    // Before the namespaces, whose devices they hold.
    near_to_far: Forwarder,
    far_to_near: Forwarder,
    near: Space,
    far: Space,
}

impl PacketLine {
    /// Whether this process may make one; if not, why not.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn possible() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root, to make network namespaces".to_owned());
        }
        if let Err(error) = fs::metadata("/dev/net/tun") {
            return Err(format!("it needs /dev/net/tun: {error}"));
        }
        Space::tool()
            .map_err(|error| format!("it needs the program ip (package iproute2): {error}"))
    }

    /// Makes the namespaces and the line. `seed` fixes which packets are lost and how jitter falls.
    ///
    /// # Errors
    /// When the kernel or `ip` refuses; see [`PacketLine::possible`].
    pub fn start(settings: Settings, seed: u64) -> Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("wanproxy-{}-{number}-{side}", std::process::id());
        let near = Space::create(name("near"))?;
        let far = Space::create(name("far"))?;
        let near_device = near.tun(DEVICE, MTU_BYTES)?;
        let far_device = far.tun(DEVICE, MTU_BYTES)?;
        near.connect(DEVICE, NEAR, FAR)?;
        far.connect(DEVICE, FAR, NEAR)?;
        for space in [&near, &far] {
            space
                .run(widen_tcp_buffers)
                .context("cannot widen TCP's buffers in a namespace")?;
        }
        let near_to_far = Forwarder::start(
            near_device.clone(),
            far_device.clone(),
            settings.clone(),
            seed,
        )?;
        let far_to_near = Forwarder::start(far_device, near_device, settings, !seed)?;
        Ok(Self {
            near_to_far,
            far_to_near,
            near,
            far,
        })
    }

    /// The first namespace, at [`NEAR`].
    #[must_use]
    pub const fn near(&self) -> &Space {
        &self.near
    }

    /// The second namespace, at [`FAR`].
    #[must_use]
    pub const fn far(&self) -> &Space {
        &self.far
    }

    /// Changes the line under way, both directions.
    pub fn set(&self, settings: &Settings) {
        self.near_to_far.set(settings.clone());
        self.far_to_near.set(settings.clone());
    }

    /// Makes `name` (such as bbr or cubic) the congestion control of connections that begin from now on, in both namespaces.
    ///
    /// # Errors
    /// When the kernel does not have it.
    pub fn set_congestion_control(&self, name: &str) -> Result<()> {
        self.near.set_congestion_control(DEVICE, NEAR, FAR, name)?;
        self.far.set_congestion_control(DEVICE, FAR, NEAR, name)
    }

    /// From now on nothing arrives, and what is on its way is lost; nobody is told, as when a cable is cut.
    pub fn cut(&self) {
        self.near_to_far.set_up(false);
        self.far_to_near.set_up(false);
    }

    /// Packets pass again.
    pub fn restore(&self) {
        self.near_to_far.set_up(true);
        self.far_to_near.set_up(true);
    }

    /// What one direction has carried.
    #[must_use]
    pub fn counters(&self, from: From) -> PacketCounters {
        match from {
            From::Near => self.near_to_far.counters(),
            From::Far => self.far_to_near.counters(),
        }
    }
}

impl Settings {
    /// A line of this rate and round trip with a queue of one bandwidth-delay product (at least 64 KiB), no jitter and no loss.
    #[must_use]
    pub fn line(rate_bits_per_s: u64, round_trip: Duration) -> Self {
        let product = u128::from(rate_bits_per_s) * round_trip.as_micros() / 8_000_000;
        Self {
            rate_bits_per_s: Some(rate_bits_per_s),
            delay: round_trip / 2,
            queue_bytes: usize::try_from(product).unwrap_or(usize::MAX).max(64 << 10),
            ..Self::default()
        }
    }
}

fn widen_tcp_buffers() -> io::Result<()> {
    let wanted = format!("4096 131072 {TCP_BUFFER_MAX_BYTES}");
    fs::write("/proc/sys/net/ipv4/tcp_wmem", &wanted)?;
    fs::write("/proc/sys/net/ipv4/tcp_rmem", &wanted)
}
