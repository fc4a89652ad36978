//! What targets and logs hear of who has connected (the PROXY protocol), and how fast it may go (rates).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edge::proxy_protocol::{self, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{EdgeProcess, Pair};
use wanproxy_tests::payload::{Payload, there_and_back};
use wanproxy_tests::{eventually, skip};

/// What has not happened by then never will; nothing here takes more than seconds.
const LIMIT: Duration = Duration::from_secs(120);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: target\r\n\r\n";

/// A `[[listen]]` of the client edge on a free port.
fn listener(name: &str, kind: &str, more: &str) -> String {
    format!("[[listen]]\nname = \"{name}\"\nkind = \"{kind}\"\nbind = \"127.0.0.1:0\"\n{more}\n")
}

/// Answers an HTTP request by the PROXY protocol header that came before it.
fn header_teller() -> Server {
    Server::start(|mut connection: TcpStream| async move {
        let header = proxy_protocol::read(&mut connection)
            .await
            .map_err(std::io::Error::other)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await?);
        }
        assert!(head.starts_with(b"GET / HTTP/1.1\r\n"), "{head:?}");
        let body = format!("{header:?}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(answer.as_bytes()).await?;
        connection.shutdown().await
    })
    .unwrap()
}

async fn rest_of(connection: &mut TcpStream) -> String {
    let mut answer = String::new();
    let read = timeout(LIMIT, connection.read_to_string(&mut answer));
    read.await.expect("the answer stalled").unwrap();
    answer
}

fn proxied(source: SocketAddr, destination: SocketAddr) -> String {
    format!("{:?}", Header::between(source, destination))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_taken_and_handed_on_in_the_other_version() {
    let teller = header_teller();
    let target = format!("target = \"{}\"\nproxy_accept = true", teller.address());
    let config = listener("one", "forward", &format!("{target}\nproxy_send = \"v2\""))
        + &listener("two", "forward", &format!("{target}\nproxy_send = \"v1\""));
    let pair = Pair::builder().client_toml(&config).start().await.unwrap();
    let connect = async |name: &str| {
        TcpStream::connect(pair.client().address(name).unwrap())
            .await
            .unwrap()
    };
    let (source, destination) = (
        "192.0.2.1:4711".parse().unwrap(),
        "198.51.100.2:443".parse().unwrap(),
    );
    let header = Header::between(source, destination);
    for (name, version) in [
        ("one", proxy_protocol::Version::V1),
        ("two", proxy_protocol::Version::V2),
    ] {
        let mut connection = connect(name).await;
        connection
            .write_all(&header.to_bytes(version))
            .await
            .unwrap();
        connection.write_all(REQUEST).await.unwrap();
        let answer = rest_of(&mut connection).await;
        assert!(answer.ends_with(&proxied(source, destination)), "{answer}");
    }
    eventually("the real source is in the log", async || {
        let log = pair.client().log();
        let lines = log
            .lines()
            .filter(|line| line.contains("application=192.0.2.1:4711"));
        if lines.count() == 2 {
            Ok(())
        } else {
            Err(pair.client().last_log_lines())
        }
    })
    .await;
    // A proxy that knows nothing, or that only looks whether anybody is there, is handed on as such.
    for (sent, heard) in [(Header::Unknown, "Unknown"), (Header::Local, "Local")] {
        let mut connection = connect("one").await;
        connection
            .write_all(&sent.to_bytes(proxy_protocol::Version::V2))
            .await
            .unwrap();
        connection.write_all(REQUEST).await.unwrap();
        assert!(rest_of(&mut connection).await.ends_with(heard));
    }
    // Without a header there is no connection.
    let mut connection = connect("one").await;
    connection.write_all(REQUEST).await.unwrap();
    let ended = timeout(LIMIT, connection.read(&mut [0; 1]))
        .await
        .expect("it is carried");
    assert!(matches!(ended, Err(_) | Ok(0)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_listener_tells_the_target_who_has_connected() {
    let teller = header_teller();
    let target = teller.address();
    let config = listener(
        "forward",
        "forward",
        &format!("target = \"{target}\"\nproxy_send = \"v1\""),
    ) + &listener("socks", "socks5", "proxy_send = \"v2\"")
        + &listener("http", "http", "proxy_send = \"v1\"");
    let pair = Pair::builder().client_toml(&config).start().await.unwrap();
    let ask = async |name: &str, prologue: &[u8], reply: usize, request: &[u8]| {
        let address = pair.client().address(name).unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(prologue).await.unwrap();
        connection.read_exact(&mut vec![0; reply]).await.unwrap();
        connection.write_all(request).await.unwrap();
        let answer = rest_of(&mut connection).await;
        let expected = proxied(connection.local_addr().unwrap(), address);
        assert!(answer.ends_with(&expected), "{name}: {answer}");
    };
    ask("forward", b"", 0, REQUEST).await;
    let [high, low] = target.port().to_be_bytes();
    let socks = [5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low];
    ask("socks", &socks, 2 + 10, REQUEST).await;
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    ask(
        "http",
        connect.as_bytes(),
        "HTTP/1.1 200 OK\r\n\r\n".len(),
        REQUEST,
    )
    .await;
    let whole =
        format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    ask("http", b"", 0, whole.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_understands_it_on_either_side() {
    if Command::new("haproxy")
        .arg("-v")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return skip("the PROXY protocol with haproxy", "there is no haproxy");
    }
    let socket = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
        (OwnedFd::from(socket), address)
    };
    let ((front, front_address), (back, back_address)) = (socket(), socket());
    let config = listener(
        "between",
        "forward",
        &format!("target = \"{back_address}\"\nproxy_accept = true\nproxy_send = \"v2\""),
    );
    let pair = Pair::builder().client_toml(&config).start().await.unwrap();
    for version in ["send-proxy", "send-proxy-v2"] {
        let text = format!(
            "defaults\n mode tcp\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n\
             frontend front\n bind fd@{}\n default_backend pair\n\
             backend pair\n server pair {} {version}\n\
             frontend back\n mode http\n bind fd@{} accept-proxy\n \
             http-request return status 200 content-type text/plain lf-string \"source %[src]:%[src_port] destination %[dst]:%[dst_port]\"\n",
            front.as_raw_fd(),
            pair.client().address("between").unwrap(),
            back.as_raw_fd(),
        );
        let file = pair.scratch().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let haproxy = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .spawn()
            .unwrap();
        let _haproxy = Ending(haproxy);
        let mut connection = TcpStream::connect(front_address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: target\r\nConnection: close\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let source = connection.local_addr().unwrap();
        let answer = rest_of(&mut connection).await;
        let expected = format!("source {source} destination {front_address}");
        assert!(
            answer.ends_with(&expected),
            "{version}: {answer}, not {expected}"
        );
    }
}

/// A program of ours that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Sends `length` bytes through `name` to an echo, and returns how long it took.
async fn echo_time(edge: &EdgeProcess, name: &str, length: u64) -> Duration {
    let connection = TcpStream::connect(edge.address(name).unwrap())
        .await
        .unwrap();
    let begun = Instant::now();
    there_and_back(connection, Payload::random(7), length, LIMIT)
        .await
        .unwrap();
    begun.elapsed()
}

/// A rate may be fallen short of on a busy machine and never exceeded, so these look at the least time only.
#[tokio::test(flavor = "multi_thread")]
async fn rates_hold_back_services_and_clients_and_lose_nothing() {
    let echo = origin::echo().unwrap();
    let target = format!("target = \"{}\"", echo.address());
    let client = listener("slow", "forward", &format!("{target}\nrate = \"16Mbit/s\""))
        + &listener("free", "forward", &target)
        + "[[accept]]\nallow = [\"127.0.0.1:*\"]\n";
    let server = format!(
        "{}client = \"branch-1\"\nrate = \"16Mbit/s\"\n",
        listener("back", "forward", &target)
    );
    let pair = Pair::builder()
        .client_toml(&client)
        .server_toml(&server)
        .start()
        .await
        .unwrap();
    // 3 MB at 2 MB/s, of which a burst of 0.2 MB is let through at once.
    let least = Duration::from_millis(1400);
    let slow = echo_time(pair.client(), "slow", 3_000_000).await;
    assert!(slow >= least, "{slow:?}");
    let back = echo_time(pair.server(), "back", 3_000_000).await;
    assert!(back >= least, "{back:?}");

    // The client's rate is the server's to enforce, and a reload brings it.
    let config = pair.server().config();
    let mut table: toml::Table = std::fs::read_to_string(config).unwrap().parse().unwrap();
    for client in table["client"].as_array_mut().unwrap() {
        let rate = toml::Value::from("8Mbit/s");
        client
            .as_table_mut()
            .unwrap()
            .insert("rate".to_owned(), rate);
    }
    std::fs::write(config, toml::to_string(&table).unwrap()).unwrap();
    pair.server().reload().await.unwrap();
    let least = Duration::from_millis(1900);
    let free = echo_time(pair.client(), "free", 2_000_000 + 100_000).await;
    assert!(free >= least, "{free:?}");
}
