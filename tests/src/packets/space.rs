//! A network namespace of our own: what is needed of it, through `ip` and one thread at a time that enters it.

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, thread};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Where a program runs: on the host, or in a namespace that somebody else holds; and with which further environment.
#[derive(Clone, Debug, Default)]
pub struct Place {
    space: Option<String>,
    environment: Vec<(String, PathBuf)>,
}

impl Place {
    /// A command that runs `program` there. Its process is the program's own: a signal to it reaches the program.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if let Some(name) = &self.space {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same place, where programs are also given this environment.
    #[must_use]
    pub fn with_environment(self, environment: Vec<(String, PathBuf)>) -> Self {
        Self {
            environment,
            ..self
        }
    }

    /// Runs `work` there: on this thread, or on one of its own inside the namespace. Sockets that it opens belong there, and go on working
    /// when they are handed out.
    ///
    /// # Errors
    /// Those of `work`, and when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        let Some(name) = &self.space else {
            return Ok(work()?);
        };
        let path = Path::new("/run/netns").join(name);
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    enter(&path)?;
                    work()
                })
                .join()
        })
        .map_err(|_panic| anyhow!("the work in namespace {name} panicked"))?
        .with_context(|| format!("in namespace {name}"))
    }
}

/// A network namespace; removed when dropped.
#[derive(Debug)]
pub struct Space {
    name: String,
}

impl Space {
    /// Whether the program that makes them can be run.
    pub(super) fn tool() -> io::Result<()> {
        Command::new("ip")
            .arg("-V")
            .stdout(Stdio::null())
            .status()
            .map(drop)
    }

    pub(super) fn create(name: String) -> Result<Self> {
        ip(["netns", "add", &name])?;
        let space = Self { name };
        space.ip(["link", "set", "lo", "up"])?;
        Ok(space)
    }

    /// A namespace of its own that has a loopback device and nothing else.
    ///
    /// # Errors
    /// When `ip` refuses; see [`PacketLine::possible`](super::PacketLine::possible).
    pub fn alone(name: &str) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self::create(format!("wanproxy-{}-{name}-{number}", std::process::id()))
    }

    /// The namespace's name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace as a place to run programs in, for as long as it exists.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            space: Some(self.name.clone()),
            environment: Vec::new(),
        }
    }

    /// As [`Place::command`].
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.place().command(program)
    }

    /// As [`Place::run`].
    ///
    /// # Errors
    /// Those of `work`, and when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        self.place().run(work)
    }

    /// A TUN device in the namespace, reads and writes of which do not block.
    pub(super) fn tun(&self, device: &str, mtu_bytes: u16) -> Result<Arc<SyncDevice>> {
        let tun = self.run(|| {
            let tun = DeviceBuilder::new()
                .name(device)
                .mtu(mtu_bytes)
                // It is brought up once its addresses are settled.
                .enable(false)
                .build_sync()?;
            tun.set_nonblocking(true)?;
            Ok(tun)
        })?;
        Ok(Arc::new(tun))
    }

    /// Gives the device an address and the way to the other end.
    pub(super) fn connect(&self, device: &str, own: Ipv4Addr, peer: Ipv4Addr) -> Result<()> {
        let (own, peer) = (own.to_string(), peer.to_string());
        // Without a link-local address the kernel says nothing of its own accord: the counters are of what programs have sent.
        self.ip(["link", "set", device, "addrgenmode", "none"])?;
        self.ip(["addr", "add", &own, "peer", &peer, "dev", device])?;
        self.ip(["link", "set", device, "up"])
    }

    /// Makes `name` the congestion control of connections to the other end that begin from now on.
    pub(super) fn set_congestion_control(
        &self,
        device: &str,
        own: Ipv4Addr,
        peer: Ipv4Addr,
        name: &str,
    ) -> Result<()> {
        let (own, peer) = (own.to_string(), peer.to_string());
        // A route may name what the namespace may not have as its default.
        self.ip([
            "route", "replace", &peer, "dev", device, "src", &own, "congctl", name,
        ])
    }

    /// Gives the device another address in place of the one it has.
    pub(super) fn replace_address(
        &self,
        device: &str,
        old: Ipv4Addr,
        new: Ipv4Addr,
        peer: Ipv4Addr,
    ) -> Result<()> {
        let (old, new, peer) = (old.to_string(), new.to_string(), peer.to_string());
        self.ip(["addr", "del", &old, "peer", &peer, "dev", device])?;
        self.ip(["addr", "add", &new, "peer", &peer, "dev", device])
    }

    /// Gives the device a further address.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn add_address(&self, device: &str, address: Ipv4Addr) -> Result<()> {
        self.ip(["addr", "add", &format!("{address}/32"), "dev", device])
    }

    /// Sends what goes to `target` out of the device.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn add_route(&self, target: &str, device: &str) -> Result<()> {
        self.ip(["route", "add", target, "dev", device])
    }

    pub(super) fn ip<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        let own = ["-n", self.name.as_str()];
        ip(own.into_iter().chain(arguments))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // What cannot be removed is left behind; there is nobody to tell.
        let _removed = ip(["netns", "delete", &self.name]);
    }
}

/// Moves this very thread.
fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn ip<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let arguments: Vec<&str> = arguments.into_iter().collect();
    let output = Command::new("ip")
        .args(&arguments)
        .output()
        .context("cannot run the program ip (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
