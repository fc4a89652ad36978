//! The SOCKS5 listener: what it carries, and what it says when it cannot.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::preload::Preload;
use wanproxy_tests::skip;

/// Codes of RFC 1928, section 6.
const SUCCEEDED: u8 = 0;
const NOT_ALLOWED: u8 = 2;
const NETWORK_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_TYPE_NOT_SUPPORTED: u8 = 8;

/// An answer that has not come by then never will; a dial may take ten seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn carries_connections_to_addresses_and_names() {
    let echo = origin::echo().unwrap();
    let echo6 = Server::start_at(
        Ipv6Addr::LOCALHOST.into(),
        |mut connection: TcpStream| async move {
            let (mut reader, mut writer) = connection.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        },
    );
    let pair = Pair::builder()
        .socks5()
        .allow("127.0.0.1:*")
        .allow("[::1]:*")
        .allow("localhost:*")
        .start()
        .await
        .unwrap();
    let mut destinations = vec![v4(echo.address()), name("localhost", echo.address().port())];
    match &echo6 {
        Ok(echo6) => destinations.push(v6(Ipv6Addr::LOCALHOST, echo6.address().port())),
        Err(error) => skip(
            "SOCKS5 to an IPv6 address",
            &format!("no ::1 here: {error}"),
        ),
    }
    for destination in destinations {
        let (reply, mut connection) = connect(&pair, &destination).await;
        assert_eq!(reply, SUCCEEDED, "{destination:?}");
        connection.write_all(b"through a proxy").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut back = Vec::new();
        connection.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"through a proxy");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_sent_behind_the_request_arrive() {
    let sink = origin::sink().unwrap();
    let pair = Pair::builder().socks5().start().await.unwrap();
    let mut connection = TcpStream::connect(pair.client().address("socks5").unwrap())
        .await
        .unwrap();
    let mut all = vec![5, 1, 0];
    all.extend(request(1, &v4(sink.address())));
    all.extend(b"early");
    connection.write_all(&all).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut greeting = [0; 2];
    connection.read_exact(&mut greeting).await.unwrap();
    assert_eq!(read_reply(&mut connection).await.unwrap(), SUCCEEDED);
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("5 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn says_why_a_target_cannot_be_had() {
    // Where it can be had, no name server is asked, which may take longer than a dial.
    let preload = Preload::build().ok();
    if let Some(preload) = &preload {
        preload.set_names(&[("nobody.invalid", &[])]).unwrap();
    }
    let environment = preload.as_ref().map(Preload::environment);
    let pair = Pair::builder()
        .socks5()
        .allow("127.0.0.1:*")
        .allow("[2001:db8::/32]:*")
        .allow("*.invalid:*")
        .server_environment(environment.unwrap_or_default())
        .start()
        .await
        .unwrap();
    // Bound, so that nobody else gets the port.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    assert_eq!(
        connect(&pair, &v4(nobody.local_addr().unwrap())).await.0,
        REFUSED,
        "nobody listens there"
    );
    assert_eq!(
        connect(&pair, &name("nobody.invalid", 80)).await.0,
        HOST_UNREACHABLE,
        "no such name"
    );

    // An address of the documentation network; what this machine itself says of it is what the code must say.
    let documentation: Ipv6Addr = "2001:db8::1".parse().unwrap();
    match timeout(
        Duration::from_secs(1),
        TcpStream::connect((documentation, 9)),
    )
    .await
    {
        Ok(Err(error)) if error.kind() == io::ErrorKind::NetworkUnreachable => {
            assert_eq!(
                connect(&pair, &v6(documentation, 9)).await.0,
                NETWORK_UNREACHABLE
            );
        }
        other => skip(
            "SOCKS5 to an unreachable network",
            &format!("a route to {documentation} here: {other:?}"),
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_the_policy_does_not_name_is_not_reached() {
    nobody_is_reached(&["10.0.0.0/8:443", "*.example.com:443"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_everything_does_not_speak_of_special_addresses() {
    nobody_is_reached(&["0.0.0.0/0:*", "[::/0]:*"]).await;
}

/// A listener of this machine, in all its forms, and other special addresses are forbidden under these rules.
async fn nobody_is_reached(allow: &[&str]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pair = allow
        .iter()
        .fold(Pair::builder().socks5(), |builder, rule| {
            builder.allow(rule)
        })
        .start()
        .await
        .unwrap();
    let forbidden = [
        v4(address),
        v6(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port()),
        v6(Ipv6Addr::LOCALHOST, address.port()),
        v6("64:ff9b::7f00:1".parse().unwrap(), address.port()),
        name("localhost", address.port()),
        name("127.0.0.1", address.port()),
        v4("169.254.169.254:80".parse().unwrap()),
        v4("224.0.0.1:80".parse().unwrap()),
        v4(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))),
        v6(Ipv6Addr::UNSPECIFIED, address.port()),
        v6("fe80::1".parse().unwrap(), 80),
    ];
    for destination in forbidden {
        assert_eq!(
            connect(&pair, &destination).await.0,
            NOT_ALLOWED,
            "{destination:?}"
        );
    }
    // Nothing of all that has dialled: the first connection that arrives is our own.
    let own = TcpStream::connect(address).await.unwrap();
    assert_eq!(
        listener.accept().await.unwrap().1,
        own.local_addr().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_part_of_what_is_allowed_is_not_reached() {
    let echo = origin::echo().unwrap();
    let other = origin::echo().unwrap();
    let policy = format!(
        "[[client]]\nname = \"branch-*\"\nallow = [\"127.0.0.1:*\"]\ndeny = [\"127.0.0.1:{}\"]\n",
        echo.address().port()
    );
    let pair = Pair::builder()
        .socks5()
        .server_toml(&policy)
        .start()
        .await
        .unwrap();
    assert_eq!(connect(&pair, &v4(echo.address())).await.0, NOT_ALLOWED);
    assert_eq!(connect(&pair, &v4(other.address())).await.0, SUCCEEDED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_socks5_is_refused() {
    let pair = Pair::builder().socks5().start().await.unwrap();
    let entrance = pair.client().address("socks5").unwrap();
    let destination = v4("127.0.0.1:9".parse().unwrap());
    for (command, what) in [(2, "BIND"), (3, "UDP ASSOCIATE"), (9, "no command")] {
        let mut connection = greeted(&pair).await;
        connection
            .write_all(&request(command, &destination))
            .await
            .unwrap();
        assert_eq!(
            read_reply(&mut connection).await.unwrap(),
            COMMAND_NOT_SUPPORTED,
            "{what}"
        );
    }
    let mut connection = greeted(&pair).await;
    connection
        .write_all(&[5, 1, 0, 2, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    assert_eq!(
        read_reply(&mut connection).await.unwrap(),
        ADDRESS_TYPE_NOT_SUPPORTED
    );

    // A client that offers no method the listener has is told so.
    let mut connection = TcpStream::connect(entrance).await.unwrap();
    connection.write_all(&[5, 1, 2]).await.unwrap();
    let mut answer = [0; 2];
    timeout(ANSWER_LIMIT, connection.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, [5, 0xff]);

    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[4, 1, 0, 80, 127, 0, 0, 1, 0],
        &[0; 600],
    ] {
        let mut connection = TcpStream::connect(entrance).await.unwrap();
        connection.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(ANSWER_LIMIT, connection.read_to_end(&mut rest))
            .await
            .expect("it was not closed");
        assert!(
            ended.is_err() || rest.first() != Some(&5) || rest.get(1) == Some(&0xff),
            "{rest:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_come_byte_by_byte() {
    let echo = origin::echo().unwrap();
    let pair = Pair::builder().socks5().start().await.unwrap();
    let mut connection = TcpStream::connect(pair.client().address("socks5").unwrap())
        .await
        .unwrap();
    connection.set_nodelay(true).unwrap();
    for byte in [5, 1, 0] {
        connection.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 2];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0]);
    for byte in request(1, &v4(echo.address())) {
        connection.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_reply(&mut connection).await.unwrap(), SUCCEEDED);
}

/// An address as it stands in a request: type, address, port.
type Destination = Vec<u8>;

fn v4(address: SocketAddr) -> Destination {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not IPv4")
    };
    [
        &[1][..],
        &address.ip().octets(),
        &address.port().to_be_bytes(),
    ]
    .concat()
}

fn v6(ip: Ipv6Addr, port: u16) -> Destination {
    [&[4][..], &ip.octets(), &port.to_be_bytes()].concat()
}

fn name(name: &str, port: u16) -> Destination {
    [
        &[3, u8::try_from(name.len()).unwrap()][..],
        name.as_bytes(),
        &port.to_be_bytes(),
    ]
    .concat()
}

fn request(command: u8, destination: &[u8]) -> Vec<u8> {
    [&[5, command, 0][..], destination].concat()
}

/// A connection to the listener that has agreed on "no authentication".
async fn greeted(pair: &Pair) -> TcpStream {
    let mut connection = TcpStream::connect(pair.client().address("socks5").unwrap())
        .await
        .unwrap();
    connection.write_all(&[5, 2, 0, 2]).await.unwrap();
    let mut answer = [0; 2];
    timeout(ANSWER_LIMIT, connection.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, [5, 0]);
    connection
}

/// Asks for a connection; returns the reply's code.
async fn connect(pair: &Pair, destination: &[u8]) -> (u8, TcpStream) {
    let mut connection = greeted(pair).await;
    connection
        .write_all(&request(1, destination))
        .await
        .unwrap();
    (read_reply(&mut connection).await.unwrap(), connection)
}

/// Reads a whole reply, address and port included, and returns its code.
async fn read_reply(connection: &mut TcpStream) -> io::Result<u8> {
    let reply = async {
        let mut head = [0; 4];
        connection.read_exact(&mut head).await?;
        assert_eq!((head[0], head[2]), (5, 0), "not a SOCKS5 reply: {head:?}");
        let address_bytes = match head[3] {
            1 => 4,
            4 => 16,
            3 => usize::from(connection.read_u8().await?),
            other => panic!("address type {other} in a reply"),
        };
        let mut address = vec![0; address_bytes + 2];
        connection.read_exact(&mut address).await?;
        Ok(head[1])
    };
    timeout(ANSWER_LIMIT, reply).await.expect("no reply")
}
