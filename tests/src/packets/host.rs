//! A host of a local network, in a namespace of its own: an end of the line is its router.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use super::Space;

/// The device at the host.
const HOST_DEVICE: &str = "eth0";

/// A local network of one router and one host, an IPv4 /24 and an IPv6 /64.
#[derive(Clone, Copy, Debug)]
pub struct Lan {
    /// The name of the router's device.
    pub device: &'static str,
    /// The router's addresses.
    pub router: (Ipv4Addr, Ipv6Addr),
    /// The host's addresses.
    pub host: (Ipv4Addr, Ipv6Addr),
}

impl Space {
    /// Makes a host whose router this is, called after it and `name`. The router forwards from now on.
    ///
    /// # Errors
    /// When `ip` or the kernel refuses.
    pub fn attach(&self, name: &str, lan: &Lan) -> Result<Self> {
        let host = Self::create(format!("{}-{name}", self.name()))?;
        self.ip([
            "link",
            "add",
            lan.device,
            "type",
            "veth",
            "peer",
            "name",
            HOST_DEVICE,
            "netns",
            host.name(),
        ])?;
        self.address(lan.device, lan.router)?;
        host.address(HOST_DEVICE, lan.host)?;
        let (v4, v6) = (lan.router.0.to_string(), lan.router.1.to_string());
        host.ip(["-4", "route", "add", "default", "via", &v4])?;
        host.ip(["-6", "route", "add", "default", "via", &v6])?;
        self.run(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        })
        .context("cannot make a namespace forward")?;
        Ok(host)
    }

    fn address(&self, device: &str, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<()> {
        self.ip(["addr", "add", &format!("{v4}/24"), "dev", device])?;
        // Nobody else is on that wire, so the address can be used at once.
        self.ip(["addr", "add", &format!("{v6}/64"), "dev", device, "nodad"])?;
        self.ip(["link", "set", device, "up"])
    }
}
