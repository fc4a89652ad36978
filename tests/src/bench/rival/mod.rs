//! Who is compared: how each pair of programs is set up.

mod haproxy;
mod kcptun;
mod own;
mod spiped;
mod ssh;
mod stunnel;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::metric::Measure;
use super::place::{LineKind, Place, Side};
use super::process::Process;
use crate::pair::Programs;

use own::Setting;

/// Somebody who carries TCP connections over the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Our own edges as they come.
    Wanproxy,
    /// TLS, one connection each.
    Stunnel,
    /// OpenSSH with compression; all connections in one.
    Ssh,
    /// TLS, one connection each.
    Haproxy,
    /// KCP over UDP, all connections in one.
    Kcptun,
    /// Its own encryption, one connection each.
    Spiped,
    /// No tunnel, cubic.
    Direct,
    /// No tunnel, BBR.
    DirectBbr,
    /// Our own edges with other settings.
    Own(Setting),
}

/// What a rival needs to be set up.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) place: &'a Place,
    pub(super) programs: &'a Programs,
    /// Where the origin listens, as the far side sees it.
    pub(super) origin: SocketAddr,
    /// For configurations, keys and logs.
    pub(super) directory: &'a Path,
}

/// A pair that has been started.
#[derive(Debug)]
pub(super) struct Pair {
    /// Where the near side's applications connect to.
    pub(super) entrance: SocketAddr,
    pub(super) processes: Vec<Process>,
}

impl Rival {
    /// In the order of the tables' columns.
    pub(super) const ALL: [Self; 8] = [
        Self::Wanproxy,
        Self::Stunnel,
        Self::Ssh,
        Self::Haproxy,
        Self::Kcptun,
        Self::Spiped,
        Self::Direct,
        Self::DirectBbr,
    ];

    /// Other settings of our own edges.
    pub(super) const SWEEP: [Self; 6] = Setting::ALL;

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Wanproxy => "wanproxy",
            Self::Stunnel => "stunnel",
            Self::Ssh => "ssh-C",
            Self::Haproxy => "haproxy",
            Self::Kcptun => "kcptun",
            Self::Spiped => "spiped",
            Self::Direct => "direct",
            Self::DirectBbr => "direct-bbr",
            Self::Own(setting) => setting.name(),
        }
    }

    /// The congestion control that its connections get which do not choose for themselves.
    pub(super) const fn congestion(self) -> Option<&'static str> {
        match self {
            Self::Direct => Some("cubic"),
            Self::DirectBbr => Some("bbr"),
            _ => None,
        }
    }

    /// Why a load is not put on it there, if so.
    pub(super) fn spared(self, line: LineKind, measure: Measure) -> Option<&'static str> {
        match (self, measure) {
            (Self::Own(_), Measure::Memory | Measure::Crowd) => {
                Some("those settings are about the processor")
            }
            (Self::Wanproxy | Self::Own(_), _) => None,
            (_, Measure::Warm) => Some("it remembers nothing: the same as before"),
            (_, Measure::Crowd) => Some("only our own edges are asked for that many"),
            (Self::Direct | Self::DirectBbr, Measure::Memory) => Some("no program"),
            (Self::Ssh | Self::Kcptun, _) => None,
            (_, Measure::Cold) if line != LineKind::Loopback => {
                Some("it compresses nothing: the same as random")
            }
            _ => None,
        }
    }

    /// Whether it is compared on `line`: settings of our own edges are about the processor, which is not what a slow line waits for, and congestion
    /// control has nothing to do on loopback.
    pub(super) fn is_for(self, line: LineKind) -> bool {
        match self {
            Self::Own(_) => line == LineKind::Loopback,
            Self::DirectBbr => line != LineKind::Loopback,
            _ => true,
        }
    }

    /// The program that is not installed, if so.
    pub(super) fn missing(self) -> Option<&'static str> {
        self.needs()
            .iter()
            .copied()
            .find(|program| !is_there(program))
    }

    /// What it is, in its own words.
    pub(super) fn version(self) -> Option<String> {
        let (program, argument): (&str, &str) = match self {
            Self::Stunnel => (stunnel::PROGRAM, "-version"),
            Self::Ssh => (ssh::CLIENT, "-V"),
            Self::Haproxy => (haproxy::PROGRAM, "-v"),
            Self::Kcptun => (kcptun::CLIENT, "-v"),
            Self::Spiped => (spiped::PROGRAM, "-v"),
            Self::Wanproxy | Self::Direct | Self::DirectBbr | Self::Own(_) => return None,
        };
        let output = Command::new(program)
            .arg(argument)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // stunnel says something else first; who has no number at least has a name.
        let has_number = |line: &&str| line.chars().any(|letter| letter.is_ascii_digit());
        let line = text
            .lines()
            .find(has_number)
            .or_else(|| text.lines().next())?;
        Some(line.split(['-', ',']).next()?.trim().to_owned())
    }

    pub(super) fn start(self, setup: &Setup<'_>) -> Result<Pair> {
        match self {
            Self::Wanproxy => own::start(setup, Setting::Default),
            Self::Own(setting) => own::start(setup, setting),
            Self::Stunnel => stunnel::start(setup),
            Self::Ssh => ssh::start(setup),
            Self::Haproxy => haproxy::start(setup),
            Self::Kcptun => kcptun::start(setup),
            Self::Spiped => spiped::start(setup),
            Self::Direct | Self::DirectBbr => Ok(Pair {
                entrance: (setup.place.far_ip(), setup.origin.port()).into(),
                processes: Vec::new(),
            }),
        }
    }

    const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Stunnel => &[stunnel::PROGRAM],
            Self::Ssh => &[ssh::SERVER, ssh::CLIENT, ssh::KEYGEN],
            Self::Haproxy => &[haproxy::PROGRAM],
            Self::Kcptun => &[kcptun::SERVER, kcptun::CLIENT],
            Self::Spiped => &[spiped::PROGRAM],
            Self::Wanproxy | Self::Direct | Self::DirectBbr | Self::Own(_) => &[],
        }
    }
}

impl Setup<'_> {
    /// A free port of the near side's loopback.
    fn entrance(&self) -> Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, self.place.free_port(Side::Near)?).into())
    }

    /// A free port of the far side, where the line reaches it.
    fn tunnel(&self) -> Result<SocketAddr> {
        Ok((self.place.far_ip(), self.place.free_port(Side::Far)?).into())
    }

    fn command(&self, side: Side, program: &str) -> Command {
        self.place.command(side, program)
    }

    fn spawn(&self, name: &'static str, command: Command) -> Result<Process> {
        Process::start(name, command, self.directory)
    }

    /// Writes a file and returns its path as text.
    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        self.path(name)
    }

    fn path(&self, name: &str) -> Result<String> {
        let path = self.directory.join(name);
        Ok(path
            .to_str()
            .context("the temporary directory has no readable name")?
            .to_owned())
    }

    /// A certificate and its key in one file: those of a server edge, for TLS alike.
    fn certificate(&self) -> Result<String> {
        let directory = self.directory.join("authority");
        let mut init = Command::new(self.programs.server());
        init.args(["init", "--address", "127.0.0.1:7443", "--dir"])
            .arg(&directory);
        run(init)?;
        let read = |name| std::fs::read_to_string(directory.join(name));
        self.write("certificate.pem", &(read("edge.pem")? + &read("edge.key")?))
    }
}

/// Runs a command that ends by itself.
fn run(mut command: Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(())
}

fn is_there(program: &str) -> bool {
    let started = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    !matches!(started, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Both edges are measured together.
pub(super) const fn per_edge(value: f64) -> f64 {
    2.0 * value
}
