//! wanproxy's codec: bytes in, bytes out. Frames, blocks, histories and their compression; see docs/architecture.md and
//! docs/protocol.md. It knows no runtime, no sockets, no clock and no threads.
#![warn(clippy::indexing_slicing)]

pub mod block;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod ranges;
pub mod varint;
