//! The sections that both programs have; here those that are too small for a file of their own: history, codec, admin, log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::credentials::{self, IdentityConfig};
use super::document::{Keys, Section};
use super::error::{ConfigError, ValueError};
use super::resources::{self, MemoryConfig, PoolsConfig};
use super::units::Size;
use super::unix::Bind;
use crate::identity::{IdentityError, credentials_directory, read_private};

/// `[history]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryConfig {
    /// Where histories are kept, resolved already; `None` means in memory.
    pub directory: Option<PathBuf>,
    /// Bound of all histories and mirrors together; `None` means [`DEFAULT_HISTORY_BYTES`] or half of what the disk has free, and in memory half
    /// of the memory budget.
    pub size: Option<Size>,
}

/// The most that histories on disk take when no size is given.
pub const DEFAULT_HISTORY_BYTES: u64 = 10 << 30;

/// `[codec]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecConfig {
    /// How hard to compress.
    pub level: Level,
}

/// `level`: how hard zstd works on what is not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Chosen by wanproxy.
    Auto,
    /// No compression; copies are still found.
    Off,
    /// A zstd level, 1 to 19.
    Fixed(ZstdLevel),
}

/// A zstd level, 1 to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZstdLevel(u8);

impl ZstdLevel {
    /// The level as a number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl FromStr for Level {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match text.parse::<u8>() {
                Ok(level @ 1..=19) => Ok(Self::Fixed(ZstdLevel(level))),
                _ => Err(ValueError::wrong(format!(
                    "\"{text}\" is not a level; write \"auto\", \"off\" or a number from 1 to 19"
                ))),
            },
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Off => formatter.write_str("off"),
            Self::Fixed(level) => write!(formatter, "{}", level.get()),
        }
    }
}

/// `[admin]`: the endpoint of dashboard, metrics and status. Without the section there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Where it listens.
    pub bind: Bind,
    /// A file whose content every request must present; always there when `bind` is not loopback.
    pub token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// The token that requests must present, read from its file; `None` when none is asked for.
    ///
    /// # Errors
    /// The file is unreadable, readable by others, or holds no token.
    pub fn token(&self) -> Result<Option<String>, IdentityError> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let content = read_private(file, MAX_TOKEN_BYTES)?;
        let token = String::from_utf8_lossy(&content).trim().to_owned();
        if token.len() < MIN_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(IdentityError::BadToken { path: file.clone() });
        }
        Ok(Some(token))
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// The least urgent level that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// A level of logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs somebody.
    Error,
    /// What may need somebody.
    Warn,
    /// One line a stream.
    Info,
    /// For finding faults.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as the config writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The largest file of a token.
const MAX_TOKEN_BYTES: u64 = 1 << 10;
/// The shortest token: 16 characters cannot be guessed over a network.
const MIN_TOKEN_BYTES: usize = 16;

const HISTORY: Keys = Keys {
    offered: &["directory", "size"],
    later: &[],
};
const CODEC: Keys = Keys {
    offered: &["level"],
    later: &[],
};
const ADMIN: Keys = Keys {
    offered: &["bind", "token_file"],
    later: &[],
};
const LOG: Keys = Keys {
    offered: &["level", "format"],
    later: &[],
};

/// The sections that both programs have, read.
pub(crate) struct SharedSections {
    pub(crate) identity: IdentityConfig,
    pub(crate) history: HistoryConfig,
    pub(crate) codec: CodecConfig,
    pub(crate) pools: PoolsConfig,
    pub(crate) memory: MemoryConfig,
    pub(crate) admin: Option<AdminConfig>,
    pub(crate) log: LogConfig,
}

/// Whose configuration is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl SharedSections {
    pub(crate) fn read(
        top: &Section<'_>,
        side: Side,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            identity: credentials::read(top, side, directory)?,
            history: history(top, directory)?,
            codec: CodecConfig {
                level: top
                    .section("codec", &CODEC)?
                    .map_or(Ok(None), |s| s.parse_string_or_integer("level", str::parse))?
                    .unwrap_or(Level::Auto),
            },
            pools: resources::pools(top)?,
            memory: resources::memory(top)?,
            admin: admin(top, directory)?,
            log: log(top)?,
        })
    }
}

fn history(top: &Section<'_>, directory: &Path) -> Result<HistoryConfig, ConfigError> {
    let section = top.section("history", &HISTORY)?;
    Ok(HistoryConfig {
        directory: section.as_ref().map_or(Ok(None), |s| {
            s.parse("directory", |text| file_path(directory, text))
        })?,
        size: section
            .as_ref()
            .map_or(Ok(None), |s| s.parse("size", str::parse))?,
    })
}

fn admin(top: &Section<'_>, directory: &Path) -> Result<Option<AdminConfig>, ConfigError> {
    let Some(section) = top.section("admin", &ADMIN)? else {
        return Ok(None);
    };
    let bind = section.require(
        "bind",
        "write bind = \"127.0.0.1:9900\"",
        str::parse::<Bind>,
    )?;
    let token_file = section.parse("token_file", |text| file_path(directory, text))?;
    if !bind.is_local() && token_file.is_none() {
        return Err(section.conflict("bind", format!("{bind} can be reached from elsewhere; add token_file = \"admin.token\", or bind to 127.0.0.1")));
    }
    Ok(Some(AdminConfig { bind, token_file }))
}

fn log(top: &Section<'_>) -> Result<LogConfig, ConfigError> {
    let section = top.section("log", &LOG)?;
    let level = section.as_ref().map_or(Ok(None), |s| {
        s.parse("level", |text| {
            [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
                .into_iter()
                .find(|level| level.as_str() == text)
                .ok_or_else(|| ValueError::wrong(format!("\"{text}\" is not a level; write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"")))
        })
    })?;
    let format = section.as_ref().map_or(Ok(None), |s| {
        s.parse("format", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(ValueError::wrong(format!(
                "\"{text}\" is not a format; write \"text\" or \"json\""
            ))),
        })
    })?;
    Ok(LogConfig {
        level: level.unwrap_or(LogLevel::Info),
        format: format.unwrap_or(LogFormat::Text),
    })
}

/// A path of the configuration, relative to the directory that its file stands in, or to that of the service manager's credentials.
pub(crate) fn file_path(directory: &Path, text: &str) -> Result<PathBuf, ValueError> {
    resolve_path(directory, credentials_directory().as_deref(), text)
}

fn resolve_path(
    directory: &Path,
    credentials: Option<&Path>,
    text: &str,
) -> Result<PathBuf, ValueError> {
    if text.is_empty() || text.contains('\0') {
        return Err(ValueError::wrong(format!(
            "\"{}\" is not a file",
            text.escape_default()
        )));
    }
    let Some(name) = text.strip_prefix("$CREDENTIALS_DIRECTORY/") else {
        return Ok(directory.join(text));
    };
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    match credentials {
        _ if !is_name => Err(ValueError::wrong(format!(
            "\"{}\" names no credential; write $CREDENTIALS_DIRECTORY and one name, as LoadCredential= has it",
            text.escape_default()
        ))),
        Some(credentials) => Ok(credentials.join(name)),
        None => Err(ValueError::wrong(format!(
            "\"{text}\" needs the variable CREDENTIALS_DIRECTORY, which a service manager sets; elsewhere set it to the directory that holds {name}"
        ))),
    }
}

/// The directory that a file stands in; `.` for a bare name.
pub(crate) fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_token_is_one_word_that_only_its_owner_reads() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let admin = AdminConfig {
            bind: "127.0.0.1:0".parse().unwrap(),
            token_file: Some(file.clone()),
        };
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(admin.token().unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(admin.token().unwrap().as_deref(), Some("0123456789abcdef"));
        for content in ["", "short", "two words, long enough", "ääääääääääääääää"] {
            std::fs::write(&file, content).unwrap();
            assert!(
                admin
                    .token()
                    .unwrap_err()
                    .to_string()
                    .contains("holds no token"),
                "{content}"
            );
        }
    }

    #[test]
    fn credentials_of_the_service_manager_are_named_by_their_directory() {
        let resolve = |credentials: Option<&str>, text: &str| {
            resolve_path(Path::new("/etc/x"), credentials.map(Path::new), text)
                .map_err(|error| error.to_string())
        };
        let key = "$CREDENTIALS_DIRECTORY/edge.key";
        let there = Some("/run/credentials/x.service");
        let found = resolve(there, key).unwrap();
        assert_eq!(found, Path::new("/run/credentials/x.service/edge.key"));
        assert_eq!(
            resolve(there, "edge.key").unwrap(),
            Path::new("/etc/x/edge.key")
        );
        assert_eq!(resolve(there, "/a/b").unwrap(), Path::new("/a/b"));
        let message = resolve(None, key).unwrap_err();
        assert!(
            message.contains("the directory that holds edge.key"),
            "{message}"
        );
        for wrong in ["", "..", ".", "../x", "a/b", "/x"] {
            let text = format!("$CREDENTIALS_DIRECTORY/{wrong}");
            let message = resolve(there, &text).unwrap_err();
            assert!(message.contains("names no credential"), "{message}");
        }
    }

    #[test]
    fn levels_are_words_or_numbers() {
        assert_eq!("auto".parse::<Level>().unwrap(), Level::Auto);
        assert_eq!("19".parse::<Level>().unwrap(), Level::Fixed(ZstdLevel(19)));
        for text in ["0", "20", "-1", "best", ""] {
            assert!(text.parse::<Level>().is_err(), "{text}");
        }
    }
}
