//! A router between two networks whose line is the emulated one: what the kernel would forward from one network to the other goes through
//! the model first.
//!
//! ```text
//! near network ─ device ═ rule: all of it to ═ TUN ─ forwarder ─ TUN ═ the kernel's own routes ═ device ─ far network
//! ```
//!
//! and the same the other way with the same two TUN devices. IPv4 only. It needs `CAP_NET_ADMIN`, `/dev/net/tun` and no program.

use std::fs;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::forward::Directions;
use super::netlink::Changes;
use super::{From, Inet, MTU_BYTES, PacketCounters, Settings};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The TUN device that takes what comes from the near network, and the routing table that leads to it; then those of the far one.
const ENDS: [(&str, u8); 2] = [("line0", 100), ("line1", 101)];

/// A running router; ends when dropped, and takes back what it has changed.
#[derive(Debug)]
pub struct Router {
    directions: Directions,
    _changes: Changes,
    devices: [String; 2],
}

impl Router {
    /// Starts one in the network namespace of this thread, between the devices that have an address in the networks of `near` and `far`.
    /// They get those addresses, too: the hosts of the two networks name them as their router. `seed` fixes which packets are lost.
    ///
    /// # Errors
    /// When no device is in one of the networks, the namespace does not forward, or the kernel refuses.
    pub fn start(near: Inet, far: Inet, settings: Settings, seed: u64) -> Result<Self> {
        forward()?;
        let mut changes = Changes::begin().context("cannot ask the kernel for its addresses")?;
        let near_network = Network::of(&mut changes, near)?;
        let far_network = Network::of(&mut changes, far)?;
        if near_network.index == far_network.index {
            bail!("{near} and {far} are on one device; a line needs two");
        }
        let [near_end, far_end] = ENDS;
        let near_tun = end(&changes, near_end)?;
        let far_tun = end(&changes, far_end)?;
        let directions = Directions::start(near_tun, far_tun, settings, seed)?;
        for (network, (_, table)) in [(&near_network, near_end), (&far_network, far_end)] {
            changes
                .add_rule(&network.device, table)
                .with_context(|| format!("cannot lead {} to the line", network.device))?;
        }
        Ok(Self {
            directions,
            _changes: changes,
            devices: [near_network.device, far_network.device],
        })
    }

    /// The devices of the near and the far network.
    #[must_use]
    pub const fn devices(&self) -> &[String; 2] {
        &self.devices
    }

    /// As [`PacketLine::cut`](super::PacketLine::cut).
    pub fn cut(&self) {
        self.directions.set_up(false);
    }

    /// Packets pass again.
    pub fn restore(&self) {
        self.directions.set_up(true);
    }

    /// What one direction has carried.
    #[must_use]
    pub fn counters(&self, from: From) -> PacketCounters {
        self.directions.counters(from)
    }
}

/// The device of a network.
struct Network {
    device: String,
    index: u32,
}

impl Network {
    /// Finds it, and gives it the address.
    fn of(changes: &mut Changes, inet: Inet) -> Result<Self> {
        let addresses = changes
            .addresses()
            .context("cannot ask the kernel for its addresses")?;
        let mut beside = addresses
            .into_iter()
            .filter(|held| inet.is_beside(held.address));
        let Some(first) = beside.next() else {
            bail!("no device has an address in the network of {inet}");
        };
        let is_there = first.address == inet.address || beside.any(|h| h.address == inet.address);
        if !is_there {
            changes
                .add_address(first.index, inet)
                .with_context(|| format!("cannot give {} the address {inet}", first.device))?;
        }
        Ok(Self {
            device: first.device,
            index: first.index,
        })
    }
}

/// One end of the line, which all in its table leads to.
fn end(changes: &Changes, (device, table): (&str, u8)) -> Result<Arc<SyncDevice>> {
    let tun = || -> io::Result<SyncDevice> {
        let tun = DeviceBuilder::new()
            .name(device)
            .mtu(MTU_BYTES)
            .enable(false)
            .build_sync()?;
        tun.set_nonblocking(true)?;
        let index = tun.if_index()?;
        // A kernel without IPv6 refuses, and has nothing to say either.
        let _quiet = changes.quiet(index);
        tun.enabled(true)?;
        changes.add_default_route(table, index)?;
        Ok(tun)
    };
    let tun = tun().with_context(|| format!("cannot make the device {device}"))?;
    Ok(Arc::new(tun))
}

/// Makes the namespace forward if it does not yet; a container's may not be changed from inside.
fn forward() -> Result<()> {
    let state =
        fs::read_to_string(FORWARDING).with_context(|| format!("cannot read {FORWARDING}"))?;
    if state.trim() != "1" {
        fs::write(FORWARDING, "1").context(
            "packets are not forwarded here, and that cannot be changed from inside; set the sysctl net.ipv4.ip_forward = 1",
        )?;
    }
    Ok(())
}
