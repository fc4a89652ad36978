//! Connects to targets: resolves names, checks every address, and dials the very addresses that were checked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::parse_host_name;
use crate::lan::LanStream;
use crate::os;
use crate::policy::{Denial, RuleSet};
use codec::frame::{Reason, Target};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tunnel::pool::Pools;
use tunnel::resolve::{ResolveError, resolve};

use super::policy::{Approval, TcpApproval};

/// Resolving and connecting together take no longer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The next address is tried beside the one before after this time (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A Unix socket whose queue is full is asked again after this time, as no event says when it has room.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// A connected target.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub socket: LanStream,
    /// What was checked.
    pub approval: Approval,
}

/// Why a target was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The policy does not let the client.
    #[error("the policy refuses it: {0}")]
    Policy(Denial),
    /// It is no target.
    #[error("it is no host name or has port 0")]
    BadTarget,
    /// It cannot be reached from the application's address.
    #[error(
        "it has no address of the family of the application's own, which the connection shall come from"
    )]
    OtherFamily,
    /// Its name has no address.
    #[error("its name was not resolved: {0}")]
    Resolve(#[from] ResolveError),
    /// It could not be connected to.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
}

impl DialError {
    /// What the client is told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Policy(_) => Reason::Policy,
            Self::BadTarget | Self::OtherFamily => Reason::BadTarget,
            Self::Resolve(ResolveError::PoolStopped) => Reason::GoingAway,
            Self::Resolve(_) => Reason::NameNotResolved,
            Self::Connect(error) => match error.kind() {
                // The file of a Unix socket that is not there is like a port at which nobody listens.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Reason::Refused,
                io::ErrorKind::TimedOut => Reason::TimedOut,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                    Reason::NetworkUnreachable
                }
                // A packet filter that rejects shows as "permission denied".
                io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied => {
                    Reason::HostUnreachable
                }
                io::ErrorKind::ConnectionReset => Reason::ConnectionReset,
                _ if is_out_of_resources(error) => Reason::Limit,
                _ => Reason::Internal,
            },
        }
    }
}

/// No descriptor or no port is left.
fn is_out_of_resources(error: &io::Error) -> bool {
    /// `EMFILE` and `ENFILE`, which have no kind of their own; the same numbers on every Unix.
    const NO_DESCRIPTORS: [i32; 2] = [24, 23];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error
            .raw_os_error()
            .is_some_and(|code| NO_DESCRIPTORS.contains(&code))
}

/// Addresses that are on their way.
type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, ResolveError>> + Send + 'a>>;

/// Who knows the addresses of names.
trait Resolver: Send + Sync {
    /// The addresses of `name`, with this port. What it says now need not be what it says next.
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a>;
}

/// The system's resolver, in pool `resolve`.
impl Resolver for Pools {
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { resolve(&self.resolve, &format!("{name}:{port}")).await })
    }
}

/// Dials targets for clients.
#[derive(Clone)]
pub struct Dialer {
    resolver: Arc<dyn Resolver>,
}

impl Dialer {
    /// Names are resolved in pool `resolve`.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { resolver: pools }
    }

    /// Connects to `target` as `rules` allow, within ten seconds.
    ///
    /// # Errors
    /// Refused by the policy, or not reached.
    pub async fn dial(&self, target: &Target, rules: &RuleSet) -> Result<Dialed, DialError> {
        self.dial_from(target, rules, None).await
    }

    /// The same from `source`, which may be another machine's address; the port is this machine's choice.
    ///
    /// # Errors
    /// As [`dial`](Self::dial), and without `CAP_NET_ADMIN`.
    pub async fn dial_from(
        &self,
        target: &Target,
        rules: &RuleSet,
        source: Option<IpAddr>,
    ) -> Result<Dialed, DialError> {
        let timed_out = || DialError::Connect(io::ErrorKind::TimedOut.into());
        tokio::time::timeout(DIAL_TIMEOUT, self.dial_untimed(target, rules, source))
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn dial_untimed(
        &self,
        target: &Target,
        rules: &RuleSet,
        source: Option<IpAddr>,
    ) -> Result<Dialed, DialError> {
        let (name, addresses) = match destination(target)? {
            Destination::Address(address) => {
                rules
                    .check_address(address.ip(), address.port())
                    .map_err(DialError::Policy)?;
                (None, vec![address])
            }
            Destination::Unix(path) => {
                rules.check_unix(&path).map_err(DialError::Policy)?;
                if source.is_some() {
                    return Err(DialError::OtherFamily);
                }
                let socket = connect_unix(&path).await.map_err(DialError::Connect)?;
                return Ok(Dialed {
                    socket: socket.into(),
                    approval: Approval::Unix(path),
                });
            }
            Destination::Name(name, port) => {
                let grant = rules.check_name(&name, port).map_err(DialError::Policy)?;
                // Asked once: what is dialed are addresses that were checked, whatever the name means by then.
                let resolved = self.resolver.addresses(&name, port).await?;
                let mut denial = Denial::NotAllowed;
                let mut allowed = Vec::with_capacity(resolved.len());
                for address in resolved {
                    match rules.check_resolved(grant, address.ip(), port) {
                        Ok(()) => allowed.push(address),
                        Err(why) => denial = why,
                    }
                }
                if allowed.is_empty() {
                    return Err(DialError::Policy(denial));
                }
                (Some(name), alternating(allowed))
            }
        };
        let addresses = of_family(addresses, source);
        if addresses.is_empty() {
            return Err(DialError::OtherFamily);
        }
        let connected = connect_any(addresses, source).await;
        let (socket, address) = connected.map_err(DialError::Connect)?;
        let socket = LanStream::from(socket);
        socket.tune();
        Ok(Dialed {
            socket,
            approval: Approval::Tcp(TcpApproval {
                name,
                address,
                source,
            }),
        })
    }
}

enum Destination {
    Address(SocketAddr),
    Name(String, u16),
    Unix(String),
}

/// What the target means. An address written as a name is an address, so that no rule about names can be met by it.
fn destination(target: &Target) -> Result<Destination, DialError> {
    let destination = match target {
        Target::Address(address) => Destination::Address(*address),
        Target::Unix(path) => Destination::Unix(path.clone()),
        Target::Name { host, port } => match host.parse::<IpAddr>() {
            Ok(ip) => Destination::Address(SocketAddr::new(ip, *port)),
            Err(_) => Destination::Name(
                parse_host_name(host).map_err(|_| DialError::BadTarget)?,
                *port,
            ),
        },
    };
    match &destination {
        Destination::Address(address) if address.port() == 0 => Err(DialError::BadTarget),
        Destination::Name(_, 0) => Err(DialError::BadTarget),
        _ => Ok(destination),
    }
}

/// The resolver's order, with the families taking turns, so that one that does not work costs one attempt (RFC 8305, section 4).
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut result = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return result,
            (one, other) => result.extend(one.into_iter().chain(other)),
        }
    }
}

/// Those that can be reached from `source`.
fn of_family(addresses: Vec<SocketAddr>, source: Option<IpAddr>) -> Vec<SocketAddr> {
    let Some(source) = source else {
        return addresses;
    };
    let canonical = addresses.into_iter().map(os::canonical);
    canonical
        .filter(|address| address.is_ipv4() == source.is_ipv4())
        .collect()
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    match source {
        None => TcpStream::connect(address).await,
        Some(source) => os::connect_from(source, address).await,
    }
}

async fn connect_unix(path: &str) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(FULL_QUEUE_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Connects to whichever address answers first, starting with the first ones.
async fn connect_any(
    addresses: Vec<SocketAddr>,
    source: Option<IpAddr>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let &[address] = addresses.as_slice() {
        // Nothing to race: no task, and no hop to its thread and back.
        return Ok((connect(address, source).await?, address));
    }
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut worst: Option<io::Error> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move {
                let connected = connect(address, source).await;
                connected.map(|socket| (socket, address))
            });
        }
        let more = waiting.len() > 0;
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if more => continue,
        };
        match ended {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(error))) => {
                if worst
                    .as_ref()
                    .is_none_or(|before| weight(&error) > weight(before))
                {
                    worst = Some(error);
                }
            }
            Some(Err(error)) => worst = Some(io::Error::other(error)),
            None if more => {}
            None => return Err(worst.unwrap_or_else(|| io::ErrorKind::HostUnreachable.into())),
        }
    }
}

/// Of several addresses' errors, the one that came from nearest to the target tells most.
fn weight(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => 4,
        io::ErrorKind::TimedOut => 3,
        io::ErrorKind::HostUnreachable => 2,
        io::ErrorKind::NetworkUnreachable => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
