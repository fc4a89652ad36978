//! Asks a running edge's admin endpoint: one request over a plain socket, bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Token;
use crate::config::Bind;

/// A question is answered at once, so the whole exchange takes no longer.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// An order may have to delete files of many gigabytes first; longer than the endpoint keeps a connection is of no use.
const ORDER_TIMEOUT: Duration = Duration::from_secs(35);

/// The longest answer that is read: 1,024 services and as many tunnels fit.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// Why the endpoint gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there, or the connection failed.
    #[error("cannot reach the admin endpoint at {address}: {cause}; is the edge running?")]
    Unreachable {
        /// Where it was asked.
        address: Bind,
        /// What the system said.
        cause: io::Error,
    },
    /// It answered, but not with the page.
    #[error("the admin endpoint at {address} answered {answer}")]
    Refused {
        /// Where it was asked.
        address: Bind,
        /// Its status line and first words.
        answer: String,
    },
    /// It is no admin endpoint.
    #[error("what listens at {address} is no admin endpoint of wanproxy")]
    NotHttp {
        /// Where it was asked.
        address: Bind,
    },
}

/// GETs `path` and returns the body of a 200.
///
/// # Errors
/// Unreachable within five seconds, refused, or not HTTP.
pub fn ask(bind: &Bind, token: Option<&Token>, path: &str) -> Result<String, AskError> {
    request(bind, token, &format!("GET {path}"), QUESTION_TIMEOUT)
}

/// POSTs to `path`, which changes something, and returns the body of a 200.
///
/// # Errors
/// Unreachable, not done within half a minute, refused, or not HTTP.
pub fn order(bind: &Bind, token: Option<&Token>, path: &str) -> Result<String, AskError> {
    request(bind, token, &format!("POST {path}"), ORDER_TIMEOUT)
}

fn request(
    bind: &Bind,
    token: Option<&Token>,
    line: &str,
    timeout: Duration,
) -> Result<String, AskError> {
    let address = reachable(bind);
    let answer = match &address {
        Bind::Tcp(at) => connect_tcp(*at).and_then(|socket| {
            exchange(
                socket,
                TcpStream::set_read_timeout,
                &at.to_string(),
                token,
                line,
                timeout,
            )
        }),
        Bind::Unix(path) => connect_unix(path).and_then(|socket| {
            exchange(
                socket,
                UnixStream::set_read_timeout,
                "localhost",
                token,
                line,
                timeout,
            )
        }),
    };
    let unreachable = |cause| AskError::Unreachable {
        address: address.clone(),
        cause,
    };
    let answer = answer.map_err(unreachable)?;
    let not_http = || AskError::NotHttp {
        address: address.clone(),
    };
    let answer = String::from_utf8(answer).map_err(|_| not_http())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let line = head.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..))
        .ok_or_else(not_http)?;
    if status.split(' ').next() == Some("200") {
        return Ok(body.to_owned());
    }
    let why = body.lines().next().filter(|line| !line.is_empty());
    let answer = why.map_or_else(|| status.to_owned(), |why| format!("{status}: {why}"));
    Err(AskError::Refused { address, answer })
}

/// An endpoint that listens on every address is asked on loopback.
fn reachable(bind: &Bind) -> Bind {
    let Bind::Tcp(bind) = bind else {
        return bind.clone();
    };
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Bind::Tcp(SocketAddr::new(ip, bind.port()))
}

fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, QUESTION_TIMEOUT)?;
    socket.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    Ok(socket)
}

fn connect_unix(path: &str) -> io::Result<UnixStream> {
    let socket = UnixStream::connect(path)?;
    socket.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    Ok(socket)
}

fn exchange<S: Read + Write>(
    mut socket: S,
    set_read_timeout: impl Fn(&S, Option<Duration>) -> io::Result<()>,
    host: &str,
    token: Option<&Token>,
    line: &str,
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    let end = Instant::now() + timeout;
    let authorization = token
        .map(|token| format!("Authorization: {}\r\n", token.authorization()))
        .unwrap_or_default();
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    socket
        .write_all(format!("{line} HTTP/1.0\r\nHost: {host}\r\n{authorization}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or(io::ErrorKind::TimedOut)?;
        set_read_timeout(&socket, Some(left))?;
        let count = match socket.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        };
        if count == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if answer.len() > ANSWER_MAX_BYTES {
            return Err(io::Error::other("the answer does not end"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::TcpListener;
    use std::thread;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// Answers one connection with `answer` after its request.
    fn asked(answer: Vec<u8>) -> Result<String, AskError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let _ = socket.write_all(&answer);
            String::from_utf8(request).unwrap()
        });
        // As `ask` does it, with the time of an order: the machine may be busy.
        let bind = Bind::Tcp(address);
        let result = request(&bind, None, "GET /api/status", ORDER_TIMEOUT);
        assert_eq!(
            server.join().unwrap(),
            format!("GET /api/status HTTP/1.0\r\nHost: {address}\r\n\r\n")
        );
        result
    }

    #[test]
    fn the_body_of_a_good_answer_comes_back() {
        assert_eq!(
            asked(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n{}\r\n\r\n".to_vec()).unwrap(),
            "{}\r\n\r\n"
        );
    }

    #[test]
    fn a_refusal_is_told_with_its_words() {
        let error = asked(b"HTTP/1.1 401 Unauthorized\r\n\r\npresent the token\nmore".to_vec())
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("answered 401 Unauthorized: present the token"),
            "{error}"
        );
        let error = asked(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec())
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("answered 404 Not Found"), "{error}");
    }

    #[test]
    fn what_is_not_http_is_named() {
        for answer in [
            &b"SSH-2.0-x\r\n"[..],
            b"\xff\xfe\r\n\r\n",
            b"",
            b"HTTP/1.\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
        ] {
            assert!(
                matches!(asked(answer.to_vec()), Err(AskError::NotHttp { .. })),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        assert!(matches!(
            asked(vec![b'a'; ANSWER_MAX_BYTES + (1 << 20)]),
            Err(AskError::Unreachable { .. })
        ));
    }

    #[test]
    fn nobody_there_is_told_with_the_address() {
        // Held, so that nobody else listens at the port meanwhile.
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        held.bind(&loopback.into()).unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        let error = ask(&Bind::Tcp(address), None, "/").unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.ends_with("is the edge running?"),
            "{error}"
        );
    }

    #[test]
    fn every_address_means_loopback() {
        for (bind, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(reachable(&bind.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
