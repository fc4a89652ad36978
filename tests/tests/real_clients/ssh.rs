//! OpenSSH with a server of our own: to a forwarded port, by `ProxyCommand` over SOCKS5 and over CONNECT, and with a port forwarded inside.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use wanproxy_tests::eventually;
use wanproxy_tests::payload::Payload;

use crate::server::Server;
use crate::stage::{Ground, Stage, assert_same, found, succeed};

/// Where Debian's server wants an empty directory of root's, which its unit makes.
const SEPARATION: &str = "/run/sshd";

const FILE_BYTES: usize = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn openssh_works_by_forward_by_proxy_command_and_forwards_a_port() {
    let programs = ["sshd", "ssh", "ssh-keygen", "nc"];
    let Some([sshd, ssh, keygen, nc]) = found("OpenSSH", programs) else {
        return;
    };
    let Some(ground) = Ground::lay("OpenSSH") else {
        return;
    };
    std::fs::create_dir_all(SEPARATION).unwrap();
    let file = Payload::random(6).bytes(0, FILE_BYTES);
    std::fs::write(ground.path("file"), &file).unwrap();
    for key in ["host", "user"] {
        let mut make = ground.near(&keygen);
        make.args(["-q", "-t", "ed25519", "-N", "", "-f", &ground.path(key)]);
        succeed(make).await;
    }
    let address = ground.far_address();
    let host = std::fs::read_to_string(ground.path("host.pub")).unwrap();
    std::fs::write(ground.path("known"), format!("server {host}")).unwrap();
    let configuration = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\n",
        ground.path("host"),
        ground.path("user.pub")
    );
    std::fs::write(ground.path("sshd.conf"), configuration).unwrap();
    let mut server = ground.far(&sshd);
    server.args(["-D", "-e", "-f", &ground.path("sshd.conf")]);
    let _server = Server::start(&ground, server, address).await;
    let behind = ground.listen_far();
    let behind_address = behind.local_addr().unwrap();
    let sent = file.clone();
    std::thread::spawn(move || {
        for connection in behind.incoming() {
            // Nobody but this test connects; one that goes away has not read it all, and the test says so.
            let _gone = connection.and_then(|mut connection| connection.write_all(&sent));
        }
    });
    let mut stage = ground.pair(&[("ssh", address)]).await;

    let cat = format!("cat {}", stage.ground.path("file"));
    let mut command = to(&stage, &ssh, address);
    command.arg(&cat);
    assert_same(
        "direct",
        &stage.direct("cat of a file", command).await,
        &file,
    );

    let proxied = |kind: &str, name: &str| {
        format!(
            "ProxyCommand={} -X {kind} -x {} %h %p",
            nc.display(),
            stage.listener(name)
        )
    };
    let (socks, connect) = (proxied("5", "socks5"), proxied("connect", "proxy"));
    for (what, way, option) in [
        ("forward", stage.listener("ssh"), None),
        ("ProxyCommand, SOCKS5", address, Some(&socks)),
        ("ProxyCommand, CONNECT", address, Some(&connect)),
    ] {
        let mut command = to(&stage, &ssh, way);
        if let Some(option) = option {
            command.args(["-o", option]);
        }
        command.arg(&cat);
        let (got, _) = stage.through(what, command).await;
        assert_same(what, &got, &file);
    }

    let local = stage.ground.near_address();
    let mut command = to(&stage, &ssh, stage.listener("ssh"));
    command.args([
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-L",
        &format!("{local}:{behind_address}"),
    ]);
    let mut tunnel = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut connection = eventually("ssh listens", async || {
        stage
            .ground
            .connect_near(local)
            .map_err(|error| format!("{error:#}"))
    })
    .await;
    let got = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        connection.read_to_end(&mut got).map(|_| got)
    });
    assert_same("port forwarded by ssh", &got.await.unwrap().unwrap(), &file);
    tunnel.kill().await.unwrap();
    stage.report();
}

/// ssh to a server there, which must show the key of ours.
fn to(stage: &Stage, ssh: &Path, address: SocketAddr) -> Command {
    let mut command = stage.ground.near(ssh);
    let known = format!("UserKnownHostsFile={}", stage.ground.path("known"));
    command.args([
        "-F",
        "none",
        "-i",
        &stage.ground.path("user"),
        "-p",
        &address.port().to_string(),
    ]);
    for option in [
        known.as_str(),
        "StrictHostKeyChecking=yes",
        "HostKeyAlias=server",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
    ] {
        command.args(["-o", option]);
    }
    command.arg(format!("root@{}", address.ip()));
    command
}
