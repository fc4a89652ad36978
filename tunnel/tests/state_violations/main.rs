//! A peer that does what no correct peer does: each offence has its own name, ends the tunnel, and gives back what the tunnel held.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod blocks;
mod edge;
mod frames;
#[path = "../state_support/mod.rs"]
mod state_support;
mod streams;
