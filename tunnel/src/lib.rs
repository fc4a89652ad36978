//! See docs/architecture.md.

pub mod backoff;
pub mod budget;
pub mod client;
mod driver;
pub mod environment;
#[doc(hidden)]
pub mod fuzzing;
pub mod handle;
pub mod histories;
pub mod link;
pub mod metrics;
mod pieces;
pub mod pool;
pub mod resolve;
pub mod server;
pub mod state;
pub mod stream;
pub mod tls;
pub mod wake;
pub mod write;
