//! The ways in: LAN connections are accepted, told where to go by their service, and carried over a stream.

pub mod socks5;

mod carry;
mod http;
mod sockets;
mod transparent;
mod uplink;

use std::num::NonZeroU16;
use std::sync::Arc;

use codec::frame::DomainId;
use edge::config::{ListenKind, ProxyConfig};
use edge::pace::Pace;
use edge::users::Users;

pub use sockets::has_transparent;
pub use transparent::OwnConnections;
pub use uplink::Uplink;

/// What a listener does with a connection.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How it learns the target.
    pub kind: ListenKind,
    /// The domain whose histories its streams use; none: dedup is off.
    pub domain: Option<DomainId>,
    /// Its share of the line.
    pub weight: NonZeroU16,
    /// The rate that its streams keep to together.
    pub pace: Arc<Pace>,
    /// What it does with the PROXY protocol.
    pub proxy: ProxyConfig,
    /// Who may use it; nothing when everybody may who reaches it.
    pub users: Option<Arc<Users>>,
}
