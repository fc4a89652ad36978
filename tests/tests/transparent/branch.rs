//! The network, the pair in it, and what is done there.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use wanproxy_tests::origin::{Content, HttpOrigin, Server};
use wanproxy_tests::packets::{FAR, Lan, PacketLine, Settings, Space};
use wanproxy_tests::pair::Pair;
use wanproxy_tests::payload::Payload;
use wanproxy_tests::skip;

use super::*;

/// The branch's LAN.
pub const BRANCH: Lan = Lan {
    device: "lan0",
    router: (
        Ipv4Addr::new(10, 78, 1, 1),
        Ipv6Addr::new(0xfd78, 1, 0, 0, 0, 0, 0, 1),
    ),
    host: (
        Ipv4Addr::new(10, 78, 1, 2),
        Ipv6Addr::new(0xfd78, 1, 0, 0, 0, 0, 0, 2),
    ),
};

/// Headquarters' LAN.
pub const HEADQUARTERS: Lan = Lan {
    device: "lan0",
    router: (
        Ipv4Addr::new(10, 79, 1, 1),
        Ipv6Addr::new(0xfd79, 1, 0, 0, 0, 0, 0, 1),
    ),
    host: (
        Ipv4Addr::new(10, 79, 1, 2),
        Ipv6Addr::new(0xfd79, 1, 0, 0, 0, 0, 0, 2),
    ),
};

/// The target's addresses.
pub const TARGET: [IpAddr; 2] = [
    IpAddr::V4(HEADQUARTERS.host.0),
    IpAddr::V6(HEADQUARTERS.host.1),
];
/// Which of them is the IPv4 one.
pub const V4: usize = 0;

/// The listener's port. Fixed, for rules must name it; the namespaces are the test's own.
pub const PORT: u16 = 7080;
/// The port of the target's HTTP origin.
pub const HTTP: u16 = 8080;
/// The port of the target's server that says whom it sees and then sends everything back.
pub const WHO: u16 = 7777;

/// Everything.
pub struct Branch {
    pub pair: Pair,
    pub host: Space,
    pub target: Space,
    pub line: PacketLine,
    pub body: Bytes,
    _servers: Vec<Server>,
    _origins: Vec<HttpOrigin>,
}

impl Branch {
    /// Starts it, with TOML added to the only listener (named `lan`) and to the server's configuration. Nothing when this machine cannot.
    pub async fn start(what: &str, listen: &str, server: &str) -> Option<Self> {
        if let Err(reason) = PacketLine::possible() {
            skip(what, &reason);
            return None;
        }
        for program in ["nft", "curl"] {
            if !has(program) {
                skip(what, &format!("it needs the program {program}"));
                return None;
            }
        }
        let line = PacketLine::start(Settings::default(), 7).unwrap();
        let host = line.near().attach("host", &BRANCH).unwrap();
        let target = line.far().attach("target", &HEADQUARTERS).unwrap();
        // The ways that packets would take if nobody carried them; on the line there is nobody to forward them.
        for options in [["-4", "default"], ["-6", "default"]] {
            must(
                line.near()
                    .command("ip")
                    .args([options[0], "route", "add", options[1], "dev", "wan0"]),
            );
        }
        let body = Bytes::from(Payload::text(3).bytes(0, 1 << 20));
        let (mut servers, mut origins) = (Vec::new(), Vec::new());
        for ip in TARGET {
            let place = target.place();
            let origin = HttpOrigin::start_in(&place, (ip, HTTP).into()).unwrap();
            origin.put("/file", Content::Bytes(body.clone()));
            origins.push(origin);
            servers.push(
                Server::start_in_at(&place, (ip, WHO).into(), |mut connection| async move {
                    use tokio::io::AsyncWriteExt;
                    let peer = format!("{}\n", connection.peer_addr()?);
                    connection.write_all(peer.as_bytes()).await?;
                    let (mut reader, mut writer) = connection.split();
                    tokio::io::copy(&mut reader, &mut writer).await?;
                    writer.shutdown().await
                })
                .unwrap(),
            );
        }
        let listen = format!(
            "[[listen]]\nname = \"lan\"\nkind = \"transparent\"\nbind = \"[::]:{PORT}\"\n{listen}"
        );
        let pair = Pair::builder()
            .across(&line)
            .allow("10.79.0.0/16:*")
            .allow("[fd79::/16]:*")
            .allow(&format!("{FAR}:*"))
            .server_toml(server)
            .client_toml(&listen)
            .start()
            .await
            .unwrap();
        Some(Self {
            pair,
            host,
            target,
            line,
            body,
            _servers: servers,
            _origins: origins,
        })
    }

    /// What `transparent-rules` prints.
    pub fn rules(&self, options: &[&str]) -> String {
        let mut command = Command::new(self.pair.programs().client());
        command
            .args(["transparent-rules", "--config"])
            .arg(self.pair.client().config())
            .args(options);
        String::from_utf8(must(&mut command)).unwrap()
    }

    /// Loads rules into the router: the file by nft, and the commands in its comments by a shell.
    pub fn load(&self, rules: &str) {
        load_into(self.line.near(), self.pair.scratch(), rules);
    }

    /// Fetches the file by a curl on the host, and checks it.
    pub fn curl(&self, from: &Space, ip: IpAddr) {
        let url = format!("http://{}/file", SocketAddr::new(ip, HTTP));
        let got = must(from.command("curl").args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "60",
            &url,
        ]));
        let wrong = got.iter().zip(&self.body).position(|(a, b)| a != b);
        assert_eq!((wrong, got.len()), (None, self.body.len()), "{url}");
    }

    /// Whom the target sees when `from` connects.
    pub fn seen(&self, from: &Space, ip: IpAddr) -> SocketAddr {
        let mut connection = from
            .run(|| TcpStream::connect_timeout(&(ip, WHO).into(), LIMIT))
            .unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection.write_all(b"and back").unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).unwrap();
        let (peer, back) = said.split_once('\n').unwrap();
        assert_eq!(back, "and back");
        peer.parse().unwrap()
    }

    /// Streams of the listener so far.
    pub async fn streams(&self) -> u64 {
        let status = self.pair.client().status_json().await.unwrap();
        let services = status["services"].as_array().unwrap();
        let lan = services.iter().find(|s| s["name"] == "lan").unwrap();
        lan["total"].as_u64().unwrap()
    }

    /// Waits until so many streams of the listener are counted; while one ends, it is counted twice or not at all.
    pub async fn has_carried(&self, streams: u64) {
        eventually("the listener's streams are counted", async || {
            match self.streams().await {
                found if found == streams => Ok(()),
                found => Err(found),
            }
        })
        .await;
    }

    /// Waits for a line of the client's log.
    pub async fn client_logs(&self, part: &str) {
        logged(self.pair.client(), part).await;
    }
}

/// Waits until the edge's log has a line with `part`.
pub async fn logged(edge: &wanproxy_tests::pair::EdgeProcess, part: &str) {
    eventually(part, async || {
        if edge.log().contains(part) {
            Ok(())
        } else {
            Err(edge.last_log_lines())
        }
    })
    .await;
}

/// Loads rules into a namespace: the file by nft, and the commands in its comments by a shell.
pub fn load_into(space: &Space, scratch: &std::path::Path, rules: &str) {
    let file = scratch.join("rules.nft");
    std::fs::write(&file, rules).unwrap();
    must(space.command("nft").arg("-f").arg(&file));
    let commands = "sed -n 's/^#ip /ip /p' \"$0\" | sh -e";
    must(space.command("sh").args(["-c", commands]).arg(&file));
}
