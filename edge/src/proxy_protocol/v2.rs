//! Version 2: binary.

use std::net::{IpAddr, SocketAddr};

use super::{Header, Malformed, Parsed};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// The most that may follow: addresses, and additions (TLVs) that are skipped. A TLS certificate's name and a few ids take some hundred bytes.
const ADDITION_MAX_BYTES: usize = 4096;

/// The longest header that is taken.
pub const V2_MAX_BYTES: usize = FIXED_BYTES + ADDITION_MAX_BYTES;

const VERSION: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
/// Bytes of two UNIX addresses.
const UNIX_BYTES: usize = 216;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes.get(..common) != SIGNATURE.get(..common) {
        return Err(Malformed);
    }
    let Some((fixed, addition)) = bytes.split_at_checked(FIXED_BYTES) else {
        return Ok(Parsed::Needs(FIXED_BYTES - bytes.len()));
    };
    let [.., version_command, family, high, low] = *fixed else {
        return Err(Malformed);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command & 0xf0 != VERSION || length > ADDITION_MAX_BYTES {
        return Err(Malformed);
    }
    let command = version_command & 0x0f;
    let least = match (command, family) {
        (LOCAL, _) | (PROXY, UNSPECIFIED) => 0,
        (PROXY, TCP4) => 2 * (4 + 2),
        (PROXY, TCP6) => 2 * (16 + 2),
        (PROXY, UNIX_STREAM) => UNIX_BYTES,
        // Datagrams do not come by a stream, and other families and commands do not exist.
        _ => return Err(Malformed),
    };
    if length < least {
        return Err(Malformed);
    }
    match length.checked_sub(addition.len()) {
        Some(0) => {}
        Some(missing) => return Ok(Parsed::Needs(missing)),
        // More than was asked for.
        None => return Err(Malformed),
    }
    let header = match (command, family) {
        (LOCAL, _) => Header::Local,
        (PROXY, TCP4) => addresses::<4>(addition)?,
        (PROXY, TCP6) => addresses::<16>(addition)?,
        _ => Header::Unknown,
    };
    Ok(Parsed::Whole(header))
}

/// Two addresses and two ports. Additions behind them are skipped.
fn addresses<const N: usize>(bytes: &[u8]) -> Result<Header, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    let (destination_port, _) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    let address = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Ok(Header::between(
        address(source, source_port),
        address(destination, destination_port),
    ))
}

pub(super) fn write(header: Header) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    let mut put = |command: u8, family: u8, length: u8| {
        bytes.extend_from_slice(&[VERSION | command, family, 0, length]);
    };
    match header {
        Header::Local => put(LOCAL, UNSPECIFIED, 0),
        Header::Unknown => put(PROXY, UNSPECIFIED, 0),
        Header::Proxied {
            source,
            destination,
        } => {
            match source {
                SocketAddr::V4(_) => put(PROXY, TCP4, 12),
                SocketAddr::V6(_) => put(PROXY, TCP6, 36),
            }
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
                }
            }
            for port in [source.port(), destination.port()] {
                bytes.extend_from_slice(&port.to_be_bytes());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(version_command: u8, family: u8, addition: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addition.len()).unwrap_or(u16::MAX);
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(addition);
        bytes
    }

    #[test]
    fn additions_are_skipped_and_bounded() {
        let mut addition = vec![192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 1, 187];
        // PP2_TYPE_AUTHORITY, 4 bytes.
        addition.extend(b"\x02\0\x04host");
        let expected = Header::between(
            SocketAddr::from(([192, 0, 2, 1], 4711)),
            SocketAddr::from(([198, 51, 100, 2], 443)),
        );
        assert_eq!(
            parse(&bytes(0x21, TCP4, &addition)),
            Ok(Parsed::Whole(expected))
        );
        addition.resize(ADDITION_MAX_BYTES, 0);
        assert_eq!(
            parse(&bytes(0x21, TCP4, &addition)),
            Ok(Parsed::Whole(expected))
        );
        addition.push(0);
        assert_eq!(parse(&bytes(0x21, TCP4, &addition)), Err(Malformed));
    }

    #[test]
    fn local_and_what_is_not_tcp_over_ip_have_no_address() {
        for (command, family, length, expected) in [
            (0x20, UNSPECIFIED, 0, Header::Local),
            (0x20, TCP4, 12, Header::Local),
            (0x20, 0xff, 3, Header::Local),
            (0x21, UNSPECIFIED, 0, Header::Unknown),
            (0x21, UNSPECIFIED, 40, Header::Unknown),
            (0x21, UNIX_STREAM, 216, Header::Unknown),
        ] {
            let parsed = parse(&bytes(command, family, &vec![1; length]));
            assert_eq!(parsed, Ok(Parsed::Whole(expected)), "{command} {family}");
        }
        for (command, family, length) in [
            (0x11, TCP4, 12),
            (0x31, TCP4, 12),
            (0x22, TCP4, 12),
            (0x21, TCP4, 11),
            (0x21, TCP6, 35),
            (0x21, UNIX_STREAM, 215),
            (0x21, 0x12, 12),
            (0x21, 0x10, 12),
        ] {
            let parsed = parse(&bytes(command, family, &vec![1; length]));
            assert_eq!(parsed, Err(Malformed), "{command} {family} {length}");
        }
    }
}
