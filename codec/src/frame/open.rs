//! Open and Opened: a new stream, and the answer that its target was reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use super::payload::{PayloadReader, put_tagged, put_tagged_varint, require, set_once};
use super::{DomainId, FieldProblem, FrameError, FrameKind, StreamId};
use crate::varint;

/// Bytes of a target's name: what DNS allows.
pub const HOST_MAX_BYTES: usize = 253;
/// Bytes of a service's name: one DNS label's worth, enough for logs and labels of metrics.
pub const SERVICE_MAX_BYTES: usize = 63;
/// The most that a stream may weigh.
pub const WEIGHT_MAX: u16 = 1000;

/// Bytes of the path of a Unix socket: what `sockaddr_un` of Linux holds before its final zero.
pub const UNIX_PATH_MAX_BYTES: usize = 107;

const TAG_NAME: u64 = 1;
const TAG_IPV4: u64 = 2;
const TAG_IPV6: u64 = 3;
const TAG_SERVICE: u64 = 4;
const TAG_SOURCE_IPV4: u64 = 5;
const TAG_SOURCE_IPV6: u64 = 6;
const TAG_WEIGHT: u64 = 7;
const TAG_UNIX: u64 = 8;

/// A new stream and where it shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The frame's number, from 1.
    pub number: u64,
    /// The stream, of the sender's parity.
    pub stream: StreamId,
    /// The domain whose histories the stream's blocks may use; none: dedup is off.
    pub domain: Option<DomainId>,
    /// Where the receiver shall connect to.
    pub target: Target,
    /// The service that took the connection, at most [`SERVICE_MAX_BYTES`]; may be empty.
    pub service: String,
    /// The application's address, which the receiver shall connect from. Only for a receiver that has announced
    /// [`FEATURE_SOURCE`](super::FEATURE_SOURCE).
    pub source: Option<SocketAddr>,
    /// The stream's share of the line relative to others, for what the receiver sends, at most [`WEIGHT_MAX`]. A receiver that does not know of
    /// it takes 1.
    pub weight: NonZeroU16,
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A name that the receiver resolves.
    Name {
        /// 1 to [`HOST_MAX_BYTES`] visible ASCII characters.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// An address. Of an IPv6 address neither flow label nor scope travel.
    Address(SocketAddr),
    /// A Unix socket: a path that [`is_unix_path`]. Only for a receiver that has announced [`FEATURE_UNIX`](super::FEATURE_UNIX).
    Unix(String),
}

/// Is it a path that can name a Unix socket, and in one way only: absolute, at most [`UNIX_PATH_MAX_BYTES`], of names that are neither empty
/// nor `.` nor `..`, without control characters?
///
/// So what a rule allows by its name is reached by this name alone; no path leads around a rule that denies it, but by links in the file system.
pub fn is_unix_path(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    path.len() <= UNIX_PATH_MAX_BYTES
        && !path.contains(char::is_control)
        && path
            .strip_prefix('/')
            .is_some_and(|names| names.split('/').all(is_name))
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The answer to an Open whose target was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The frame's number, from 1.
    pub number: u64,
    /// The stream of the Open.
    pub stream: StreamId,
    /// The local address of the connection to the target, where it has one.
    pub bound: Option<SocketAddr>,
}

impl Open {
    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let kind = FrameKind::Open;
        let number = payload.positive("number")?;
        let stream = StreamId(payload.positive("stream")?);
        let domain = match payload.varint("domain")? {
            0 => None,
            code => Some(DomainId(code - 1)),
        };
        let (mut target, mut service, mut source, mut weight) = (None, None, None, None);
        while let Some((tag, mut value)) = payload.tagged()? {
            match tag {
                TAG_NAME => set_once(&mut target, read_name(&mut value)?, kind, "target")?,
                TAG_IPV4 => set_once(
                    &mut target,
                    Target::Address(read_ipv4(&mut value)?),
                    kind,
                    "target",
                )?,
                TAG_IPV6 => set_once(
                    &mut target,
                    Target::Address(read_ipv6(&mut value)?),
                    kind,
                    "target",
                )?,
                TAG_UNIX => set_once(
                    &mut target,
                    Target::Unix(value.rest_text("path", UNIX_PATH_MAX_BYTES)?),
                    kind,
                    "target",
                )?,
                TAG_SERVICE => set_once(
                    &mut service,
                    value.rest_text("service", SERVICE_MAX_BYTES)?,
                    kind,
                    "service",
                )?,
                TAG_SOURCE_IPV4 => set_once(&mut source, read_ipv4(&mut value)?, kind, "source")?,
                TAG_SOURCE_IPV6 => set_once(&mut source, read_ipv6(&mut value)?, kind, "source")?,
                TAG_WEIGHT => set_once(&mut weight, read_weight(&mut value)?, kind, "weight")?,
                _ => continue,
            }
            value.finish()?;
        }
        let target = target.ok_or_else(|| payload.error("target", FieldProblem::Missing))?;
        let open = Self {
            number,
            stream,
            domain,
            target,
            service: service.unwrap_or_default(),
            source,
            weight: weight.unwrap_or(NonZeroU16::MIN),
        };
        open.check()?;
        Ok(open)
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        self.check()?;
        varint::put(out, self.number);
        varint::put(out, self.stream.0);
        varint::put(out, self.domain.map_or(0, |domain| domain.0 + 1));
        match &self.target {
            Target::Name { host, port } => {
                let mut value = BytesMut::with_capacity(2 + host.len());
                value.put_u16(*port);
                value.put_slice(host.as_bytes());
                put_tagged(out, TAG_NAME, &value);
            }
            Target::Address(address) => put_address(out, [TAG_IPV4, TAG_IPV6], *address),
            Target::Unix(path) => put_tagged(out, TAG_UNIX, path.as_bytes()),
        }
        if !self.service.is_empty() {
            put_tagged(out, TAG_SERVICE, self.service.as_bytes());
        }
        if let Some(source) = self.source {
            put_address(out, [TAG_SOURCE_IPV4, TAG_SOURCE_IPV6], source);
        }
        if self.weight > NonZeroU16::MIN {
            put_tagged_varint(out, TAG_WEIGHT, self.weight.get().into());
        }
        Ok(())
    }

    fn check(&self) -> Result<(), FrameError> {
        let kind = FrameKind::Open;
        require(self.number >= 1, kind, "number", FieldProblem::OutOfBounds)?;
        require(
            !self.stream.is_tunnel(),
            kind,
            "stream",
            FieldProblem::OutOfBounds,
        )?;
        require(
            self.domain.is_none_or(|domain| domain <= DomainId::MAX),
            kind,
            "domain",
            FieldProblem::OutOfBounds,
        )?;
        if let Target::Name { host, .. } = &self.target {
            require(
                (1..=HOST_MAX_BYTES).contains(&host.len()),
                kind,
                "host",
                FieldProblem::OutOfBounds,
            )?;
            require(
                host.bytes().all(|byte| byte.is_ascii_graphic()),
                kind,
                "host",
                FieldProblem::Text,
            )?;
        }
        if let Target::Unix(path) = &self.target {
            require(is_unix_path(path), kind, "path", FieldProblem::Text)?;
        }
        require(
            self.service.len() <= SERVICE_MAX_BYTES,
            kind,
            "service",
            FieldProblem::OutOfBounds,
        )?;
        require(
            !self.service.contains(char::is_control),
            kind,
            "service",
            FieldProblem::Text,
        )?;
        require(
            self.weight.get() <= WEIGHT_MAX,
            kind,
            "weight",
            FieldProblem::OutOfBounds,
        )
    }
}

impl Opened {
    pub(super) fn read(mut payload: PayloadReader) -> Result<Self, FrameError> {
        let kind = FrameKind::Opened;
        let number = payload.positive("number")?;
        let stream = StreamId(payload.positive("stream")?);
        let mut bound = None;
        while let Some((tag, mut value)) = payload.tagged()? {
            match tag {
                TAG_IPV4 => set_once(&mut bound, read_ipv4(&mut value)?, kind, "bound")?,
                TAG_IPV6 => set_once(&mut bound, read_ipv6(&mut value)?, kind, "bound")?,
                _ => continue,
            }
            value.finish()?;
        }
        Ok(Self {
            number,
            stream,
            bound,
        })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        require(
            self.number >= 1,
            FrameKind::Opened,
            "number",
            FieldProblem::OutOfBounds,
        )?;
        require(
            !self.stream.is_tunnel(),
            FrameKind::Opened,
            "stream",
            FieldProblem::OutOfBounds,
        )?;
        varint::put(out, self.number);
        varint::put(out, self.stream.0);
        if let Some(bound) = self.bound {
            put_address(out, [TAG_IPV4, TAG_IPV6], bound);
        }
        Ok(())
    }
}

fn read_name(value: &mut PayloadReader) -> Result<Target, FrameError> {
    let port = u16::from_be_bytes(value.array("port")?);
    let host = value.rest_text("host", HOST_MAX_BYTES)?;
    Ok(Target::Name { host, port })
}

fn read_weight(value: &mut PayloadReader) -> Result<NonZeroU16, FrameError> {
    let weight = u16::try_from(value.varint("weight")?).ok();
    weight
        .and_then(NonZeroU16::new)
        .ok_or_else(|| value.error("weight", FieldProblem::OutOfBounds))
}

fn read_ipv4(value: &mut PayloadReader) -> Result<SocketAddr, FrameError> {
    let ip = Ipv4Addr::from(value.array::<4>("address")?);
    Ok((ip, u16::from_be_bytes(value.array("port")?)).into())
}

fn read_ipv6(value: &mut PayloadReader) -> Result<SocketAddr, FrameError> {
    let ip = Ipv6Addr::from(value.array::<16>("address")?);
    Ok((ip, u16::from_be_bytes(value.array("port")?)).into())
}

/// Of the two tags the first is for IPv4.
fn put_address(out: &mut BytesMut, [v4, v6]: [u64; 2], address: SocketAddr) {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => put_tagged(out, v4, &[ip.octets().as_slice(), &port].concat()),
        IpAddr::V6(ip) => put_tagged(out, v6, &[ip.octets().as_slice(), &port].concat()),
    }
}
