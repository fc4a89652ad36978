//! Version 1: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Header, Malformed, Parsed};

/// The longest line, with its end: what the specification says a receiver must take.
pub const V1_MAX_BYTES: usize = 107;

/// The shortest line: `PROXY UNKNOWN` and its end.
const SHORTEST_BYTES: usize = 15;

const START: &[u8] = b"PROXY ";

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let common = bytes.len().min(START.len());
    if bytes.get(..common) != START.get(..common) {
        return Err(Malformed);
    }
    if let Some(line) = bytes.strip_suffix(b"\r\n") {
        return read(line).map(Parsed::Whole);
    }
    let missing = if bytes.last() == Some(&b'\r') { 1 } else { 2 };
    let needs = SHORTEST_BYTES.saturating_sub(bytes.len()).max(missing);
    // A line end in the middle ends the line; what stands behind it was not asked for.
    let ended = bytes.windows(2).any(|pair| pair == b"\r\n") || bytes.contains(&b'\n');
    if ended || bytes.len() + needs > V1_MAX_BYTES {
        return Err(Malformed);
    }
    Ok(Parsed::Needs(needs))
}

fn read(line: &[u8]) -> Result<Header, Malformed> {
    let line = line.strip_prefix(START).ok_or(Malformed)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        // What follows is to be ignored, but it is text of one line.
        let is_text = line.iter().all(|byte| !byte.is_ascii_control());
        return if is_text {
            Ok(Header::Unknown)
        } else {
            Err(Malformed)
        };
    }
    let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(Malformed);
    let family = word()?;
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    let (source, destination) = match family {
        "TCP4" => (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?),
        "TCP6" => (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?),
        _ => return Err(Malformed),
    };
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Header::between(
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    ))
}

fn ip<A: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, Malformed> {
    text.parse::<A>().map(Into::into).map_err(|_| Malformed)
}

fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = text.len() > 1 && text.starts_with('0');
    match text.parse() {
        Ok(port) if is_plain && !has_zeros => Ok(port),
        _ => Err(Malformed),
    }
}

pub(super) fn write(header: Header) -> Vec<u8> {
    let Header::Proxied {
        source,
        destination,
    } = header
    else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<Header, Malformed> {
        match parse(text.as_bytes())? {
            Parsed::Whole(header) => Ok(header),
            Parsed::Needs(_) => Err(Malformed),
        }
    }

    #[test]
    fn the_specifications_longest_lines_are_read() {
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert!(longest.len() <= V1_MAX_BYTES);
        assert!(matches!(whole(longest), Ok(Header::Proxied { .. })));
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(unknown.len(), V1_MAX_BYTES);
        assert_eq!(whole(&unknown), Ok(Header::Unknown));
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(93));
        assert_eq!(parse(endless.as_bytes()), Err(Malformed));
    }

    #[test]
    fn what_is_not_exactly_right_is_refused() {
        for text in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY UNKNOWN \0\r\n",
            "PROXY \r\n",
            "proxy UNKNOWN\r\n",
        ] {
            assert_eq!(whole(text), Err(Malformed), "{text:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 1.1.1.1\n 2"), Err(Malformed));
        assert_eq!(parse(b"POST / HTTP"), Err(Malformed));
    }
}
