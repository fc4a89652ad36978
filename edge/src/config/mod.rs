//! The configuration of both programs: TOML in, typed values out, or one line that says what is wrong and where.

mod accept;
mod client;
mod credentials;
mod describe;
mod document;
mod error;
mod listen;
mod network;
mod paths;
mod policy;
mod proxy;
mod rendezvous;
mod resources;
mod sections;
mod server;
mod target;
mod transparent;
mod units;
mod unix;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use accept::AcceptConfig;
pub use client::{ClientConfig, ClientTunnelConfig};
pub use credentials::{IdentityConfig, Pin};
pub use error::{ConfigError, Place, ValueError};
pub use listen::{Dedup, ForwardFlag, ListenConfig, ListenKind};
pub use network::Network;
pub use paths::{PathConfig, PathsConfig};
pub use policy::{Destination, HostPattern, Ports, Rule};
pub use proxy::ProxyConfig;
pub use resources::{Budget, MIN_BUDGET_BYTES, MemoryConfig, PoolsConfig};
pub(crate) use sections::parent;
pub use sections::{
    AdminConfig, CodecConfig, DEFAULT_HISTORY_BYTES, HistoryConfig, Level, LogConfig, LogFormat,
    LogLevel, ZstdLevel,
};
pub use server::{ClientPolicyConfig, ServerConfig, ServerTunnelConfig};
pub(crate) use server::{DEFAULT_MAX_STREAMS, DEFAULT_NEW_STREAMS_PER_SECOND};
pub use target::{Host, Target, parse_bind, parse_host_name};
pub use transparent::{Method, TransparentConfig};
pub use units::{Rate, Size, duration_between};
pub use unix::{Bind, ForwardTarget};

/// The files that make an edge what it is, beside its configuration: what a reload reads.
pub(crate) fn credential_files(
    identity: &IdentityConfig,
    admin: Option<&AdminConfig>,
) -> Vec<PathBuf> {
    let IdentityConfig {
        ca,
        certificate,
        key,
        ca_key,
        pins: _,
    } = identity;
    let token = admin.and_then(|admin| admin.token_file.as_ref());
    [ca, certificate, key]
        .into_iter()
        .chain(ca_key)
        .chain(token)
        .cloned()
        .collect()
}

/// The largest configuration in bytes; 4,096 clients with a few rules each fit.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Where a client looks for its configuration when it is not told.
pub const DEFAULT_CLIENT_FILE: &str = "/etc/wanproxy/client.toml";
/// Where a server looks for its configuration when it is not told.
pub const DEFAULT_SERVER_FILE: &str = "/etc/wanproxy/server.toml";

/// Below this the heartbeat itself would load a slow line.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
/// Beyond this a dead line is not noticed in the time that people wait.
const MAX_HEARTBEAT: Duration = Duration::from_secs(600);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// Longer than a working day and a night: nobody waits for such a connection any more.
const MAX_RESUME_WINDOW: Duration = Duration::from_secs(24 * 3_600);
const DEFAULT_RESUME_WINDOW: Duration = Duration::from_secs(300);
/// A service manager waits no longer.
const MAX_DRAIN_TIMEOUT: Duration = Duration::from_secs(3_600);
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Applications give up by then.
const MAX_CONNECT_WAIT: Duration = Duration::from_secs(300);
const DEFAULT_CONNECT_WAIT: Duration = Duration::from_secs(10);

fn read_file(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable {
        file: file.to_owned(),
        cause,
    };
    let mut text = String::new();
    let reader = std::fs::File::open(file).map_err(unreadable)?;
    reader
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            file: file.to_owned(),
            limit_bytes: MAX_FILE_BYTES,
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
