//! The PROXY protocol, versions 1 and 2, as HAProxy's specification has it: a header before the first byte of a connection that says who has
//! really connected, and to what.
//!
//! The parser is told all bytes so far and says how many more belong to the header for certain, so a reader never takes a byte of what follows.

mod v1;
mod v2;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

pub use v1::V1_MAX_BYTES;
pub use v2::V2_MAX_BYTES;

/// How long a connection may take to send its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who has connected, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Two addresses of one family.
    Proxied {
        /// Who has connected.
        source: SocketAddr,
        /// What it has connected to.
        destination: SocketAddr,
    },
    /// The proxy itself has connected, to see whether anybody is there.
    Local,
    /// The proxy does not know, or it is no TCP over IP.
    Unknown,
}

/// Which version is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The bytes are none.
    #[error("what it sends does not begin with a PROXY protocol header")]
    Malformed,
    /// It took longer than ten seconds.
    #[error("it did not send its PROXY protocol header in time")]
    TimedOut,
    /// The connection ended before.
    #[error("the connection ended within its PROXY protocol header: {0}")]
    Connection(#[from] io::Error),
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, of which so many bytes are missing at least.
    Needs(usize),
    /// A whole header.
    Whole(Header),
}

/// The bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Parses all bytes so far. Asked in turn and given exactly what it needs, it takes at most [`V2_MAX_BYTES`].
///
/// # Errors
/// They do not begin a header, or one that is longer than its bound.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    match bytes.first() {
        None => Ok(Parsed::Needs(1)),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(Malformed),
    }
}

/// Reads a connection's header and not a byte more, within ten seconds.
///
/// # Errors
/// There is none.
pub async fn read<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Header, HeaderError> {
    let reading = async {
        let mut bytes = Vec::new();
        loop {
            match parse(&bytes).map_err(|Malformed| HeaderError::Malformed)? {
                Parsed::Whole(header) => return Ok(header),
                Parsed::Needs(count) => {
                    let filled = bytes.len();
                    bytes.resize(filled + count, 0);
                    let room = bytes.get_mut(filled..).unwrap_or_default();
                    socket.read_exact(room).await?;
                }
            }
        }
    };
    tokio::time::timeout(HEADER_TIMEOUT, reading)
        .await
        .unwrap_or(Err(HeaderError::TimedOut))
}

impl Header {
    /// A header for a connection between two addresses; of two families it can only say that it does not know.
    pub fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (source, destination) = (canonical(source), canonical(destination));
        if source.is_ipv4() == destination.is_ipv4() {
            Self::Proxied {
                source,
                destination,
            }
        } else {
            Self::Unknown
        }
    }

    /// The header's bytes.
    pub fn to_bytes(self, version: Version) -> Vec<u8> {
        // Whatever is put in by hand, only two addresses of one family can be written.
        let header = match self {
            Self::Proxied {
                source,
                destination,
            } => Self::between(source, destination),
            other => other,
        };
        match version {
            Version::V1 => v1::write(header),
            Version::V2 => v2::write(header),
        }
    }

    /// The address of who has really connected, if it is known.
    pub const fn source(&self) -> Option<SocketAddr> {
        match self {
            Self::Proxied { source, .. } => Some(*source),
            Self::Local | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Gives the parser exactly what it asks for; the header and how many bytes it took.
    fn take(bytes: &[u8]) -> Result<(Header, usize), Option<Malformed>> {
        let mut given = 0;
        loop {
            match parse(&bytes[..given]).map_err(Some)? {
                Parsed::Whole(header) => return Ok((header, given)),
                Parsed::Needs(count) => {
                    assert!(count > 0);
                    given += count;
                    assert!(given <= V2_MAX_BYTES, "it would take {given} bytes");
                    if given > bytes.len() {
                        return Err(None);
                    }
                }
            }
        }
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
            any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
        ]
    }

    fn header() -> impl Strategy<Value = Header> {
        prop_oneof![
            (address(), address()).prop_map(|(one, other)| Header::between(one, other)),
            Just(Header::Local),
            Just(Header::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_behind_it(header in header(), rest in prop::collection::vec(any::<u8>(), 0..40)) {
            for version in [Version::V1, Version::V2] {
                let mut bytes = header.to_bytes(version);
                let length = bytes.len();
                prop_assert!(version == Version::V2 || length <= V1_MAX_BYTES);
                bytes.extend(&rest);
                // Version 1 has no word for Local.
                let expected = match (version, header) {
                    (Version::V1, Header::Local) => Header::Unknown,
                    _ => header,
                };
                prop_assert_eq!(take(&bytes), Ok((expected, length)));
                prop_assert_eq!(take(&bytes[..length - 1]), Err(None));
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic_or_read_on(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _read_or_refused = take(&bytes);
        }

        #[test]
        fn a_damaged_header_is_bounded_too(header in header(), at in 0usize..60, byte: u8) {
            for version in [Version::V1, Version::V2] {
                let mut bytes = header.to_bytes(version);
                let place = at % bytes.len();
                bytes[place] = byte;
                bytes.resize(V2_MAX_BYTES, byte);
                let _read_or_refused = take(&bytes);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_is_read_in_pieces_within_ten_seconds_and_what_follows_is_left() {
        let text = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\nGET /";
        let (mut proxy, mut socket) = tokio::io::duplex(200);
        let writing = tokio::spawn(async move {
            for byte in text {
                proxy.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            proxy
        });
        let header = read(&mut socket).await.unwrap();
        assert_eq!(header.source(), Some("192.0.2.1:4711".parse().unwrap()));
        let mut rest = [0; 5];
        socket.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET /");
        let _open = writing.await.unwrap();
        assert!(matches!(
            read(&mut socket).await,
            Err(HeaderError::TimedOut)
        ));

        let (mut proxy, mut socket) = tokio::io::duplex(200);
        proxy.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert!(matches!(
            read(&mut socket).await,
            Err(HeaderError::Malformed)
        ));
        let (mut proxy, mut socket) = tokio::io::duplex(200);
        proxy.write_all(b"PROXY").await.unwrap();
        drop(proxy);
        assert!(matches!(
            read(&mut socket).await,
            Err(HeaderError::Connection(_))
        ));
    }
}
