//! Programs that people use, through the pair over an emulated line of packets: what they get is what they get directly, and what it cost
//! is printed. Needs root; each client is left out, loudly, where its programs are missing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod curl;
mod downloads;
mod git;
mod load;
mod postgres;
mod redis;
mod rsync;
mod server;
mod ssh;
mod stage;
mod web;
