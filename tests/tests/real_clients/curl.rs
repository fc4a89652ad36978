//! curl with HTTP/1.1, HTTP/2 and TLS inside of the tunnel, from nginx.

use std::path::Path;
use std::process::Command;

use wanproxy_tests::payload::Payload;

use crate::stage::{Ground, Stage, assert_repeat, assert_same, found};
use crate::web::{NAME, Web};

const HALF_BYTES: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_the_same_over_http_1_http_2_and_tls() {
    let Some([curl, nginx, openssl]) = found("curl from nginx", ["curl", "nginx", "openssl"])
    else {
        return;
    };
    let Some(ground) = Ground::lay("curl") else {
        return;
    };
    let file = [
        Payload::text(1).bytes(0, HALF_BYTES),
        Payload::random(2).bytes(0, HALF_BYTES),
    ]
    .concat();
    let bytes = file.len() as u64;
    std::fs::create_dir(ground.path("root")).unwrap();
    std::fs::write(ground.path("root/file"), &file).unwrap();
    let web = Web::start(&ground, &nginx, &openssl).await;
    let forwards = [("http1", web.http1), ("http2", web.http2), ("tls", web.tls)];
    let mut stage = ground.pair(&forwards).await;

    for (name, address, version) in [
        ("http1", web.http1, "--http1.1"),
        ("http2", web.http2, "--http2-prior-knowledge"),
    ] {
        let direct = stage
            .direct(
                name,
                get(&stage, &curl, &format!("http://{address}/file"), &[version]),
            )
            .await;
        assert_answer(name, &direct, &file, version);
        let url = format!("http://{}/file", stage.listener(name));
        for turn in ["first", "again"] {
            let what = format!("{name}, {turn}");
            let (got, wan) = stage
                .through(&what, get(&stage, &curl, &url, &[version]))
                .await;
            assert_answer(&what, &got, &file, version);
            // HTTP/2 brings what HTTP/1.1 has brought already, in frames of its own.
            if turn == "again" {
                assert_repeat(&what, bytes, wan);
            }
        }
    }

    // What is encrypted already saves nothing, and must not break.
    let certificate = stage.ground.path("web.pem");
    let url = format!("https://{NAME}:{}/file", web.tls.port());
    let options = ["--http2", "--cacert", &certificate, "--connect-to"];
    for (what, way) in [
        ("TLS, forward", stage.listener("tls")),
        ("TLS, SOCKS5", web.tls),
        ("TLS, CONNECT", web.tls),
    ] {
        let to = format!("::{way}");
        let proxy = match what {
            "TLS, SOCKS5" => format!("socks5h://{}", stage.listener("socks5")),
            "TLS, CONNECT" => format!("http://{}", stage.listener("proxy")),
            _ => String::new(),
        };
        let all = [&options[..], &[to.as_str(), "--proxy", &proxy]].concat();
        let (got, _) = stage.through(what, get(&stage, &curl, &url, &all)).await;
        assert_answer(what, &got, &file, "--http2");
    }
    stage.report();
}

/// Prints the body and behind it the version of HTTP that was spoken.
fn get(stage: &Stage, curl: &Path, url: &str, options: &[&str]) -> Command {
    let mut command = stage.ground.near(curl);
    command
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "",
            "--write-out",
            "%{http_version}",
        ])
        .args(options)
        .arg(url);
    command
}

fn assert_answer(what: &str, got: &[u8], file: &[u8], version: &str) {
    let spoken = if version == "--http1.1" { "1.1" } else { "2" };
    let body = got.strip_suffix(spoken.as_bytes());
    assert_same(
        what,
        body.unwrap_or_else(|| panic!("{what}: not HTTP/{spoken}")),
        file,
    );
}
