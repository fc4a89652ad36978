//! What whoever starts the Compose file is told: where things are, and what to try.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};

/// For the Compose file: makes the token of a dashboard, and says where all is.
#[derive(Debug, Parser)]
#[command(name = "wanproxy-hello", version)]
enum Options {
    /// Make a token, readable by its owner only, unless the file is there
    Token {
        /// The file, as `token_file` in `[admin]` names it
        file: PathBuf,
    },
    /// Say where all is
    Say(Places),
}

#[derive(Debug, Args)]
struct Places {
    /// The file of the dashboard's token
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// What the line is like, in words
    #[arg(long, value_name = "TEXT")]
    line: String,
    /// The dashboard's port at 127.0.0.1; each port may be empty where the engine chooses it
    #[arg(long, value_name = "PORT")]
    dashboard: String,
    /// The port that leads to the origin through the pair
    #[arg(long, value_name = "PORT")]
    http: String,
    /// The port of the SOCKS5 proxy
    #[arg(long, value_name = "PORT")]
    socks: String,
    /// The port that leads to the origin over the line alone
    #[arg(long, value_name = "PORT")]
    direct: String,
}

fn main() -> ExitCode {
    let done = match Options::parse() {
        Options::Token { file } => make_token(&file),
        Options::Say(places) => say(&places),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wanproxy-hello: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make_token(file: &Path) -> Result<()> {
    let cannot = || format!("cannot make the token {}", file.display());
    let directory = file.parent().unwrap_or_else(|| Path::new("."));
    // Whole or not at all, and never over one that somebody uses.
    let mut made = tempfile::NamedTempFile::new_in(directory).with_context(cannot)?;
    writeln!(made, "{:032x}", rand::random::<u128>()).with_context(cannot)?;
    match made.persist_noclobber(file) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error).with_context(cannot),
    }
}

fn say(places: &Places) -> Result<()> {
    let token = std::fs::read_to_string(&places.token)
        .with_context(|| format!("cannot read the token {}", places.token.display()))?;
    let token = token.trim();
    if token.is_empty() {
        bail!("{} holds no token", places.token.display());
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text(places, token)?.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

fn text(places: &Places, token: &str) -> Result<String> {
    let mut text = String::new();
    let asked: Vec<String> = [
        ("client 9900", &places.dashboard),
        ("client 8080", &places.http),
        ("client 1080", &places.socks),
        ("direct 8081", &places.direct),
    ]
    .iter()
    .filter(|(_, port)| port.is_empty())
    .map(|(container, _)| format!("docker compose port {container}"))
    .collect();
    let port = |port: &str| {
        if port.is_empty() {
            "PORT".to_owned()
        } else {
            port.to_owned()
        }
    };
    let (dashboard, http) = (port(&places.dashboard), port(&places.http));
    let (socks, direct) = (port(&places.socks), port(&places.direct));
    write!(
        text,
        "\
wanproxy is up: a branch and headquarters with a line between them, {line}.

The branch's dashboard; the link holds its token, which is good for this demo only:
    http://127.0.0.1:{dashboard}/login#{token}
The sample through the pair, now and once more:
    curl -o one.tar http://127.0.0.1:{http}/sources.tar
    curl -o two.tar --proxy socks5h://127.0.0.1:{socks} http://origin:8080/sources.tar
The sample without the pair, over the same line:
    curl -o direct.tar http://127.0.0.1:{direct}/sources.tar
Cut the line in mid-transfer, and restore it:
    docker compose exec line wanproxy-line cut
    docker compose exec line wanproxy-line restore
",
        line = places.line
    )?;
    for command in asked {
        writeln!(text, "The engine has chosen PORT: {command}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("admin.token");
        make_token(&file).unwrap();
        let first = std::fs::read_to_string(&file).unwrap();
        assert_eq!(first.trim().len(), 32);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        make_token(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), first);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let other = directory.path().join("other.token");
        make_token(&other).unwrap();
        assert_ne!(std::fs::read_to_string(&other).unwrap(), first);
        assert!(make_token(&directory.path().join("nowhere/token")).is_err());
    }

    #[test]
    fn ports_that_the_engine_chose_are_to_be_asked_for() {
        let places = Places {
            token: PathBuf::new(),
            line: "10Mbit/s".to_owned(),
            dashboard: "9900".to_owned(),
            http: String::new(),
            socks: "1080".to_owned(),
            direct: "8081".to_owned(),
        };
        let text = text(&places, "0123").unwrap();
        assert!(
            text.contains("http://127.0.0.1:9900/login#0123\n"),
            "{text}"
        );
        assert!(text.contains("http://127.0.0.1:PORT/sources.tar"), "{text}");
        assert!(
            text.ends_with("PORT: docker compose port client 8080\n"),
            "{text}"
        );
    }
}
