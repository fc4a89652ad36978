//! The bodies of the fuzz targets `frames` and `blocks`, here so that ordinary tests replay the corpora with the same code.
//!
//! They panic where the codec breaks a promise; on no bytes at all may they do so. `disk` is a disk in memory for tests of histories.

mod decoding;
pub mod disk;
mod wire;

pub use wire::{blocks, frames};
