//! The bodies of the fuzz targets `frames` and `blocks`, here so that ordinary tests replay the corpora with the same code.
//!
//! They panic where the codec breaks a promise; on no bytes at all may they do so.

mod decoding;
mod wire;

pub use wire::{blocks, checksum, frames};
