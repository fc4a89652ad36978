//! pip through the HTTP proxy and apt's own downloader through SOCKS5, from an index of ours.

use crate::stage::{Ground, assert_repeat, assert_same, found, succeed};
use crate::web::Web;

use wanproxy_tests::payload::Payload;

/// A wheel is a zip with three files of metadata; this writes one around a file of data.
const WHEEL: &str = r#"
import sys, zipfile
data, wheel = sys.argv[1:]
info = "sample-1.0.dist-info/"
with zipfile.ZipFile(wheel, "w") as z:
    z.write(data, "sample/data.bin")
    z.writestr("sample/__init__.py", "")
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "sample/data.bin,,\nsample/__init__.py,,\n"
               + "".join(info + n + ",,\n" for n in ("METADATA", "WHEEL", "RECORD")))
"#;

const NAME: &str = "sample-1.0-py3-none-any.whl";
const DATA_BYTES: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_through_the_http_proxy_and_apt_downloads_through_socks5() {
    let programs = [
        "python3",
        "pip3",
        "/usr/lib/apt/apt-helper",
        "nginx",
        "openssl",
    ];
    let Some([python, pip, apt, nginx, openssl]) = found("pip and apt", programs) else {
        return;
    };
    let Some(ground) = Ground::lay("pip and apt") else {
        return;
    };
    let data = Payload::random(4).bytes(0, DATA_BYTES);
    std::fs::create_dir_all(ground.path("root/simple/sample")).unwrap();
    std::fs::write(ground.path("data"), &data).unwrap();
    let wheel_path = ground.path(&format!("root/simple/sample/{NAME}"));
    let mut make = ground.near(&python);
    make.args(["-c", WHEEL, &ground.path("data"), &wheel_path]);
    succeed(make).await;
    let wheel = std::fs::read(&wheel_path).unwrap();
    let page = format!("<!DOCTYPE html><html><body><a href=\"{NAME}\">{NAME}</a></body></html>");
    std::fs::write(ground.path("root/simple/sample/index.html"), page).unwrap();
    let web = Web::start(&ground, &nginx, &openssl).await;
    let mut stage = ground.pair(&[]).await;

    let index = format!("http://{}/simple/", web.http1);
    let proxy = format!("http://{}", stage.listener("proxy"));
    let (none, proxied): (&[&str], &[&str]) = (&[], &["--proxy", &proxy]);
    let mut last = 0;
    for (what, options) in [
        ("pip", none),
        ("pip, first", proxied),
        ("pip, again", proxied),
    ] {
        let target = stage.ground.path(&what.replace(", ", "-"));
        let mut command = stage.ground.near(&pip);
        command
            .args([
                "--isolated",
                "--no-cache-dir",
                "--disable-pip-version-check",
                "install",
                "--quiet",
                "--no-deps",
            ])
            .args([
                "--root-user-action",
                "ignore",
                "--trusted-host",
                &web.http1.ip().to_string(),
            ])
            .args(["--index-url", &index, "--target", &target])
            .args(options)
            .arg("sample");
        if options.is_empty() {
            stage.direct(what, command).await;
        } else {
            last = stage.through(what, command).await.1;
        }
        let installed = std::fs::read(format!("{target}/sample/data.bin")).unwrap();
        assert_same(what, &installed, &data);
    }
    assert_repeat("pip", wheel.len() as u64, last);

    // What pip has brought is there already.
    let socks = format!(
        "Acquire::http::Proxy=socks5h://{}",
        stage.listener("socks5")
    );
    let copy = stage.ground.path("apt-copy");
    let mut command = stage.ground.near(&apt);
    command
        .args([
            "-o",
            &socks,
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Acquire::Retries=0",
            "download-file",
        ])
        .args([&format!("{index}sample/{NAME}"), &copy]);
    let (_, wan) = stage.through("apt, after pip", command).await;
    assert_same("apt", &std::fs::read(&copy).unwrap(), &wheel);
    assert_repeat("apt after pip", wheel.len() as u64, wan);
    stage.report();
}
