//! An emulated line between two network namespaces, at the level of IP packets: what TCP meets on a long, thin or lossy line.
//!
//! Each namespace has one TUN device; a thread for each direction carries packets from one to the other and gives them a rate, a delay, jitter,
//! loss and a drop-tail queue. The kernel's own TCP, with its congestion control, runs on both sides, so what is measured here may be quoted, with the
//! settings beside it. Root only: making a namespace and a TUN device needs it.
//!
//! The same model is the line of a [`Router`] between two networks that somebody else has made, such as those of containers.

mod control;
mod forward;
mod host;
mod inet;
mod model;
mod netlink;
mod router;
mod space;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

pub use control::{Ask, Carried, Control, ask};
pub use host::Lan;
pub use inet::Inet;
pub use model::{PacketCounters, Settings};
pub use router::Router;
pub use space::{Place, Space};

use forward::Directions;

/// Name of the TUN device in both namespaces.
pub const DEVICE: &str = "wan0";

/// Address of the first namespace.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Address of the second namespace.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The device of a second line, and the addresses of both namespaces on it.
const DEVICE_BESIDE: &str = "wan1";
/// Address of the first namespace on a second line.
pub const NEAR_BESIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
/// Address of the second namespace on a second line.
pub const FAR_BESIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

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
    directions: Directions,
    near: Space,
    far: Space,
}

/// A second line between the namespaces of a [`PacketLine`], from [`NEAR_BESIDE`] to [`FAR_BESIDE`]; ends when dropped.
#[derive(Debug)]
pub struct LineBeside(Directions);

impl LineBeside {
    /// What the direction from the first namespace has carried.
    #[must_use]
    pub fn counters(&self) -> PacketCounters {
        self.0.counters(From::Near)
    }
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
        Ok(Self {
            directions: Directions::start(near_device, far_device, settings, seed)?,
            near,
            far,
        })
    }

    /// Another line between the same namespaces; there may be one.
    ///
    /// # Errors
    /// When the kernel or `ip` refuses.
    pub fn beside(&self, settings: Settings, seed: u64) -> Result<LineBeside> {
        let near = self.near.tun(DEVICE_BESIDE, MTU_BYTES)?;
        let far = self.far.tun(DEVICE_BESIDE, MTU_BYTES)?;
        self.near.connect(DEVICE_BESIDE, NEAR_BESIDE, FAR_BESIDE)?;
        self.far.connect(DEVICE_BESIDE, FAR_BESIDE, NEAR_BESIDE)?;
        Ok(LineBeside(Directions::start(near, far, settings, seed)?))
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
        self.directions.set(settings);
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
        self.directions.set_up(false);
    }

    /// Packets pass again.
    pub fn restore(&self) {
        self.directions.set_up(true);
    }

    /// The first namespace has another address from now on, and [`NEAR`] no more: what was connected from there hears nothing again.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn move_near_to(&self, address: Ipv4Addr) -> Result<()> {
        self.near.replace_address(DEVICE, NEAR, address, FAR)?;
        self.far.add_route(&format!("{address}/32"), DEVICE)
    }

    /// What one direction has carried.
    #[must_use]
    pub fn counters(&self, from: From) -> PacketCounters {
        self.directions.counters(from)
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
