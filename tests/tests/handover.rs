//! A program is replaced while connections come and streams run: no connection is refused, old streams finish, and what was remembered is
//! remembered by the successor. And what a service manager passes and is told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wanproxy_tests::origin::{self, Server};
use wanproxy_tests::pair::{EdgeProcess, Pair, Signal};
use wanproxy_tests::payload::Payload;
use wanproxy_tests::{eventually, free_port};

/// What has not happened by then never will.
const LIMIT: Duration = Duration::from_secs(120);

/// A drain that nobody here waits for to the end.
const LONG_DRAIN: &str = "[tunnel]\ndrain_timeout = \"30m\"\n";

/// Connections follow each other as fast as the machine lets them: the policy's limit is not what is looked at here.
const UNHURRIED: &str = "[[client]]\nname = \"branch-*\"\nallow = [\"127.0.0.1:*\"]\nnew_streams_per_second = 1000000\n";

/// A pair whose edges listen at fixed addresses and can be replaced, and an echo behind the listener `echo`.
async fn start() -> (Pair, Server) {
    let echo = origin::echo().unwrap();
    let mut pair = Pair::builder()
        .forward("echo", echo.address())
        .server_toml(&format!("{LONG_DRAIN}{UNHURRIED}"))
        .client_toml(LONG_DRAIN)
        .start()
        .await
        .unwrap();
    fix_listener(pair.client());
    make_replaceable(pair.server_mut()).await;
    make_replaceable(pair.client_mut()).await;
    has_tunnel(pair.client()).await;
    (pair, echo)
}

async fn make_replaceable(edge: &mut EdgeProcess) {
    let socket = edge.config().with_file_name("handover");
    let arguments = ["--handover".as_ref(), socket.as_os_str()];
    edge.restart_with(&arguments).await.unwrap();
}

/// From its next start on the client's listener has a port that nobody else is given meanwhile, and keeps it.
fn fix_listener(client: &EdgeProcess) {
    let text = std::fs::read_to_string(client.config()).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table["listen"][0]["bind"] = format!("127.0.0.1:{}", free_port().unwrap()).into();
    std::fs::write(client.config(), toml::to_string(&table).unwrap()).unwrap();
}

async fn has_tunnel(client: &EdgeProcess) {
    eventually("the tunnel is up", async || {
        if client.is_ready().await {
            Ok(())
        } else {
            Err(client.last_log_lines())
        }
    })
    .await;
}

async fn echoed(connection: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut back = vec![0; bytes.len()];
    let (mut reader, mut writer) = connection.split();
    let both = async { tokio::try_join!(writer.write_all(bytes), reader.read_exact(&mut back)) };
    timeout(LIMIT, both).await.expect("the echo stalled")?;
    Ok(back)
}

/// One connection after the other, each of which must be served, until it is told to stop. Returns their number.
async fn knock(address: std::net::SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let back = echoed(&mut connection, b"knock").await;
        assert_eq!(back.unwrap(), b"knock", "connection {count}");
        count += 1;
    }
    count
}

/// Plain bytes towards the line, and what they cost, as the edge counts them since its start.
async fn to_wan(edge: &EdgeProcess) -> (u64, u64) {
    let status = edge.status_json().await.unwrap();
    let service = &status["services"][0];
    let bytes = |name: &str| service[name].as_u64().unwrap();
    (bytes("lan_bytes_to_wan"), bytes("wan_bytes_to_wan"))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_edges_are_replaced_without_a_refused_connection_and_stay_warm() {
    let (mut pair, _echo) = start().await;
    let address = pair.client().address("echo").unwrap();
    let payload = Payload::random(7).bytes(0, 1 << 20);
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(echoed(&mut first, &payload).await.unwrap() == payload);

    let stop = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..4)
        .map(|_| tokio::spawn(knock(address, stop.clone())))
        .collect();

    let mut old_server = pair.server_mut().replace().await.unwrap();
    has_tunnel(pair.client()).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(echoed(&mut second, b"second").await.unwrap(), b"second");
    let mut old_client = pair.client_mut().replace().await.unwrap();
    has_tunnel(pair.client()).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    assert_eq!(echoed(&mut third, b"third").await.unwrap(), b"third");

    stop.store(true, Ordering::Relaxed);
    for knocking in storm {
        assert!(knocking.await.unwrap() > 0);
    }
    // Streams from before go on in the old programs, which end with the last of them.
    for (stream, name) in [(&mut first, "first"), (&mut second, "second")] {
        let bytes = Payload::random(8).bytes(0, 300_000);
        assert!(echoed(stream, &bytes).await.unwrap() == bytes, "{name}");
    }
    drop((first, second));
    for old in [&mut old_server, &mut old_client] {
        let status = old.exit(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", old.last_log_lines());
    }

    // The successors have the histories: what the old programs sent costs next to nothing.
    eventually("the successors are warm", async || {
        let (lan, wan) = to_wan(pair.client()).await;
        assert!(echoed(&mut third, &payload).await.unwrap() == payload);
        let (lan_after, wan_after) = to_wan(pair.client()).await;
        let (plain, cost) = (lan_after - lan, wan_after - wan);
        if plain >= 1 << 20 && cost < plain / 50 {
            Ok(())
        } else {
            Err(format!("{cost} bytes for {plain}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_cannot_start_leaves_the_running_program_as_it_is() {
    let (mut pair, _echo) = start().await;
    let mut open = TcpStream::connect(pair.client().address("echo").unwrap())
        .await
        .unwrap();
    let config = pair.server().config().to_owned();
    let good = std::fs::read_to_string(&config).unwrap();
    // Another listener at an address that is taken: known only when everything else is there already.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut table: toml::Table = good.parse().unwrap();
    table["admin"]["bind"] = taken.local_addr().unwrap().to_string().into();
    std::fs::write(&config, toml::to_string(&table).unwrap()).unwrap();
    let error = pair.server_mut().replace().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("cannot listen on"),
        "{error:#}"
    );
    assert_eq!(echoed(&mut open, b"still").await.unwrap(), b"still");
    eventually("the server has noticed", async || {
        let log = pair.server().log();
        if log.contains("a program did not take over") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;

    std::fs::write(&config, good).unwrap();
    let mut old = pair.server_mut().replace().await.unwrap();
    assert_eq!(echoed(&mut open, b"last").await.unwrap(), b"last");
    drop(open);
    old.exit(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_passes_sockets_and_is_told_what_happens() {
    let echo = origin::echo().unwrap();
    let mut pair = Pair::builder()
        .forward("echo", echo.address())
        .start()
        .await
        .unwrap();
    let program = pair.programs().server().to_owned();
    let config = pair.server().config().to_owned();
    let address = pair.server().tunnel_address().unwrap();
    pair.server().signal(Signal::TERM).unwrap();
    pair.server_mut().exit(LIMIT).await.unwrap();

    let socket = std::net::TcpListener::bind(address).unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let told = pair.scratch().join("notify");
    let notify = UnixDatagram::bind(&told).unwrap();
    notify.set_read_timeout(Some(LIMIT)).unwrap();
    let mut server = Passed::start(&program, &config, &[socket.as_fd(), other.as_fd()], &told);
    // The sockets are the server's now: who connects is served by it although this program has closed its own.
    drop((socket, other));
    let ready = hear(&notify);
    assert!(ready.contains("READY=1"), "{ready}");
    assert!(
        ready.contains(&format!("MAINPID={}", server.0.id())),
        "{ready}"
    );
    assert!(hear_until(&notify, "WATCHDOG=1").contains("WATCHDOG=1"));
    has_tunnel(pair.client()).await;
    // The client may not have noticed yet that the tunnel it has is that of the server which has ended.
    let entrance = pair.client().address("echo").unwrap();
    eventually("the client is served", async || {
        let mut connection = TcpStream::connect(entrance).await?;
        assert_eq!(echoed(&mut connection, b"?").await?, b"?");
        Ok::<_, std::io::Error>(())
    })
    .await;

    server.signal("HUP");
    let reloading = hear_until(&notify, "RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hear_until(&notify, "READY=1");
    server.signal("TERM");
    hear_until(&notify, "STOPPING=1");
    // A server that tells somebody who does not listen waits for him.
    drop(notify);
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(config.with_extension("passed")).unwrap();
    assert!(
        log.contains("a socket was passed that the configuration does not name"),
        "{log}"
    );
}

/// What is told next.
fn hear(notify: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = notify.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// What is told when it has `word`; whatever comes before does not matter.
fn hear_until(notify: &UnixDatagram, word: &str) -> String {
    loop {
        let said = hear(notify);
        if said.contains(word) {
            return said;
        }
    }
}

/// A server that is started as a service manager would: with descriptors from 3 on.
struct Passed(std::process::Child);

impl Passed {
    fn start(
        program: &Path,
        config: &Path,
        sockets: &[std::os::fd::BorrowedFd<'_>],
        notify: &Path,
    ) -> Self {
        /// Above all numbers that the shell gives them.
        const COPIES_FROM: i32 = 64;
        let copies: Vec<OwnedFd> = sockets
            .iter()
            .map(|socket| rustix::io::fcntl_dupfd_cloexec(socket, COPIES_FROM).unwrap())
            .collect();
        // A shell puts them where they belong, and says who they are for: itself, as it becomes the program.
        let redirections: String = copies
            .iter()
            .enumerate()
            .map(|(at, socket)| {
                use std::os::fd::AsRawFd;
                rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
                format!(" {}<&{}", at + 3 + 6, socket.as_raw_fd())
            })
            .collect();
        let moves: String = (0..copies.len())
            .map(|at| format!(" {}<&{} {}<&-", at + 3, at + 3 + 6, at + 3 + 6))
            .collect();
        let script = format!(
            "exec{redirections}; exec{moves}; LISTEN_PID=$$ LISTEN_FDS={} exec \"$0\" run --config \"$1\"",
            copies.len()
        );
        let log = std::fs::File::create(config.with_extension("passed")).unwrap();
        let child = Command::new("bash")
            .args(["-c", &script])
            .arg(program)
            .arg(config)
            .env("NOTIFY_SOCKET", notify)
            // Signs of life that nobody hears for a while do not fill the socket, in which the server would wait.
            .env("WATCHDOG_USEC", "20000000")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.0.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
