//! `[[listen]]`: the services of an edge.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::document::{Keys, Section};
use super::error::{ConfigError, Place, ValueError};
use super::proxy::ProxyConfig;
use super::sections::{Side, file_path};
use super::transparent::{self, TransparentConfig};
use super::units::Rate;
use super::unix::{Bind, ForwardTarget};
use crate::identity::{EdgeName, parse_client_name};

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenConfig {
    /// Its name, unique in the edge; a label of metrics and the name of its domain.
    pub name: String,
    /// What it speaks with applications.
    pub kind: ListenKind,
    /// On a server: the client behind which the target is.
    pub client: Option<EdgeName>,
    /// Where it listens.
    pub bind: Bind,
    /// Which history its bytes go to.
    pub dedup: Dedup,
    /// Its share of a full line, against other services: 1 to 1000.
    pub weight: NonZeroU16,
    /// What its applications may send and receive, together, each direction on its own.
    pub rate: Option<Rate>,
    /// What it does with the PROXY protocol.
    pub proxy: ProxyConfig,
    /// Who may use it, if not everybody who reaches it: names, and the files that hold their passwords. SOCKS5 and HTTP only.
    pub users: Vec<(String, PathBuf)>,
}

/// What a service speaks with applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenKind {
    /// Every connection goes to one target.
    Forward(ForwardTarget),
    /// The application names the target by SOCKS5 or SOCKS4a.
    Socks5,
    /// The application names the target by HTTP: CONNECT, or a request for a whole URL.
    Http,
    /// The application knows nothing; a packet filter sends its connections here.
    Transparent(TransparentConfig),
}

impl ListenKind {
    /// The kind as the config and the `listening` lines write it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Socks5 => "socks5",
            Self::Http => "http",
            Self::Transparent(_) => "transparent",
        }
    }
}

/// Which history a service's bytes go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedup {
    /// That of all shared services of this edge.
    Shared,
    /// One of its own.
    Isolated,
    /// None.
    Off,
}

impl Dedup {
    /// The choice as the config writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Isolated => "isolated",
            Self::Off => "off",
        }
    }
}

/// The argument of `--forward`: `BIND=TARGET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardFlag {
    /// Where to listen.
    pub bind: Bind,
    /// Where to connect to.
    pub target: ForwardTarget,
}

impl FromStr for ForwardFlag {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (bind, target) = text.split_once('=').ok_or_else(|| {
            ValueError::wrong(format!(
                "\"{text}\" is not BIND=TARGET; write it like \"127.0.0.1:8445=10.0.0.5:445\""
            ))
        })?;
        Ok(Self {
            bind: bind.parse()?,
            target: target.parse()?,
        })
    }
}

const LISTEN: Keys = Keys {
    offered: &[
        "name",
        "kind",
        "bind",
        "target",
        "dedup",
        "weight",
        "rate",
        "users",
        "method",
        "preserve_source",
        "proxy_accept",
        "proxy_send",
    ],
    later: &[],
};

/// What a server's listener knows.
const LISTEN_REVERSE: Keys = Keys {
    offered: &[
        "name",
        "kind",
        "client",
        "bind",
        "target",
        "dedup",
        "weight",
        "rate",
        "proxy_accept",
        "proxy_send",
    ],
    later: &[],
};

/// Services of one edge; each has a task and a row in every report.
const MAX_SERVICES: usize = 1_024;
/// Isolated services, which have a domain each; a client has 16 domains, one of which is the shared one (DESIGN, section 3).
const MAX_ISOLATED_SERVICES: usize = 15;
/// The greatest share of one service against another.
const MAX_WEIGHT: u64 = codec::frame::WEIGHT_MAX as u64;
/// The longest name of a service, which travels in each Open.
const MAX_SERVICE_NAME_BYTES: usize = 63;

/// Users of one service.
const MAX_USERS: usize = 256;
/// The longest user name: what SOCKS5 can say (RFC 1929).
const MAX_USER_BYTES: usize = 255;

pub(crate) fn read(
    top: &Section<'_>,
    directory: &Path,
    side: Side,
) -> Result<Vec<ListenConfig>, ConfigError> {
    let keys = match side {
        Side::Client => &LISTEN,
        Side::Server => &LISTEN_REVERSE,
    };
    let mut services: Vec<ListenConfig> = Vec::new();
    for section in top.sections("listen", MAX_SERVICES, keys)? {
        let mut service = one(&section, directory)?;
        if side == Side::Server {
            service.client = Some(client_of(&section, &service.kind)?);
        }
        if let Some((key, message)) = clash(&services, &service) {
            return Err(section.conflict(key, message));
        }
        services.push(service);
    }
    Ok(services)
}

/// Adds the services that flags ask for, named by their kind and number.
pub(crate) fn add_flags(
    services: &mut Vec<ListenConfig>,
    forward: &[ForwardFlag],
    socks5: &[Bind],
    http: &[Bind],
    transparent: &[SocketAddr],
) -> Result<(), ConfigError> {
    let forwards = forward
        .iter()
        .map(|flag| (flag.bind.clone(), ListenKind::Forward(flag.target.clone())));
    let socks = socks5.iter().map(|bind| (bind.clone(), ListenKind::Socks5));
    let https = http.iter().map(|bind| (bind.clone(), ListenKind::Http));
    let transparents = transparent.iter().map(|bind| {
        let config = TransparentConfig::default();
        (Bind::Tcp(*bind), ListenKind::Transparent(config))
    });
    let all = forwards.chain(socks).chain(https).chain(transparents);
    let mut numbers: HashMap<&'static str, usize> = HashMap::new();
    for (bind, kind) in all {
        let word = kind.as_str();
        let number = numbers.entry(word).or_default();
        *number += 1;
        let service = ListenConfig {
            name: format!("{word}-{number}"),
            kind,
            client: None,
            bind,
            dedup: Dedup::Shared,
            weight: NonZeroU16::MIN,
            rate: None,
            proxy: ProxyConfig::default(),
            users: Vec::new(),
        };
        if let Some((key, message)) = clash(services, &service) {
            return Err(ConfigError::Value {
                place: Place {
                    source: format!("--{word}"),
                    line: None,
                },
                key: key.to_owned(),
                message,
            });
        }
        services.push(service);
    }
    Ok(())
}

fn one(section: &Section<'_>, directory: &Path) -> Result<ListenConfig, ConfigError> {
    let name = section.require("name", "write name = \"files\"", service_name)?;
    let kind = section.require(
        "kind",
        "write kind = \"forward\", \"socks5\", \"http\" or \"transparent\"",
        |text| match text {
            "forward" | "socks5" | "http" | "transparent" => Ok(text.to_owned()),
            _ => Err(ValueError::wrong(format!(
                "\"{text}\" is not a kind; write \"forward\", \"socks5\", \"http\" or \"transparent\""
            ))),
        },
    )?;
    let bind = section.require(
        "bind",
        "write bind = \"127.0.0.1:8445\"",
        str::parse::<Bind>,
    )?;
    let target = section.parse("target", str::parse::<ForwardTarget>)?;
    if kind != "transparent" {
        transparent::refuse(section, &kind)?;
    }
    let kind = match (kind.as_str(), target) {
        ("forward", Some(target)) => ListenKind::Forward(target),
        ("forward", None) => {
            return Err(section.missing("target", "write target = \"10.0.0.5:445\""));
        }
        (kind, Some(_)) => {
            return Err(section.conflict(
                "target",
                format!(
                    "a service of kind {kind} has none, the application names it; remove this line"
                ),
            ));
        }
        ("http", None) => ListenKind::Http,
        ("transparent", None) if bind.tcp().is_none() => {
            return Err(section.conflict(
                "bind",
                "a packet filter sends connections to an address and no Unix socket; write it like \"[::]:7080\"",
            ));
        }
        ("transparent", None) => ListenKind::Transparent(transparent::read(section)?),
        (_, None) => ListenKind::Socks5,
    };
    let users = section.named("users", MAX_USERS, |name, text| {
        if name.is_empty() || name.len() > MAX_USER_BYTES || name.contains(':') {
            return Err(ValueError::wrong(format!(
                "\"{name}\" is not a user's name; use 1 to {MAX_USER_BYTES} bytes without a colon"
            )));
        }
        file_path(directory, text)
    })?;
    if !users.is_empty() && matches!(kind, ListenKind::Forward(_) | ListenKind::Transparent(_)) {
        return Err(section.conflict(
            "users",
            format!("a {} service asks nobody for a password; remove this line, or use kind socks5 or http", kind.as_str()),
        ));
    }
    let dedup = section.parse("dedup", |text| {
        [Dedup::Shared, Dedup::Isolated, Dedup::Off]
            .into_iter()
            .find(|dedup| dedup.as_str() == text)
            .ok_or_else(|| {
                ValueError::wrong(format!(
                    "\"{text}\" is not known; write \"shared\", \"isolated\" or \"off\""
                ))
            })
    })?;
    let weight = section
        .integer("weight", 1..=MAX_WEIGHT)?
        .and_then(|weight| u16::try_from(weight).ok())
        .and_then(NonZeroU16::new);
    let proxy = ProxyConfig::read(section, kind.as_str())?;
    Ok(ListenConfig {
        name,
        kind,
        client: None,
        bind,
        dedup: dedup.unwrap_or(Dedup::Shared),
        weight: weight.unwrap_or(NonZeroU16::MIN),
        rate: section.parse("rate", str::parse)?,
        proxy,
        users,
    })
}

/// A server's listener leads to one target behind one client.
fn client_of(section: &Section<'_>, kind: &ListenKind) -> Result<EdgeName, ConfigError> {
    if !matches!(kind, ListenKind::Forward(_)) {
        return Err(section.conflict(
            "kind",
            "a listener of a server leads to one target behind a client; write kind = \"forward\"",
        ));
    }
    section.require(
        "client",
        "write client = \"branch-1\", the name of the client behind which the target is",
        parse_client_name,
    )
}

/// The key and the message of the first clash of a service with those before it.
fn clash(services: &[ListenConfig], new: &ListenConfig) -> Option<(&'static str, String)> {
    if services.iter().any(|service| service.name == new.name) {
        return Some((
            "name",
            format!(
                "\"{}\" is taken by another service; choose another name",
                new.name
            ),
        ));
    }
    let mut taken = services.iter().map(|service| &service.bind);
    if taken.any(|bind| bind.is_fixed() && *bind == new.bind) {
        return Some((
            "bind",
            format!(
                "{} is taken by another service; choose another one",
                new.bind
            ),
        ));
    }
    let isolated = services
        .iter()
        .filter(|service| service.dedup == Dedup::Isolated)
        .count();
    if new.dedup == Dedup::Isolated && isolated == MAX_ISOLATED_SERVICES {
        return Some((
            "dedup",
            format!("at most {MAX_ISOLATED_SERVICES} services can be isolated"),
        ));
    }
    None
}

fn service_name(text: &str) -> Result<String, ValueError> {
    let good = !text.is_empty()
        && text.len() <= MAX_SERVICE_NAME_BYTES
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !good {
        return Err(ValueError::wrong(format!(
            "\"{text}\" is not a service name; use 1 to {MAX_SERVICE_NAME_BYTES} letters, digits, -, _ and ., like \"files\""
        )));
    }
    if text == "tunnel" || text == "admin" {
        return Err(ValueError::wrong(format!(
            "\"{text}\" is the name of a socket of wanproxy itself; choose another"
        )));
    }
    Ok(text.to_owned())
}
