//! The line as a router between two networks that are there, as the Compose file has it. Needs root.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wanproxy_tests::packets::{Ask, Carried, From, Lan, PacketLine, Router, Settings, Space, ask};
use wanproxy_tests::skip;

const PROGRAM: &str = env!("CARGO_BIN_EXE_wanproxy-line");

const NEAR: Lan = Lan {
    device: "near",
    router: (
        Ipv4Addr::new(10, 78, 1, 3),
        Ipv6Addr::new(0xfd78, 0, 0, 1, 0, 0, 0, 3),
    ),
    host: (
        Ipv4Addr::new(10, 78, 1, 10),
        Ipv6Addr::new(0xfd78, 0, 0, 1, 0, 0, 0, 10),
    ),
};
const FAR: Lan = Lan {
    device: "far",
    router: (
        Ipv4Addr::new(10, 78, 2, 3),
        Ipv6Addr::new(0xfd78, 0, 0, 2, 0, 0, 0, 3),
    ),
    host: (
        Ipv4Addr::new(10, 78, 2, 10),
        Ipv6Addr::new(0xfd78, 0, 0, 2, 0, 0, 0, 10),
    ),
};
/// What the router adds to the addresses that it has, and the hosts know as their way out.
const ADDED: [&str; 2] = ["10.78.1.2/24", "10.78.2.2/24"];

const SENT_BYTES: usize = 300_000;

/// A router's namespace with a host on each side.
struct Hosts {
    router: Space,
    near: Space,
    far: Space,
}

impl Hosts {
    fn make() -> Option<Self> {
        if let Err(reason) = PacketLine::possible() {
            skip("a test of the router", &reason);
            return None;
        }
        let router = Space::alone("router").unwrap();
        let near = router.attach("near", &NEAR).unwrap();
        let far = router.attach("far", &FAR).unwrap();
        for (host, way) in [(&near, "10.78.1.2"), (&far, "10.78.2.2")] {
            let mut command = host.command("ip");
            command.args(["route", "replace", "default", "via", way]);
            assert!(command.status().unwrap().success());
        }
        Some(Self { router, near, far })
    }

    /// A connection from the near host to the far one: its near and its far end.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let listener = self.far.run(|| TcpListener::bind((FAR.host.0, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let near = self.near.run(|| TcpStream::connect(address)).unwrap();
        let (far, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::V4(NEAR.host.0), "nobody translates");
        (near, far)
    }

    fn router_has(&self, what: &[&str], text: &str) -> bool {
        let output = self.router.command("ip").args(what).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains(text)
    }

    fn told(&self, arguments: &[&str]) -> Output {
        let mut command = self.router.command(PROGRAM);
        command.args(arguments).output().unwrap()
    }

    fn ask(&self, what: Ask) -> Carried {
        let answer = self.router.run(|| ask(what).map_err(std::io::Error::other));
        answer.unwrap()
    }
}

/// `wanproxy-line route`, which ends with its test.
struct Line(Child);

impl Line {
    fn start(hosts: &Hosts, options: &[&str]) -> Self {
        let mut command = hosts.router.command(PROGRAM);
        command.arg("route").args(ADDED).args(options);
        let mut line = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        let stdout = line.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(
            said,
            "routing 10.78.1.2/24 at near and 10.78.2.2/24 at far\n"
        );
        line
    }

    fn terminate(&mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(killed.unwrap().success());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _waited_already = self.0.wait();
    }
}

/// What arrives at `to`, all of it.
fn receive(mut to: TcpStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut received = Vec::new();
        to.read_to_end(&mut received).unwrap();
        received
    })
}

#[test]
fn what_passes_between_the_networks_passes_the_line() {
    let Some(hosts) = Hosts::make() else { return };
    let delay = Duration::from_millis(30);
    let settings = Settings {
        delay,
        ..Settings::default()
    };
    let [near, far] = ADDED.map(|text| text.parse().unwrap());
    let router = hosts
        .router
        .run(|| Router::start(near, far, settings, 1).map_err(std::io::Error::other))
        .unwrap();
    let start = Instant::now();
    let (mut near, far) = hosts.connect();
    // Never sooner; how much later depends on the machine.
    assert!(start.elapsed() >= 2 * delay, "{:?}", start.elapsed());
    let received = receive(far);
    let sent = vec![7; SENT_BYTES];
    near.write_all(&sent).unwrap();
    drop(near);
    assert!(received.join().unwrap() == sent);
    let (there, back) = (router.counters(From::Near), router.counters(From::Far));
    assert!(there.delivered_bytes > SENT_BYTES as u64, "{there:?}");
    assert!(back.delivered > 0, "{back:?}");
}

#[test]
fn a_line_is_cut_in_mid_transfer_and_restored_by_command() {
    let Some(hosts) = Hosts::make() else { return };
    let mut line = Line::start(&hosts, &["--rate", "20Mbit/s", "--delay", "5ms"]);
    // From the far host, for that is the direction that `cut --after` counts.
    let (near, mut far) = hosts.connect();
    let mut cut = hosts.router.command(PROGRAM);
    cut.args(["cut", "--after", "100000"])
        .stdout(Stdio::piped());
    let mut cut = cut.spawn().unwrap();
    let mut said = BufReader::new(cut.stdout.take().unwrap()).lines();
    let waits = said.next().unwrap().unwrap();
    assert!(waits.contains("after 100000 more bytes"), "{waits}");
    let received = receive(near);
    // It goes on until the line was cut, however late that is.
    let is_cut = Arc::new(AtomicBool::new(false));
    let sending = {
        let is_cut = is_cut.clone();
        thread::spawn(move || {
            let chunk: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
            let mut sent = Vec::new();
            while !is_cut.load(Ordering::Relaxed) {
                far.write_all(&chunk).unwrap();
                sent.extend_from_slice(&chunk);
            }
            sent
        })
    };
    assert!(cut.wait().unwrap().success());
    let first = hosts.ask(Ask::Counters);
    assert!(first.far_to_near.delivered_bytes >= 100_000, "{first:?}");
    // TCP tries again, in vain.
    while hosts.ask(Ask::Counters).far_to_near.cut == first.far_to_near.cut {
        thread::sleep(Duration::from_millis(20));
    }
    let later = hosts.ask(Ask::Counters).far_to_near;
    assert_eq!(later.delivered, first.far_to_near.delivered, "{later:?}");
    is_cut.store(true, Ordering::Relaxed);
    let told = hosts.told(&["restore"]);
    assert!(told.status.success(), "{told:?}");
    let sent = sending.join().unwrap();
    assert!(received.join().unwrap() == sent);
    let said = String::from_utf8(hosts.told(&["counters"]).stdout).unwrap();
    assert!(said.contains("far to near: "), "{said}");
    let json = hosts.told(&["counters", "--json"]).stdout;
    let carried: Carried = serde_json::from_slice(&json).unwrap();
    assert!(carried.far_to_near.delivered_bytes > sent.len() as u64);
    assert_eq!(line.terminate(), Some(0));
}

#[test]
fn what_it_changed_is_as_before_afterwards() {
    let Some(hosts) = Hosts::make() else { return };
    let mut line = Line::start(&hosts, &[]);
    let traces: [(&[&str], &str); 4] = [
        (&["rule"], "iif near lookup 100"),
        (&["rule"], "iif far lookup 101"),
        (&["addr"], "10.78.1.2/24"),
        (&["link"], "line1"),
    ];
    for (what, text) in traces {
        assert!(hosts.router_has(what, text), "{text}");
    }
    assert_eq!(line.terminate(), Some(0));
    for (what, text) in traces {
        assert!(!hosts.router_has(what, text), "{text}");
    }
    // And so it can be started again.
    Line::start(&hosts, &[]);
}

#[test]
fn what_cannot_be_is_said() {
    let Some(hosts) = Hosts::make() else { return };
    let cases: [(&[&str], &str); 3] = [
        (
            &["route", "10.79.1.2/24", "10.78.2.2/24"],
            "no device has an address in the network of 10.79.1.2/24",
        ),
        (
            &["route", "10.78.1.2/24", "10.78.1.4/24"],
            "are on one device",
        ),
        (&["cut"], "no line runs here"),
    ];
    for (arguments, words) in cases {
        let output = hosts.told(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!hosts.router_has(&["addr"], "10.78.1.4"), "half a router");
}

#[test]
fn another_user_has_no_say() {
    let Some(hosts) = Hosts::make() else { return };
    let _line = Line::start(&hosts, &[]);
    // Where every user finds it.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("wanproxy-line");
    // Not by this program: those that other tests start meanwhile would have the file open for writing, and then nobody can run it.
    let mut copy = Command::new("cp");
    copy.arg("-p").arg(PROGRAM).arg(&program);
    assert!(copy.status().unwrap().success());
    let output = hosts
        .router
        .run(|| {
            Command::new(&program)
                .arg("cut")
                .uid(65534)
                .gid(65534)
                .output()
        })
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("listens to its own user"), "{said}");
    let (near, mut far) = hosts.connect();
    let received = receive(near);
    far.write_all(b"not cut").unwrap();
    drop(far);
    assert_eq!(received.join().unwrap(), b"not cut");
}
