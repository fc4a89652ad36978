//! wanproxy's codec: bytes in, bytes out. Frames, blocks, histories and their compression; see docs/architecture.md and
//! docs/protocol.md. It knows no runtime, no sockets, no clock and no threads.
#![warn(clippy::indexing_slicing)]

pub mod anchor;
pub mod block;
mod compress;
pub mod decoder;
pub mod domain;
pub mod encoder;
pub mod error;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod index;
pub mod policy;
pub mod ranges;
mod recent;
pub mod varint;

pub use history::{cache, storage, survey};
