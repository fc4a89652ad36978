//! SOCKS5 as a server speaks it (RFC 1928): CONNECT, without authentication or with a name and a password (RFC 1929); and SOCKS4 with
//! its names (4a), which has no passwords.
//!
//! Exactly the bytes of the request are read, never one more: what follows belongs to the target. The reply waits for the target's,
//! so "succeeded" means that the target has taken the connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use codec::frame::{Reason, Target};
use edge::users::Users;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes that an application may send before its request is complete. The longest well-formed request has 519.
const REQUEST_MAX_BYTES: usize = 8 * 1024;

/// The longest user or host name of SOCKS4.
const TEXT_4_MAX_BYTES: usize = 255;

/// How long an application may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const VERSION: u8 = 5;
const VERSION_4: u8 = 4;
const PASSWORD_VERSION: u8 = 1;
const NO_AUTHENTICATION: u8 = 0x00;
const PASSWORD: u8 = 0x02;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const GRANTED_4: u8 = 90;
const REJECTED_4: u8 = 91;
const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;

/// What a reply says (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The target has taken the connection.
    Succeeded = 0,
    /// None of the others fits.
    GeneralFailure = 1,
    /// The policy does not name the target.
    NotAllowed = 2,
    /// No way to the target's network.
    NetworkUnreachable = 3,
    /// No way to the target's host, or its name has no address.
    HostUnreachable = 4,
    /// The target refused.
    ConnectionRefused = 5,
    /// The target did not answer in time.
    TtlExpired = 6,
    /// BIND and UDP ASSOCIATE.
    CommandNotSupported = 7,
    /// Neither IPv4, IPv6 nor a name; or a name that is none.
    AddressTypeNotSupported = 8,
}

impl From<Reason> for Reply {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Policy => Self::NotAllowed,
            Reason::NetworkUnreachable => Self::NetworkUnreachable,
            Reason::HostUnreachable | Reason::NameNotResolved => Self::HostUnreachable,
            Reason::Refused => Self::ConnectionRefused,
            Reason::TimedOut => Self::TtlExpired,
            Reason::BadTarget => Self::AddressTypeNotSupported,
            _ => Self::GeneralFailure,
        }
    }
}

/// Which SOCKS an application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// SOCKS4 or 4a.
    Four,
    /// SOCKS5.
    Five,
}

/// What an application asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// How to answer.
    pub version: Version,
}

/// Why an application gets no connection before its target is asked.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It does not speak SOCKS5; it gets no answer.
    #[error("the application speaks SOCKS version {0} and not 4 or 5")]
    Version(u8),
    /// It offers only methods of authentication that are not there; it has been told.
    #[error("the application offers no method of authentication that this service has")]
    Authentication,
    /// It presents a name or a password that is not right; it has been told.
    #[error("the application presents a wrong name or password")]
    Password,
    /// It asks for what is not there; it has been told.
    #[error("the application asks for what is not supported: {0:?}")]
    NotSupported(Reply),
    /// It broke the protocol otherwise.
    #[error("the application's request is malformed")]
    Malformed,
    /// It took longer than ten seconds.
    #[error("the application did not complete its request in time")]
    TimedOut,
    /// It has closed the connection, or the connection failed.
    #[error("the application's connection ended within its request: {0}")]
    Connection(#[from] io::Error),
}

/// Reads an application's greeting and request, and answers what can be answered before the target is asked.
///
/// # Errors
/// There is no request to serve; the application has been told where the protocol has words for it.
pub async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    users: Option<&Users>,
) -> Result<Request, RequestError> {
    let mut reader = Exact {
        socket,
        left_bytes: REQUEST_MAX_BYTES,
    };
    tokio::time::timeout(REQUEST_TIMEOUT, reader.request(users))
        .await
        .unwrap_or(Err(RequestError::TimedOut))
}

/// Tells the application how its request went. `bound` is the address from which the target was reached.
///
/// # Errors
/// The connection failed.
pub async fn write_reply<S: AsyncWrite + Unpin>(
    socket: &mut S,
    version: Version,
    reply: Reply,
    bound: Option<SocketAddr>,
) -> io::Result<()> {
    if version == Version::Four {
        let code = if reply == Reply::Succeeded {
            GRANTED_4
        } else {
            REJECTED_4
        };
        // Port and address are of no use to anybody here.
        socket.write_all(&[0, code, 0, 0, 0, 0, 0, 0]).await?;
        return socket.flush().await;
    }
    let bound = bound.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    // Header, the longer kind of address, port.
    let mut bytes = Vec::with_capacity(4 + 16 + 2);
    bytes.extend_from_slice(&[VERSION, reply as u8, 0]);
    match bound.ip() {
        IpAddr::V4(address) => {
            bytes.push(ADDRESS_IPV4);
            bytes.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes.push(ADDRESS_IPV6);
            bytes.extend_from_slice(&address.octets());
        }
    }
    bytes.extend_from_slice(&bound.port().to_be_bytes());
    socket.write_all(&bytes).await?;
    socket.flush().await
}

/// Reads exactly what is asked for, within a bound on the sum.
struct Exact<'a, S> {
    socket: &'a mut S,
    left_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exact<'_, S> {
    async fn request(&mut self, users: Option<&Users>) -> Result<Request, RequestError> {
        let [version] = self.array().await?;
        match version {
            VERSION => {
                self.authenticate(users).await?;
                let target = self.request_5().await?;
                Ok(Request {
                    target,
                    version: Version::Five,
                })
            }
            // Where a password is asked for, who cannot present one is a stranger.
            VERSION_4 if users.is_none() => {
                let target = self.request_4().await?;
                Ok(Request {
                    target,
                    version: Version::Four,
                })
            }
            other => Err(RequestError::Version(other)),
        }
    }

    async fn authenticate(&mut self, users: Option<&Users>) -> Result<(), RequestError> {
        let [methods] = self.array().await?;
        let methods = self.bytes(usize::from(methods)).await?;
        let wanted = users.map_or(NO_AUTHENTICATION, |_| PASSWORD);
        if !methods.contains(&wanted) {
            self.socket
                .write_all(&[VERSION, NO_ACCEPTABLE_METHOD])
                .await?;
            return Err(RequestError::Authentication);
        }
        self.socket.write_all(&[VERSION, wanted]).await?;
        self.socket.flush().await?;
        let Some(users) = users else { return Ok(()) };
        let [version, length] = self.array().await?;
        if version != PASSWORD_VERSION {
            return Err(RequestError::Malformed);
        }
        let name = self.bytes(usize::from(length)).await?;
        let [length] = self.array().await?;
        let password = self.bytes(usize::from(length)).await?;
        let is_right = users.allow(&name, &password);
        self.socket
            .write_all(&[PASSWORD_VERSION, u8::from(!is_right)])
            .await?;
        self.socket.flush().await?;
        if is_right {
            Ok(())
        } else {
            Err(RequestError::Password)
        }
    }

    async fn request_4(&mut self) -> Result<Target, RequestError> {
        let [command] = self.array().await?;
        let port = self.port().await?;
        let address = self.array::<4>().await?;
        self.until_nul().await?;
        let target = match address {
            // 4a: a name follows.
            [0, 0, 0, last] if last != 0 => {
                let name = self.until_nul().await?;
                named(name, port)
            }
            _ => Some(Target::Address(SocketAddr::from((
                Ipv4Addr::from(address),
                port,
            )))),
        };
        match target {
            Some(target) if command == CONNECT => Ok(target),
            _ => {
                let reply = Reply::CommandNotSupported;
                write_reply(self.socket, Version::Four, reply, None).await?;
                Err(RequestError::NotSupported(reply))
            }
        }
    }

    /// A byte at a time, since what follows belongs to the target.
    async fn until_nul(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut bytes = Vec::new();
        loop {
            match self.array().await? {
                [0] => return Ok(bytes),
                [byte] if bytes.len() < TEXT_4_MAX_BYTES => bytes.push(byte),
                _ => return Err(RequestError::Malformed),
            }
        }
    }

    async fn request_5(&mut self) -> Result<Target, RequestError> {
        let [version, command, reserved, kind] = self.array().await?;
        if version != VERSION {
            return Err(RequestError::Version(version));
        }
        if reserved != 0 {
            return self.not_supported(Reply::GeneralFailure).await;
        }
        // The address is read before the command is judged, so that the reply does not meet unread bytes.
        let target = match kind {
            ADDRESS_IPV4 => {
                let address = Ipv4Addr::from(self.array::<4>().await?);
                Some(Target::Address(SocketAddr::from((
                    address,
                    self.port().await?,
                ))))
            }
            ADDRESS_IPV6 => {
                let address = Ipv6Addr::from(self.array::<16>().await?);
                Some(Target::Address(SocketAddr::from((
                    address,
                    self.port().await?,
                ))))
            }
            ADDRESS_NAME => {
                let [length] = self.array().await?;
                let name = self.bytes(usize::from(length)).await?;
                named(name, self.port().await?)
            }
            _ => None,
        };
        match (command, target) {
            (CONNECT, Some(target)) => Ok(target),
            (CONNECT, None) => self.not_supported(Reply::AddressTypeNotSupported).await,
            _ => self.not_supported(Reply::CommandNotSupported).await,
        }
    }

    async fn not_supported<T>(&mut self, reply: Reply) -> Result<T, RequestError> {
        write_reply(self.socket, Version::Five, reply, None).await?;
        Err(RequestError::NotSupported(reply))
    }

    async fn port(&mut self) -> Result<u16, RequestError> {
        Ok(u16::from_be_bytes(self.array().await?))
    }

    fn take(&mut self, bytes: usize) -> Result<(), RequestError> {
        self.left_bytes = self
            .left_bytes
            .checked_sub(bytes)
            .ok_or(RequestError::Malformed)?;
        Ok(())
    }

    async fn array<const N: usize>(&mut self) -> Result<[u8; N], RequestError> {
        self.take(N)?;
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn bytes(&mut self, length: usize) -> Result<Vec<u8>, RequestError> {
        self.take(length)?;
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}

/// A target by name, resolved at the other edge. Some applications write addresses as names.
fn named(name: Vec<u8>, port: u16) -> Option<Target> {
    let name = String::from_utf8(name).ok()?;
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Target::Address(SocketAddr::new(address, port)));
    }
    let host = edge::config::parse_host_name(&name).ok()?;
    Some(Target::Name { host, port })
}

#[cfg(test)]
mod tests;
