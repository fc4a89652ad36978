//! A web server for trying wanproxy out: serves the files of one directory over HTTP/1.1, passes connections on to such a server, or probes it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use wanproxy_tests::asked_to_end;
use wanproxy_tests::fetch::{Request, fetch};
use wanproxy_tests::origin::{Content, HttpOrigin, Server};

/// All files together, in bytes: they are kept in memory.
const MAX_DIRECTORY_BYTES: u64 = 1024 * 1024 * 1024;

/// How long `--check` waits for the whole answer; more than a small file needs over a slow line.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the files of a directory over HTTP, for trying wanproxy out. Not a web server for anything else.
#[derive(Debug, Parser)]
#[command(name = "wanproxy-origin", version)]
struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The directory whose files are served (not those of directories in it); they are read once, at the start
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present_any = ["relay", "check"],
        conflicts_with_all = ["relay", "check"]
    )]
    directory: Option<PathBuf>,
    /// Serve nothing: pass each connection on to this address, as it is
    #[arg(long, value_name = "ADDRESS", conflicts_with = "check")]
    relay: Option<SocketAddr>,
    /// Serve nothing: fetch this http://HOST:PORT/PATH, and fail when that fails
    #[arg(long, value_name = "URL")]
    check: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wanproxy-origin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match (&options.check, options.relay, &options.directory) {
        (Some(url), _, _) => runtime.block_on(check(url)),
        (None, Some(target), _) => runtime.block_on(relay(options.listen, target)),
        (None, None, Some(directory)) => runtime.block_on(serve(options.listen, directory)),
        (None, None, None) => bail!(
            "nothing to do; name a --directory to serve, an address to --relay to or a URL to --check"
        ),
    }
}

async fn relay(listen: SocketAddr, target: SocketAddr) -> Result<()> {
    let ended = asked_to_end()?;
    let relay = Server::start_on(listen, move |mut near| async move {
        let mut far = TcpStream::connect(target).await?;
        copy_bidirectional(&mut near, &mut far).await?;
        Ok(())
    })
    .with_context(|| format!("cannot listen on {listen}"))?;
    announce("relay", relay.address())?;
    ended.await;
    Ok(())
}

fn announce(name: &str, address: SocketAddr) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening {name} http {address}")?;
    stdout.flush()?;
    Ok(())
}

async fn serve(listen: SocketAddr, directory: &Path) -> Result<()> {
    // Before the first line of output: whoever reads that may send the signal at once.
    let ended = asked_to_end()?;
    let origin =
        HttpOrigin::start_on(listen).with_context(|| format!("cannot listen on {listen}"))?;
    // The root answers as well, so that a probe needs to know no file's name.
    let mut names = String::new();
    for (name, content) in read_directory(directory)? {
        names += &format!("{name}\n");
        origin.put(&format!("/{name}"), content);
    }
    origin.put("/", Content::Bytes(names.into()));
    announce("origin", origin.address())?;
    ended.await;
    Ok(())
}

/// The regular files of `directory` by name, in their order.
fn read_directory(directory: &Path) -> Result<Vec<(String, Content)>> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    let mut room = MAX_DIRECTORY_BYTES;
    for entry in std::fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            bail!(
                "{} has no name that a URL can carry; rename it",
                path.display()
            );
        };
        let metadata =
            std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !metadata.is_file() {
            continue;
        }
        room = room.checked_sub(metadata.len()).with_context(|| {
            format!(
                "the files of {} are more than {MAX_DIRECTORY_BYTES} bytes; take some out",
                directory.display()
            )
        })?;
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((name, Content::Bytes(bytes.into())));
    }
    if files.is_empty() {
        bail!("{} holds no file to serve", directory.display());
    }
    files.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(files)
}

async fn check(url: &str) -> Result<()> {
    let Some((host, path)) = split_url(url) else {
        bail!("\"{url}\" is no URL that can be checked; write http://HOST:PORT/PATH");
    };
    let probe = async {
        let mut addresses = tokio::net::lookup_host(host).await?;
        let address = addresses.next().context("the name has no address")?;
        anyhow::Ok(fetch(address, &Request::get(path), |_| {}).await?)
    };
    tokio::time::timeout(CHECK_TIMEOUT, probe)
        .await
        .with_context(|| format!("{url} did not answer in {} s", CHECK_TIMEOUT.as_secs()))?
        .with_context(|| format!("cannot fetch {url}"))?;
    Ok(())
}

/// HOST:PORT and /PATH of an http URL with a port.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (name, port) = host.rsplit_once(':')?;
    let sound = !name.is_empty() && port.parse::<u16>().is_ok();
    sound.then_some((host, if path.is_empty() { "/" } else { path }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_asks_for_something_to_do() {
        Options::command().debug_assert();
        assert!(Options::try_parse_from(["wanproxy-origin"]).is_err());
        let both = ["wanproxy-origin", "--directory", "x", "--check", "y"];
        assert!(Options::try_parse_from(both).is_err());
        let both = ["wanproxy-origin", "--relay", "[::1]:1", "--directory", "x"];
        assert!(Options::try_parse_from(both).is_err());
    }

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(
            split_url("http://origin:8080/a/b"),
            Some(("origin:8080", "/a/b"))
        );
        assert_eq!(split_url("http://[::1]:1"), Some(("[::1]:1", "/")));
        for wrong in ["https://a:1/", "http://a/", "http://:1/", "a:1", ""] {
            assert_eq!(split_url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn files_are_served_by_name_and_directories_are_not() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read_directory(directory.path()).is_err());
        std::fs::create_dir(directory.path().join("inner")).unwrap();
        std::fs::write(directory.path().join("b"), "two").unwrap();
        std::fs::write(directory.path().join("a"), "one").unwrap();
        let names: Vec<String> = read_directory(directory.path())
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "b"]);
    }
}
