//! What both wanproxy programs share above the tunnel.

pub mod admin;
pub mod cli;
pub mod config;
pub mod identity;
pub mod metrics;
pub mod os;
pub mod policy;
pub mod relay;
