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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// Sends `bytes` and then nothing; returns what the parser made of it, what it answered, and what it left unread.
    async fn ask(bytes: &[u8]) -> (Result<Target, RequestError>, Vec<u8>, Vec<u8>) {
        ask_as(bytes, None).await
    }

    async fn ask_as(
        bytes: &[u8],
        users: Option<&Users>,
    ) -> (Result<Target, RequestError>, Vec<u8>, Vec<u8>) {
        let (mut application, mut socket): (DuplexStream, DuplexStream) = duplex(16 * 1024);
        application.write_all(bytes).await.unwrap();
        application.shutdown().await.unwrap();
        let result = read_request(&mut socket, users)
            .await
            .map(|request| request.target);
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        drop(socket);
        let mut answer = Vec::new();
        application.read_to_end(&mut answer).await.unwrap();
        (result, answer, rest)
    }

    fn request(command: u8, address: &[u8]) -> Vec<u8> {
        [&[5, 1, 0, 5, command, 0], address].concat()
    }

    #[tokio::test]
    async fn every_kind_of_address_is_read_and_names_stay_names() {
        for (address, expected) in [
            (
                &b"\x01\x0a\x00\x00\x05\x01\xbd"[..],
                Target::Address("10.0.0.5:445".parse().unwrap()),
            ),
            (
                b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
                Target::Address("[2001:db8::1]:443".parse().unwrap()),
            ),
            (
                b"\x03\x0fgit.example.com\x00\x16",
                Target::Name {
                    host: "git.example.com".to_owned(),
                    port: 22,
                },
            ),
            (
                b"\x03\x09localhost\x00\x50",
                Target::Name {
                    host: "localhost".to_owned(),
                    port: 80,
                },
            ),
            (
                b"\x03\x09127.0.0.1\x00\x50",
                Target::Address("127.0.0.1:80".parse().unwrap()),
            ),
            (
                b"\x03\x05[::1]\x00\x50",
                Target::Address("[::1]:80".parse().unwrap()),
            ),
        ] {
            let (result, answer, rest) =
                ask(&request(CONNECT, &[address, b"early data"].concat())).await;
            assert_eq!(result.unwrap(), expected);
            assert_eq!(answer, [5, 0]);
            assert_eq!(rest, b"early data", "not one byte too many is read");
        }
    }

    #[tokio::test]
    async fn no_authentication_is_found_among_other_methods_or_refused() {
        let (result, answer, _) =
            ask(b"\x05\x03\x01\x02\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50").await;
        assert!(result.is_ok());
        assert_eq!(answer, [5, 0]);
        for greeting in [&b"\x05\x02\x01\x02"[..], b"\x05\x00"] {
            let (result, answer, _) = ask(greeting).await;
            assert!(matches!(result, Err(RequestError::Authentication)));
            assert_eq!(answer, [5, 0xff]);
        }
    }

    #[tokio::test]
    async fn other_commands_and_addresses_get_their_reply_codes() {
        let v4 = b"\x01\x0a\x00\x00\x05\x01\xbd";
        for (bytes, code) in [
            (request(2, v4), 7),
            (request(3, v4), 7),
            (request(0, v4), 7),
            (request(CONNECT, b"\x02\x00\x00"), 8),
            (request(CONNECT, b"\x03\x00\x00\x50"), 8),
            (request(CONNECT, b"\x03\x03a b\x00\x50"), 8),
            (request(CONNECT, b"\x03\x02\xff\xfe\x00\x50"), 8),
            (request(CONNECT, b"\x03\x0610.0.1\x00\x50"), 8),
        ] {
            let (result, answer, _) = ask(&bytes).await;
            assert!(
                matches!(result, Err(RequestError::NotSupported(_))),
                "{bytes:?}"
            );
            assert_eq!(answer, [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_socks5_gets_no_answer() {
        for bytes in [
            &b"\x06\x01\x00\x50\x7f\x00\x00\x01\x00"[..],
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let (result, answer, _) = ask(bytes).await;
            assert!(matches!(result, Err(RequestError::Version(version)) if version == bytes[0]));
            assert!(answer.is_empty());
        }
        let (result, answer, _) =
            ask(b"\x05\x01\x00\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50").await;
        assert!(matches!(result, Err(RequestError::Version(4))));
        assert_eq!(answer, [5, 0]);
    }

    #[tokio::test]
    async fn socks4_names_addresses_and_4a_names() {
        for (bytes, expected) in [
            (
                &b"\x04\x01\x01\xbd\x0a\x00\x00\x05me\x00rest"[..],
                Target::Address("10.0.0.5:445".parse().unwrap()),
            ),
            (
                b"\x04\x01\x00\x16\x00\x00\x00\x07\x00git.example.com\x00rest",
                Target::Name {
                    host: "git.example.com".to_owned(),
                    port: 22,
                },
            ),
        ] {
            let (result, answer, rest) = ask(bytes).await;
            assert_eq!(result.unwrap(), expected);
            assert!(answer.is_empty(), "the answer waits for the target's");
            assert_eq!(rest, b"rest");
        }
        let (result, answer, _) = ask(b"\x04\x02\x00\x16\x0a\x00\x00\x05\x00").await;
        assert!(matches!(result, Err(RequestError::NotSupported(_))));
        assert_eq!(answer, [0, REJECTED_4, 0, 0, 0, 0, 0, 0]);
        let endless = [&b"\x04\x01\x00\x16\x0a\x00\x00\x05"[..], &[b'a'; 300]].concat();
        assert!(matches!(
            ask(&endless).await.0,
            Err(RequestError::Malformed)
        ));
        let mut granted = Vec::new();
        write_reply(&mut granted, Version::Four, Reply::Succeeded, None)
            .await
            .unwrap();
        assert_eq!(granted, [0, GRANTED_4, 0, 0, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn where_there_are_users_a_password_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "wonderland").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let users = Users::load(&[("alice".to_owned(), file)]).unwrap();
        let connect = b"\x05\x01\x00\x01\x0a\x00\x00\x05\x01\xbd";
        let right = [&b"\x05\x02\x00\x02\x01\x05alice\x0awonderland"[..], connect].concat();
        let (result, answer, _) = ask_as(&right, users.as_ref()).await;
        assert!(result.is_ok());
        assert_eq!(answer, [5, 2, 1, 0]);
        let wrong = [&b"\x05\x01\x02\x01\x05alice\x03bob"[..], connect].concat();
        let (result, answer, _) = ask_as(&wrong, users.as_ref()).await;
        assert!(matches!(result, Err(RequestError::Password)));
        assert_eq!(answer, [5, 2, 1, 1]);
        let none = [&b"\x05\x01\x00"[..], connect].concat();
        let (result, answer, _) = ask_as(&none, users.as_ref()).await;
        assert!(matches!(result, Err(RequestError::Authentication)));
        assert_eq!(answer, [5, 0xff]);
        let old = b"\x04\x01\x01\xbd\x0a\x00\x00\x05me\x00";
        let (result, answer, _) = ask_as(old, users.as_ref()).await;
        assert!(matches!(result, Err(RequestError::Version(4))) && answer.is_empty());
        let bad_version = b"\x05\x01\x02\x02\x05alice\x0awonderland";
        let (result, _, _) = ask_as(bad_version, users.as_ref()).await;
        assert!(matches!(result, Err(RequestError::Malformed)));
    }

    #[tokio::test]
    async fn a_request_that_ends_early_is_an_error_at_every_length() {
        let whole = request(CONNECT, b"\x03\x0fgit.example.com\x00\x16");
        for length in 0..whole.len() {
            let (result, _, _) = ask(&whole[..length]).await;
            assert!(
                matches!(result, Err(RequestError::Connection(_))),
                "{length}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_given_up() {
        let (mut application, mut socket) = duplex(64);
        application.write_all(b"\x05\x01").await.unwrap();
        assert!(matches!(
            read_request(&mut socket, None).await,
            Err(RequestError::TimedOut)
        ));
    }

    #[tokio::test]
    async fn replies_carry_the_bound_address() {
        for (bound, expected) in [
            (None, &b"\x05\x00\x00\x01\0\0\0\0\0\0"[..]),
            (
                Some("192.0.2.1:4096"),
                b"\x05\x00\x00\x01\xc0\x00\x02\x01\x10\x00",
            ),
            (
                Some("[2001:db8::1]:1"),
                b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x01",
            ),
        ] {
            let mut bytes = Vec::new();
            write_reply(
                &mut bytes,
                Version::Five,
                Reply::Succeeded,
                bound.map(|text| text.parse().unwrap()),
            )
            .await
            .unwrap();
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn each_reason_has_its_reply_code() {
        for (reason, code) in [
            (Reason::Policy, 2),
            (Reason::NetworkUnreachable, 3),
            (Reason::HostUnreachable, 4),
            (Reason::NameNotResolved, 4),
            (Reason::Refused, 5),
            (Reason::TimedOut, 6),
            (Reason::BadTarget, 8),
            (Reason::TunnelLost, 1),
            (Reason::Limit, 1),
            (Reason::GoingAway, 1),
            (Reason::Internal, 1),
        ] {
            assert_eq!(Reply::from(reason) as u8, code, "{reason:?}");
        }
    }
}
