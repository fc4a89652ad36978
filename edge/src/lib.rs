//! What both wanproxy programs share above the tunnel.

pub mod admin;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod history;
pub mod identity;
pub mod journal;
pub mod lan;
pub mod lifecycle;
pub mod log;
pub mod metrics;
pub mod os;
pub mod pace;
pub mod policy;
pub mod proxy_protocol;
pub mod reach;
pub mod relay;
mod table;
pub mod users;
