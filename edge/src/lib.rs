//! What both wanproxy programs share above the tunnel.

pub mod config;
pub mod identity;
pub mod os;
pub mod policy;
pub mod relay;
