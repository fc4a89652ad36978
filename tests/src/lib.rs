//! What the end-to-end tests and the demo of wanproxy stand on: payloads that name their first wrong byte, an emulated
//! line, small TCP servers to reach through the tunnel, and a pair of real programs.

mod asked_to_end;
pub mod bench;
pub mod browser;
pub mod demo;
mod eventually;
pub mod fetch;
pub mod line;
pub mod load;
pub mod origin;
pub mod packets;
pub mod pair;
pub mod payload;
mod ports;
pub mod preload;
mod skip;
pub mod storm;

pub use asked_to_end::asked_to_end;
pub use eventually::eventually;
pub use ports::free_port;
pub use skip::skip;
